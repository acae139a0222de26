"""Garbage collection: files of model versions that nobody needs any more, old checkpoints, and what no row names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from femur_tasks.errors import FemurError
from femur_tasks.registry.tables import (
    Champion,
    CollectedVersion,
    Fit,
    FitEpoch,
    ModelVersion,
    Promotion,
    Run,
    Trial,
    TrialEpoch,
)
from femur_tasks.steps.context import Context
from femur_tasks.steps.objects import CHECKPOINTS, named_objects
from femur_tasks.storage import StoredObject, digest_in

LEAST_GRACE = timedelta(hours=2)
"""What the store makes new when it is stored again is at most an hour old (`ObjectStore.put`), and its row follows."""
_MOST = 0.5


@dataclass(frozen=True)
class Collected:
    """What was taken away, or would be.

    Attributes:
        versions: model versions whose files go, as NAME:VERSION; their rows, scores and verdicts stay.
        runs: runs whose checkpoints go.
        objects: what is deleted from the store.
    """

    versions: tuple[str, ...]
    runs: tuple[str, ...]
    objects: tuple[StoredObject, ...]

    @property
    def bytes(self) -> int:
        """Room that it makes."""
        return sum(stored.size for stored in self.objects)


def collect(
    context: Context,
    keep: int,
    grace: timedelta,
    is_dry_run: bool = False,
    is_forced: bool = False,
    on_object: Callable[[int], None] = lambda total: None,
) -> Collected:
    """Decide what goes, record it in one transaction, then delete; a collection that was killed goes on at the next.

    Kept are every champion, whoever was champion or stood in a promotion (rollbacks return to them), the newest
    `keep` versions of each family of each model, every dataset version, every report, and all that these name.

    Args:
        keep: versions of each family.
        grace: what is younger may belong to work that is going on, and stays; nor is a run over whose epochs or leases
            are younger, whatever its state says.
        is_forced: delete even where that is more than half of all objects.
        on_object: told the number of objects to delete, once for each.

    Raises:
        FemurError: a manifest can't be read, so that nobody knows what it names; more than half of the store would
            go, as where the registry is another one than the store's; `keep` is below 1, or `grace` below two hours.
        Unreachable: the store or the registry does not answer.
    """
    if keep < 1:
        raise FemurError(f"Expected to keep 1 version of each family or more. Received: {keep}.")
    if grace < LEAST_GRACE:
        raise FemurError(f"Expected a grace time of {LEAST_GRACE} or more. Received: {grace}.")
    old = context.now() - grace
    _stop_at_most(context, old, is_forced)
    with context.registry.reading() if is_dry_run else context.registry.writing() as session:
        versions, runs = _decided(session, keep, old, is_dry_run)
        if not is_dry_run:
            session.add_all(CollectedVersion(model_version_id=version.id, at=context.now()) for version in versions)
            for table in (Fit, Trial):
                session.execute(update(table).where(table.run_id.in_(runs)).values(checkpoint_key=None, best_key=None))
        ids, labels = [version.id for version in versions], tuple(version.label for version in versions)
    named = named_objects(context, ids, runs, _refuse)
    unnamed = [one for one in context.store.list("") if digest_in(one.key) and one.key not in named]
    doomed = [one for one in unnamed if one.modified_at < old]
    if is_dry_run:
        return Collected(labels, tuple(runs), tuple(doomed))
    gone = []
    for stored in doomed:
        on_object(len(doomed))
        now = context.store.stat(stored.key)  # somebody may have stored the same bytes again meanwhile
        if now is not None and now.modified_at < old:
            context.store.delete(stored.key)
            gone.append(stored)
    return Collected(labels, tuple(runs), tuple(gone))


def _stop_at_most(context: Context, old: datetime, is_forced: bool) -> None:
    """Before anything is decided: every manifest can be read, and what no row names is not most of what there is."""
    named = named_objects(context, on_unreadable=_refuse)
    addressed = [stored for stored in context.store.list("") if digest_in(stored.key)]
    unnamed = [stored for stored in addressed if stored.key not in named and stored.modified_at < old]
    if len(unnamed) > _MOST * len(addressed) and not is_forced:
        raise FemurError(
            f"Expected a registry that names what is in its store. Received: {len(unnamed)} of {len(addressed)} "
            "objects that no row names.",
            "Is this registry the store's? See FEMUR_REGISTRY_URL and FEMUR_S3_BUCKET in `femur config`, and `femur gc "
            "--dry-run`; where they really are to go: `femur gc --force`.",
        )


def _refuse(err: FemurError) -> None:
    raise err


def _decided(session: Session, keep: int, old: datetime, is_dry_run: bool) -> tuple[list[ModelVersion], list[str]]:
    """Model versions whose files go, and runs whose checkpoints go; no promotion comes in between."""
    if not is_dry_run and session.get_bind().dialect.name == "postgresql":
        session.execute(text("lock table promotion in share row exclusive mode"))
    ended = (
        select(Run.run_id)
        .where(
            Run.state != "running",
            Run.finished_at < old,
            # a run whose failed tasks were cleared is at work again, and only these say so
            Run.run_id.not_in(select(FitEpoch.run_id).where(FitEpoch.at >= old)),
            Run.run_id.not_in(select(TrialEpoch.run_id).where(TrialEpoch.at >= old)),
            Run.run_id.not_in(select(Trial.run_id).where(Trial.lease_expires_at >= old)),
        )
        .with_for_update()
    )
    moved = select(Promotion.to_id).union(
        select(Promotion.from_id).where(Promotion.from_id.is_not(None)), select(Champion.model_version_id)
    )
    kept = {*session.scalars(moved), *session.scalars(select(CollectedVersion.model_version_id))}
    ended_runs = set(session.scalars(ended))
    versions = []
    newer: Counter[tuple[str, str]] = Counter()
    for version in session.scalars(select(ModelVersion).order_by(ModelVersion.version.desc())):
        family = (version.name, version.family)
        newer[family] += 1
        is_old = version.created_at < old and version.run_id in ended_runs
        if newer[family] > keep and is_old and version.id not in kept:
            versions.append(version)
    holding = {
        run_id for _, owner, key in CHECKPOINTS for run_id in session.scalars(select(owner).where(key.is_not(None)))
    }
    return versions, sorted(holding & ended_runs)
