"""Hyperband's schedule against the paper's own table and against what Keras Tuner allocates."""

from __future__ import annotations

import pytest

from femur_tasks.search.brackets import schedule


# measured on Keras Tuner 1.4.8, factor 3, one iteration
@pytest.mark.parametrize(
    ("max_epochs", "trials", "configurations", "epochs"),
    [
        *((3, 6, 5, 11), (9, 23, 17, 75), (10, 30, 22, 120), (27, 70, 49, 375)),
        *((50, 90, 62, 922), (81, 211, 143, 1767), (100, 254, 172, 2672)),
    ],
)
def test_schedule_has_as_many_trials_as_keras_tuner(
    max_epochs: int, trials: int, configurations: int, epochs: int
) -> None:
    rungs = schedule(max_epochs, 3)
    assert sum(rung.trials for rung in rungs) == trials
    assert sum(rung.trials for rung in rungs if rung.rung == 0) == configurations
    assert sum(rung.trials * (rung.to_epoch - rung.from_epoch) for rung in rungs) == epochs
    assert max(rung.to_epoch for rung in rungs) == max_epochs


def test_rungs_of_r_9_by_hand() -> None:
    found = [(rung.bracket, rung.rung, rung.trials, rung.from_epoch, rung.to_epoch) for rung in schedule(9, 3)]
    assert found == [
        (2, 0, 9, 0, 1),
        (2, 1, 3, 1, 3),
        (2, 2, 1, 3, 9),
        (1, 0, 5, 0, 3),
        (1, 1, 2, 3, 9),
        (0, 0, 3, 0, 9),
    ]
