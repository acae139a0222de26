"""Models as ONNX, for whoever serves them without Keras, checked against Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from femur_tasks.errors import DigestMismatch

Array = np.ndarray[Any, np.dtype[Any]]
_TOLERANCE = 1e-3
"""Largest difference of a probability: ONNX Runtime sums in another order. 3e-5 was measured."""


def to_onnx(model: keras.Model) -> bytes:
    """The network as an ONNX file: `image` of grey values to `probability`, both float32 (batch, size, size, 1)."""
    import onnx
    import tensorflow as tf
    import tf2onnx  # type: ignore[import-untyped]
    from onnx import numpy_helper

    size = model.input_shape[1]
    weights = {f"weight_{number:03d}": weight for number, weight in enumerate(model.trainable_variables)}

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def probability(image: Any, *given: Any) -> Any:
        return model.stateless_call(given, model.non_trainable_variables, image, training=False)[0]

    # weights go in as inputs and become constants afterwards: as constants of the graph the converter copies them
    # until a dense baseline of 537 MB takes more than 23 GB
    asked = [tf.TensorSpec((None, size, size, 1), tf.float32, name="image")]
    asked += [tf.TensorSpec(weight.shape, tf.float32, name=name) for name, weight in weights.items()]
    made, _ = tf2onnx.convert.from_function(probability, asked)
    for given in [given for given in made.graph.input if given.name in weights]:
        made.graph.input.remove(given)
        made.graph.initializer.append(numpy_helper.from_array(np.asarray(weights[given.name]), given.name))
    (output,) = made.graph.output
    for node in made.graph.node:
        node.output[:] = ["probability" if name == output.name else name for name in node.output]
    output.name = "probability"
    for value in (made.graph.input[0], output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    made.graph.name, made.graph.doc_string = model.name, "Grey values 0 to 255 in, femur probability out."
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def check(found_bhw: Array, expected_bhw: Array) -> None:
    """Refuse an ONNX file that says something else than Keras.

    So no mask pixel differs, but where Keras itself is within the tolerance of the threshold 0.5.

    Raises:
        DigestMismatch: it does.
    """
    gap = float(np.abs(found_bhw - expected_bhw).max())
    if not gap <= _TOLERANCE:
        raise DigestMismatch(f"Expected the ONNX file to predict as Keras does. Received: {gap:g} apart.")
