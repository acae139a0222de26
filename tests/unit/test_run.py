"""Opening a run: what is trained, when there is nothing new, and what a retry finds."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import select

from femur_tasks.errors import FemurError, NotFound
from femur_tasks.parameters import BUDGETS, RetrainParameters
from femur_tasks.registry.tables import Dataset, Run
from femur_tasks.steps.context import Context
from femur_tasks.steps.run import CONCLUDED, conclude, open_run, run_facts, untried
from tests import registry_rows as rows
from tests.conftest import Clock

HOUR = timedelta(hours=1)


def ingested(context: Context, content: str = "v1", name: str = "femur", hours: float = 0, **values: Any) -> str:
    """A dataset version of `name`, that many hours after noon; its digest."""
    with context.registry.writing() as session:
        return rows.dataset_version(session, content, name, rows.NOON + hours * HOUR, **values).digest


def ordered(context: Context, name: str, model: str, budget: str) -> None:
    with context.registry.writing() as session:
        dataset = session.get_one(Dataset, name)
        dataset.model, dataset.budget = model, budget


def opened(context: Context, run_id: str = "run-1", trigger: str = "cli", **asked: Any) -> dict[str, Any]:
    return open_run(context, run_id, trigger, RetrainParameters(**asked))


def retrained(context: Context, run_id: str = "run-1", state: str = "promoted", **asked: Any) -> None:
    assert opened(context, run_id, **asked)["news"]
    concluded(context, run_id, state, "done")


def concluded(context: Context, run_id: str, state: str, detail: str) -> None:
    with context.registry.writing() as session:
        conclude(session, run_id, state, detail, context.now())


def run(context: Context, run_id: str = "run-1") -> Run:
    with context.registry.reading() as session:
        row = session.get_one(Run, run_id)
        session.expunge(row)
        return row


def test_without_any_dataset_there_is_nothing_new(context: Context) -> None:
    found = opened(context)
    assert (found["news"], found["dataset"], found["model"]) == (False, "", "femur")
    assert found["why"] == "no dataset has a version that was not retrained yet"
    row = run(context)
    assert row.state == "nothing_new"
    assert row.finished_at is not None


def test_newest_version_is_pinned_by_its_digest(context: Context) -> None:
    ingested(context, "v1", hours=0)
    newest = ingested(context, "v2", hours=1)
    found = opened(context, trigger="schedule")
    assert (found["news"], found["dataset"]) == (True, f"femur@{newest}")
    assert found["families"] == ["baseline", "unet", "tuned"]
    row = run(context)
    assert (row.dataset_digest, row.state, row.trigger, row.finished_at) == (newest, "running", "schedule", None)
    assert row.versions["python"]
    assert row.versions["keras"]


def test_version_that_was_retrained_is_nothing_new_until_the_next_one(context: Context) -> None:
    ingested(context, "v1")
    retrained(context, "monday")
    assert opened(context, "tuesday")["news"] is False
    newest = ingested(context, "v2", hours=1)
    assert opened(context, "wednesday")["dataset"] == f"femur@{newest}"


@pytest.mark.parametrize("state", CONCLUDED)
def test_every_outcome_counts_as_retrained(context: Context, state: str) -> None:
    ingested(context)
    retrained(context, "before", state=state)
    assert opened(context)["news"] is False


def test_run_that_failed_does_not_count(context: Context) -> None:
    ingested(context)
    retrained(context, "before", state="failed")
    assert opened(context)["news"] is True


@pytest.mark.parametrize(
    ("asked", "news"),
    [
        pytest.param({}, False, id="the same"),
        pytest.param({"budget": "nightly", "size": 256, "seed": 0}, False, id="the defaults by name"),
        pytest.param({"families": ["tuned", "unet", "baseline"]}, False, id="families in another order"),
        pytest.param({"families": ["baseline", "unet", "tuned", "unet"]}, False, id="a family named twice"),
        pytest.param({"require_approval": True}, False, id="approval changes no training"),
        pytest.param({"budget": "smoke"}, True, id="another budget"),
        pytest.param({"size": 128}, True, id="another size"),
        pytest.param({"seed": 1}, True, id="another seed"),
        pytest.param({"families": ["unet"]}, True, id="other families"),
        pytest.param({"model": "hip"}, True, id="another model"),
        pytest.param({"force": True}, True, id="by force"),
    ],
)
@pytest.mark.parametrize("dataset", [None, "femur"], ids=["from the ledger", "asked for"])
def test_same_parameters_are_nothing_new_and_others_are(
    context: Context, dataset: str | None, asked: dict[str, Any], news: bool
) -> None:
    digest = ingested(context)
    retrained(context, "before")
    found = opened(context, dataset=dataset, **asked)
    assert found["news"] is news
    if news:
        assert found["dataset"] == f"femur@{digest}"


@pytest.mark.parametrize("digits", [4, 12, 64])
def test_version_asked_for_by_digits_of_its_digest(context: Context, digits: int) -> None:
    older = ingested(context, "v1", hours=0)
    ingested(context, "v2", hours=1)
    found = opened(context, dataset=f"femur@{older[:digits]}")
    assert found["dataset"] == f"femur@{older}"
    assert found["why"] == f"asked for femur@{older[:12]}"


@pytest.mark.parametrize("dataset", ["hip", "femur@0000", "hip@0000"])
def test_version_that_is_not_there_is_not_found_and_leaves_no_run(context: Context, dataset: str) -> None:
    ingested(context)
    with pytest.raises(NotFound, match="Expected a dataset version"):
        opened(context, dataset=dataset)
    with context.registry.reading() as session:
        assert session.scalars(select(Run)).all() == []


def test_digits_of_two_versions_are_refused(context: Context) -> None:
    by_digits: dict[str, str] = {}
    number = 0
    while True:  # two contents whose digests begin alike: some hundred tries
        content = f"content {number}"
        digits = rows.digest_of(content)[:4]
        if digits in by_digits:
            break
        by_digits[digits], number = content, number + 1
    ingested(context, by_digits[digits])
    ingested(context, content)
    with pytest.raises(FemurError, match="fit 2"):
        opened(context, dataset=f"femur@{digits}")


@pytest.mark.parametrize(
    "dataset", ["femur@", "femur@abc", "femur@ABCD", "Femur", "fe mur", "femur@%%%%", "femur@12345g", "@1234"]
)
def test_dataset_that_is_no_name_is_refused_at_the_form(dataset: str) -> None:
    with pytest.raises(ValidationError):
        RetrainParameters(dataset=dataset)


def test_standing_order_of_the_dataset_fills_what_was_left_empty(context: Context) -> None:
    ingested(context, "hips", name="hips", size=512)
    ordered(context, "hips", "hip", "smoke")
    found = opened(context)
    assert found["model"] == "hip"
    with context.registry.reading() as session:
        row, parameters, budget = run_facts(session, "run-1")
    assert (row.model, parameters.model, parameters.budget, parameters.size) == ("hip", "hip", "smoke", 64)
    assert budget == BUDGETS["smoke"]


def test_what_was_asked_goes_before_the_standing_order(context: Context) -> None:
    ingested(context, "hips", name="hips", size=512)
    ordered(context, "hips", "hip", "smoke")
    opened(context, model="other", budget="full", size=128)
    with context.registry.reading() as session:
        row, parameters, budget = run_facts(session, "run-1")
    assert (row.model, parameters.budget, parameters.size, budget) == ("other", "full", 128, BUDGETS["full"])


@pytest.mark.parametrize(
    ("version", "asked", "size"), [(64, None, 64), (64, 512, 64), (512, None, 256), (512, 512, 512)]
)
def test_training_size_is_never_above_the_versions(
    context: Context, version: int, asked: int | None, size: int
) -> None:
    ingested(context, size=version)
    opened(context, size=asked)
    with context.registry.reading() as session:
        assert run_facts(session, "run-1")[1].size == size


def test_of_several_datasets_the_one_that_waits_longest_goes_first(context: Context) -> None:
    ingested(context, "a", name="ankle", hours=2)
    ingested(context, "b", name="back", hours=1)
    ingested(context, "c", name="chest", hours=3)
    order = []
    for night in range(4):
        found = opened(context, f"night-{night}")
        order.append(found["dataset"].partition("@")[0])
        concluded(context, f"night-{night}", "refused", "done")
    assert order == ["back", "ankle", "chest", ""]


def test_a_dataset_that_always_fails_lets_the_others_have_their_turn(context: Context) -> None:
    ingested(context, "a", name="ankle", hours=1)
    ingested(context, "b", name="back", hours=2)
    order = []
    for night in range(4):
        found = opened(context, f"night-{night}")
        order.append(found["dataset"].partition("@")[0])
        concluded(context, f"night-{night}", "failed", "out of memory")
    assert order == ["ankle", "back", "ankle", "back"]


def test_force_retrains_what_was_retrained(context: Context) -> None:
    digest = ingested(context)
    retrained(context, "before")
    assert opened(context, "again", force=True)["dataset"] == f"femur@{digest}"


@pytest.mark.parametrize("first", [{}, {"dataset": "femur"}], ids=["from the ledger", "asked for"])
def test_opening_again_returns_the_first_decision(context: Context, first: dict[str, Any]) -> None:
    ingested(context, "v1", hours=0)
    answer = opened(context, **first)
    ingested(context, "v2", hours=1)
    assert opened(context, **first) == answer
    assert opened(context, dataset="femur", seed=9) == answer
    assert run(context).seed == 0


def test_opening_again_after_nothing_new_stays_nothing_new(context: Context) -> None:
    answer = opened(context)
    ingested(context)
    assert opened(context) == answer
    assert answer["news"] is False


def test_clearing_a_failed_run_lets_it_go_on(context: Context) -> None:
    digest = ingested(context)
    opened(context)
    concluded(context, "run-1", "failed", "a step before the verdict failed: see its log")
    assert run(context).finished_at is not None
    found = opened(context)
    assert (found["news"], found["dataset"]) == (True, f"femur@{digest}")
    assert (run(context).state, run(context).finished_at) == ("running", None)
    concluded(context, "run-1", "promoted", "every rule of the policy holds")
    assert run(context).state == "promoted"


@pytest.mark.parametrize("state", CONCLUDED)
def test_what_is_concluded_stays(context: Context, state: str) -> None:
    ingested(context)
    opened(context)
    concluded(context, "run-1", state, "first")
    opened(context)
    concluded(context, "run-1", "failed", "second")
    assert (run(context).state, run(context).detail) == (state, "first")


def test_run_that_is_not_there_is_not_found(context: Context) -> None:
    with context.registry.reading() as session, pytest.raises(NotFound, match="nowhere"):
        run_facts(session, "nowhere")


@pytest.mark.parametrize(
    ("trigger", "nightly", "asked", "hours"),
    [
        pytest.param("cli", "", {}, None, id="none"),
        pytest.param("cli", "", {"hours": 2}, 2, id="hours"),
        pytest.param("cli", "", {"until": "06:00"}, 6, id="until"),
        pytest.param("cli", "06:00", {}, None, id="the night's is not for what a person starts"),
        pytest.param("schedule", "06:00", {}, 6, id="the night's, on schedule"),
        pytest.param("asset", "06:00", {}, 6, id="the night's, woken by a version"),
        pytest.param("schedule", "06:00", {"until": "04:00"}, 4, id="asked goes before the night's"),
        pytest.param("schedule", "06:00", {"hours": 9}, 9, id="hours asked go before the night's"),
    ],
)
def test_run_has_its_deadline(
    context: Context, trigger: str, nightly: str, asked: dict[str, Any], hours: float | None
) -> None:
    """The tests' clock starts at midnight."""
    ingested(context)
    context = replace(context, settings=context.settings.model_copy(update={"retrain_until": nightly}))
    opened(context, trigger=trigger, **asked)
    found = run(context)
    if hours is None:
        assert found.deadline is None
    else:
        assert found.deadline is not None
        midnight = found.started_at.replace(hour=0, minute=0, second=0)
        start = found.started_at if "hours" in asked else midnight
        assert found.deadline == start + timedelta(hours=hours)


