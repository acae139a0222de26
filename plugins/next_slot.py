"""A nightly timetable that never catches up: what was missed while a DAG was paused stays missed."""

from __future__ import annotations

from datetime import timedelta

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk.timezone import coerce_datetime, utcnow
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction
from airflow.timetables.trigger import CronTriggerTimetable

GRACE = timedelta(hours=1)


class NextSlotTimetable(CronTriggerTimetable):
    """A cron whose missed slots stay missed when a DAG is unpaused, but for the last hour's.

    Airflow's own starts the latest missed slot at once, also without catch-up. A slot that the scheduler had planned
    before it was stopped for the night still runs when it comes back: the ledger decides whether there is work.
    """

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        info = super().next_dagrun_info(
            last_automated_data_interval=last_automated_data_interval, restriction=restriction
        )
        now = coerce_datetime(utcnow())
        if info is None or info.run_after >= now - GRACE:
            return info
        slot = self._align_to_next(now)
        return DagRunInfo.interval(slot, slot)


class FemurTimetables(AirflowPlugin):
    """Makes the timetable known to the scheduler."""

    name = "femur_timetables"
    timetables = (NextSlotTimetable,)
