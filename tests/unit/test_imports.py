"""Who may load what: each module is imported in a fresh interpreter, which then tells what it has loaded."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import femur_tasks
from femur_tasks.settings import CHECKOUT

HEAVY = frozenset({"tensorflow", "keras", "keras_tuner", "matplotlib"})
TRAINING = ("femur_tasks.training", "femur_tasks.search")
PURE = (
    "femur_tasks.messages",
    "femur_tasks.evaluation.metrics",
    "femur_tasks.evaluation.intervals",
    "femur_tasks.registry.gate",
    "femur_tasks.registry.policy",
    "femur_tasks.registry.evidence",
    "femur_tasks.dataset.splits",
    "femur_tasks.dataset.manifest",
    "femur_tasks.dataset.problems",
    "femur_tasks.dataset.classes",
    "femur_tasks.dataset.leakage",
    "femur_tasks.dataset.drift",
    "femur_tasks.dataset.acceptance",
    "femur_tasks.search.brackets",
    "femur_tasks.search.space",
    "femur_tasks.search.strategies",
    "femur_tasks.steps.deadline",
)
SCIPY = {"numpy", "scipy", "charset_normalizer"}  # the last through numpy.f2py, where it is installed
_INSTALLED = frozenset(packages_distributions())  # leaves out the standard library and what compiled modules register
MODULES = sorted(
    found.name
    for found in pkgutil.walk_packages(femur_tasks.__path__, "femur_tasks.")
    if not found.name.startswith("femur_tasks.registry.migrations.")  # these run inside Alembic only
)
_TELL = """
import importlib, json, sys
before = set(sys.modules)
for name in sys.argv[1:]:
    importlib.import_module(name)
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(loaded)))
"""


def loaded_by(*modules: str, path: Path = CHECKOUT) -> set[str]:
    """Installed packages that a fresh interpreter has loaded after importing the modules."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "ignore", "-c", _TELL, *modules], capture_output=True, text=True, cwd=path, check=False
    )
    assert done.returncode == 0, done.stderr
    return _INSTALLED & set(json.loads(done.stdout.splitlines()[-1]))


def test_every_module_is_looked_at() -> None:
    assert {*PURE, "femur_tasks.cli", "femur_tasks.steps.train", "femur_tasks.training.fit"} <= set(MODULES)


def test_library_outside_training_loads_neither_airflow_nor_what_is_heavy() -> None:
    light = [name for name in MODULES if not name.startswith(TRAINING)]
    assert not loaded_by(*light) & {"airflow", *HEAVY}


def test_training_and_search_never_load_airflow() -> None:
    loaded = loaded_by(*(name for name in MODULES if name.startswith(TRAINING)))
    assert "airflow" not in loaded
    assert {"tensorflow", "keras", "keras_tuner"} <= loaded


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_load_numpy_and_scipy_at_most(module: str) -> None:
    assert loaded_by(module) <= {"femur_tasks", *SCIPY}


def test_overlays_load_pillow_beside() -> None:
    assert loaded_by("femur_tasks.evaluation.overlays") <= {"femur_tasks", "PIL", *SCIPY}


@pytest.mark.parametrize("leak", ["airflow", "tensorflow", "matplotlib", "sqlalchemy"])
def test_check_fires_on_a_planted_leak(leak: str, tmp_path: Path) -> None:
    """A module that looks harmless and loads the package through another one."""
    (tmp_path / leak).mkdir()
    (tmp_path / leak / "__init__.py").touch()
    (tmp_path / "helper.py").write_text(f"def later():\n    import {leak}\nlater()\n")
    (tmp_path / "planted.py").write_text("import json\nimport helper\n")
    assert leak in loaded_by("planted", path=tmp_path)
    (tmp_path / "helper.py").write_text(f"def later():\n    import {leak}\n")
    assert leak not in loaded_by("planted", path=tmp_path)
