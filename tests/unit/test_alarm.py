"""The alarm tells of each part that ends, once, and keeps what nobody took for the next minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import SecretStr

from femur_tasks.stack.alarm import Alarm
from tests.conftest import settings_of
from tests.receivers import Webhook, webhook


class Day:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, 3, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def alarm_of(hook: Webhook, home: Path, day: Day) -> Alarm:
    return Alarm(settings_of(home).model_copy(update={"notify_urls": SecretStr(hook.url)}), day)


def heard(alarm: Alarm, event: str, part: str = "scheduler") -> None:
    alarm.hear(event, {"processname": part, "groupname": "femur"} if event != "TICK_60" else {"when": "60"})


def test_part_that_ends_again_and_again_is_told_once_a_day(tmp_path: Path) -> None:
    day = Day()
    with webhook() as hook:
        alarm = alarm_of(hook, tmp_path, day)
        for _ in range(3):
            heard(alarm, "PROCESS_STATE_EXITED")
        heard(alarm, "PROCESS_STATE_EXITED", "store")
        assert hook.titles == ["scheduler ended, and is started again", "store ended, and is started again"]
        day.now += timedelta(days=1)
        heard(alarm, "PROCESS_STATE_EXITED")
        assert len(hook.taken) == 3


def test_part_that_was_given_up_is_told_with_its_log(tmp_path: Path) -> None:
    with webhook() as hook:
        heard(alarm_of(hook, tmp_path, Day()), "PROCESS_STATE_FATAL")
        assert hook.titles == ["scheduler is down: it ended at every start"]
        assert str(tmp_path / "logs" / "scheduler.log") in hook.taken[0]["message"]


def test_what_nobody_took_is_sent_again_each_minute_for_an_hour(tmp_path: Path) -> None:
    with webhook() as hook:
        alarm = alarm_of(hook, tmp_path, Day())
        hook.status = 500
        heard(alarm, "PROCESS_STATE_FATAL")
        heard(alarm, "TICK_60")
        hook.status = 200
        for _ in range(3):
            heard(alarm, "TICK_60")
        assert len(hook.taken) == 1
        hook.status = 500
        heard(alarm, "PROCESS_STATE_FATAL", "store")
        for _ in range(60):
            heard(alarm, "TICK_60")
        hook.status = 200
        heard(alarm, "TICK_60")
        assert len(hook.taken) == 1, "after an hour it is given up"
