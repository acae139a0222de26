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
from femur_tasks.logs import naming
from femur_tasks.registry import gate, promotion
from femur_tasks.registry.policy import Policy, policy_of
from femur_tasks.registry.queries import newest_verdict, reasons_of
from femur_tasks.registry.signatures import check_signature
from femur_tasks.registry.tables import ModelVersion, Run, VerdictReason, VerdictRow
from femur_tasks.steps.context import Context
from femur_tasks.steps.evaluate import compare, evaluate, label
from femur_tasks.steps.evidence import cases_of, evidence, look_at
from femur_tasks.steps.notify import tell
from femur_tasks.steps.run import CONCLUDED, conclude, run_facts
from femur_tasks.steps.signatures import sign_stored

log = logging.getLogger(__name__)
ROUNDS = 3


@naming("run_id")
def decide(context: Context, run_id: str, actor: str) -> dict[str, Any]:
    """Evaluate, judge and promote; when the champion moved meanwhile all three are done again, at most 3 times.

    A run that asks for approval leaves a verdict that promotes to a person: `settle_approval` acts on the answer.
    A run that has its outcome keeps it.

    Returns:
        verdict_id, challenger, champion (empty before the first), sentence, rules in words, and state: promoted,
        refused, awaits_approval, declined or stale_champion.
    """
    with context.registry.reading() as session:
        run, parameters, _ = run_facts(session, run_id)
        if run.state in CONCLUDED and (verdict := newest_verdict(session, run_id)):
            return {**_told(session, verdict), "state": run.state}
    for _ in range(ROUNDS):
        evaluate(context, run_id)
        verdict_id, outcome = _judge(context, run_id)
        with context.registry.reading() as session:
            told = _told(session, session.get_one(VerdictRow, verdict_id))
        if outcome == "refuse":
            return {**told, "state": "refused"}
        if parameters.require_approval:
            return {**told, "state": "awaits_approval"}
        try:
            promote(context, verdict_id, actor)
            return {**told, "state": "promoted"}
        except StaleChampion:
            continue
    _conclude(context, run_id, "stale_champion", f"the champion moved during each of {ROUNDS} comparisons")
    return {**told, "state": "stale_champion"}


def promote(context: Context, verdict_id: int, actor: str) -> dict[str, Any]:
    """Make the verdict's challenger champion, and that the run's outcome, in one transaction.

    Raises:
        StaleChampion: the champion moved since the verdict.
        BadSignature: the challenger is not the one that was signed.
    """
    with context.registry.writing() as session:
        row = promotion.promote(session, verdict_id, actor, context.now())
        check_signature(session, session.get_one(ModelVersion, row.to_id))
        verdict = session.get_one(VerdictRow, verdict_id)
        conclude(session, verdict.run_id, "promoted", _sentence(session, verdict), context.now())
        return {"champion": label(session, row.to_id), "before": label(session, row.from_id), "actor": actor}


def settle_approval(context: Context, verdict_id: int, approved: bool, actor: str) -> dict[str, Any]:
    """Act on a person's word about a verdict: promote its challenger, or end the run as `declined`.

    A champion that moved since the verdict ends the run as `stale_champion`; a run that has its outcome keeps it.
    """
    with context.registry.reading() as session:
        run, _, _ = run_facts(session, session.get_one(VerdictRow, verdict_id).run_id)
        if run.state in CONCLUDED:
            return {"champion": "", "settled": run.detail}
    if not approved:
        _conclude(context, run.run_id, "declined", f"verdict {verdict_id} declined by {actor}")
        return {"champion": "", "declined_by": actor}
    try:
        return promote(context, verdict_id, actor)
    except StaleChampion as err:
        _conclude(context, run.run_id, "stale_champion", err.what)
        return {"champion": "", "stale": err.what}


