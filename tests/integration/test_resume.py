"""A fit that was interrupted and goes on in a fresh process ends as the fit that never stopped, bit for bit."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from femur_tasks.settings import CHECKOUT
from femur_tasks.training import checkpoint
from tests.tiny_fit import MemoryJournal, forget_dropout, go_on

EPOCHS = 3


def losses(journal: MemoryJournal) -> list[tuple[int, float, float]]:
    return [(epoch.epoch, epoch.loss, epoch.val_dice) for epoch in journal.epochs]


@pytest.fixture(scope="module", params=["reference", "tuned"])
def uninterrupted(request: pytest.FixtureRequest) -> MemoryJournal:
    journal = MemoryJournal(kind=request.param)
    go_on(journal, EPOCHS)
    return journal


def test_fit_resumed_in_a_fresh_process_is_the_uninterrupted_one(uninterrupted: MemoryJournal, tmp_path: Path) -> None:
    journal = MemoryJournal(kind=uninterrupted.kind)
    go_on(journal, 1)
    file = tmp_path / "journal"
    file.write_bytes(pickle.dumps(journal))
    subprocess.run(  # noqa: S603
        [sys.executable, "-m", "tests.tiny_fit", str(file), str(EPOCHS)], cwd=CHECKOUT, check=True, timeout=200
    )
    resumed: MemoryJournal = pickle.loads(file.read_bytes())  # noqa: S301 - our own file
    assert losses(resumed) == losses(uninterrupted)
    (found, memory), (expected, same) = (checkpoint.unpack(one.states[-1]) for one in (resumed, uninterrupted))
    assert memory == same
    # names count the layers that a process has made: the order is what tells variables apart
    for mine, its in zip(sorted(found), sorted(expected), strict=True):
        np.testing.assert_array_equal(found[mine], expected[its], err_msg=its)


def test_checkpoint_without_the_dropout_seeds_would_not_do(uninterrupted: MemoryJournal) -> None:
    """The test above can tell: this is how it would fail."""
    journal = MemoryJournal(kind=uninterrupted.kind)
    go_on(journal, 1)
    forget_dropout(journal)
    go_on(journal, EPOCHS)
    assert losses(journal)[:1] == losses(uninterrupted)[:1]
    assert losses(journal)[1:] != losses(uninterrupted)[1:]
