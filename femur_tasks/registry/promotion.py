"""Moving the champion pointer: one transaction that checks, moves and logs."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from femur_tasks.errors import FemurError, NotFound, Rejected, StaleChampion
from femur_tasks.registry.signatures import refuse_collected
from femur_tasks.registry.tables import Champion, ModelVersion, Promotion, VerdictRow

_LIST = "See `femur registry list`."
_NO_NEED = "Leave out --override."


def champion_of(session: Session, model: str) -> ModelVersion | None:
    """The model version in service under this name, None before the first promotion."""
    row = session.get(Champion, model)
    return session.get(ModelVersion, row.model_version_id) if row else None


def promote(session: Session, verdict_id: int, actor: str, now: datetime) -> Promotion:
    """Give the verdict's challenger the champion's place.

    Asking again for a promotion that was made already changes nothing and returns its log row.

    Raises:
        FemurError: the verdict refused.
        StaleChampion: the champion is no longer the one that the verdict compared with.
    """
    verdict = session.get(VerdictRow, verdict_id, with_for_update=True)  # one promoter of a verdict at a time
    if verdict is None:
        raise NotFound(f"Expected a verdict. Received: id {verdict_id}, which the registry does not hold.")
    if verdict.outcome != "promote":
        raise FemurError(f"Expected a verdict that promotes. Received: verdict {verdict_id}, {verdict.outcome}.")
    done = session.scalar(select(Promotion).where(Promotion.verdict_id == verdict_id))
    if done:
        return done
    challenger = session.get_one(ModelVersion, verdict.challenger_id)
    return _move(
        session, challenger, verdict.champion_id, "promote", f"verdict {verdict_id}", actor, now, verdict_id=verdict_id
    )


def promote_version(
    session: Session, model: str, version: int, actor: str, reason: str, is_override: bool, now: datetime
) -> Promotion:
    """Give a version the champion's place by a person's word, on its newest verdict.

    Args:
        is_override: go against a verdict that refused, or without one: the log gets a row of kind override.

    Raises:
        NotFound: there is no such version.
        FemurError: it is champion already, or an override is asked for where the gate says yes.
        Rejected: the gate refused it, or was never asked, and `is_override` is False.
        WasCollected: its files are gone.
        StaleChampion: the champion is no longer the one that the verdict compared with.
    """
    target = session.scalars(select(ModelVersion).filter_by(name=model, version=version)).first()
    if target is None:
        raise NotFound(f"Expected MODEL:VERSION of one that is there. Received: {model}:{version}.", _LIST)
    current = champion_of(session, model)
    if current is not None and current.id == target.id:
        raise FemurError(f"Expected a version that is not champion. Received: {target.label}, which is.")
    verdict = session.scalars(
        select(VerdictRow).where(VerdictRow.challenger_id == target.id).order_by(VerdictRow.id.desc())
    ).first()
    holds = verdict is not None and verdict.outcome == "promote"
    if not is_override:
        if verdict is None or not holds:
            said = f"verdict {verdict.id} refused it" if verdict else "the gate was never asked about it"
            raise Rejected(
                f"Expected a verdict that promotes {target.label}. Received: {said}.",
                f"See `femur registry show {target.label}`; `--override` goes against it, and the log says so.",
            )
        if session.scalar(select(Promotion.id).where(Promotion.verdict_id == verdict.id)):
            raise FemurError(
                f"Expected a verdict that was not acted on. Received: verdict {verdict.id}, which made {target.label} "
                "champion before.",
                f"To return to it: `femur rollback --to {version} --reason ...`.",
            )
        return _move(session, target, verdict.champion_id, "promote", reason, actor, now, verdict_id=verdict.id)
    if verdict is not None and holds and verdict.champion_id == (current.id if current else None):
        raise FemurError(f"Expected a refusal to override. Received: verdict {verdict.id}, which promotes.", _NO_NEED)
    return _move(
        session, target, current.id if current else None, "override", reason, actor, now,
        verdict_id=verdict.id if verdict else None,
    )  # fmt: skip


def rollback(session: Session, model: str, version: int | None, actor: str, reason: str, now: datetime) -> Promotion:
    """Return to a former champion: `version`, or the one before the present one.

    Raises:
        NotFound: there is no champion, no former one, or no such version.
        FemurError: the version never was champion, or is champion already.
    """
    current = champion_of(session, model)
    if current is None:
        raise NotFound(f"Expected a champion of model {model}. Received: none.", _LIST)
    served = select(Promotion.to_id).where(Promotion.model == model, Promotion.to_id != current.id)
    former = session.scalars(
        select(ModelVersion).where(ModelVersion.id.in_(served)).order_by(ModelVersion.version.desc())
    ).all()
    if version is None:
        target = former_champion(session, model)
    else:
        target = next((row for row in former if row.version == version), None)
    if target is None:
        known = ", ".join(f"{model}:{row.version}" for row in former) or "none"
        raise NotFound(
            f"Expected a former champion of model {model}. Received: version {version or 'before the present one'}.",
            f"Former champions: {known}.",
        )
    return _move(session, target, current.id, "rollback", reason, actor, now, verdict_id=None)


def former_champion(session: Session, model: str) -> ModelVersion | None:
    """Whom the champion replaced when it was promoted: a rollback puts it back; None where there is none."""
    current = champion_of(session, model)
    if current is None:
        return None
    entered = session.scalars(
        select(Promotion)
        .where(Promotion.model == model, Promotion.to_id == current.id, Promotion.kind != "rollback")
        .order_by(Promotion.id.desc())
        .limit(1)
    ).first()
    return session.get(ModelVersion, entered.from_id) if entered and entered.from_id else None


def _move(
    session: Session,
    target: ModelVersion,
    expected_id: int | None,
    kind: str,
    reason: str,
    actor: str,
    now: datetime,
    verdict_id: int | None,
) -> Promotion:
    stale = StaleChampion(
        f"Expected champion id {expected_id} of model {target.name}. Received: another one since.",
        "Look at `femur registry champion`, then try again.",
    )
    if expected_id is None:
        if session.get(Champion, target.name):
            raise stale
        session.add(Champion(model=target.name, model_version_id=target.id, since=now))
    else:
        moved = session.execute(
            update(Champion)
            .where(Champion.model == target.name, Champion.model_version_id == expected_id)
            .values(model_version_id=target.id, since=now)
        )
        if moved.rowcount != 1:  # type: ignore[attr-defined]
            raise stale
    row = Promotion(
        model=target.name,
        kind=kind,
        from_id=expected_id,
        to_id=target.id,
        verdict_id=verdict_id,
        actor=actor,
        reason=reason,
        at=now,
    )
    session.add(row)
    try:
        session.flush()
    except IntegrityError as err:  # two first champions at once: the primary key lets one of them in
        raise stale from err
    refuse_collected(session, target)  # asked last: garbage collection holds the log while it decides
    return row