def promote_by_hand(
    context: Context, model: str, version: int, actor: str, reason: str, is_override: bool
) -> dict[str, Any]:
    """Give a version the champion's place by a person's word; see `promotion.promote_version`.

    Raises:
        FemurError: no reason was given, or as there.
        NotFound, DigestMismatch: its artefact is not in the store as its row has it.
    """
    if not reason.strip():
        raise FemurError("Expected a reason for the promotion. Received: none.", "Say why with --reason.")
    with context.registry.reading() as session:
        found = session.scalars(select(ModelVersion.id).filter_by(name=model, version=version)).first()
    if found is not None:
        sign_stored(context, found)  # one that no run has evaluated is proven now: a champion is loaded by signature
    with context.registry.writing() as session:
        told = (model, version, actor, reason.strip(), is_override)
        row = promotion.promote_version(session, *told, context.now())
        check_signature(session, session.get_one(ModelVersion, row.to_id))
        moved = {
            "champion": label(session, row.to_id), "before": label(session, row.from_id), "actor": actor,
            "kind": row.kind,
        }  # fmt: skip
    tell(context)
    return moved


def roll_back(context: Context, model: str, version: int | None, actor: str, reason: str) -> dict[str, Any]:
    """Give a former champion its place back; the log gets a row of kind rollback.

    Raises:
        NotFound: there is no former champion, or not this one.
        FemurError: no reason was given.
        BadSignature: the former champion's row was changed, or its key was revoked: nobody could load it.
    """
    if not reason.strip():
        raise FemurError("Expected a reason for the rollback. Received: none.", "Say why with --reason.")
    with context.registry.writing() as session:
        row = promotion.rollback(session, model, version, actor, reason.strip(), context.now())
        check_signature(session, session.get_one(ModelVersion, row.to_id))
        moved = {"champion": label(session, row.to_id), "before": label(session, row.from_id), "actor": actor}
    tell(context)
    return moved


def _conclude(context: Context, run_id: str, state: str, detail: str) -> None:
    with context.registry.writing() as session:
        conclude(session, run_id, state, detail, context.now())


def _judge(context: Context, run_id: str) -> tuple[int, str]:
    """Gather the evidence, ask the gate, write verdict, reasons and a refused run's outcome in one transaction.

    Returns:
        Id and outcome of the verdict.
    """
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
            return earlier.id, earlier.outcome
        verdict = gate.judge(
            policy,
            cases_of(session, comparison.manifest_digest, comparison.champion_id),
            evidence(session, comparison.challenger_id, comparison.manifest_digest),
            evidence(session, comparison.champion_id, comparison.manifest_digest),
            has_champion=comparison.champion_id is not None,
            look=look_at(session, session.get_one(Run, run_id).model, comparison.manifest_digest),
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
            look=verdict.look,
            level=verdict.level,
            level_left=verdict.level_left,
            created_at=context.now(),
        )
        session.add(row)
        session.flush()
        session.add_all(
            VerdictReason(verdict_id=row.id, position=position, **asdict(reason))
            for position, reason in enumerate(verdict.reasons)
        )
        session.flush()
        if row.outcome == "refuse":
            conclude(session, run_id, "refused", _sentence(session, row), context.now())
        return row.id, row.outcome


def _policy(path: Path) -> Policy | None:
    """The policy in a file, None where it can't be read: the gate then refuses, and a row says so."""
    try:
        return policy_of(yaml.safe_load(path.read_text()))
    except (OSError, ValueError, yaml.YAMLError) as err:
        log.warning("Expected a policy in %s. Received: %s.", path, err)
        return None


def _told(session: Session, verdict: VerdictRow) -> dict[str, Any]:
    """A verdict in words, as whoever is asked to approve it needs it."""
    return {
        "verdict_id": verdict.id,
        "challenger": label(session, verdict.challenger_id),
        "champion": label(session, verdict.champion_id),
        "sentence": _sentence(session, verdict),
        "rules": [reason.sentence for reason in reasons_of(session, verdict.id)],
    }


def _sentence(session: Session, verdict: VerdictRow) -> str:
    failed = [reason.sentence for reason in reasons_of(session, verdict.id) if not reason.passed]
    return "; ".join(failed) or "every rule of the policy holds"
