"""The judging half of the failpoint matrix: who becomes champion survives SIGKILL at every point, on both databases.

The whole of it, with publishing and scoring, is `make faults`; its table is in docs/reliability.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from femur_tasks.settings import Settings
from tests import failpoints

JUDGING = ("verdict", "promote", "rollback", "collect")


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_judging_step_that_is_killed_anywhere_is_done_or_not_and_can_be_run_again(
    request: pytest.FixtureRequest, tmp_path: Path, store_settings: Settings, database: str
) -> None:
    url = None
    if database == "postgres":
        fresh: Callable[[], str] = request.getfixturevalue("postgres_database")
        url = fresh()
    world = failpoints.new_world(tmp_path, store_settings, url)
    found = []
    for step in failpoints.STEPS:
        if step in JUDGING:
            found += failpoints.experiments(world, step)
        else:
            failpoints.do(world, step)
    assert {outcome.step for outcome in found} == set(JUDGING)
    assert [outcome for outcome in found if not outcome.is_well] == []
    assert {outcome.state for outcome in found if outcome.step in ("promote", "rollback")} == {"before", "done"}
