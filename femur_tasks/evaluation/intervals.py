"""Confidence intervals of a mean over cases."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from femur_tasks.errors import FemurError

PAIRED_T: Final = "paired-t-hall"
BOOTSTRAP_BCA: Final = "bootstrap-bca"
BOOTSTRAP_PERCENTILE: Final = "bootstrap-percentile"
WELCH: Final = "welch-satterthwaite"

_SYMMETRIC = 1e-6

Values = Sequence[float] | NDArray[Any]


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval of a mean.

    Attributes:
        low, high: in the unit of the values; low <= mean <= high for "paired-t-hall". Equal to the mean where all
            values are the same.
        mean: the sample's mean.
        n: cases.
        method: "paired-t-hall", "bootstrap-bca", "bootstrap-percentile" or "welch-satterthwaite".
    """

    low: float
    high: float
    mean: float
    n: int
    method: str


def paired_interval(differences: Values, confidence: float = 0.95) -> Interval:
    """The interval of the mean of per-case differences, challenger minus champion.

    Student's mean +- q s / sqrt(n) with q = t(1 - (1 - confidence) / 2, n - 1) and s the sample's standard deviation
    (n - 1), widened at either end to where Hall's transformation, which corrects for skewness, sees that end:
    mean - s u(+-q) with u(q) = (3 / k) ((1 + k (q / sqrt(n) - k / (6 n)))^(1/3) - 1) and k the sample's
    skewness, n / ((n - 1) (n - 2)) times the sum of the cubed deviations in units of s.
    Chosen by simulation (`benchmarks/gate.py`): where losses are rarer and larger than gains, Student's interval alone
    errs nearly twice as often as it says. With no variance the interval is the mean itself.

    Args:
        differences: one per case, finite, in the metric's unit.
        confidence: between 0 and 1, both excluded.

    Raises:
        FemurError: fewer than two differences, one that is not finite, or a confidence out of range.

    Sources: Student, The probable error of a mean, Biometrika 6 (1908); Hall, On the removal of skewness by
    transformation, JRSS B 54 (1992).
    """
    sample = _sample(differences, confidence)
    mean, n = _mean(sample), int(sample.size)
    if sample.min() == sample.max():
        return Interval(low=mean, high=mean, mean=mean, n=n, method=PAIRED_T)
    sd = float(sample.std(ddof=1))
    q = float(stats.t.isf((1 - confidence) / 2, n - 1)) / math.sqrt(n)
    cubes = float((((sample - mean) / sd) ** 3).sum())
    skewness = n / ((n - 1) * (n - 2)) * cubes if n > 2 else 0.0
    low, high = (mean - sd * max(q, _hall(q, skewness, n)), mean - sd * min(-q, _hall(-q, skewness, n)))
    return Interval(low=low, high=high, mean=mean, n=n, method=PAIRED_T)


def _hall(q: float, skewness: float, n: int) -> float:
    """Where Hall's transformation of (mean - m) / s is q: u + k u^2 / 3 + k^2 u^3 / 27 + k / (6 n), solved for u."""
    if abs(skewness) < _SYMMETRIC:
        return q
    return float(3 / skewness * (np.cbrt(1 + skewness * (q - skewness / (6 * n))) - 1))


