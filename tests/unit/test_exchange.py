"""Models as ONNX: the same masks as Keras, from a file that needs neither Keras nor Python code of ours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from femur_tasks.errors import DigestMismatch
from femur_tasks.serving.runtime import by_onnx
from femur_tasks.training import exchange, networks
from femur_tasks.training.fit import probabilities
from femur_tasks.training.hyperparameters import REFERENCE_UNET, TUNED

SIZE = 32
NETWORKS = {
    "dense": ("dense", REFERENCE_UNET),
    "unet": ("unet", REFERENCE_UNET),
    "residual": ("unet", replace(TUNED, block="residual")),
    "separable": ("unet", replace(TUNED, spatial_dropout=True)),
    "bfloat16": ("unet", replace(TUNED, precision="mixed_bfloat16")),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_file_says_what_keras_says(name: str) -> None:
    architecture, told = NETWORKS[name]
    trained = networks.compiled(architecture, SIZE, told, 7, 10)
    images_bhw = np.random.default_rng(3).integers(0, 256, (3, SIZE, SIZE), np.uint8)
    batch = np.float32(images_bhw[..., None])
    trained.train_on_batch(batch, np.float32(batch > 128))  # weights of their own, biases too
    model = networks.in_float32(trained, architecture, SIZE, told)
    data = exchange.to_onnx(model)
    found = np.stack([*map(by_onnx(data), images_bhw)])
    expected = probabilities(model, images_bhw)
    assert expected.std() > 1e-4
    np.testing.assert_allclose(found, expected, atol=1e-4)
    exchange.check(found, expected)
    made = onnx.load_from_string(data)
    (given,), (told_back,) = made.graph.input, made.graph.output
    shapes = [
        [one.dim_param or one.dim_value for one in value.type.tensor_type.shape.dim] for value in (given, told_back)
    ]
    assert (given.name, told_back.name, shapes) == ("image", "probability", [["batch", SIZE, SIZE, 1]] * 2)
    assert {one.domain for one in made.opset_import} <= {"", "ai.onnx.ml"}, "no operator that others do not know"


def masks(*values: float) -> np.ndarray:
    return np.float32(values)[None, None]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (masks(0.2, 0.90), masks(0.2, 0.9005)),
        (masks(0.5004, 0.9), masks(0.4997, 0.9)),  # Keras itself is undecided there
    ],
    ids=["close", "at the threshold"],
)
def test_rounding_is_no_difference(found: np.ndarray, expected: np.ndarray) -> None:
    exchange.check(found, expected)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (masks(0.2, 0.902), r"0.002\d* apart"),
        (masks(0.6, 0.9), r"0.4\d* apart"),
        (masks(np.nan, 0.9), "nan apart"),
    ],
    ids=["too far", "another mask", "no number"],
)
def test_file_that_says_something_else_is_refused(found: np.ndarray, message: str) -> None:
    with pytest.raises(DigestMismatch, match=message):
        exchange.check(found, masks(0.2, 0.9))
