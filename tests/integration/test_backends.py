"""What trains does not depend on TensorFlow: the same epoch on JAX, from the same weights, shards and order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from femur_tasks.settings import CHECKOUT


def one_epoch(backend: str, weights: Path) -> dict[str, Any]:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "tests.one_epoch", str(weights)],
        cwd=CHECKOUT,
        env={**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["backend"] == backend
    return found


def test_epoch_on_jax_is_the_epoch_on_tensorflow(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    expected, found = one_epoch("tensorflow", weights), one_epoch("jax", weights)
    assert found["loss"] == pytest.approx(expected["loss"], abs=1e-3)
    assert found["dice"] == pytest.approx(expected["dice"], abs=1e-3)
    assert found["means"] == pytest.approx(expected["means"], abs=1e-4)
