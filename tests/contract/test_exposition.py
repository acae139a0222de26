"""Metrics say what the registry holds, on both databases, and Grafana's dashboard asks for nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event

from femur_tasks.registry.database import Registry
from femur_tasks.registry.metrics import exposition
from femur_tasks.registry.promotion import promote
from femur_tasks.registry.tables import (
    DatasetDrift,
    Fit,
    FitEpoch,
    IncomingObject,
    Ingest,
    Notification,
    Run,
    Search,
    Trial,
    TrialEpoch,
)
from femur_tasks.settings import CHECKOUT
from tests import registry_rows as rows

NOW = rows.NOON + timedelta(hours=2)


def at(minutes: float) -> Any:
    return rows.NOON + timedelta(minutes=minutes)


@pytest.fixture
def night(registry: Registry) -> Registry:
    """A champion, a refused challenger, and a scheduled run with two trials, of which one goes on from the other."""
    with registry.writing() as session:
        version = rows.dataset_version(session, at=at(-60))
        session.add(
            DatasetDrift(
                digest=version.digest, split="all", feature="height", against_digest=version.digest, psi=1.0, ks=0.5,
                ks_p=0.0, before_cases=9, after_cases=9, level="large",
            )
        )  # fmt: skip
        first = rows.model_version(session, 1, version.digest, created_at=at(0))
        verdict = rows.verdict(session, first, None, "promote", level_left=0.02, look=1, level=0.01)
        rows.evaluation(session, first, verdict.manifest_digest, mean_dice=0.8)
        rows.evaluation(session, first, rows.digest_of("later"), mean_dice=0.91, worst_dice=0.6, mean_hd95_pct=2.5)
        promote(session, verdict.id, "cli:me", at(30))
        second = rows.model_version(session, 2, version.digest, family="tuned")
        rows.verdict(session, second, first, "refuse")
        for run in (first.run_id, second.run_id):
            found = session.get_one(Run, run)
            found.state, found.finished_at, found.started_at = "refused", at(20), at(-30)
        run_id = f"scheduled__{at(0).isoformat()}"
        rows.run(session, run_id, version.digest, trigger="schedule", started_at=at(1))
        session.add(Fit(run_id=run_id, family="unet", checkpoint_key=None, best_key=None))
        search = {"run_id": run_id, "search": "tuned"}
        session.add(
            Search(
                **search, strategy="hyperband", space={}, max_epochs=9, factor=3, samples=None, seed=0, fixed={},
                state="open", waits=False, strategy_state={},
            )
        )  # fmt: skip
        session.flush()
        for epoch in (1, 2):
            session.add(FitEpoch(run_id=run_id, family="unet", epoch=epoch, loss=1, val_dice=0, seconds=3.5, at=at(2)))
        trial = {
            "hyperparameters": {}, "bracket": 1, "rung": 0, "from_epoch": 0, "to_epoch": 1, "told": True, "failures": 0,
            "owner": "", "token": 0, "lease_expires_at": at(0), "detail": "",
        }  # fmt: skip
        ended = {"state": "completed", "started_at": at(2), "finished_at": at(4)}
        session.add(Trial(**search, trial_id="0", parent_id=None, **ended, **trial))
        session.add(Trial(**search, trial_id="1", parent_id="0", state="running", started_at=at(5), **trial))
        session.flush()
        session.add(TrialEpoch(**search, trial_id="0", epoch=1, loss=1, val_dice=0, seconds=11, at=at(4)))
        for number, minutes in (("old", 1), ("new", 2)):
            problems = [{"code": number, "is_error": True}, {"code": number, "is_error": True}]
            session.add(
                Ingest(
                    ingest_id=number, dataset="femur", source="x", state="refused", digest=None, layout="", cases=1,
                    errors=2, warnings=1, allowed=[], problems=[*problems, {"code": "small", "is_error": False}],
                    report_key="", started_at=at(0), finished_at=at(minutes),
                )
            )  # fmt: skip
        for key, minutes in (("incoming/a.zip", 90), ("incoming/b.zip", 110)):
            session.add(
                IncomingObject(key=key, etag="e", size_bytes=1, state="waiting", detail="", seen_at=at(minutes))
            )
        told = {"kind": "promotion", "title": "", "text": "", "detail": "", "at": at(31)}
        for outcome in ("trying", "sent"):
            session.add(Notification(event="promotion/1", attempt=1, outcome=outcome, **told))
    return registry


def samples(registry: Registry) -> dict[tuple[str, ...], float]:
    """Values by name and labels, the labels' values in the order of their names."""
    with registry.reading() as session:
        text = exposition(session, NOW).decode()
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_metric_is_what_the_rows_say(night: Registry) -> None:
    assert samples(night) == {
        ("femur_champion_version", "unet", "femur"): 1,
        ("femur_champion_age_seconds", "femur"): 90 * 60,
        ("femur_champion_test_dice", "femur"): 0.91,
        ("femur_champion_worst_dice", "femur"): 0.6,
        ("femur_champion_hd95_percent", "femur"): 2.5,
        ("femur_model_versions", "unet", "femur"): 1,
        ("femur_model_versions", "tuned", "femur"): 1,
        ("femur_verdicts_total", "femur", "promote"): 1,
        ("femur_verdicts_total", "femur", "refuse"): 1,
        ("femur_gate_level_left", "femur"): 0.02,
        ("femur_runs", "femur", "refused"): 2,
        ("femur_runs", "femur", "running"): 1,
        ("femur_last_run_age_seconds", "femur", "refused"): 100 * 60,
        ("femur_trials", "femur", "completed"): 1,
        ("femur_trials", "femur", "running"): 1,
        ("femur_device_seconds", "femur", "fits"): 7,
        ("femur_device_seconds", "femur", "trials"): 11,
        ("femur_queue_wait_seconds", "", "incoming"): 30 * 60,
        ("femur_queue_wait_seconds", "femur", "dataset_version"): 61 * 60,
        ("femur_queue_wait_seconds", "femur", "run"): 60,
        ("femur_queue_wait_seconds", "femur", "trial"): 60,
        ("femur_dataset_cases", "femur", "train"): 1,
        ("femur_dataset_cases", "femur", "val"): 1,
        ("femur_dataset_cases", "femur", "test"): 1,
        ("femur_drifted_features", "femur", "large"): 1,
        ("femur_drifted_features", "femur", "some"): 0,
        ("femur_ingests_total", "femur", "refused"): 2,
        ("femur_ingest_problems", "new", "femur", "error"): 2,
        ("femur_ingest_problems", "small", "femur", "warning"): 1,
        ("femur_notifications_total", "promotion", "sent"): 1,
    }


