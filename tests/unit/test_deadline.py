"""Deadlines: when a night ends, and how many epochs fit before it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from femur_tasks.steps.deadline import Pace, deadline_of, epochs_left, share_ends, training_ends

TWO = datetime(2026, 1, 15, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("hours", "until", "timezone", "expected"),
    [
        pytest.param(None, None, "UTC", None, id="none"),
        pytest.param(1.5, None, "UTC", TWO + timedelta(minutes=90), id="hours"),
        pytest.param(None, "06:00", "UTC", TWO + timedelta(hours=4), id="this morning"),
        pytest.param(None, "01:00", "UTC", TWO + timedelta(hours=23), id="tomorrow"),
        pytest.param(None, "02:00", "UTC", TWO + timedelta(hours=24), id="now is tomorrow"),
        pytest.param(None, "06:00", "Europe/Zurich", TWO + timedelta(hours=3), id="in winter an hour ahead"),
        pytest.param(5, "06:00", "UTC", TWO + timedelta(hours=4), id="the earlier one, until"),
        pytest.param(3, "06:00", "UTC", TWO + timedelta(hours=3), id="the earlier one, hours"),
    ],
)
def test_deadline(hours: float | None, until: str | None, timezone: str, expected: datetime | None) -> None:
    assert deadline_of(TWO, hours, until, timezone) == expected


def test_deadline_over_the_change_of_the_clocks() -> None:
    """On 29 March 2026 Zurich has no hour from two to three: from one to six are four hours."""
    started = datetime(2026, 3, 29, 0, tzinfo=UTC)
    assert deadline_of(started, None, "06:00", "Europe/Zurich") == started + timedelta(hours=4)


def test_training_leaves_time_for_the_evaluation() -> None:
    assert training_ends(TWO, TWO + timedelta(hours=5)) == TWO + timedelta(hours=4, minutes=45)
    assert training_ends(TWO, TWO + timedelta(minutes=10)) == TWO + timedelta(minutes=9)


@pytest.mark.parametrize(
    ("left_s", "pace", "reserve", "expected"),
    [
        pytest.param(100, Pace(10, 0), 0, 10, id="as many as fit"),
        pytest.param(109, Pace(10, 0), 0, 10, id="whole ones"),
        pytest.param(100, Pace(10, 30), 0, 7, id="once it is under way"),
        pytest.param(100, Pace(10, 0), 4, 6, id="beside the final fit"),
        pytest.param(100, Pace(10, 20), 4, 2, id="which must get under way too"),
        pytest.param(100, Pace(10, 0), 40, 0, id="not even the final fit"),
        pytest.param(-5, Pace(10, 0), 0, 0, id="too late"),
        pytest.param(100, None, 4, None, id="nothing measured yet"),
        pytest.param(-1, None, 4, 0, id="nothing measured, too late"),
    ],
)
def test_epochs_left(left_s: float, pace: Pace | None, reserve: int, expected: int | None) -> None:
    assert epochs_left(TWO, TWO + timedelta(seconds=left_s), pace, reserve) == expected
    assert epochs_left(TWO, None, pace, reserve) is None


def test_a_family_leaves_as_long_to_each_of_the_others() -> None:
    end = TWO + timedelta(hours=5)  # training ends a quarter of an hour sooner
    assert share_ends(TWO, TWO, end, 3) == TWO + timedelta(minutes=95)
    assert share_ends(TWO + timedelta(minutes=95), TWO, end, 3) == TWO + timedelta(minutes=190)
    assert share_ends(TWO + timedelta(hours=4), TWO, end, 3) == training_ends(TWO, end)
    assert share_ends(TWO + timedelta(hours=1), TWO, end, 1) == training_ends(TWO, end)
