"""The page of a reproduction: facts in, one self-contained HTML page out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from femur_tasks.reports import page

Span = tuple[float, float, float]


@dataclass(frozen=True)
class SearchFacts:
    """What a search tried."""

    trials: int
    epochs: int


@dataclass(frozen=True)
class Row:
    """One experiment; `val` and `test` are mean, low and high of Dice."""

    title: str
    reference: str
    seeds: int
    cases: int
    val: Span
    test: Span
    epochs: int
    seconds: float
    sentence: str
    hyperparameters: Mapping[str, Any]
    search: SearchFacts | None
    strip_png: bytes | None


@dataclass(frozen=True)
class Reproduction:
    """Everything that the page shows."""

    run_id: str
    dataset: str
    budget: str
    size: int
    folds: int
    started_at: datetime
    finished_at: datetime | None
    rows: tuple[Row, ...]


def render(told: Reproduction) -> str:
    """The table of experiments as one HTML page without scripts or links to anything outside itself."""
    best = max(told.rows, key=lambda row: row.test[0])
    return page.render(
        "reproduction.html",
        told=told,
        headline=f"Best test Dice {page.dice(best.test[0])}: {best.title}",
        name=told.run_id,
        state="reproduced",
        tone="calm",
        period=page.period(told.started_at, told.finished_at),
    )
