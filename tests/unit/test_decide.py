"""Deciding when the champion moves meanwhile: evaluate, judge and promote are done again, at most three times."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from femur_tasks.registry.tables import Champion, DatasetCase, EvaluationCase, ModelVersion, Run, VerdictRow
from femur_tasks.steps import champion, evaluate
from femur_tasks.steps.context import Context
from femur_tasks.steps.evidence import evidence
from femur_tasks.steps.run import conclude
from femur_tasks.steps.signatures import sign_stored
from femur_tasks.storage import digest_in
from tests import registry_rows as rows
from tests.receivers import webhook

RUN = "femur-run-9"


class Scorer:
    """Signs and writes the rows of a scoring without a network: version 9 has Dice 0.95, all others 0.90."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __call__(self, context: Context, model_id: int, comparison: evaluate.Comparison) -> None:
        sign_stored(context, model_id)
        with self._context.registry.writing() as session:
            if evidence(session, model_id, comparison.manifest_digest):
                return
            model = session.get_one(ModelVersion, model_id)
            found = rows.evaluation(session, model, comparison.manifest_digest, metric=evaluate.metrics.IMPLEMENTATION)
            for index, case_id in enumerate(comparison.case_ids):
                dice = (0.95 if model.version == 9 else 0.90) + index % 3 * 0.001 * (model.version == 9)
                session.add(EvaluationCase(evaluation_id=found.id, case_id=case_id, dice=dice, hd95_pct=1.0))


