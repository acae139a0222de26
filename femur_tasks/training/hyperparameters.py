"""Hyperparameters of a fit, and the reference's best ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Hyperparameters:
    """What a fit can be told.

    Attributes:
        learning_rate: Adam's.
        beta_1, beta_2: Adam's decay of the two moments.
        dropout: share of activations dropped between the two convolutions of a block; unused by the baseline.
        initializer: Keras name of the kernel initializer.
        loss: `dice` (soft Dice over the whole batch) or `bce` (binary cross-entropy).
        batch_size: cases a step.
    """

    learning_rate: float = 3e-4
    beta_1: float = 0.8
    beta_2: float = 0.991
    dropout: float = 0.3
    initializer: str = "glorot_uniform"
    loss: str = "dice"
    batch_size: int = 16

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a row or an artefact."""
        return asdict(self)

    def with_values(self, values: Mapping[str, Any]) -> Hyperparameters:
        """These, with what `values` names replaced; names that are none of ours are passed over."""
        known = {field.name for field in fields(self)}
        return replace(self, **{name: value for name, value in values.items() if name in known})


REFERENCE_UNET = Hyperparameters()
REFERENCE_BASELINE = Hyperparameters(learning_rate=0.5e-4, beta_1=0.9, beta_2=0.999, dropout=0.0)

ARCHITECTURE_OF_FAMILY: Mapping[str, str] = {"baseline": "dense", "unet": "unet", "tuned": "unet"}
"""Which network a family trains."""