def bootstrap_mean(values: Values, confidence: float, seed: int, resamples: int = 2000) -> Interval:
    """The interval of the mean of one model version's metric, for showing; the gate uses `paired_interval`.

    BCa, which keeps to the range of a bounded metric and follows its skew; percentile where BCa is not defined (all
    values the same, or every resample on one side of the mean).

    Args:
        values: one per case, finite.
        confidence: between 0 and 1, both excluded.
        seed: 0 or more; the same seed and values give the same interval.
        resamples: 1 or more.

    Raises:
        FemurError: fewer than two values, one that is not finite, or an argument out of range.

    Source: Efron, Better bootstrap confidence intervals, JASA 82 (1987).
    """
    sample = _sample(values, confidence)
    if seed < 0 or resamples < 1:
        raise FemurError(
            f"Expected a seed of 0 or more and at least one resample. Received: seed {seed}, resamples {resamples}.",
            "Pass the run's seed.",
        )
    mean = _mean(sample)
    if sample.min() == sample.max():
        return Interval(low=mean, high=mean, mean=mean, n=int(sample.size), method=BOOTSTRAP_PERCENTILE)
    low, high = _resampled(sample, confidence, seed, resamples, "BCa")
    method = BOOTSTRAP_BCA
    if not (math.isfinite(low) and math.isfinite(high)):
        low, high = _resampled(sample, confidence, seed, resamples, "percentile")
        method = BOOTSTRAP_PERCENTILE
    return Interval(low=low, high=high, mean=mean, n=int(sample.size), method=method)


def seeded_interval(gains: Values, here: Values, above: Values, confidence: float = 0.95) -> Interval:
    """The interval of the mean gain of one way to train over another, each fitted with a few seeds.

    With other seeds both means would be others: the variances of three means, of the gains over the cases and of each
    side over its seeds, add up, and Student's t has Satterthwaite's degrees of freedom. With no variance the interval
    is the mean itself.

    Args:
        gains: one per case, the difference of its means over the seeds; finite, in the metric's unit.
        here, above: the mean over the cases with each seed, of the one and of the other.
        confidence: between 0 and 1, both excluded.

    Raises:
        FemurError: fewer than two values, one that is not finite, or a confidence out of range.

    Source: Welch, The generalization of Student's problem, Biometrika 34 (1947); Satterthwaite, An approximate
    distribution of estimates of variance components, Biometrics Bulletin 2 (1946).
    """
    samples = [_sample(values, confidence) for values in (gains, here, above)]
    mean, n = _mean(samples[0]), int(samples[0].size)
    parts = np.array([sample.var(ddof=1) / sample.size for sample in samples])
    variance = float(parts.sum())
    if variance == 0:
        return Interval(low=mean, high=mean, mean=mean, n=n, method=WELCH)
    freedom = variance**2 / sum(part**2 / (sample.size - 1) for part, sample in zip(parts, samples, strict=True))
    half = float(stats.t.isf((1 - confidence) / 2, freedom)) * math.sqrt(variance)
    return Interval(low=mean - half, high=mean + half, mean=mean, n=n, method=WELCH)


def _resampled(
    sample: NDArray[np.float64], confidence: float, seed: int, resamples: int, method: str
) -> tuple[float, float]:
    """Both ends of the interval; NaN where `method` is not defined on this sample."""
    with warnings.catch_warnings():
        # SciPy warns of the degenerate case, which the caller sees by its NaN.
        warnings.simplefilter("ignore")
        found = stats.bootstrap(
            (sample,),
            np.mean,
            n_resamples=resamples,
            confidence_level=confidence,
            method=method,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return float(found.low), float(found.high)


def _mean(sample: NDArray[np.float64]) -> float:
    # A rounded sum can lie outside the values: three times 0.1 has a mean of 0.10000000000000002.
    return float(min(max(sample.mean(), sample.min()), sample.max()))


def _sample(values: Values, confidence: float) -> NDArray[np.float64]:
    if not 0 < confidence < 1:
        raise FemurError(f"Expected a confidence between 0 and 1. Received: {confidence}.", "95% is written 0.95.")
    try:
        sample = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as err:
        raise FemurError("Expected a flat list of numbers. Received: other values.", "Leave out no case.") from err
    if sample.ndim != 1 or sample.size < 2:
        raise FemurError(
            f"Expected at least two values in one axis. Received: shape {sample.shape}.",
            "An interval needs two cases or more.",
        )
    bad = int(np.count_nonzero(~np.isfinite(sample)))
    if bad:
        raise FemurError(
            f"Expected finite values. Received: {bad} of {sample.size} NaN or infinite.",
            "Evaluate these cases again: a missing metric is no evidence.",
        )
    return sample
