"""People are told of everything once, on both databases: by a real webhook and a real mail server."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from femur_tasks.errors import FemurError
from femur_tasks.messages import KINDS, Kind
from femur_tasks.registry.database import Registry
from femur_tasks.registry.promotion import promote, rollback
from femur_tasks.registry.tables import (
    DatasetCase,
    DatasetDrift,
    EvaluationCase,
    IncomingPicture,
    Ingest,
    ModelVersion,
    Notification,
    Run,
)
from femur_tasks.steps import notify
from femur_tasks.steps.close import close_run
from femur_tasks.steps.context import Context
from femur_tasks.steps.prediction_rates import record_rates
from femur_tasks.storage import MemoryStore
from tests import registry_rows as rows
from tests.conftest import Clock, settings_of
from tests.receivers import Mailbox, Webhook, mailbox, webhook

AIRFLOW = "http://127.0.0.1:8080"


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as found:
        yield found


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with mailbox() as found:
        yield found


@pytest.fixture
def context(registry: Registry, tmp_path: Path, clock: Clock, hook: Webhook) -> Context:
    """A registry and a webhook; the clock stands a minute after the rows' noon."""
    clock.forward(12 * 3600 + 60)
    (tmp_path / "home").mkdir()
    given = {"notify_urls": SecretStr(hook.url), "airflow_url": AIRFLOW}
    return Context(registry, MemoryStore(), settings_of(tmp_path / "home").model_copy(update=given), clock)


def telling(context: Context, *urls: str, on: tuple[Kind, ...] = KINDS) -> Context:
    given = {"notify_urls": SecretStr(" ".join(urls)), "notify_on": on}
    return replace(context, settings=context.settings.model_copy(update=given))


def judged(context: Context, version: int, outcome: str, beside: bool = False) -> int:
    """A scheduled run with a scored challenger and a verdict, against version 1 where `beside`; the verdict's id."""
    with context.registry.writing() as session:
        digest = rows.digest_of("v1")
        if version == 1:
            rows.dataset_version(session, at=rows.NOON)
        model = rows.model_version(session, version, digest)
        champion = session.get_one(type(model), 1) if beside else None
        figures = {"mean_difference": 0.01, "difference_low": 0.004, "difference_high": 0.016} if beside else {}
        verdict = rows.verdict(session, model, champion, outcome, **figures)
        found = rows.evaluation(session, model, verdict.manifest_digest, cases=3, mean_dice=0.95, worst_dice=0.93)
        for index, dice in enumerate((0.93, 0.95, 0.97)):
            session.add(EvaluationCase(evaluation_id=found.id, case_id=f"T{index}", dice=dice))
        run = session.get_one(Run, model.run_id)
        run.trigger, run.finished_at = "schedule", context.now()
        run.state, run.detail = ("promoted", "every rule holds") if outcome == "promote" else ("refused", "gain")
        return verdict.id


def promoted(context: Context) -> None:
    verdict = judged(context, 1, "promote")
    with context.registry.writing() as session:
        promote(session, verdict, "airflow:schedule", context.now())


def attempts(context: Context) -> list[tuple[str, int, str]]:
    with context.registry.reading() as session:
        found = session.execute(
            select(Notification.event, Notification.attempt, Notification.outcome).order_by(
                Notification.event, Notification.attempt, Notification.outcome.desc()
            )
        )
        return [(event, attempt, outcome) for event, attempt, outcome in found]


# ---- what is told


def test_promotion_is_told_by_webhook_and_mail_with_sentence_interval_and_link(
    context: Context, hook: Webhook, box: Mailbox
) -> None:
    promoted(context)
    notify.tell(telling(context, hook.url, box.url))
    (posted,) = hook.taken
    assert posted["title"] == box.mails[0]["subject"] == "femur:1 is champion"
    lines = posted["message"].splitlines()
    assert lines[:2] == ["Promoted by airflow:schedule, the first of its model.", "every rule holds"]
    assert re.fullmatch(r"Test Dice of femur:1: 0\.9500 \[0\.9\d+, 0\.9\d+\] on 3 cases, worst 0\.9300\.", lines[2])
    assert lines[3:] == [f"Run: {AIRFLOW}/dags/retrain/runs/femur-run-1", f"Page: {AIRFLOW}/femur/"]
    assert box.text(0).split() == posted["message"].split()
    assert box.mails[0]["to"] == "team@clinic.example"


