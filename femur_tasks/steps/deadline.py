"""A night's end: when a run must be over, and how many epochs still fit before it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

_EVALUATION_SHARE, _EVALUATION_LEAST = 0.05, timedelta(minutes=1)


@dataclass(frozen=True)
class Pace:
    """What training takes: `start_s` seconds until it is under way, then `epoch_s` an epoch."""

    epoch_s: float
    start_s: float


def deadline_of(started: datetime, hours: float | None, until: str | None, timezone: str) -> datetime | None:
    """The earlier of `started` plus `hours` and the next `until`, a time of day in `timezone`; None without either."""
    ends = []
    if hours is not None:
        ends.append(started + timedelta(hours=hours))
    if until is not None:
        local = started.astimezone(ZoneInfo(timezone))
        at = datetime.combine(local.date(), time.fromisoformat(until), local.tzinfo)
        if at <= local:
            at = datetime.combine(local.date() + timedelta(days=1), time.fromisoformat(until), local.tzinfo)
        ends.append(at.astimezone(started.tzinfo))
    return min(ends, default=None)


def training_ends(started: datetime, deadline: datetime) -> datetime:
    """When the last fit must have ended: what is left is for scoring, the verdict and the report."""
    return deadline - max(_EVALUATION_LEAST, _EVALUATION_SHARE * (deadline - started))


def share_ends(now: datetime, started: datetime, deadline: datetime, families: int) -> datetime:
    """When a fit that starts now must have ended, so that each of the run's families has as long."""
    end = training_ends(started, deadline)
    return min(end, now + (end - started) / families)


def epochs_left(now: datetime, end: datetime | None, pace: Pace | None, reserve_epochs: int = 0) -> int | None:
    """How many epochs fit before `end`, `reserve_epochs` of another fit beside; None for any number.

    Args:
        end: None where there is no deadline.
        pace: None while none was measured: there is time for any number until the end is there.
        reserve_epochs: epochs that are kept free, for the fit that follows a search.
    """
    if end is None:
        return None
    left_s = (end - now).total_seconds()
    if pace is None or pace.epoch_s <= 0:
        return None if left_s > 0 else 0
    left_s -= pace.start_s * (2 if reserve_epochs else 1) + pace.epoch_s * reserve_epochs
    return max(0, int(left_s / pace.epoch_s))
