"""Leakage: pictures and patients that are in two splits, judged on pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from femur_tasks.dataset.alignment import coarse, coarse_poses, similarities
from femur_tasks.dataset.problems import Problem

THRESHOLD = 0.86
"""Halfway between distinct pictures (real ones 0.62 at most, phantoms, which vary less than people, 0.844) and copies
(0.876 at least, where a mask is drawn). Source: benchmarks/near_duplicates.py.
"""
BLOCK = 2048  # cases a side: 16 MB of scores
_NEIGHBOURS = 4  # of a case that are compared in full
_SCREENED = 0.2  # coarse likeness below which nothing is compared in full
Array = NDArray[Any]


@dataclass(frozen=True)
class Pair:
    """Two cases by their index, the first below the second, and how alike they are, 0 to 1."""

    first: int
    second: int
    score: float


@dataclass(frozen=True)
class Seen:
    """What is known of a case; `fingerprint` is as `dataset.fingerprint` made it, None where there is none."""

    case_id: str
    patient: str
    split: str
    image_sha256: str
    fingerprint: NDArray[np.float16] | None = None


@dataclass(frozen=True)
class Leak:
    """A problem of one case with another, whose id comes before its own.

    Attributes:
        score: how alike the two pictures are, 1 where they are the same; None where only the patient is.
    """

    problem: Problem
    other_id: str
    score: float | None = None


def leaks(cases: Sequence[Seen]) -> list[Leak]:
    """Every picture that is there twice, and every patient and picture that more than one split knows.

    A pair is named once, with the later case in the order of ids. Of many equal pictures each is paired with the first
    of its split, and the first of a split with the first of all; patients alike. Linear, but for `near_duplicates`.

    Returns:
        Problems duplicate_pixels, duplicate_across_splits, near_duplicate and patient_in_two_splits.
    """
    cases = sorted(cases, key=lambda case: case.case_id)
    found: list[Leak] = []
    distinct: list[Seen] = []
    firsts: dict[tuple[str, ...], Seen] = {}
    for case in cases:
        of_split = firsts.setdefault(("picture", case.image_sha256, case.split), case)
        of_all = firsts.setdefault(("picture", case.image_sha256), case)
        if of_split is not case:
            found.append(_leak("duplicate_pixels", case, of_split, "the same pixels as", "a picture once", 1.0))
        elif of_all is not case:
            found.append(_leak("duplicate_across_splits", case, of_all, "the same pixels as", "a picture once", 1.0))
        if of_split is case and case.fingerprint is not None:
            distinct.append(case)
        patient = firsts.setdefault(("patient", case.patient), case)
        if firsts.setdefault(("patient", case.patient, case.split), case) is case is not patient:
            found.append(_leak("patient_in_two_splits", case, patient, "the patient of", "a patient in one split"))
    if distinct:
        prints = np.stack([case.fingerprint for case in distinct if case.fingerprint is not None])
        for pair in near_duplicates(prints, [case.split for case in distinct]):
            first, second = distinct[pair.first], distinct[pair.second]
            if first.image_sha256 != second.image_sha256:
                how, less = f"a likeness of {pair.score:.2f} to", f"less than {THRESHOLD} across splits"
                found.append(_leak("near_duplicate", second, first, how, less, pair.score))
    return found


def _leak(code: str, case: Seen, other: Seen, how: str, expected: str, score: float | None = None) -> Leak:
    found = f"in {case.split}, {how} {other.case_id} in {other.split}"
    return Leak(Problem(code, case.case_id, found, expected), other.case_id, score)


def near_duplicates(fingerprints: NDArray[np.float16], splits: Sequence[str], block: int = BLOCK) -> list[Pair]:
    """Pairs in different splits whose `alignment.similarity` is THRESHOLD or more, in the order of their indices.

    Coarse fingerprints are compared by matrix products, block by block, across splits only; of each case the few most
    like it are then compared in full. Time is quadratic for the first and linear for the second, memory is linear. On
    one core that is about 10 s and 45 s for 10,000 cases, so a quarter of an hour and 8 min for 100,000.

    Args:
        fingerprints: (n, side * side), as `dataset.fingerprint` made them; side is a multiple of 4.
        splits: of each case.
        block: cases a side of a matrix product.
    """
    pairs = sorted(set(_candidates(fingerprints, np.asarray(splits, dtype=str), block)))
    scores = similarities(fingerprints, pairs)
    return [Pair(*pair, float(score)) for pair, score in zip(pairs, scores, strict=True) if score >= THRESHOLD]


def _candidates(fingerprints: Array, splits: Array, block: int) -> Iterator[tuple[int, int]]:
    """Of each case the most like it in other splits by coarse fingerprint, in any pose, as ordered pairs."""
    plain = np.zeros((len(splits), fingerprints.shape[1] // 16), np.float32)
    for rows in _blocks(np.arange(len(splits)), block):
        plain[rows] = coarse(fingerprints[rows])
    for split in np.unique(splits):
        others = np.flatnonzero(splits != split)
        for rows in _blocks(np.flatnonzero(splits == split), block):
            poses = coarse_poses(fingerprints[rows])
            best, which = np.zeros((len(rows), 0), np.float32), np.zeros((len(rows), 0), np.intp)
            for columns in _blocks(others, block):
                scores = np.maximum.reduce([np.abs(posed @ plain[columns].T) for posed in poses])
                best, which = _highest(best, which, scores, columns)
            for place, rank in np.argwhere(best >= _SCREENED):
                first, second = int(rows[place]), int(which[place, rank])
                yield min(first, second), max(first, second)


def _blocks(indices: Array, block: int) -> Iterator[Array]:
    return (indices[start : start + block] for start in range(0, len(indices), block))


def _highest(best: Array, which: Array, scores: Array, columns: Array) -> tuple[Array, Array]:
    """The highest of each row of `best` and `scores` together, and which they are."""
    if len(columns) > _NEIGHBOURS:
        places = np.argpartition(scores, -_NEIGHBOURS, axis=1)[:, -_NEIGHBOURS:]
    else:
        places = np.tile(np.arange(len(columns)), (len(scores), 1))
    scores = np.concatenate([best, np.take_along_axis(scores, places, axis=1)], axis=1)
    which = np.concatenate([which, columns[places]], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :_NEIGHBOURS]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(which, order, axis=1)