def test_refusal_says_why_and_who_stays(context: Context, hook: Webhook) -> None:
    promoted(context)
    judged(context, 2, "refuse", beside=True)
    notify.tell(context)
    posted = hook.taken[1]
    assert posted["title"] == "femur:2 refused, femur:1 stays champion"
    assert posted["message"].startswith("- gain\nTest Dice of femur:2: 0.9500 [")


def test_gain_over_the_champion_is_told_with_its_interval(context: Context, hook: Webhook) -> None:
    promoted(context)
    verdict = judged(context, 2, "promote", beside=True)
    with context.registry.writing() as session:
        promote(session, verdict, "cli:me", context.now())
    notify.tell(context)
    assert "Gain over femur:1: +0.0100 [+0.0040, +0.0160]." in hook.taken[1]["message"]


def test_rollback_is_told_with_its_reason(context: Context, hook: Webhook) -> None:
    promoted(context)
    verdict = judged(context, 2, "promote", beside=True)
    with context.registry.writing() as session:
        promote(session, verdict, "cli:me", context.now())
        rollback(session, "femur", None, "airflow:anna", "shafts cut off", context.now())
    notify.tell(context)
    assert hook.titles == ["femur:1 is champion", "femur:2 is champion", "femur:1 is champion again"]
    assert hook.taken[2]["message"].startswith("Rolled back by airflow:anna, before femur:2.\nshafts cut off\n")


def test_failed_run_is_told_when_it_is_closed_and_fails_all_the_same(context: Context, hook: Webhook) -> None:
    with context.registry.writing() as session:
        rows.run(session, "scheduled__2026-01-01T02:00:00+00:00", trigger="schedule")
    with pytest.raises(FemurError, match="to reach a verdict"):
        close_run(context, "scheduled__2026-01-01T02:00:00+00:00")
    assert hook.titles == ["retrain scheduled__2026-01-01T02:00:00+00:00 failed"]
    run = f"Run: {AIRFLOW}/dags/retrain/runs/scheduled__2026-01-01T02%3A00%3A00%2B00%3A00"
    assert hook.taken[0]["message"].splitlines()[:2] == ["a step before the outcome failed: see its log", run]


def test_task_that_failed_is_told_once_for_its_run(context: Context, hook: Webhook) -> None:
    notify.tell_failure(context, "ingest_dataset", "manual__1", "plan", "Expected a folder.\nReceived: none.")
    notify.tell_failure(context, "ingest_dataset", "manual__1", "publish", "another")
    assert hook.titles == ["ingest_dataset, task plan, failed"]
    assert hook.taken[0]["message"].startswith("Expected a folder. Received: none.\nRun: ")


def ingest(context: Context, ingest_id: str) -> None:
    problems = [{"code": "near_duplicate", "is_error": True}] * 2 + [{"code": "small_mask", "is_error": False}]
    with context.registry.writing() as session:
        session.add(
            Ingest(
                ingest_id=ingest_id, dataset="hip", source="march.zip", state="refused", digest=None, layout="flat",
                cases=9, errors=2, warnings=1, allowed=[], problems=problems, report_key="reports/x",
                started_at=rows.NOON, finished_at=context.now(),
            )
        )  # fmt: skip


def test_refused_ingest_is_told_unless_a_person_typed_it(context: Context, hook: Webhook) -> None:
    ingest(context, "cli-0123456789ab")
    ingest(context, "0123456789abcdef")
    notify.tell(context)
    assert hook.titles == ["A version of hip was refused"]
    assert "Errors: 2 x near_duplicate." in hook.taken[0]["message"]


def test_large_drift_is_told_by_feature(context: Context, hook: Webhook) -> None:
    with context.registry.writing() as session:
        old, new = (rows.dataset_version(session, name, at=rows.NOON).digest for name in ("old", "new"))
        for feature, split, psi, level in (
            ("height", "all", 0.9, "large"),
            ("height", "test", 1.4, "large"),
            ("mean", "all", 0.15, "some"),
        ):
            session.add(
                DatasetDrift(
                    digest=new, split=split, feature=feature, against_digest=old, psi=psi, ks=0.4, ks_p=0.001,
                    before_cases=20, after_cases=20, level=level,
                )
            )  # fmt: skip
    notify.tell(context)
    assert hook.titles == [f"femur@{new[:12]} has drifted"]
    assert "- height of all cases: PSI 0.90, KS 0.40\n" in hook.taken[0]["message"]
    assert "mean" not in hook.taken[0]["message"]


