"""Drift: whether the cases of a dataset version still look like those of the one before."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from scipy import stats

from femur_tasks.dataset.problems import SPLITS, Problem

ALL: Final = "all"
MIN_CASES: Final = 8
SOME_PSI: Final = 0.1
LARGE_PSI: Final = 0.25
MAX_KS_P: Final = 0.01 / 4
"""A feature is looked at four times, in all splits and in each: together they may be wrong once in a hundred."""

Features = Mapping[str, Sequence[float]]
Level = Literal["none", "some", "large"]
_Values = np.ndarray[Any, np.dtype[np.float64]]
_DECILES: Final = np.arange(1, 10) / 10


@dataclass(frozen=True)
class DriftRow:
    """How far one feature moved in one split.

    Attributes:
        split: one of `SPLITS`, or `ALL` for the three together.
        psi: population stability index, 0 or more.
        ks, ks_p: the two-sample Kolmogorov-Smirnov statistic, 0 to 1, and its p-value.
        before_cases, after_cases: those that have a finite value.
        level: by `level_of`.
        Figures and level are None where one of the versions has fewer than `MIN_CASES` values.
    """

    split: str
    feature: str
    psi: float | None
    ks: float | None
    ks_p: float | None
    before_cases: int
    after_cases: int
    level: Level | None


def drift(before: Mapping[str, Features], after: Mapping[str, Features]) -> list[DriftRow]:
    """Compare two versions, feature by feature: all splits together first, then each.

    Args:
        before, after: a value a case, by split and feature; what is not finite is left out. A feature without any
            value in either version has no row.
    """
    names = dict.fromkeys(name for version in (before, after) for split in SPLITS for name in version.get(split, {}))
    rows = []
    for name in names:
        for split in (ALL, *SPLITS):
            values = [_values(version, split, name) for version in (before, after)]
            if sum(map(len, values)):
                rows.append(_row(split, name, *values))
    return rows


def psi(before: _Values, after: _Values) -> float:
    """The population stability index: sum over bins of (a - b) ln(a / b), a and b the shares of after and before.

    Bins are the deciles of `before`. A value that several deciles share, as the height of pictures from one detector,
    is a bin of its own, so that a move away from it shows in either direction. An empty bin counts half a case, as
    a share must not be 0.

    Source: Siddiqi, Credit Risk Scorecards (2006), with the conventions 0.1 and 0.25 for its size.
    """
    deciles, times = np.unique(np.quantile(before, _DECILES, method="inverted_cdf"), return_counts=True)
    # a bin reaches up to its edge, inclusive: an edge just below a shared value sets it apart from what is smaller
    edges = np.unique(np.concatenate([deciles, np.nextafter(deciles[times > 1], -np.inf)]))
    b, a = (_shares(values, edges) for values in (before, after))
    return float(np.sum((a - b) * np.log(a / b)))


def level_of(index: float, ks_p: float) -> Level:
    """What the two figures say together.

    The index alone says little of few cases: between two draws of one normal distribution its mean was 0.71, 0.40,
    0.21 and 0.06 with 11, 47, 91 and 320 cases a side, and 99, 80, 30 and 0 % of the pairs looked large. So a level
    needs the Kolmogorov-Smirnov test's agreement as well: then 0.03, 0.2, 0.3 and 0 % did, and 0.3 % of the features
    in any row of a version with 320, 91 and 47 cases (4000 pairs each). A shift by one standard deviation was found in
    6, 86, 100 and 100 % of 500 pairs.
    """
    if ks_p >= MAX_KS_P or index < SOME_PSI:
        return "none"
    return "large" if index >= LARGE_PSI else "some"


def drift_problems(rows: Iterable[DriftRow], dataset: str) -> list[Problem]:
    """A warning for each feature that moved far, by all splits together or else by the split that moved most."""
    worst: dict[str, DriftRow] = {}
    for row in rows:
        if row.level == "large":
            worst[row.feature] = max(worst.get(row.feature, row), row, key=_prominence)
    return [
        Problem(
            "drift",
            dataset,
            f"{row.feature} of {'all splits' if row.split == ALL else row.split}: PSI {row.psi:.2f}, KS {row.ks:.2f} "
            f"(p = {row.ks_p:.2g}) between {row.before_cases} cases before and {row.after_cases} now",
            f"a PSI below {LARGE_PSI:g}",
        )
        for row in worst.values()
    ]


def _prominence(row: DriftRow) -> tuple[bool, float]:
    return row.split == ALL, row.psi or 0.0


def _values(version: Mapping[str, Features], split: str, name: str) -> _Values:
    splits = SPLITS if split == ALL else (split,)
    values = np.array([value for of in splits for value in version.get(of, {}).get(name, ())], dtype=np.float64)
    return values[np.isfinite(values)]


def _row(split: str, name: str, before: _Values, after: _Values) -> DriftRow:
    counts = len(before), len(after)
    if min(counts) < MIN_CASES:
        return DriftRow(split, name, None, None, None, *counts, None)
    index = psi(before, after)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the exact p-value can fail on ties: it is asymptotic then
        found = stats.ks_2samp(before, after)  # exact up to 10,000 cases
    ks, ks_p = float(found.statistic), float(found.pvalue)
    return DriftRow(split, name, index, ks, ks_p, *counts, level_of(index, ks_p))


def _shares(values: _Values, edges: _Values) -> _Values:
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    return np.asarray(np.maximum(counts, 0.5) / len(values), dtype=np.float64)
