"""Intervals of a mean: Student's t by hand, the bootstrap's promises, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from femur_tasks.errors import FemurError
from femur_tasks.evaluation.intervals import Interval, bootstrap_mean, paired_interval, seeded_interval


@pytest.mark.parametrize(
    ("differences", "confidence", "mean", "half_width"),
    [
        # t(0.975, 1) = 12.7062; s = sqrt 2, s / sqrt 2 = 1
        pytest.param([1.0, 3.0], 0.95, 2.0, 12.7062, id="two cases"),
        # t(0.975, 4) = 2.7764; s^2 = 10/4, s / sqrt 5 = sqrt 0.5
        pytest.param([1.0, 2.0, 3.0, 4.0, 5.0], 0.95, 3.0, 2.7764 * math.sqrt(0.5), id="five cases"),
        # t(0.95, 4) = 2.1318
        pytest.param([1.0, 2.0, 3.0, 4.0, 5.0], 0.90, 3.0, 2.1318 * math.sqrt(0.5), id="five cases at 90%"),
    ],
)
def test_paired_interval_is_students_t(
    differences: list[float], confidence: float, mean: float, half_width: float
) -> None:
    found = paired_interval(differences, confidence)
    assert (found.mean, found.n, found.method) == (mean, len(differences), "paired-t-hall")
    assert found.low == pytest.approx(mean - half_width, abs=2e-4)
    assert found.high == pytest.approx(mean + half_width, abs=2e-4)


def test_paired_interval_reaches_further_where_losses_are_rarer_and_larger_than_gains() -> None:
    # mean 0, s^2 = 90 / 9 = 10; sum of cubes -729 + 9 = -720, skewness 10 / 72 * -720 / 10^1.5 = -3.16228
    # t(0.975, 9) = 2.26216, q = 2.26216 / sqrt 10; 1 + k q - k^2 / 60 = 1 - 2.26216 - 0.16667 = -1.42883, its cube root
    # -1.12636, u = 3 / k * (-1.12636 - 1) = 2.01724: the lower end lies 2.01724 sqrt 10 = 6.3791 below the mean
    differences = [1.0] * 9 + [-9.0]
    found = paired_interval(differences)
    assert found.low == pytest.approx(-6.3791, abs=1e-3)
    assert found.high == pytest.approx(2.26216, abs=1e-4), "where Hall's end lies within Student's, Student's counts"
    mirrored = paired_interval([-value for value in differences])
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_default_confidence_is_95_percent() -> None:
    assert paired_interval([1.0, 2.0, 4.0]) == paired_interval([1.0, 2.0, 4.0], 0.95)


@pytest.mark.parametrize("value", [0.0, 0.1, -0.003, 1.0], ids=str)
@pytest.mark.parametrize("n", [2, 3, 47])
def test_equal_values_give_an_interval_of_no_width_at_exactly_that_value(value: float, n: int) -> None:
    assert paired_interval([value] * n) == Interval(value, value, value, n, "paired-t-hall")
    shown = bootstrap_mean([value] * n, 0.95, seed=1)
    assert shown == Interval(value, value, value, n, "bootstrap-percentile")


Measure = Callable[[Sequence[float]], Interval]
_measures = pytest.mark.parametrize(
    "measure", [paired_interval, lambda values: bootstrap_mean(values, 0.95, seed=0)], ids=["paired", "bootstrap"]
)


@_measures
@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param([], "at least two", id="none"),
        pytest.param([0.1], "at least two", id="one case"),
        pytest.param([0.1, math.nan, 0.2], "1 of 3 NaN", id="NaN"),
        pytest.param([0.1, math.inf], "1 of 2 NaN or infinite", id="infinite"),
        pytest.param([0.1, None], "NaN", id="missing"),
        pytest.param([0.1, "x"], "flat list", id="text"),
        pytest.param([[0.1, 0.2], [0.3, 0.4]], "one axis", id="two axes"),
    ],
)
def test_values_that_are_no_evidence_are_refused(measure: Measure, values: Sequence[float], message: str) -> None:
    with pytest.raises(FemurError, match=message):
        measure(values)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, -0.5, math.nan], ids=str)
def test_confidence_out_of_range_is_refused(confidence: float) -> None:
    with pytest.raises(FemurError, match="between 0 and 1"):
        paired_interval([0.1, 0.2], confidence)
    with pytest.raises(FemurError, match="between 0 and 1"):
        bootstrap_mean([0.1, 0.2], confidence, seed=0)


@pytest.mark.parametrize(("seed", "resamples"), [(-1, 100), (0, 0)], ids=["seed", "resamples"])
def test_bootstrap_arguments_out_of_range_are_refused(seed: int, resamples: int) -> None:
    with pytest.raises(FemurError, match="at least one resample"):
        bootstrap_mean([0.1, 0.2], 0.95, seed, resamples)


_finite = st.floats(-1, 1).map(lambda value: round(value, 4))


@settings(max_examples=100, deadline=None)
@given(st.lists(_finite, min_size=2, max_size=30))
def test_paired_interval_holds_its_mean_and_turns_with_the_sign(differences: list[float]) -> None:
    found = paired_interval(differences)
    assert found.low <= found.mean <= found.high
    turned = paired_interval([-difference for difference in differences])
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_higher_confidence_is_wider() -> None:
    differences = [0.01, -0.002, 0.004, 0.003]
    narrow, wide = paired_interval(differences, 0.8), paired_interval(differences, 0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_paired_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(2000):
        found = paired_interval(rng.normal(0.002, 0.01, size=20), 0.9)
        covered += found.low <= 0.002 <= found.high
    assert covered / 2000 == pytest.approx(0.9, abs=0.02)  # three standard errors


SKEWED = [0.96, 0.97, 0.95, 0.98, 0.96, 0.97, 0.55, 0.96, 0.94, 0.97]


def test_bootstrap_repeats_with_its_seed_and_not_with_another() -> None:
    assert bootstrap_mean(SKEWED, 0.95, seed=3) == bootstrap_mean(np.asarray(SKEWED), 0.95, seed=3)
    assert bootstrap_mean(SKEWED, 0.95, seed=3) != bootstrap_mean(SKEWED, 0.95, seed=4)


def test_bootstrap_of_dice_stays_within_the_values_and_leans_to_the_failed_case() -> None:
    found = bootstrap_mean(SKEWED, 0.95, seed=3)
    assert found.method == "bootstrap-bca"
    assert found.mean == pytest.approx(sum(SKEWED) / 10)
    assert min(SKEWED) <= found.low < found.mean < found.high <= max(SKEWED)
    assert found.mean - found.low > found.high - found.mean


def test_bootstrap_falls_back_to_percentile_where_bca_is_not_defined() -> None:
    # a single resample lies wholly on one side of the mean, so BCa's bias correction is infinite
    found = bootstrap_mean(SKEWED, 0.95, seed=3, resamples=1)
    assert found.method == "bootstrap-percentile"
    assert math.isfinite(found.low)
    assert math.isfinite(found.high)


def test_over_seeds_alone_it_is_welchs_interval() -> None:
    here, above = [0.91, 0.95, 0.93], [0.90, 0.89, 0.94]
    found = seeded_interval([0.02] * 24, here, above)
    welch = stats.ttest_ind(here, above, equal_var=False).confidence_interval(0.95)
    assert (found.high - found.low) == pytest.approx(welch.high - welch.low)
    assert (found.mean, found.n, found.method) == (0.02, 24, "welch-satterthwaite")


def test_over_cases_alone_it_is_students_interval() -> None:
    gains = np.random.default_rng(1).normal(0.01, 0.02, 40)
    found = seeded_interval(gains, [0.9] * 3, [0.89] * 3)
    student = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((student.low, student.high))
    assert seeded_interval([0.1] * 3, [0.9] * 3, [0.8] * 3).low == pytest.approx(0.1)


@pytest.mark.parametrize(("cases", "seed_sd", "case_sd"), [(48, 0.003, 0.01), (48, 0.005, 0.01), (11, 0.03, 0.05)])
def test_equal_ways_to_train_seldom_seem_different_where_seeds_differ(
    cases: int, seed_sd: float, case_sd: float
) -> None:
    """Over the cases alone 21 to 43 of 100 seem so; the nominal 5 here, give or take the 300 repetitions."""
    drawn = np.random.default_rng(7)
    over_cases = over_seeds = 0
    for _ in range(300):
        here, above = (
            drawn.normal(0, case_sd / 2**0.5, cases)
            + drawn.normal(0, seed_sd, (3, 1))
            + drawn.normal(0, case_sd / 2, (3, cases))
            for _ in range(2)
        )
        gains = here.mean(0) - above.mean(0)
        student = paired_interval(gains)
        seeded = seeded_interval(gains, here.mean(1), above.mean(1))
        over_cases += not student.low < 0 < student.high
        over_seeds += not seeded.low < 0 < seeded.high
    assert over_cases > 60
    assert over_seeds < 27