def predicted(context: Context, run_id: str, flags: Sequence[Sequence[str] | None], from_px: int = 1000) -> None:
    """A night of predict_incoming by femur:1, up to its rates; heights are spread over 20 px, as the training's are."""
    with context.registry.writing() as session:
        rows.predicted(session, session.get_one(ModelVersion, 1), run_id, flags, context.now())
        for place, row in enumerate(session.scalars(select(IncomingPicture).where(IncomingPicture.run_id == run_id))):
            row.height_px = from_px + 20 * place // len(flags)
    record_rates(context, run_id, "femur")


def test_flag_rates_and_drift_of_what_came_in_are_told_when_the_night_has_ended(
    context: Context, clock: Clock, hook: Webhook
) -> None:
    judged(context, 1, "refuse")
    context = telling(context, hook.url, on=("incoming", "drift"))
    with context.registry.writing() as session:
        digest = rows.digest_of("v1")
        session.add_all(
            DatasetCase(digest=digest, case_id=f"C{n}", patient=f"C{n}", split="train", image_sha256=f"i{n}",
                        mask_sha256=f"m{n}", height_px=1000 + n, width_px=512, problems=[], source="clinic")
            for n in range(20)
        )  # fmt: skip
    predicted(context, "night-1", [()] * 20)
    assert hook.titles == [], "nothing to look at, and like the training data"
    clock.forward(86400)
    predicted(context, "night-2", [("one_femur", "unlike_training"), ("one_femur",), None, *[()] * 17], from_px=4000)
    clock.forward(86400)
    predicted(context, "night-3", [()] * 20, from_px=4000)
    record_rates(context, "night-3", "femur")
    assert hook.titles == ["femur: 3 of 20 pictures need a look", "What comes in for femur has drifted"]
    flags, drift = (posted["message"].splitlines() for posted in hook.taken)
    assert flags[0] == "By femur:1: one_femur 2 (10%), refused 1 (5%), unlike_training 1 (5%)."
    assert flags[-2] == f"Run: {AIRFLOW}/dags/predict_incoming/runs/night-2"
    assert drift[1].startswith("- height_px of the newest 39 pictures: PSI ")


def test_silence_is_told_after_three_nights_and_again_after_three_more(
    context: Context, clock: Clock, hook: Webhook
) -> None:
    judged(context, 1, "refuse")
    told = []
    for _ in range(7):
        clock.forward(86400)
        notify.watch(telling(context, hook.url, on=("no_news",)))
        told.append(len(hook.taken))
    assert told == [0, 0, 1, 1, 1, 2, 2]
    assert hook.titles == ["femur: no verdict for 3 nights", "femur: no verdict for 6 nights"]
    assert "Runs since then: none" in hook.taken[0]["message"]


def test_silence_says_what_ran_meanwhile(context: Context, clock: Clock, hook: Webhook) -> None:
    judged(context, 1, "refuse")
    clock.forward(3 * 86400)
    with context.registry.writing() as session:
        rows.run(session, "n1", state="nothing_new", started_at=context.now())
        rows.run(session, "n2", state="nothing_new", started_at=context.now())
        rows.run(session, "n3", state="failed", started_at=context.now())
    notify.watch(telling(context, hook.url, on=("no_news",)))
    assert "Runs since then: 1 x failed, 2 x nothing_new." in hook.taken[0]["message"]


def test_kinds_that_nobody_asked_for_are_not_told(context: Context, hook: Webhook) -> None:
    promoted(context)
    judged(context, 2, "refuse", beside=True)
    notify.tell(telling(context, hook.url, on=("refusal",)))
    assert hook.titles == ["femur:2 refused, femur:1 stays champion"]


def test_what_is_older_than_three_days_is_not_told(context: Context, clock: Clock, hook: Webhook) -> None:
    promoted(context)
    clock.forward(timedelta(days=3, hours=1).total_seconds())
    notify.tell(context)
    assert hook.taken == []


