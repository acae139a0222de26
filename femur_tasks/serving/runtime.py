"""Runtimes: a champion's file as a function from a picture to the femur's probability."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from femur_tasks.dataset.picture import Array
from femur_tasks.errors import FemurError

Probability = Callable[[Array], Array]
"""From (size, size) uint8 to (size, size) float32."""


def by_onnx(data: bytes) -> Probability:
    """By ONNX Runtime on the CPU with a thread a core; it loads no TensorFlow.

    Raises:
        FemurError: the bytes are no ONNX model of ours, or would have it read weights from other files: the runtime
            takes whatever a path from the working directory names, a key too. The function raises it where the model
            fails.
    """
    import onnx
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.load_model_format", "ONNX")  # what was looked at, and no other format
    try:
        tensors = _tensors(onnx.load_model_from_string(data))
        if any(map(onnx.external_data_helper.uses_external_data, tensors)):
            raise ValueError("weights in other files")
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as err:
        raise FemurError(
            f"Expected an ONNX model. Received: {err!r:.200}", "`femur predict --runtime keras` uses the weights."
        ) from err

    def probability(image_hw: Array) -> Array:
        try:
            found = session.run(["probability"], {"image": image_hw[None, :, :, None].astype(np.float32)})
            return np.asarray(found[0], np.float32).reshape(image_hw.shape)
        except Exception as err:
            told = f"{image_hw.shape[0]} x {image_hw.shape[1]} probabilities of the ONNX model"
            raise FemurError(f"Expected {told}. Received: {err!r:.200}") from err

    return probability


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor of an ONNX model: of its graph, of graphs and attributes in that, and of its functions."""
    from onnx import TensorProto

    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if isinstance(value, Sequence) else [value]:
                yield from [inner] if isinstance(inner, TensorProto) else _tensors(inner)


def by_keras(data: bytes) -> Probability:
    """By Keras from the weights, in float32.

    Raises:
        FemurError: the bytes are no artefact of ours.
    """
    from femur_tasks.training import artefact
    from femur_tasks.training.fit import probabilities

    network, _ = artefact.unpack(data)
    return lambda image_hw: probabilities(network, image_hw[None])[0]


def cores() -> int:
    """Cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
