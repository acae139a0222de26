"""What the gate looks at: the frozen cases of a comparison, and what each model version scored on them and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class CaseScore:
    """Metrics of one case at full size.

    Attributes:
        dice: hard Dice.
        dice_left, dice_right: of each femur; None where the case has none on that side.
        hd95_pct: in per cent of the picture's height; None where a mask is empty.
    """

    dice: float | None
    dice_left: float | None
    dice_right: float | None
    hd95_pct: float | None


@dataclass(frozen=True)
class Evidence:
    """Scores of one model version by case id, and what it costs.

    Attributes:
        metric: the metric implementation that made the scores.
        megabytes: of its artefact.
        latency_ms: of one picture; None where it was not measured.
    """

    metric: str
    cases: Mapping[str, CaseScore]
    megabytes: float
    latency_ms: float | None


@dataclass(frozen=True)
class Cases:
    """The frozen cases of a comparison.

    Attributes:
        compared: case ids on which both must be scored completely.
        excluded: case ids that were left out because one of the two had trained on them.
        slices: further groups of compared cases by name, in none of which the challenger may be worse.
    """

    compared: Sequence[str]
    excluded: Sequence[str] = ()
    slices: Mapping[str, Sequence[str]] = field(default_factory=dict)
