"""The audit of the whole: every object is there and whole, every signature holds, every champion is resolvable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from femur_tasks.dataset.manifest import Manifest
from femur_tasks.errors import DigestMismatch, FemurError, NotFound
from femur_tasks.registry.signatures import check_signature
from femur_tasks.registry.tables import (
    Champion,
    DatasetVersion,
    Evaluation,
    ExperimentFit,
    Fit,
    Ingest,
    ModelVersion,
    Promotion,
    Run,
    Trial,
)
from femur_tasks.steps.context import Context
from femur_tasks.storage import digest_in

RESTORE = "Restore it from a backup of the object store."


_OWNERS: tuple[tuple[str, Any, Any], ...] = (
    ("run", Run.run_id, Run.report_key),
    ("ingest", Ingest.ingest_id, Ingest.report_key),
    ("an experiment of run", ExperimentFit.run_id, ExperimentFit.overlays_key),
    *(("a fit of run", Fit.run_id, key) for key in (Fit.checkpoint_key, Fit.best_key)),
    *(("a trial of run", Trial.run_id, key) for key in (Trial.checkpoint_key, Trial.best_key)),
)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        code: `missing_object`, `damaged_object`, `bad_signature`, `bad_champion` or `orphan`.
        what: the object or row, and what is wrong with it.
        todo: what to do next.
    """

    code: str
    what: str
    todo: str


def verify(
    context: Context, grace: timedelta, on_object: Callable[[int], None] = lambda total: None
) -> tuple[list[Finding], int]:
    """Look at everything; it changes nothing.

    Args:
        grace: objects that no row names, and that are younger, may belong to work that is going on.
        on_object: told the number of objects to read, once for each.

    Returns:
        What is wrong, and how many objects were read.
    """
    with context.registry.reading() as session:
        found = [*_champions(session), *_signatures(session)]
        named = dict(_named(session))
        manifests = session.scalars(select(DatasetVersion.manifest_key)).all()
    for key in manifests:
        try:
            manifest = Manifest.from_json(context.store.get(key))
        except FemurError:
            continue  # found below, with all others
        named |= dict.fromkeys(_inside(manifest), f"dataset version {manifest.digest[:12]}")
    for key, owner in sorted(named.items()):
        on_object(len(named))
        try:
            context.store.get(key)
        except NotFound:
            found.append(Finding("missing_object", f"{key}, which {owner} names, is not there", RESTORE))
        except DigestMismatch:
            found.append(Finding("damaged_object", f"{key}, which {owner} names, holds other bytes", RESTORE))
    old = context.now() - grace
    for stored in context.store.list(""):
        if digest_in(stored.key) and stored.key not in named and stored.modified_at < old:
            what = f"{stored.key}, {stored.size} bytes, which no row names, since {stored.modified_at:%Y-%m-%d %H:%M}"
            found.append(Finding("orphan", what, "It takes room, and nothing else: it can be deleted."))
    return found, len(named)


def _named(session: Session) -> Iterator[tuple[str, str]]:
    """Every object that a row names, and whose row it is."""
    for name, version, key in session.execute(
        select(ModelVersion.name, ModelVersion.version, ModelVersion.artefact_key)
    ):
        yield key, f"model version {name}:{version}"
    for digest, key in session.execute(select(DatasetVersion.digest, DatasetVersion.manifest_key)):
        yield key, f"dataset version {digest[:12]}"
    for what, owner, column in _OWNERS:
        for found, key in session.execute(select(owner, column).where(column.is_not(None), column != "")):
            yield key, f"{what} {found}"


def _inside(manifest: Manifest) -> Iterator[str]:
    for case in manifest.cases:
        yield case.raw_image_key
        yield case.raw_mask_key
    for split in manifest.shards:
        yield from manifest.shard_keys(split)


def _champions(session: Session) -> Iterator[Finding]:
    """Every champion is a model version of its own model, and the one that the log made champion last."""
    for champion in session.scalars(select(Champion)):
        version = session.get(ModelVersion, champion.model_version_id)
        last = session.scalars(
            select(Promotion).where(Promotion.model == champion.model).order_by(Promotion.id.desc()).limit(1)
        ).first()
        if version is None or version.name != champion.model:
            what = f"the champion of {champion.model} is no model version of it"
        elif last is None or last.to_id != version.id:
            what = f"the champion of {champion.model} is {version.label}, which the log does not say"
        else:
            continue
        yield Finding("bad_champion", what, f"`femur rollback --model {champion.model} --to VERSION` sets it right.")


def _signatures(session: Session) -> Iterator[Finding]:
    """Whatever was judged or was champion is proven."""
    judged = select(Evaluation.model_version_id).union(select(Promotion.to_id))
    for version in session.scalars(select(ModelVersion).where(ModelVersion.id.in_(judged))):
        try:
            check_signature(session, version)
        except FemurError as err:
            yield Finding("bad_signature", err.what, err.todo)
