"""Checkpoints: the whole state of a fit as one safetensors file.

Weights, the Dropout layers' seed generators, the optimizer's moments and counters, and the early-stopping
memory: what is put back goes on as if it had never stopped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from safetensors.numpy import load, save

from femur_tasks.errors import FemurError

Array = np.ndarray[Any, np.dtype[Any]]
_MEMORY = "memory"


@dataclass
class Memory:
    """What a fit remembers beside its variables.

    Attributes:
        owner: the fit or trial that this belongs to; it also makes the bytes of two fits differ.
        epochs: epochs done.
        best_epoch: the epoch, from 1, with the best validation Dice so far; 0 before the first.
        best_dice: that Dice.
    """

    owner: str
    epochs: int = 0
    best_epoch: int = 0
    best_dice: float = -1.0


def state_of(model: keras.Model) -> dict[str, Array]:
    """Every variable of the model and of its optimizer by position and path."""
    variables = [*model.variables, *model.optimizer.variables]
    return {f"{i:04d} {variable.path}": np.asarray(variable) for i, variable in enumerate(variables)}


def put_back(model: keras.Model, state: Mapping[str, Array]) -> None:
    """Assign what `state_of` took from a model of the same network.

    Raises:
        FemurError: the state is of another network.
    """
    variables = [*model.variables, *model.optimizer.variables]
    if len(variables) != len(state):
        raise FemurError(f"Expected the state of {len(variables)} variables. Received: {len(state)}.")
    for variable, name in zip(variables, sorted(state), strict=True):
        if tuple(variable.shape) != state[name].shape:
            raise FemurError(f"Expected shape {tuple(variable.shape)} for {name}. Received: {state[name].shape}.")
        variable.assign(state[name])


def pack(model: keras.Model, memory: Memory) -> bytes:
    """The bytes of a checkpoint."""
    note = np.frombuffer(json.dumps(asdict(memory)).encode(), np.uint8)
    return save({**state_of(model), _MEMORY: note})


def unpack(data: bytes) -> tuple[dict[str, Array], Memory]:
    """Read what `pack` wrote."""
    arrays = load(data)
    memory = Memory(**json.loads(arrays.pop(_MEMORY).tobytes()))
    return arrays, memory