@pytest.mark.parametrize(("trigger", "trains"), [("asset", False), ("schedule", True), ("manual", True)])
def test_version_that_comes_as_the_night_ends_is_left_to_the_next(context: Context, trigger: str, trains: bool) -> None:
    """The tests' clock starts at midnight."""
    ingested(context)
    context = replace(context, settings=context.settings.model_copy(update={"retrain_until": "00:45"}))
    assert bool(opened(context, trigger=trigger)["news"]) == trains
    if not trains:
        assert "is left to the next night: this one ends at 00:45" in run(context).detail
        assert opened(context, "the-next", "schedule")["news"]


def test_deadline_is_kept_when_a_run_is_opened_again(context: Context) -> None:
    ingested(context)
    opened(context, hours=3)
    first = run(context).deadline
    opened(context, hours=8)
    assert run(context).deadline == first is not None


def test_reproduction_that_failed_costs_its_dataset_no_turn(context: Context) -> None:
    ingested(context, "a", "first", hours=0)
    digest = ingested(context, "b", "second", hours=1)
    with context.registry.writing() as session:
        rows.run(session, "reproduction", rows.digest_of("a"), state="failed", model="")
    assert digest
    assert opened(context)["dataset"].startswith("first@")


@pytest.mark.parametrize("trigger", ["schedule", "asset"])
@pytest.mark.parametrize("state", ["promoted", "failed"])
def test_run_that_was_woken_wakes_the_next_while_versions_wait(context: Context, trigger: str, state: str) -> None:
    first, second, third = (ingested(context, name, name, hours) for hours, name in enumerate(("a", "b", "c")))
    assert opened(context, "run-1", trigger)["dataset"] == f"a@{first}"
    assert untried(context, "run-1") == [f"b@{second}", f"c@{third}"]
    concluded(context, "run-1", state, "done")
    assert opened(context, "run-2", "asset")["dataset"] == f"b@{second}"
    assert untried(context, "run-2") == [f"c@{third}"]
    concluded(context, "run-2", state, "done")
    assert opened(context, "run-3", "asset")["dataset"] == f"c@{third}"
    assert untried(context, "run-3") == [], "what failed waits for the next night"


