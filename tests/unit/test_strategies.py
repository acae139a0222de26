"""Spaces and strategies: the reference's counts by hand, grids in full, samples that never repeat."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from femur_tasks.errors import FemurError
from femur_tasks.search import space as spaces
from femur_tasks.search.listed import Listed
from femur_tasks.search.space import GRID, REFERENCE, SWEEP, Choice, LogFloat
from femur_tasks.search.strategies import strategy
from femur_tasks.search.strategy import Assignment, Spec
from femur_tasks.training.hyperparameters import TUNED

SMALL = {"a": Choice((1, 2, 3)), "b": Choice(("x", "y"))}


def all_of(spec: Spec) -> list[Assignment]:
    """Every assignment, the state through JSON before each."""
    found, state = [], strategy(spec).to_state()
    while True:
        asked = strategy(spec, json.loads(json.dumps(state)))
        answer = asked.ask()
        if not isinstance(answer, Assignment):
            assert answer == "done", "nothing to wait for"
            return found
        found.append(answer)
        asked.tell(answer.trial_id, 0.5, answer.to_epoch)
        state = asked.to_state()


def test_sweep_has_the_references_28_rates_in_order() -> None:
    rates = [one.values["learning_rate"] for one in all_of(Spec("sweep", SWEEP, 10, seed=0))]
    assert len(rates) == len(set(rates)) == 28
    assert rates == sorted(rates)
    assert (rates[0], rates[-1]) == (1e-5, 1e-2)
    assert {3e-4, 1e-4, 1e-3} <= set(rates)


def test_grid_has_the_references_486_combinations_each_once() -> None:
    found = all_of(Spec("grid", GRID, 10, seed=0))
    assert len(found) == len({tuple(one.values.items()) for one in found}) == 486
    assert {(one.from_epoch, one.to_epoch, one.parent_id) for one in found} == {(0, 10, None)}
    assert [one.trial_id for one in found] == sorted(one.trial_id for one in found)


def test_sample_of_a_grid_has_no_configuration_twice_and_follows_its_seed() -> None:
    samples = {
        seed: [tuple(o.values.values()) for o in all_of(Spec("grid", GRID, 10, seed, samples=40))] for seed in (0, 1)
    }
    for found in samples.values():
        assert len(found) == len(set(found)) == 40
    assert samples[0] != samples[1]
    assert samples[0] == [tuple(one.values.values()) for one in all_of(Spec("grid", GRID, 10, 0, samples=40))]


def test_random_search_draws_as_many_as_it_is_told_inside_the_space() -> None:
    found = all_of(Spec("random", REFERENCE, 5, seed=3, samples=200))
    assert len({tuple(one.values.items()) for one in found}) == len(found) == 200
    rates = np.array([one.values["learning_rate"] for one in found])
    assert ((rates >= 1e-4) & (rates <= 1e-3)).all()
    assert 0.4 < (rates < 10**-3.5).mean() < 0.6  # half of a logarithmic scale
    for name in GRID:
        assert {one.values[name] for one in found} == set(GRID[name].values)  # type: ignore[union-attr]


def test_grid_counts_its_last_dimension_fastest() -> None:
    assert [tuple(spaces.nth(SMALL, index).values()) for index in range(spaces.size_of(SMALL))] == [
        *((1, "x"), (1, "y"), (2, "x"), (2, "y"), (3, "x"), (3, "y"))
    ]
    assert list(spaces.nth(SMALL, 4)) == ["a", "b"]


@given(st.integers(0, 2**31), st.integers(1, 6))
def test_any_sample_is_a_part_of_the_grid(seed: int, samples: int) -> None:
    found = [tuple(one.values.values()) for one in all_of(Spec("grid", SMALL, 1, seed, samples=samples))]
    assert Counter(found).most_common(1)[0][1] == 1
    assert len(found) == samples


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        pytest.param(Spec("grid", REFERENCE, 10, 0), "learning_rate, any number", id="a grid without an end"),
        pytest.param(Spec("grid", SMALL, 10, 0, samples=7), "at most 6", id="more samples than there are"),
    ],
)
def test_impossible_grid_is_refused(spec: Spec, said: str) -> None:
    with pytest.raises(FemurError, match=said):
        Listed(spec)


@pytest.mark.parametrize("space", [SWEEP, GRID, REFERENCE, spaces.tuned(10), spaces.tuned(1000)])
def test_space_comes_back_from_json(space: Any) -> None:
    assert spaces.from_json(json.loads(json.dumps(spaces.to_json(space)))) == space


def test_few_cases_are_always_augmented_and_every_dimension_is_a_hyperparameter() -> None:
    few, many = (spaces.tuned(count)["augmentation"] for count in (99, 100))
    assert isinstance(few, Choice)
    assert isinstance(many, Choice)
    assert min(few.values) > 0 == min(many.values)
    for space in (SWEEP, GRID, REFERENCE, spaces.tuned(10)):
        assert set(space) <= set(TUNED.as_dict())
    assert isinstance(REFERENCE["learning_rate"], LogFloat)
