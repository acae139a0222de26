"""The card of a model version: what it is, what it was shown, how well it does and where it ends, as page and JSON.

Source: Mitchell et al., Model Cards for Model Reporting, FAT* 2019.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from femur_tasks.evaluation.intervals import Interval
from femur_tasks.reports import page
from femur_tasks.reports.facts import DatasetFacts

USE = (
    "Segments the proximal femurs in anteroposterior radiographs of the pelvis: grey values in, a probability of femur "
    "for each pixel out. For measuring and research under the eyes of a person who reads radiographs."
)
NOT_FOR = "Diagnosis, other views or other bones, and radiographs unlike those it was trained on."
_FEW = 20


@dataclass(frozen=True)
class Slice:
    """One group of test cases: how many, and their mean Dice with its interval, None below two cases."""

    name: str
    cases: int
    mean_dice: float
    interval: Interval | None


@dataclass(frozen=True)
class Worst:
    """One of the worst test cases; `hd95_pct` is None where a mask is empty."""

    case_id: str
    dice: float
    hd95_pct: float | None


@dataclass(frozen=True)
class Card:
    """Everything that a card says; Dice is hard, at the full size.

    Attributes:
        settings: hyperparameters and other choices of the fit.
        hd95_p95_pct: 95th percentile of HD95, per cent of the picture's height.
        missed: test cases whose prediction or truth alone is empty; the gate's failed cases are another count.
        slices: left, right, picture sizes and sources, each with its own figures.
        train_s, search_s: what the fit and the run's search took, seconds.
        files: name to key in the store, of what belongs to the version.
        versions: packages and machine that trained it.
    """

    label: str
    family: str
    run_id: str
    created_at: str
    dataset: DatasetFacts
    settings: Mapping[str, Any]
    val_dice: float
    metric: str
    cases: int
    mean_dice: float | None
    interval: Interval | None
    worst_dice: float | None
    mean_hd95_pct: float | None
    hd95_p95_pct: float | None
    missed: int
    slices: tuple[Slice, ...]
    worst: tuple[Worst, ...]
    artefact_bytes: int
    latency_ms: float | None
    train_s: float
    search_s: float
    files: Mapping[str, str]
    versions: Mapping[str, Any]

    @property
    def limits(self) -> tuple[str, ...]:
        """What a reader must know before trusting the figures."""
        data = self.dataset
        total = data.train_cases + data.val_cases + data.test_cases
        found = [f"Not for: {NOT_FOR[0].lower()}{NOT_FOR[1:]}"]
        found.append(f"It has seen {data.train_cases} training cases of one dataset, {data.label}.")
        if data.synthetic_cases:
            found.append(f"{data.synthetic_cases} of {total} cases are synthetic: no figure here speaks of real ones.")
        if self.cases < _FEW:
            found.append(f"{self.cases} test cases are too few for an interval that means much.")
        found.append(
            "The figures are of masks without small parts away from both femurs, which `femur predict` drops too. "
            "Validation Dice, and what the ONNX file gives, are before that."
        )
        if self.missed:
            found.append(f"On {self.missed} of {self.cases} test cases it finds no femur, or one where there is none.")
        small = [part.name for part in self.slices if part.cases < _FEW]
        if small:
            found.append(f"Slices of fewer than {_FEW} cases: {', '.join(small)}.")
        return tuple(found)


def as_json(card: Card) -> bytes:
    """The card for programs; the same facts give the same bytes."""
    facts = asdict(card)
    facts["dataset"].pop("warnings")
    facts |= {"intended_use": USE, "limits": list(card.limits)}
    return json.dumps(facts, indent=1, sort_keys=True, default=str).encode()


def render(card: Card) -> bytes:
    """The card for people: one HTML page that needs nothing beside it."""
    return page.render(
        "card.html",
        card=card,
        use=USE,
        headline=f"{card.label}, {card.family}",
        name=card.label,
        state="model card",
        tone="calm",
    ).encode()
