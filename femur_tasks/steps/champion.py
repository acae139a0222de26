"""Who becomes champion: pick the challenger, score it and the champion, judge, promote, roll back."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import select
from sqlalchemy.orm import Session

from femur_tasks.errors import FemurError, StaleChampion
from femur_tasks.registry import gate, promotion
from femur_tasks.registry.tables import VerdictReason, VerdictRow
from femur_tasks.steps.context import Context
from femur_tasks.steps.evaluate import compare, evaluate, evidence, label
from femur_tasks.steps.run import conclude

log = logging.getLogger(__name__)
ROUNDS = 3


def decide(context: Context, run_id: str, actor: str, approval: bool) -> dict[str, Any]:
    """Evaluate, judge and promote; when the champion moved meanwhile all three are done again, at most 3 times.

    With `approval` a verdict that promotes is left for a person: `settle_approval` acts on the answer.

    Returns:
        verdict_id, sentence, and state: promoted, refused, awaits_approval or stale_champion.
    """
    for _ in range(ROUNDS):
        evaluate(context, run_id)
        verdict_id = _judge(context, run_id)
        with context.registry.reading() as session:
            row = session.get_one(VerdictRow, verdict_id)
            answer = {"verdict_id": verdict_id, "sentence": _sentence(session, row)}
        if row.outcome == "refuse":
            conclude(context, run_id, "refused", str(answer["sentence"]))
            return {**answer, "state": "refused"}
        if approval:
            return {**answer, "state": "awaits_approval"}
        try:
            promote(context, verdict_id, actor)
            return {**answer, "state": "promoted"}
        except StaleChampion:
            continue
    conclude(context, run_id, "stale_champion", f"the champion moved during each of {ROUNDS} comparisons")
    return {**answer, "state": "stale_champion"}


def promote(context: Context, verdict_id: int, actor: str) -> dict[str, Any]:
    """Make the verdict's challenger champion.

    Raises:
        StaleChampion: the champion moved since the verdict.
    """
    with context.registry.writing() as session:
        row = promotion.promote(session, verdict_id, actor, context.now())
        verdict = session.get_one(VerdictRow, verdict_id)
        answer = {"champion": label(session, row.to_id), "before": label(session, row.from_id), "actor": actor}
        run_id, sentence = verdict.run_id, _sentence(session, verdict)
    conclude(context, run_id, "promoted", sentence)
    return answer


def settle_approval(context: Context, verdict_id: int, approved: bool, actor: str) -> dict[str, Any]:
    """Act on a person's word about a verdict: promote its challenger, or end the run as `declined`.

    A champion that moved since the verdict ends the run as `stale_champion`.
    """
    with context.registry.reading() as session:
        run_id = session.get_one(VerdictRow, verdict_id).run_id
    if not approved:
        conclude(context, run_id, "declined", f"verdict {verdict_id} declined by {actor}")
        return {"champion": "", "declined_by": actor}
    try:
        return promote(context, verdict_id, actor)
    except StaleChampion as err:
        conclude(context, run_id, "stale_champion", err.what)
        return {"champion": "", "stale": err.what}


def roll_back(context: Context, model: str, version: int | None, actor: str, reason: str) -> dict[str, Any]:
    """Give a former champion its place back; the log gets a row of kind rollback.

    Raises:
        NotFound: there is no former champion, or not this one.
        FemurError: no reason was given.
    """
    if not reason.strip():
        raise FemurError("Expected a reason for the rollback. Received: none.", "Say why with --reason.")
    with context.registry.writing() as session:
        row = promotion.rollback(session, model, version, actor, reason.strip(), context.now())
        return {"champion": label(session, row.to_id), "before": label(session, row.from_id), "actor": actor}


def _judge(context: Context, run_id: str) -> int:
    """Gather the evidence, ask the gate, write the verdict with all its reasons in one transaction."""
    comparison = compare(context, run_id)
    policy = _policy(context.settings.policy)
    with context.registry.writing() as session:
        earlier = session.scalars(
            select(VerdictRow)
            .where(
                VerdictRow.run_id == run_id,
                VerdictRow.champion_id.is_(None)
                if comparison.champion_id is None
                else VerdictRow.champion_id == comparison.champion_id,
            )
            .order_by(VerdictRow.id.desc())
        ).first()
        if earlier:
            return earlier.id
        verdict = gate.judge(
            policy,
            comparison.case_ids,
            evidence(session, comparison.challenger_id, comparison.manifest_digest),
            evidence(session, comparison.champion_id, comparison.manifest_digest),
            has_champion=comparison.champion_id is not None,
        )
        difference = verdict.difference
        row = VerdictRow(
            run_id=run_id,
            challenger_id=comparison.challenger_id,
            champion_id=comparison.champion_id,
            manifest_digest=comparison.manifest_digest,
            policy=asdict(policy) if policy else {},
            outcome=verdict.outcome,
            mean_difference=difference.mean if difference else None,
            difference_low=difference.low if difference else None,
            difference_high=difference.high if difference else None,
            created_at=context.now(),
        )
        session.add(row)
        session.flush()
        session.add_all(
            VerdictReason(verdict_id=row.id, position=position, **asdict(reason))
            for position, reason in enumerate(verdict.reasons)
        )
        return row.id


def _policy(path: Path) -> gate.Policy | None:
    """The policy in a file, None where it can't be read: the gate then refuses, and a row says so."""
    try:
        return gate.policy_of(yaml.safe_load(path.read_text()))
    except (OSError, ValueError, yaml.YAMLError) as err:
        log.warning("Expected a policy in %s. Received: %s.", path, err)
        return None


def _sentence(session: Session, verdict: VerdictRow) -> str:
    reasons = session.scalars(
        select(VerdictReason).where(VerdictReason.verdict_id == verdict.id).order_by(VerdictReason.position)
    ).all()
    failed = [reason for reason in reasons if not reason.passed]
    return "; ".join(reason.sentence for reason in failed) or "every rule of the policy holds"