def test_empty_registry_has_no_champion_and_nothing_waits(registry: Registry) -> None:
    assert samples(registry) == {("femur_queue_wait_seconds", "", "incoming"): 0}


def test_no_query_reads_the_cases(night: Registry) -> None:
    statements: list[str] = []
    event.listen(night.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    samples(night)
    assert statements
    assert not [statement for statement in statements if re.search("evaluation_case|dataset_case", statement)]


def expressions(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (value for name, value in node.items() if name in ("expr", "query") and isinstance(value, str))
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from expressions(inner)


def test_dashboard_asks_only_for_metrics_and_labels_that_there_are(night: Registry) -> None:
    with night.reading() as session:
        families = list(text_string_to_metric_families(exposition(session, NOW).decode()))
    labels = {sample.name: set(sample.labels) for family in families for sample in family.samples}
    asked = list(expressions(json.loads((CHECKOUT / "docs" / "grafana-dashboard.json").read_text())))
    named = {name for expression in asked for name in re.findall(r"femur_\w+", expression)}
    assert named == labels.keys(), "every metric has a panel, and no panel asks for another"
    for expression in asked:
        for name, matchers in re.findall(r"(femur_\w+)(?:\{([^}]*)\})?", expression):
            assert set(re.findall(r"(\w+)\s*(?:=|!|~)", matchers)) <= labels[name], expression
