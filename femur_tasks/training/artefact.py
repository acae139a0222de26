"""The artefact of a model version: weights and the name of an allow-listed network. No code comes from the file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from femur_tasks.errors import FemurError
from femur_tasks.training.hyperparameters import Hyperparameters
from femur_tasks.training.networks import build

_SPEC = "spec"
_VARIANT = ("block", "norm")  # what makes other weights; `build` takes only names that it knows


@dataclass(frozen=True)
class Spec:
    """What is needed to build the network again."""

    architecture: str
    size: int
    hyperparameters: dict[str, Any]


def pack(model: keras.Model, spec: Spec) -> bytes:
    """Weights (without the optimizer's) and spec as one safetensors file."""
    # by name, not by path: a path counts the layers that its process has made, and would change the digest
    weights = {f"{i:04d} {weight.name}": np.asarray(weight) for i, weight in enumerate(model.weights)}
    return save({**weights, _SPEC: np.frombuffer(json.dumps(asdict(spec), sort_keys=True).encode(), np.uint8)})


def unpack(data: bytes) -> tuple[keras.Model, Spec]:
    """Build the network that the artefact names and give it its weights.

    Raises:
        FemurError: no artefact of ours, a network that is not allow-listed, or weights that don't fit it.
    """
    try:
        arrays = load(data)
        spec = Spec(**json.loads(arrays.pop(_SPEC).tobytes()))
        # fresh weights are replaced below; nothing else of the file reaches Keras, which builds objects from names
        variant = {name: spec.hyperparameters[name] for name in _VARIANT if name in spec.hyperparameters}
        model = build(spec.architecture, spec.size, Hyperparameters(initializer="zeros", **variant))
    except (SafetensorError, KeyError, TypeError, ValueError) as err:
        raise FemurError(f"Expected a model artefact. Received: {err!r}.", "Take it from the registry again.") from err
    found, expected = [arrays[name] for name in sorted(arrays)], model.weights
    if [weight.shape for weight in found] != [tuple(weight.shape) for weight in expected]:
        raise FemurError(f"Expected {len(expected)} weights of {spec.architecture}. Received: other shapes.")
    model.set_weights(found)
    return model, spec
