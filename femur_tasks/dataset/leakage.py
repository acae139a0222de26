"""Leakage: pictures and patients that are in two splits, judged on pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from femur_tasks.dataset.problems import Problem

THRESHOLD = 0.83
"""Halfway between the most alike of distinct pictures (real ones 0.59, phantoms 0.78) and the least alike copy (0.88).

Source: benchmarks/near_duplicates.py.
"""
BLOCK = 2048  # cases a side: 16 MB of scores
_NEIGHBOURS = 4  # of a case that are compared in full
_SCREENED = 0.2  # coarse likeness below which nothing is compared in full
_SQUASHED = 0.87  # a picture that lost its aspect; the other direction is found from its partner
_OVERLAP = 0.25  # share of both fingerprints that must show something
_TURN, _MOVE = 0.3, 0.22  # the furthest that one is warped onto the other: matrix elements, share of the side
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


def leaks(cases: Sequence[Seen]) -> list[Problem]:
    """Every picture that is there twice, and every patient and picture that more than one split knows.

    A pair is named once, with the later case in the order of ids. Of many equal pictures each is paired with the first
    of its split, and the first of a split with the first of all; patients alike. Linear, but for `near_duplicates`.

    Returns:
        Problems duplicate_pixels, duplicate_across_splits, near_duplicate and patient_in_two_splits.
    """
    cases = sorted(cases, key=lambda case: case.case_id)
    found: list[Problem] = []
    distinct: list[Seen] = []
    firsts: dict[tuple[str, ...], Seen] = {}
    for case in cases:
        of_split = firsts.setdefault(("picture", case.image_sha256, case.split), case)
        of_all = firsts.setdefault(("picture", case.image_sha256), case)
        if of_split is not case:
            found.append(_problem("duplicate_pixels", case, of_split, "the same pixels as", "a picture once"))
        elif of_all is not case:
            found.append(_problem("duplicate_across_splits", case, of_all, "the same pixels as", "a picture once"))
        if of_split is case and case.fingerprint is not None:
            distinct.append(case)
        patient = firsts.setdefault(("patient", case.patient), case)
        if firsts.setdefault(("patient", case.patient, case.split), case) is case is not patient:
            found.append(_problem("patient_in_two_splits", case, patient, "the patient of", "a patient in one split"))
    if distinct:
        prints = np.stack([case.fingerprint for case in distinct if case.fingerprint is not None])
        for pair in near_duplicates(prints, [case.split for case in distinct]):
            first, second = distinct[pair.first], distinct[pair.second]
            if first.image_sha256 != second.image_sha256:
                how = f"a likeness of {pair.score:.2f} to"
                found.append(_problem("near_duplicate", second, first, how, f"less than {THRESHOLD} across splits"))
    return found


def _problem(code: str, case: Seen, other: Seen, how: str, expected: str) -> Problem:
    return Problem(code, case.case_id, f"in {case.split}, {how} {other.case_id} in {other.split}", expected)


def near_duplicates(fingerprints: NDArray[np.float16], splits: Sequence[str], block: int = BLOCK) -> list[Pair]:
    """Pairs in different splits whose `similarity` is THRESHOLD or more, in the order of their indices.

    Coarse fingerprints are compared by matrix products, block by block, across splits only; of each case the few most
    like it are then compared in full. Time is quadratic for the first and linear for the second, memory is linear. On
    two cores that is about 20 s and 4 min for 10,000 cases, so half an hour and three quarters of one for 100,000.

    Args:
        fingerprints: (n, side * side), as `dataset.fingerprint` made them; side is a multiple of 4.
        splits: of each case.
        block: cases a side of a matrix product.
    """
    pairs = sorted(set(_candidates(fingerprints, np.asarray(splits, dtype=str), block)))
    scored = (Pair(first, second, similarity(fingerprints[first], fingerprints[second])) for first, second in pairs)
    return [pair for pair in scored if pair.score >= THRESHOLD]


def _candidates(fingerprints: Array, splits: Array, block: int) -> Iterator[tuple[int, int]]:
    """Of each case the most like it in other splits by coarse fingerprint, in any pose, as ordered pairs."""
    coarse = np.zeros((len(splits), fingerprints.shape[1] // 16), np.float32)
    for rows in _blocks(np.arange(len(splits)), block):
        coarse[rows] = _coarse(_halved(_patches(fingerprints[rows])))
    for split in np.unique(splits):
        others = np.flatnonzero(splits != split)
        for rows in _blocks(np.flatnonzero(splits == split), block):
            poses = [_coarse(posed) for posed in _poses(_halved(_patches(fingerprints[rows])))]
            best, which = np.zeros((len(rows), 0), np.float32), np.zeros((len(rows), 0), np.intp)
            for columns in _blocks(others, block):
                scores = np.maximum.reduce([np.abs(posed @ coarse[columns].T) for posed in poses])
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


def _patches(fingerprints: Array) -> Array:
    side = round(fingerprints.shape[-1] ** 0.5)
    return fingerprints.reshape(-1, side, side).astype(np.float32)


def _poses(halves: Array) -> Iterator[Array]:
    """As they are and squashed, and both mirrored."""
    for posed in (halves, _warped(halves, _squash(1 / _SQUASHED))):
        yield posed
        yield posed[:, :, ::-1]


def _coarse(halves: Array) -> Array:
    """Flat (n, a sixteenth of the fingerprint) float32 of unit length, or 0."""
    coarse = _means(halves).reshape(len(halves), -1)
    return np.asarray(coarse / np.maximum(np.linalg.norm(coarse, axis=1, keepdims=True), 1e-6))


def _halved(patches: Array) -> Array:
    """Smoothed, and its `_means`."""
    for _ in range(4):
        for axis in (1, 2):
            patches = (np.roll(patches, 1, axis) + 2 * patches + np.roll(patches, -1, axis)) / 4
    return _means(patches)


def _means(patches: Array) -> Array:
    """Of (2, 2) points."""
    upper, lower = patches[:, ::2], patches[:, 1::2]
    return np.asarray((upper[:, :, ::2] + upper[:, :, 1::2] + lower[:, :, ::2] + lower[:, :, 1::2]) / 4)


def similarity(first: NDArray[np.float16], second: NDArray[np.float16]) -> float:
    """How alike two fingerprints are, 0 to 1: the correlation where both show something, whatever its sign.

    The second is mirrored, squashed and shifted as fits best, and then warped linearly onto the first by Gauss-Newton
    steps, from coarse to fine. A warp further than copies need gives 0.

    Source: Lucas and Kanade 1981, "An iterative image registration technique", with a gain for contrast.
    """
    fine, other = _patches(np.stack([first, second]))
    starts = [_started(_halved(fine[None])[0], posed) for posed in (other, other[:, ::-1])]
    score, matrix, posed = max(starts, key=lambda start: abs(start[0]))
    sign = float(np.sign(score))
    matrix = _fitted(sign * fine, posed, matrix, steps=4)
    if np.abs(matrix[:, :2] - np.eye(2)).max() > _TURN or np.abs(matrix[:, 2]).max() > _MOVE * len(fine):
        return 0.0
    return abs(_correlation(fine, _warped(posed[None], matrix)[0]))


def _started(target: Array, posed: Array) -> tuple[float, Array, Array]:
    """Correlation and matrix of the best coarse fit."""
    half = _halved(posed[None])[0]
    tried = []
    for scale in (1.0, _SQUASHED, 1 / _SQUASHED):
        matrix = _squash(scale)
        matrix[:, 2] = matrix[:, :2] @ _shift(target, _warped(half[None], matrix)[0])
        tried.append((_correlation(target, _warped(half[None], matrix)[0]), matrix))
    score, matrix = max(tried, key=lambda one: abs(one[0]))
    matrix = _fitted(np.sign(score) * target, half, matrix, steps=6)
    score = _correlation(target, _warped(half[None], matrix)[0])
    matrix[:, 2] *= 2
    return score, matrix, posed


def _squash(scale: float) -> Array:
    return np.array([[1, 0, 0], [0, scale, 0]], float)


@cache
def _grid(side: int) -> tuple[Array, Array]:
    steps = np.arange(side, dtype=np.float32) - (side - 1) / 2
    across, down = np.meshgrid(steps, steps)
    return across.ravel(), down.ravel()


def _warped(patches: Array, matrix: Array) -> Array:
    """Patches (n, side, side) seen through a (2, 3) matrix from (x, y, 1) about the middle; 0 where one point is."""
    side = patches.shape[1]
    across, down = _grid(side)
    middle = (side - 1) / 2
    x, y = (row[0] * across + row[1] * down + row[2] + middle for row in matrix)
    inside = (x >= 0) & (x <= side - 1) & (y >= 0) & (y <= side - 1)
    left, top = (np.clip(np.floor(at), 0, side - 2).astype(np.intp) for at in (x, y))
    right_share, low_share = (x - left).astype(np.float32), (y - top).astype(np.float32)
    flat, at = patches.reshape(len(patches), -1), top * side + left
    corners = [flat[:, at], flat[:, at + 1], flat[:, at + side], flat[:, at + side + 1]]
    upper = corners[0] + right_share * (corners[1] - corners[0])
    lower = corners[2] + right_share * (corners[3] - corners[2])
    known = inside & np.logical_and.reduce([corner != 0 for corner in corners])
    return np.where(known, upper + low_share * (lower - upper), 0).reshape(patches.shape)


def _shift(first: Array, second: Array) -> Array:
    """By how much (x, y) the second is best looked up further on, whatever its sign; a quarter of the side at most."""
    side = len(first)
    size, reach = (2 * side, 2 * side), side // 4
    product = np.fft.rfft2(second, size) * np.conj(np.fft.rfft2(first, size))
    scores = np.roll(np.fft.irfft2(product, size), (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    down, across = np.unravel_index(np.abs(scores).argmax(), scores.shape)
    return np.array([across - reach, down - reach], float)


def _correlation(first: Array, second: Array) -> float:
    both = (first != 0) & (second != 0)
    if both.mean() < _OVERLAP:
        return 0.0
    a, b = first[both], second[both]
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def _fitted(target: Array, patch: Array, matrix: Array, steps: int) -> Array:
    """The matrix through which `patch` looks most like `target`, some Gauss-Newton steps from the given one."""
    across, down = _grid(len(patch))
    for _ in range(steps):
        seen = _warped(patch[None], matrix)[0]
        both = ((target != 0) & (seen != 0)).ravel()
        if both.mean() < _OVERLAP:
            break
        by_y, by_x = (slope.ravel()[both] for slope in np.gradient(seen))
        across_, down_ = across[both], down[both]
        slopes = np.stack([by_x * across_, by_x * down_, by_x, by_y * across_, by_y * down_, by_y])
        wanted, got = target.ravel()[both], seen.ravel()[both]
        gain = max(float(wanted @ got) / float(wanted @ wanted), 0.3)
        normal = slopes @ slopes.T + 1e-3 * np.eye(6)
        change = np.linalg.solve(normal, slopes @ (gain * wanted - got)).reshape(2, 3)
        matrix = matrix @ np.vstack([np.eye(3)[:2] + change, [0, 0, 1]])
    return matrix
