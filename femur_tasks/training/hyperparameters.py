"""Hyperparameters of a fit, and the reference's best ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

FEW_CASES = 100
"""Below this many training cases augmentation is on by default, and an epoch passes over them several times.

The reference, with 320, saw no gain from augmentation.
"""


@dataclass(frozen=True)
class Augmentation:
    """How training pictures are varied.

    Attributes:
        strength: 0 for none, 1 for what eleven cases need.
        kind: `full`, or `affine`: rotation, flip and zoom alone, each case once an epoch, as the reference tried.
    """

    strength: float = 0.0
    kind: str = "full"

    def passes(self, cases: int) -> int:
        """How often an epoch passes over the cases: few come several times, each time drawn anew."""
        return math.ceil(FEW_CASES / cases) if self.strength and self.kind == "full" else 1


@dataclass(frozen=True)
class Hyperparameters:
    """What a fit can be told; the defaults are the reference's best U-Net.

    Attributes:
        learning_rate: Adam's, or the highest one of the schedule.
        beta_1, beta_2: Adam's decay of the two moments.
        dropout: share of activations dropped between the two convolutions of a block; unused by the baseline.
        initializer: Keras name of the kernel initializer.
        loss: `dice` (soft Dice over the whole batch), `bce` (binary cross-entropy) or `dice_bce` (their sum).
        batch_size: cases a step.
        block: the U-Net's double convolution: `plain`, `residual`, or `separable` (a third of the time).
        norm: `none`, or `instance` after each convolution.
        spatial_dropout: drop whole feature maps instead of single activations.
        schedule: `constant`, or `cosine`: up over the first twentieth of the steps, then down to a hundredth.
        average: decay a step of the moving average of the weights, which is what is evaluated and kept; 0: none.
        augmentation, augmentation_kind: see `Augmentation`.
        precision: `float32` or `mixed_bfloat16`, of training alone: every score that is kept comes from float32.
    """

    learning_rate: float = 3e-4
    beta_1: float = 0.8
    beta_2: float = 0.991
    dropout: float = 0.3
    initializer: str = "glorot_uniform"
    loss: str = "dice"
    batch_size: int = 16
    block: str = "plain"
    norm: str = "none"
    spatial_dropout: bool = False
    schedule: str = "constant"
    average: float = 0.0
    augmentation: float = 0.0
    augmentation_kind: str = "full"
    precision: str = "float32"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a row or an artefact."""
        return asdict(self)

    @property
    def augmented(self) -> Augmentation:
        """How its training pictures are varied."""
        return Augmentation(self.augmentation, self.augmentation_kind)

    def with_values(self, values: Mapping[str, Any]) -> Hyperparameters:
        """These, with what `values` names replaced; names that are none of ours are passed over."""
        known = {field.name for field in fields(self)}
        return replace(self, **{name: value for name, value in values.items() if name in known})


REFERENCE_UNET = Hyperparameters()
REFERENCE_BASELINE = Hyperparameters(learning_rate=0.5e-4, beta_1=0.9, beta_2=0.999, dropout=0.0)

TUNED = Hyperparameters(
    learning_rate=2e-3,
    beta_1=0.9,
    beta_2=0.999,
    dropout=0.1,
    initializer="he_normal",
    loss="dice_bce",
    batch_size=8,
    block="separable",
    norm="instance",
    schedule="cosine",
    average=0.99,
)
"""Where the family `tuned` starts from: what its space does not vary."""

ARCHITECTURE_OF_FAMILY: Mapping[str, str] = {"baseline": "dense", "unet": "unet", "tuned": "unet"}
"""Which network a family trains."""
