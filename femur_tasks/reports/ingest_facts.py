"""What the report of an ingest shows: facts, gathered by the step, and the choice of cases worth a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np

from femur_tasks.dataset.drift import DriftRow
from femur_tasks.dataset.problems import SPLITS, Problem

CARDS = 48

State = Literal["ingested", "known", "refused", "dry run"]


@dataclass(frozen=True)
class CaseCard:
    """A case to look at, small.

    Attributes:
        split: one of `SPLITS`, or empty where it has none yet.
        image_hw: uint8, its longer side 256 px or less.
        mask_hw: bool, the femur, of the image's shape.
    """

    case_id: str
    split: str
    patient: str
    image_hw: np.ndarray[Any, np.dtype[np.uint8]]
    mask_hw: np.ndarray[Any, np.dtype[np.bool_]]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Two cases that look like one picture; `score` is 1 where they are the same."""

    first: CaseCard
    second: CaseCard
    score: float


@dataclass(frozen=True)
class IngestReport:
    """Everything that the page shows; what a source never reached is None or empty.

    Attributes:
        source: where the data came from.
        digest: of the dataset version; None where there is none.
        layout: how the source is arranged; empty where that was not found out.
        classes: name by number, as the source names them.
        femur_class: what was taken for femur, in words.
        size: of the shards, px.
        counts: cases taken, by split.
        cases_found: in the source, whatever became of them.
        allowed: codes of errors that a person lifted.
        problems: of the source and of its cases.
        features: values by split and feature, one a case; a feature may be empty.
        drift_against: the version compared with; empty where there was none before.
    """

    dataset: str
    source: str
    state: State
    size: int
    started_at: datetime
    finished_at: datetime
    digest: str | None = None
    layout: str = ""
    classes: Mapping[int, str] | None = None
    femur_class: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    cases_found: int = 0
    allowed: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    features: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    drift: tuple[DriftRow, ...] = ()
    drift_against: str = ""
    cards: tuple[CaseCard, ...] = ()
    pairs: tuple[Pair, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


def choose_cards(splits: Mapping[str, str], problems: Iterable[Problem], limit: int = CARDS) -> list[str]:
    """The cases to show: those with problems, then as many of each split as there is room for.

    Errors come before warnings, and of either the first case of every code before the second of any: a common problem
    hides no rare one. The rest is spread evenly over the ids of each split.

    Args:
        splits: the split by case id, of every case that can be shown.
    """
    seen: Counter[str] = Counter()
    ranked = []
    for problem in problems:
        if problem.case_id in splits:
            ranked.append((not problem.is_error, seen[problem.code], problem.case_id))
            seen[problem.code] += 1
    # the sort is stable, and its key leaves out the id: cases of one rank stay in the order of the problems
    chosen = list(dict.fromkeys(case_id for _, _, case_id in sorted(ranked, key=lambda rank: rank[:2])))[:limit]
    rest: dict[str, list[str]] = {split: [] for split in SPLITS}
    for case_id in sorted({*splits} - {*chosen}):
        rest.setdefault(splits[case_id], []).append(case_id)
    shares = _shares({split: len(ids) for split, ids in rest.items()}, limit - len(chosen))
    for split, ids in rest.items():
        chosen += [ids[index] for index in np.linspace(0, len(ids) - 1, shares[split]).round().astype(int)]
    return chosen


def _shares(available: Mapping[str, int], room: int) -> dict[str, int]:
    """How many of each, as even as what is there allows: the smallest first, and what it leaves goes to the others."""
    shares = {}
    waiting = sorted(available, key=lambda name: available[name])
    for number, name in enumerate(waiting):
        shares[name] = min(available[name], -(-room // (len(waiting) - number)))
        room -= shares[name]
    return shares