@pytest.mark.parametrize("trigger", ["cli", "manual"])
def test_run_that_a_person_started_wakes_none(context: Context, trigger: str) -> None:
    ingested(context, "a", "a")
    ingested(context, "b", "b", 1)
    opened(context, "run-1", trigger)
    assert untried(context, "run-1") == []
    assert untried(context, "never opened") == []


def test_run_that_trained_nothing_wakes_none(context: Context) -> None:
    opened(context, "run-1", "asset")
    ingested(context)
    assert untried(context, "run-1") == []


def test_version_that_a_person_tries_already_wakes_none(context: Context) -> None:
    ingested(context, "a", "a")
    ingested(context, "b", "b", 1)
    opened(context, "run-1", "manual", dataset="b", families=["unet"])
    opened(context, "run-2", "asset")
    assert untried(context, "run-2") == []


@pytest.mark.parametrize(("until", "took_hours", "wakes"), [("06:00", 2, True), ("06:00", 4, False), ("", 12, True)])
@pytest.mark.parametrize("trigger", ["schedule", "asset"])
def test_none_is_woken_that_would_not_end_with_the_night(
    context: Context, clock: Clock, trigger: str, until: str, took_hours: int, wakes: bool
) -> None:
    """The tests' clock starts at midnight."""
    for hours, name in enumerate(("a", "b")):
        ingested(context, name, name, hours)
    context = replace(context, settings=context.settings.model_copy(update={"retrain_until": until}))
    opened(context, "run-1", trigger)
    clock.forward(took_hours * 3600)
    assert bool(untried(context, "run-1")) == wakes