@pytest.fixture
def night(context: Context, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A run whose version 9 challenges; versions 1 to 8 are there to be champion meanwhile."""
    with context.registry.writing() as session:
        digest = rows.dataset_version(session).digest
        for index in range(24):
            session.add(
                DatasetCase(
                    digest=digest, case_id=f"T{index:02d}", patient=f"T{index:02d}", split="test",
                    image_sha256=f"i{index}", mask_sha256=f"m{index}", height_px=64, width_px=64, problems=[],
                )
            )  # fmt: skip
        models = {}
        for version in range(1, 10):
            key = context.store.put(b"weights %d" % version, "artefacts")
            values = {"artefact_key": key, "artefact_sha256": digest_in(key)}
            models[version] = rows.model_version(session, version, digest, **values)
        session.add(Champion(model="femur", model_version_id=models[1].id, since=context.now()))
    monkeypatch.setattr(evaluate, "_score", Scorer(context))
    return context


def moving(context: Context, times: int) -> Any:
    """The real promotion, before which another promoter moves the champion so many times."""
    real, moved = champion.promote, []

    def promote(context: Context, verdict_id: int, actor: str) -> dict[str, Any]:
        if len(moved) < times:
            moved.append(actor)
            with context.registry.writing() as session:
                row = session.get_one(Champion, "femur")
                version = session.get_one(ModelVersion, row.model_version_id).version + 1
                row.model_version_id = session.scalars(
                    select(ModelVersion.id).where(ModelVersion.version == version)
                ).one()
        return real(context, verdict_id, actor)

    return promote


def outcome(context: Context) -> tuple[str, int, int]:
    """State of the run, its verdicts, and the version of the champion."""
    with context.registry.reading() as session:
        verdicts = session.scalars(select(VerdictRow).where(VerdictRow.run_id == RUN)).all()
        serving = session.get_one(Champion, "femur").model_version_id
        return session.get_one(Run, RUN).state, len(verdicts), session.get_one(ModelVersion, serving).version


def asked_for_approval(context: Context) -> dict[str, Any]:
    with context.registry.writing() as session:
        run = session.get_one(Run, RUN)
        run.parameters = {**run.parameters, "require_approval": True}
    return champion.decide(context, RUN, "test")


def test_a_better_challenger_is_promoted_at_once(night: Context) -> None:
    assert champion.decide(night, RUN, "test")["state"] == "promoted"
    assert outcome(night) == ("promoted", 1, 9)


@pytest.mark.parametrize("moves", [1, 2])
def test_a_champion_that_moved_is_compared_with_anew(
    night: Context, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    monkeypatch.setattr(champion, "promote", moving(night, moves))
    assert champion.decide(night, RUN, "test")["state"] == "promoted"
    assert outcome(night) == ("promoted", moves + 1, 9)


def test_after_three_moves_the_run_ends_as_stale(night: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(champion, "promote", moving(night, 3))
    assert champion.decide(night, RUN, "test")["state"] == "stale_champion", "and nobody is asked"
    assert outcome(night) == ("stale_champion", 3, 4)


def test_an_approved_verdict_gone_stale_promotes_nobody(night: Context) -> None:
    decided = asked_for_approval(night)
    assert decided["state"] == "awaits_approval"
    verdict_id = decided["verdict_id"]
    assert outcome(night) == ("running", 1, 1)
    with night.registry.writing() as session:
        other = session.scalars(select(ModelVersion.id).where(ModelVersion.version == 2)).one()
        session.get_one(Champion, "femur").model_version_id = other
    champion.settle_approval(night, verdict_id, approved=True, actor="test")
    assert outcome(night) == ("stale_champion", 1, 2)


def test_deciding_again_after_the_promotion_changes_nothing(night: Context) -> None:
    first = champion.decide(night, RUN, "test")
    assert champion.decide(night, RUN, "test") == first
    assert outcome(night) == ("promoted", 1, 9)


def test_a_verdict_that_waits_for_a_person_says_on_what_evidence(night: Context) -> None:
    decided = asked_for_approval(night)
    assert (decided["state"], decided["challenger"], decided["champion"]) == ("awaits_approval", "femur:9", "femur:1")
    assert decided["rules"][0] == "24 comparison cases, at least 20 needed"
    assert outcome(night) == ("running", 1, 1)


def test_asking_again_does_not_go_round_the_person(night: Context) -> None:
    asked_for_approval(night)
    assert champion.decide(night, RUN, "cli:someone")["state"] == "awaits_approval"
    assert outcome(night) == ("running", 1, 1)


def test_a_declined_run_stays_declined(night: Context) -> None:
    verdict_id = asked_for_approval(night)["verdict_id"]
    champion.settle_approval(night, verdict_id, approved=False, actor="test")
    assert champion.decide(night, RUN, "test")["state"] == "declined"
    champion.settle_approval(night, verdict_id, approved=True, actor="another")
    assert outcome(night) == ("declined", 1, 1)


def test_a_failed_step_that_was_cleared_leads_to_the_outcome(night: Context) -> None:
    with night.registry.writing() as session:
        conclude(session, RUN, "failed", "a step before the outcome failed", night.now())
    champion.decide(night, RUN, "test")
    assert outcome(night) == ("promoted", 1, 9)


def test_promotion_and_outcome_are_one_transaction(night: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(champion, "conclude", dies)
    with pytest.raises(KeyboardInterrupt):
        champion.decide(night, RUN, "test")
    assert outcome(night) == ("running", 1, 1)


def test_people_are_told_by_whoever_moves_the_champion_by_hand(night: Context) -> None:
    champion.decide(night, RUN, "test")
    with webhook() as hook:
        given = {"notify_urls": SecretStr(hook.url), "notify_on": ("promotion",)}
        told = replace(night, settings=night.settings.model_copy(update=given))
        champion.roll_back(told, "femur", None, "cli:me", "shafts cut off")
        assert hook.titles == ["femur:9 is champion", "femur:1 is champion again"]
        champion.promote_by_hand(told, "femur", 3, "cli:me", "tried by hand", is_override=True)
        assert hook.titles[2:] == ["femur:3 is champion"]
        assert hook.taken[2]["message"].startswith(
            "Promoted against the gate by cli:me, before femur:1.\ntried by hand"
        )
