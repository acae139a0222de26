"""Alignment: one fingerprint laid over another as fits best, and how alike they are there.

Pairs are compared many at a time: a step over all of them costs little more than over one. A patch is (side, side)
points, 0 where it shows nothing; a matrix is (2, 3), from (x, y, 1) about a patch's middle to the (x, y) looked up.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import fft

HOPELESS = 0.7
"""Coarse likeness, 0 to 1, below which nothing is compared in full; copies that are found have 0.80 or more.

Source: benchmarks/near_duplicates.py.
"""
_PAIRS = 16  # compared at a time: what lies between two steps stays in the processor's cache
# as it is, and with a height of 0.87 and of its inverse: a picture that lost its aspect
_SQUASHES = np.array([[[1, 0, 0], [0, scale, 0]] for scale in (1, 0.87, 1 / 0.87)])
_OVERLAP = 0.25  # share of both fingerprints that must show something
_TURN, _MOVE = 0.3, 0.22  # the furthest that one is warped onto the other: matrix elements, share of the side
Array = NDArray[Any]


def similarity(first: NDArray[np.float16], second: NDArray[np.float16]) -> float:
    """How alike two fingerprints are, as in `similarities`."""
    return float(similarities(np.stack([first, second]), [(0, 1)])[0])


def similarities(fingerprints: NDArray[np.float16], pairs: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
    """How alike the two of each pair are, 0 to 1: the correlation where both show something, whatever its sign.

    The second is mirrored, squashed and shifted as fits best, and then warped linearly onto the first by Gauss-Newton
    steps, from coarse to fine. A warp further than copies need gives 0. A pair that is too unlike after the coarse
    steps goes no further, and has the coarse correlation, which is below HOPELESS.

    Args:
        fingerprints: (n, side * side), as `dataset.fingerprint` made them; side is a multiple of 4.
        pairs: indices of two fingerprints each.

    Source: Lucas and Kanade 1981, "An iterative image registration technique", with a gain for contrast.
    """
    scores = np.zeros(len(pairs), np.float32)
    for start in range(0, len(pairs), _PAIRS):
        some = np.array(pairs[start : start + _PAIRS])
        scores[start : start + _PAIRS] = _compared(
            _patches(fingerprints[some[:, 0]]), _patches(fingerprints[some[:, 1]])
        )
    return scores


def _compared(fine: Array, other: Array) -> Array:
    reached, matrices, mirrored = _started(_halved(fine), _halved(other))
    scores = np.abs(reached)
    hopeful = scores >= HOPELESS
    if not hopeful.any():
        return scores
    fine, other, mirrored = fine[hopeful], other[hopeful], mirrored[hopeful, None, None]
    posed = np.where(mirrored, other[:, :, ::-1], other)
    signs = np.sign(reached[hopeful])[:, None, None]
    matrices = _fitted(signs * fine, posed, matrices[hopeful] * [1, 1, 2], steps=4)
    turn = np.abs(matrices[:, :, :2] - np.eye(2)).max(axis=(1, 2))
    move = np.abs(matrices[:, :, 2]).max(axis=1)
    near = (turn <= _TURN) & (move <= _MOVE * fine.shape[1])
    scores[hopeful] = near * np.abs(_correlations(fine, _warped(posed, matrices)))
    return scores


def _started(targets: Array, halves: Array) -> tuple[Array, Array, Array]:
    """Of each pair correlation and matrix of the best coarse fit, and whether it is of the mirrored half."""
    count = len(halves)
    squashed = [_warped(halves, matrix[None]) for matrix in _SQUASHES]
    seen = np.stack([*squashed, *(patches[:, :, ::-1] for patches in squashed)])
    scores, shifts = _best_shifts(targets, seen)
    pairs = np.arange(count)
    chosen = np.abs(scores).reshape(2, -1, count).argmax(axis=1)
    chosen[1] += len(_SQUASHES)
    matrices = _SQUASHES[chosen % len(_SQUASHES)].reshape(-1, 2, 3)
    matrices[:, :, 2:] = matrices[:, :, :2] @ shifts[chosen, pairs].reshape(-1, 2, 1)
    signed = (np.sign(scores[chosen, pairs])[:, :, None, None] * targets).reshape(-1, *targets.shape[1:])
    posed = np.concatenate([halves, halves[:, :, ::-1]])
    matrices = _fitted(signed, posed, matrices, steps=6)
    scores = _correlations(np.concatenate([targets, targets]), _warped(posed, matrices)).reshape(2, count)
    mirrored = np.abs(scores).argmax(axis=0)
    return scores[mirrored, pairs], matrices.reshape(2, count, 2, 3)[mirrored, pairs], mirrored == 1


def coarse(fingerprints: NDArray[np.float16]) -> NDArray[np.float32]:
    """Flat (n, a sixteenth of the fingerprint) of unit length, or 0: their products are rough likenesses."""
    return _unit(_halved(_patches(fingerprints)))


def coarse_poses(fingerprints: NDArray[np.float16]) -> list[NDArray[np.float32]]:
    """`coarse` as they are and squashed, and both mirrored; stretched ones are found from their partner."""
    halves = _halved(_patches(fingerprints))
    poses = (halves, _warped(halves, _SQUASHES[2:]))
    return [_unit(turned) for posed in poses for turned in (posed, posed[:, :, ::-1])]


def _unit(halves: Array) -> Array:
    side = halves.shape[1] // 2
    means = halves.reshape(-1, side, 2, side, 2).mean(axis=(2, 4)).reshape(len(halves), -1)
    return np.asarray(means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-6))


def _patches(fingerprints: Array) -> Array:
    side = round(fingerprints.shape[-1] ** 0.5)
    return fingerprints.reshape(-1, side, side).astype(np.float32)


def _halved(patches: Array) -> Array:
    smooth = _halving(patches.shape[1])
    return np.asarray(smooth @ patches @ smooth.T)


@cache
def _halving(side: int) -> Array:
    """(side / 2, side): smooths four times by (1, 2, 1) / 4, round the edge, and takes the mean of every two."""
    points: Array = np.eye(side, dtype=np.float32)
    for _ in range(4):
        points = (np.roll(points, 1, 0) + 2 * points + np.roll(points, -1, 0)) / 4
    return (points[::2] + points[1::2]) / 2


@cache
def _grid(side: int) -> Array:
    """(3, side * side): x and y about the middle, and 1."""
    steps = np.arange(side, dtype=np.float32) - (side - 1) / 2
    across, down = np.meshgrid(steps, steps)
    return np.stack([across.ravel(), down.ravel(), np.ones(side * side, np.float32)])


def _warped(patches: Array, matrices: Array) -> Array:
    """Patches seen through their matrices, between four points; 0 where one of these is."""
    side = patches.shape[1]
    x, y = np.moveaxis(matrices.astype(np.float32) @ _grid(side), 1, 0) + np.float32((side - 1) / 2)
    left, top = (np.clip(np.floor(at), 0, side - 2) for at in (x, y))
    right_share, low_share = x - left, y - top
    known = (right_share >= 0) & (right_share <= 1) & (low_share >= 0) & (low_share <= 1)
    at = (top * side + left).astype(np.intp) + np.arange(0, patches.size, side * side)[:, None]
    points = patches.ravel()
    corners = [points[step:].take(at) for step in (0, 1, side, side + 1)]
    for corner in corners:
        known = known & (corner != 0)
    upper = corners[0] + right_share * (corners[1] - corners[0])
    lower = corners[2] + right_share * (corners[3] - corners[2])
    return np.asarray(known * (upper + low_share * (lower - upper))).reshape(patches.shape)


def _best_shifts(targets: Array, seen: Array) -> tuple[Array, Array]:
    """By how much (x, y) each is best looked up further on, whatever its sign, and the correlation there.

    Args:
        targets: (n, side, side).
        seen: (poses, n, side, side).

    Returns:
        (poses, n) and (poses, n, 2): a quarter of the side at most.
    """
    side = targets.shape[1]
    reach = side // 4
    size = (side + reach, side + reach)  # as far as it goes no shift wraps around
    products = fft.irfft2(fft.rfft2(seen, size) * np.conj(fft.rfft2(targets, size)), size)
    products = np.roll(products, (reach, reach), (2, 3))[:, :, : 2 * reach + 1, : 2 * reach + 1]
    best = np.abs(products).reshape(*seen.shape[:2], -1).argmax(axis=2)
    down, across = np.divmod(best, 2 * reach + 1)
    room = np.pad(seen, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    windows = sliding_window_view(room, (side, side), axis=(2, 3))
    poses, pairs = np.indices(best.shape)
    return _correlations(targets, windows[poses, pairs, down, across]), np.stack([across, down], axis=2) - reach


def _correlations(first: Array, second: Array) -> Array:
    """Of (..., side, side) each, where both show something; 0 where that is too little."""
    both = (first != 0) & (second != 0)
    a, b = first * both, second * both
    product, a_square, b_square = (np.einsum("...ij,...ij->...", *two) for two in ((a, b), (a, a), (b, b)))
    enough = both.mean(axis=(-2, -1)) >= _OVERLAP
    return np.asarray(enough * product / np.sqrt(np.maximum(a_square * b_square, 1e-12)))


def _fitted(targets: Array, patches: Array, matrices: Array, steps: int) -> Array:
    """The matrices by which patches look most like their targets, some Gauss-Newton steps from the given ones."""
    count, side, _ = patches.shape
    flat = targets.reshape(count, -1)
    for _ in range(steps):
        seen = _warped(patches, matrices)
        got = seen.reshape(count, -1)
        both = (flat != 0) & (got != 0)
        by_y, by_x = np.gradient(seen, axis=(1, 2))
        slopes = np.stack([by_x.reshape(count, 1, -1), by_y.reshape(count, 1, -1)], axis=1) * both[:, None, None]
        slopes = (slopes * _grid(side)).reshape(count, 6, -1)
        wanted = flat * both
        gains = np.einsum("np,np->n", wanted, got) / np.maximum(np.einsum("np,np->n", wanted, wanted), 1e-6)
        residuals = np.maximum(gains, 0.3)[:, None] * wanted - got
        normals = slopes @ slopes.transpose(0, 2, 1) + 1e-3 * np.eye(6)
        changes = np.linalg.solve(normals, slopes @ residuals[:, :, None]).reshape(count, 2, 3)
        changes *= (both.mean(axis=1) >= _OVERLAP)[:, None, None]
        matrices = matrices + matrices[:, :, :2] @ changes
    return matrices
