"""Histograms of an ingest's features: steps that the page draws by itself, a line a split.

They are all that the page draws, so the plotting library is not loaded for it: that would take a third of an ingest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 100, 40
"""Of the drawing, in its own units."""
_MOST_BINS = 20


@dataclass(frozen=True)
class Histogram:
    """One feature.

    Attributes:
        low, high: the values at the left and the right edge, as people write them.
        top_pct: what the upper edge means, per cent of a split's cases.
        lines: an SVG path by split.
    """

    title: str
    low: str
    high: str
    top_pct: str
    lines: Mapping[str, str]


def histogram(title: str, values: Mapping[str, Sequence[float]]) -> Histogram:
    """How a feature is spread. Bins are shared by the splits; heights are shares of a split, as splits differ in size.

    Args:
        values: finite values by split, one or more each.
    """
    together = np.concatenate([np.asarray(found, dtype=np.float64) for found in values.values()])
    bins = int(np.clip(math.sqrt(len(together) / len(values)), 5, _MOST_BINS))
    edges = np.histogram_bin_edges(together, bins)
    shares = {split: 100 * np.histogram(found, edges)[0] / len(found) for split, found in values.items()}
    top = max(float(found.max()) for found in shares.values())
    return Histogram(
        title,
        low=f"{edges[0]:.4g}",
        high=f"{edges[-1]:.4g}",
        top_pct=f"{top:.0f}",
        lines={split: _steps(found / top) for split, found in shares.items()},
    )


def _steps(heights: np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    """The outline of bars whose heights are 0 to 1, as an SVG path."""
    step = WIDTH / len(heights)
    bars = "".join(f"V{HEIGHT * (1 - height):.1f}H{step * (n + 1):.1f}" for n, height in enumerate(heights))
    return f"M0 {HEIGHT}{bars}V{HEIGHT}"
