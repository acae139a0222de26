"""Drift between two dataset versions: the figures by hand, and when they warn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from femur_tasks.dataset.drift import ALL, DriftRow, drift, drift_problems, level_of, psi

TEN = np.arange(10.0)  # a decile each
Draw = Callable[[np.random.Generator, int], np.ndarray]


def versions(before: Sequence[float], after: Sequence[float], split: str = "train") -> list[DriftRow]:
    return drift({split: {"height_px": before}}, {split: {"height_px": after}})


def by_split(rows: list[DriftRow]) -> dict[str, DriftRow]:
    return {row.split: row for row in rows}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (TEN, TEN, 0.0),
        # all in the first bin: 0.9 ln(1.0 / 0.1), and nine empty ones that count half a case: 0.05 - 0.1 times ln 0.5
        (TEN, np.zeros(10), 0.9 * math.log(10) + 9 * 0.05 * math.log(2)),
        # beyond the range of before: the last bin is open
        (TEN, np.full(10, 1e300), 0.9 * math.log(10) + 9 * 0.05 * math.log(2)),
        # the edge belongs to the bin below: all in the second
        (TEN, np.full(10, 1.0), 0.9 * math.log(10) + 9 * 0.05 * math.log(2)),
    ],
    ids=["same", "first_bin", "beyond_range", "edge"],
)
def test_index_is_that_of_the_formula_on_deciles(before: np.ndarray, after: np.ndarray, expected: float) -> None:
    assert psi(before, after) == pytest.approx(expected)


@pytest.mark.parametrize("moved", [2000.0, 3000.0], ids=["down", "up"])
def test_a_constant_feature_drifts_when_it_moves_either_way_and_else_not(moved: float) -> None:
    constant = np.full(20, 2860.0)
    assert psi(constant, constant) == 0.0
    # one bin loses all of its share, another gains it: twice (1 - 1/40) ln 40
    assert psi(constant, np.full(20, moved)) == pytest.approx(2 * (1 - 1 / 40) * math.log(40))


def test_a_value_that_most_cases_share_is_a_bin_of_its_own() -> None:
    before = np.array([2860.0] * 18 + [2900.0] * 2)
    assert psi(before, np.full(20, 2000.0)) > 3
    assert psi(before, np.array([2860.0] * 18 + [2900.0] * 2)) == 0.0


@pytest.mark.parametrize(
    ("index", "ks_p", "level"),
    [
        (0.09, 1e-9, "none"),
        (0.1, 0.002, "some"),
        (0.24, 0.002, "some"),
        (0.25, 0.002, "large"),
        (5.0, 0.0025, "none"),
        (5.0, 0.9, "none"),
    ],
)
def test_level_needs_index_and_test_to_agree(index: float, ks_p: float, level: str) -> None:
    assert level_of(index, ks_p) == level


def test_shifted_feature_is_large_in_its_split_and_in_all() -> None:
    rows = by_split(versions(list(range(40)), list(range(100, 140)), "val"))
    assert set(rows) == {ALL, "val"}
    assert rows["val"].level == rows[ALL].level == "large"
    assert rows["val"].ks == 1.0
    assert (rows["val"].before_cases, rows["val"].after_cases) == (40, 40)


def test_all_splits_are_compared_together() -> None:
    """Cases that only changed splits are drift of the splits, and none of the whole."""
    low, high = list(range(40)), list(range(100, 140))
    before = {"train": {"x": low}, "test": {"x": high}}
    after = {"train": {"x": high}, "test": {"x": low}}
    rows = by_split(drift(before, after))
    assert rows[ALL].psi == 0.0
    assert rows[ALL].level == "none"
    assert rows["train"].level == rows["test"].level == "large"


@pytest.mark.parametrize("short", ["before", "after"])
def test_fewer_than_eight_values_have_no_figures(short: str) -> None:
    values = {"before": list(range(8)), "after": list(range(8))}
    assert versions(**values)[0].psi == 0.0
    values[short] = list(range(7))
    row = versions(**values)[0]
    assert (row.psi, row.ks, row.ks_p, row.level) == (None, None, None, None)
    assert row.before_cases + row.after_cases == 15


def test_values_that_are_not_finite_are_left_out() -> None:
    row = versions([*range(8), math.nan, math.inf], [*range(8), -math.inf])[0]
    assert (row.before_cases, row.after_cases, row.psi) == (8, 8, 0.0)


def test_features_and_splits_without_values_have_no_row() -> None:
    assert drift({}, {}) == []
    assert drift({"train": {"spacing_mm": []}}, {"train": {"spacing_mm": [math.nan]}}) == []
    rows = drift({"train": {"a": [1.0]}}, {"test": {"b": [1.0]}})
    assert [(row.split, row.feature) for row in rows] == [(ALL, "a"), ("train", "a"), (ALL, "b"), ("test", "b")]


@pytest.mark.parametrize("cases", [11, 47, 91, 320])
@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.normal(size=n),
        lambda rng, n: rng.integers(0, 6, n).astype(float),
        lambda rng, n: np.where(rng.random(n) < 0.9, 2860.0, rng.normal(2800, 40, n)),
    ],
    ids=["normal", "whole_numbers", "mostly_one_value"],
)
def test_equal_distributions_are_rarely_called_large(draw: Draw, cases: int) -> None:
    """The true rate is 0.3 % at most: of 300 pairs, five or more would come once in 300 tests."""
    rng = np.random.default_rng(7)
    rows = [versions(list(draw(rng, cases)), list(draw(rng, cases)))[0] for _ in range(300)]
    assert sum(row.level == "large" for row in rows) < 5


def large(split: str, feature: str = "height_px", index: float = 1.0) -> DriftRow:
    return DriftRow(split, feature, index, 0.5, 1e-6, 40, 50, "large")


def test_a_large_feature_is_one_warning_that_names_its_figures() -> None:
    (problem,) = drift_problems([large("train", index=9.0), large(ALL), large("test", index=9.0)], "femur")
    assert (problem.code, problem.case_id, problem.is_error) == ("drift", "femur", False)
    assert problem.found == (
        "height_px of all splits: PSI 1.00, KS 0.50 (p = 1e-06) between 40 cases before and 50 now"
    )
    assert problem.expected == "a PSI below 0.25"


def test_without_all_the_split_that_moved_most_is_named() -> None:
    (problem,) = drift_problems([large("train"), large("val", index=2.0), large("test")], "femur")
    assert problem.found.startswith("height_px of val: PSI 2.00")


def test_features_that_moved_little_do_not_warn() -> None:
    rows = [*versions(list(range(40)), list(range(40))), *versions([1.0], [1.0])]
    rows.append(DriftRow(ALL, "x", 0.2, 0.3, 1e-4, 40, 40, "some"))
    assert drift_problems(rows, "femur") == []
    assert len(drift_problems([large(ALL, "a"), large(ALL, "b")], "femur")) == 2
