"""The strategy of a search by its name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from femur_tasks.search.listed import Listed
from femur_tasks.search.strategy import Spec, Strategy


def strategy(spec: Spec, state: dict[str, Any] | None = None) -> Strategy:
    """The strategy of a search, at its start or where its state left it."""
    if spec.strategy != "hyperband":
        return Listed(spec, state)
    from femur_tasks.search.hyperband import Hyperband

    return Hyperband(spec, state)


def load(name: str) -> None:
    """Load what a strategy needs: for Hyperband Keras Tuner, and with it TensorFlow."""
    if name == "hyperband":
        import_module("femur_tasks.search.hyperband")
