"""What a report shows of a run: facts, gathered by the steps and drawn by the charts and the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from femur_tasks.dataset.problems import Problem
from femur_tasks.evaluation.intervals import Interval
from femur_tasks.registry.gate import Verdict

CONFIDENCE = 0.95
"""Of every interval that a report shows, but for the gate's own."""


@dataclass(frozen=True)
class Curve:
    """Training loss and validation Dice of one fit or trial configuration, one value an epoch.

    Attributes:
        group: the family, or the trial's bracket: curves of one group share a colour.
    """

    group: str
    epochs: tuple[int, ...]
    loss: tuple[float, ...]
    val_dice: tuple[float, ...]


@dataclass(frozen=True)
class RunFacts:
    """The run itself; `detail` is its outcome in words, `finished_at` is None while it runs."""

    run_id: str
    trigger: str
    model: str
    state: str
    detail: str
    seed: int
    started_at: datetime
    finished_at: datetime | None
    parameters: Mapping[str, Any]
    versions: Mapping[str, Any]


@dataclass(frozen=True)
class DatasetFacts:
    """The dataset version; `synthetic_cases` counts those made by the phantom."""

    name: str
    digest: str
    source: str
    size: int
    femur_class: str
    train_cases: int
    val_cases: int
    test_cases: int
    synthetic_cases: int
    created_at: datetime
    warnings: tuple[Problem, ...]

    @property
    def label(self) -> str:
        """NAME@DIGEST with as many digits as people read."""
        return f"{self.name}@{self.digest[:12]}"


@dataclass(frozen=True)
class Scores:
    """Test scores of one model version.

    Attributes:
        interval: of the mean Dice, by bootstrap; None with fewer than two usable cases.
        mean_hd95_pct: per cent of the picture's height; None where no case has one.
    """

    cases: int
    mean_dice: float | None
    interval: Interval | None
    worst_dice: float | None
    mean_hd95_pct: float | None


@dataclass(frozen=True)
class Candidate:
    """A model version of the run, or the champion that it met.

    Attributes:
        label: NAME:VERSION.
        role: `challenger`, `champion` or empty.
        epochs: the epoch whose weights were kept.
        test: None where it was not scored on the comparison manifest.
    """

    label: str
    role: str
    family: str
    val_dice: float
    size: int
    epochs: int
    hyperparameters: Mapping[str, Any]
    test: Scores | None


@dataclass(frozen=True)
class Comparison:
    """What the gate said, of whom, and on what.

    Attributes:
        champion: NAME:VERSION of the champion of that moment; None before the first.
        cases, excluded: test cases compared on, and those left out because a model had trained on them.
        differences: Dice of the challenger minus the champion's, by case id.
        promoted_by: who moved the champion pointer; empty where it did not move.
    """

    challenger: str
    champion: str | None
    verdict: Verdict
    policy: Mapping[str, Any]
    cases: int
    excluded: int
    differences: Mapping[str, float]
    promoted_by: str


@dataclass(frozen=True)
class TrialFacts:
    """One trial; it trained the epochs after `from_epoch` up to `to_epoch`."""

    trial_id: str
    bracket: int
    rung: int
    from_epoch: int
    to_epoch: int
    hyperparameters: Mapping[str, Any]
    score: float | None
    state: str
    failures: int
    detail: str


@dataclass(frozen=True)
class WorstCase:
    """One of the challenger's worst test cases; `overlay_png` is None where no picture could be made."""

    case_id: str
    dice: float
    hd95_pct: float | None
    overlay_png: bytes | None


@dataclass(frozen=True)
class RunReport:
    """Everything that a report shows; what a run never reached is None or empty.

    Attributes:
        trial_curves: one a configuration, over all its rungs.
        pictures_note: why the worst cases have no overlays; empty where they have.
    """

    run: RunFacts
    dataset: DatasetFacts | None = None
    comparison: Comparison | None = None
    candidates: tuple[Candidate, ...] = ()
    curves: tuple[Curve, ...] = ()
    trials: tuple[TrialFacts, ...] = ()
    trial_curves: tuple[Curve, ...] = ()
    worst_cases: tuple[WorstCase, ...] = ()
    pictures_note: str = ""