# ---- once


def test_nobody_is_told_twice_however_often_one_looks(context: Context, hook: Webhook) -> None:
    promoted(context)
    for _ in range(3):
        notify.tell(context)
        notify.watch(context)
    assert hook.titles == ["femur:1 is champion"]
    assert attempts(context) == [("promotion/1", 1, "trying"), ("promotion/1", 1, "sent")]


def test_of_many_who_look_at_once_one_tells(context: Context, hook: Webhook) -> None:
    promoted(context)
    hook.silent_s = 0.2
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(notify.tell, [context] * 8))
    assert hook.titles == ["femur:1 is champion"]


def test_what_was_on_its_way_when_its_sender_was_killed_is_not_sent_again(context: Context, hook: Webhook) -> None:
    promoted(context)
    claimed = {"kind": "promotion", "title": "", "text": "", "detail": "", "at": context.now()}
    with context.registry.writing() as session:
        session.add(Notification(event="promotion/1", attempt=1, outcome="trying", **claimed))
    notify.tell(context)
    assert hook.taken == []


def test_what_was_told_is_kept_as_it_was_written(context: Context) -> None:
    promoted(context)
    notify.tell(context)
    for statement in ("update notification set outcome = 'failed'", "delete from notification"):
        with pytest.raises(DBAPIError, match="is refused"), context.registry.engine.begin() as connection:
            connection.execute(text(statement))


# ---- failing to


def test_message_that_nobody_took_is_tried_again_by_the_next_who_looks(context: Context, hook: Webhook) -> None:
    promoted(context)
    hook.status = 500
    notify.tell(context)
    assert attempts(context) == [("promotion/1", 1, "trying"), ("promotion/1", 1, "failed")]
    hook.status = 200
    notify.watch(context)
    notify.watch(context)
    assert hook.titles == ["femur:1 is champion"]
    assert [outcome for _, _, outcome in attempts(context)] == ["trying", "failed", "trying", "sent"]


def test_a_place_that_never_answers_is_given_up_after_five_attempts(context: Context, hook: Webhook) -> None:
    promoted(context)
    hook.status = 500
    for _ in range(8):
        notify.tell(context)
    assert [attempt for _, attempt, outcome in attempts(context) if outcome == "failed"] == [1, 2, 3, 4, 5]


def test_one_place_that_fails_keeps_no_other_from_its_message(context: Context, hook: Webhook) -> None:
    promoted(context)
    notify.tell(telling(context, "json://127.0.0.1:1", hook.url))
    assert len(hook.taken) == 1
    with context.registry.reading() as session:
        detail = session.scalars(select(Notification.detail).where(Notification.outcome == "sent")).one()
    assert detail.startswith("1: JSON: A Connection error")
    assert detail.endswith("; 2: JSON: sent")


@pytest.mark.parametrize("trouble", ["no such service", "no such host", "no table"])
def test_no_trouble_with_messages_reaches_whoever_promotes(
    context: Context, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    promoted(context)
    urls = {"no such service": "carrier-pigeon://loft", "no such host": "mailto://u:p@nowhere.invalid?to=a@b.c"}
    if trouble == "no table":
        context = replace(context, registry=Registry("sqlite://"))
    notify.tell(telling(context, urls.get(trouble, "json://127.0.0.1:1")))
    assert caplog.records, "it is logged"


@pytest.mark.parametrize("scheme", ["json://127.0.0.1:{}", "mailto://127.0.0.1:{}?from=a@clinic.example&mode=insecure"])
def test_place_that_takes_the_call_and_says_nothing_is_left_after_seconds(context: Context, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        (delivery,) = notify.send_test(telling(context, scheme.format(silent.getsockname()[1])).settings)
        assert not delivery.is_sent
        assert time.monotonic() - began < 10


def test_without_a_place_nothing_is_noted(context: Context) -> None:
    promoted(context)
    notify.tell(telling(context))
    assert attempts(context) == []


def test_registry_that_is_silent_is_told_in_the_morning(context: Context, hook: Webhook) -> None:
    notify.watch(replace(context, registry=Registry("sqlite://")))
    assert hook.titles == ["The registry is silent"]
