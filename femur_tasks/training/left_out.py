"""Loaded before TensorFlow where nothing but training is done: leaves out what only drawing and converting would need.

Keras loads Matplotlib, and TensorFlow JAX where that is installed: 1 of 3.7 s, in every process that trains.
"""

import os
import sys

sys.modules["matplotlib"] = None  # type: ignore[assignment]  # as if it were not installed
if os.environ.get("KERAS_BACKEND") != "jax":
    sys.modules["jax"] = None  # type: ignore[assignment]
