"""The audit of the whole: every object is there and whole, every signature holds, every champion is resolvable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from femur_tasks.errors import DigestMismatch, FemurError, NotFound
from femur_tasks.registry.signatures import check_signature
from femur_tasks.registry.tables import Champion, CollectedVersion, Evaluation, ModelVersion, Promotion
from femur_tasks.steps.context import Context
from femur_tasks.steps.objects import named_objects
from femur_tasks.storage import digest_in

RESTORE = "Restore it from a backup of the object store."


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
    unreadable: list[FemurError] = []
    named = named_objects(context, on_unreadable=unreadable.append)
    missing = set()
    for key, owner in sorted(named.items()):
        on_object(len(named))
        try:
            context.store.get(key)
        except NotFound:
            missing.add(key)
        except DigestMismatch:
            found.append(Finding("damaged_object", f"{key}, which {owner} names, holds other bytes", RESTORE))
    # a checkpoint that was superseded meanwhile is named no more
    lost = sorted(missing & named_objects(context).keys()) if missing else ()
    found += (Finding("missing_object", f"{key}, which {named[key]} names, is not there", RESTORE) for key in lost)
    old = context.now() - grace
    for stored in context.store.list("") if not unreadable else ():  # else nobody knows what else is named
        if digest_in(stored.key) and stored.key not in named and stored.modified_at < old:
            what = f"{stored.key}, {stored.size} bytes, which no row names, since {stored.modified_at:%Y-%m-%d %H:%M}"
            found.append(Finding("orphan", what, "`femur gc` deletes it."))
    return found, len(named)


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
        elif session.get(CollectedVersion, version.id):
            what = f"the champion of {champion.model} is {version.label}, whose files were collected"
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
