"""Promotion by hand, a history that answers for any time, and rows that nobody may change; on both databases."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from femur_tasks.errors import FemurError, NotFound, Rejected, StaleChampion
from femur_tasks.registry import queries
from femur_tasks.registry.database import Registry
from femur_tasks.registry.promotion import promote, promote_version, rollback
from femur_tasks.registry.tables import Champion, CollectedVersion, ModelCard, ModelVersion, Promotion
from tests import registry_rows as rows

NOON = rows.NOON


class Models:
    """Versions of the model femur, and what happens to them, one hour after the other."""

    def __init__(self, registry: Registry, versions: int) -> None:
        self.registry = registry
        self.hours = 0
        with registry.writing() as session:
            digest = rows.dataset_version(session).digest
            self.ids = {n: rows.model_version(session, n, digest).id for n in range(1, versions + 1)}

    def now(self) -> Any:
        self.hours += 1
        return NOON + timedelta(hours=self.hours)

    @property
    def champion(self) -> int | None:
        with self.registry.reading() as session:
            row = session.get(Champion, "femur")
            return session.get_one(ModelVersion, row.model_version_id).version if row else None

    def judged(self, version: int, outcome: str = "promote") -> int:
        """A verdict against the champion of now."""
        with self.registry.writing() as session:
            serving = session.get(Champion, "femur")
            champion = session.get_one(ModelVersion, serving.model_version_id) if serving else None
            return rows.verdict(session, session.get_one(ModelVersion, self.ids[version]), champion, outcome).id

    def promoted(self, version: int) -> None:
        verdict = self.judged(version)
        with self.registry.writing() as session:
            promote(session, verdict, "airflow:anna", self.now())

    def by_hand(self, version: int, is_override: bool = False) -> Promotion:
        with self.registry.writing() as session:
            return promote_version(session, "femur", version, "cli:ben", "because", is_override, self.now())


@pytest.fixture
def models(registry: Registry) -> Models:
    return Models(registry, 4)


def test_version_with_a_verdict_that_promotes_is_promoted_by_hand(models: Models) -> None:
    models.promoted(1)
    verdict = models.judged(2)
    row = models.by_hand(2)
    assert (row.kind, row.verdict_id, row.actor, row.reason) == ("promote", verdict, "cli:ben", "because")
    assert models.champion == 2


@pytest.mark.parametrize("outcome", ["refuse", None], ids=["refused", "never judged"])
def test_version_that_the_gate_did_not_promote_needs_an_override(models: Models, outcome: str | None) -> None:
    models.promoted(1)
    verdict = models.judged(2, outcome) if outcome else None
    with pytest.raises(Rejected, match="refused it" if outcome else "never asked"):
        models.by_hand(2)
    assert models.champion == 1
    row = models.by_hand(2, is_override=True)
    assert (row.kind, row.verdict_id) == ("override", verdict)
    assert models.champion == 2


def test_override_may_make_the_first_champion(models: Models) -> None:
    assert models.by_hand(3, is_override=True).from_id is None
    assert models.champion == 3


def test_override_where_the_gate_says_yes_is_refused(models: Models) -> None:
    models.promoted(1)
    models.judged(2)
    with pytest.raises(FemurError, match="Leave out --override"):
        models.by_hand(2, is_override=True)


def test_verdict_against_a_former_champion_is_stale_and_can_be_overridden(models: Models) -> None:
    models.promoted(1)
    models.judged(2)
    models.promoted(3)
    with pytest.raises(StaleChampion):
        models.by_hand(2)
    assert models.champion == 3
    assert models.by_hand(2, is_override=True).kind == "override"


def test_verdict_is_acted_on_once(models: Models) -> None:
    models.promoted(1)
    models.promoted(2)
    with models.registry.writing() as session:
        rollback(session, "femur", None, "cli:ben", "worse", models.now())
    with pytest.raises(FemurError, match="femur rollback --to 2"):
        models.by_hand(2)
    assert models.champion == 1


def test_champion_is_not_promoted_again(models: Models) -> None:
    models.promoted(1)
    for is_override in (False, True):
        with pytest.raises(FemurError, match="which is"):
            models.by_hand(1, is_override)


def test_unknown_version_is_not_found(models: Models) -> None:
    with pytest.raises(NotFound):
        models.by_hand(9)


def test_rollback_of_an_override_returns_to_the_champion_before(models: Models) -> None:
    models.promoted(1)
    models.by_hand(2, is_override=True)
    with models.registry.writing() as session:
        rollback(session, "femur", None, "cli:ben", "worse", models.now())
    assert models.champion == 1


def test_history_answers_for_any_time(registry: Registry) -> None:
    """200 random moves, 1,000 random times: what the view says is what a list kept beside it says."""
    drawn, models = random.Random(7), Models(registry, 40)
    expected: list[tuple[Any, int, str, str]] = []
    fresh = iter(range(1, 41))
    while len(expected) < 200:
        former = sorted({version for _, version, _, _ in expected} - {models.champion})
        version = next(fresh, None)
        if version is not None and (not former or drawn.random() < 0.3):
            if drawn.random() < 0.7:
                models.promoted(version)
                expected.append((NOON + timedelta(hours=models.hours), version, "promote", "airflow:anna"))
            else:
                models.by_hand(version, is_override=True)
                expected.append((NOON + timedelta(hours=models.hours), version, "override", "cli:ben"))
        elif former:
            target = drawn.choice(former)
            with registry.writing() as session:
                rollback(session, "femur", target, "cli:cleo", "worse", models.now())
            expected.append((NOON + timedelta(hours=models.hours), target, "rollback", "cli:cleo"))
    with registry.reading() as session:
        for _ in range(1000):
            at = NOON + timedelta(hours=drawn.uniform(-5, models.hours + 5))
            found = queries.champion_at(session, "femur", at)
            before = [move for move in expected if move[0] <= at]
            if not before:
                assert found is None
                continue
            assert found is not None
            _, version, kind, actor = before[-1]
            assert (found["version"], found["kind"], found["actor"]) == (version, kind, actor)
            assert (found["verdict_id"] is None) == (kind != "promote")
        for since, version, _, _ in expected:  # the very moment of a move belongs to the new champion
            found = queries.champion_at(session, "femur", since)
            assert found is not None
            assert found["version"] == version


FROZEN = [
    ("promotion", "reason"), ("verdict", "outcome"), ("verdict_reason", "sentence"), ("model_version", "artefact_key"),
    ("comparison_manifest", "cases_digest"), ("evaluation", "metric"), ("evaluation_case", "flag"),
    ("model_card", "html_key"), ("collected_version", "at"),
]  # fmt: skip


@pytest.fixture
def evidence(models: Models) -> Registry:
    """A row in every table of evidence."""
    models.promoted(1)
    with models.registry.writing() as session:
        model = session.get_one(ModelVersion, models.ids[1])
        found = rows.evaluation(session, model, "m")
        session.execute(text(f"insert into evaluation_case (evaluation_id, case_id) values ({found.id}, 'A')"))  # noqa: S608
        session.add(ModelCard(model_version_id=model.id, html_key="cards/1", json_key="cards/2", created_at=rows.NOON))
        session.add(CollectedVersion(model_version_id=models.ids[2], at=rows.NOON))
    return models.registry


@pytest.mark.parametrize(("table", "column"), FROZEN)
def test_evidence_is_kept_as_it_was_written(evidence: Registry, table: str, column: str) -> None:
    for statement in (f"update {table} set {column} = {column}", f"delete from {table}"):  # noqa: S608
        with pytest.raises(IntegrityError, match=f"of {table} is refused"), evidence.writing() as session:
            session.execute(text(statement))
    with evidence.reading() as session:
        assert session.scalar(text(f"select count(*) from {table}"))  # noqa: S608


def test_there_is_no_way_back_to_no_champion(evidence: Registry) -> None:
    with pytest.raises(IntegrityError, match="of champion is refused"), evidence.writing() as session:
        session.execute(text("delete from champion"))
    with evidence.reading() as session:
        assert len(session.scalars(select(Champion)).all()) == 1


def test_evidence_cannot_be_truncated(evidence: Registry) -> None:
    if evidence.engine.dialect.name != "postgresql":
        return  # SQLite has no truncate
    for table in ("champion", *(name for name, _ in FROZEN)):
        with pytest.raises(IntegrityError, match="refused"), evidence.writing() as session:
            session.execute(text(f"truncate {table} cascade"))
