"""The morning page as the registry grows: what each tab takes on the server, on SQLite.

    python benchmarks/page.py [--scale 1] [--times 20]

At scale 1: 10,000 model versions, 1,000,000 scored cases, 3,333 dataset versions. Each tab is asked of the
application itself, without network and log-in, so many times for nights drawn at random; its 95th percentile is shown.
The rival is the page that says that something is not there: what drawing any page takes. Goal: 300 ms.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from registry import CASES, FAMILIES, FIRST, fill
from rich.console import Console
from rich.table import Table
from sqlalchemy import insert

from femur_tasks.evaluation.metrics import IMPLEMENTATION
from femur_tasks.registry.database import Registry, migrate
from femur_tasks.registry.tables import DatasetCase, Evaluation, EvaluationCase

GOAL_MS = 300
TABS = {
    "champion": "/",
    "tonight": "/tonight?run=night-{night}",
    "verdict": "/verdict?run=night-{night}",
    "history": "/history?before={version}",
    "datasets": "/datasets",
    "search": "/search?run=night-{night}",
    "API: model versions": "/api/v1/model-versions?model=femur&status=candidate&limit=50&offset={night}",
    "API: verdict": "/api/v1/runs/night-{night}/verdict",
    "API: trials": "/api/v1/runs/night-{night}/trials",
}
RIVAL = "/run?run=nowhere"


def with_test_cases(registry: Registry, nights: int) -> None:
    """The test cases of every dataset version, which the slices of a verdict are made of."""
    for night in range(nights):
        rows = [
            {
                "digest": f"data-{night}", "case_id": f"C{n}", "patient": f"P{n}", "split": "test",
                "image_sha256": f"i{n}", "mask_sha256": f"m{n}", "height_px": 1000 + n * 20, "width_px": 1000,
                "problems": [], "source": "clinic",
            }
            for n in range(CASES)
        ]  # fmt: skip
        with registry.engine.begin() as connection:
            connection.execute(insert(DatasetCase), rows)


def looked_at(nights: int, times: int) -> list[int]:
    """The nights that the pages are asked for."""
    return random.Random(5).sample(range(1, nights), times + 1)


def with_champions(registry: Registry, nights: list[int]) -> None:
    """The champion of these nights scored on their cases as well, as every verdict has it."""
    with registry.engine.begin() as connection:
        for night in nights:
            row = {
                "id": 10_000_000 + night, "model_version_id": (night - 1) * len(FAMILIES) + 3, "split": "test",
                "manifest_digest": f"cases-{night}", "dataset_digest": f"data-{night}", "metric": IMPLEMENTATION,
                "cases": CASES, "created_at": FIRST,
            }  # fmt: skip
            scored = [{"evaluation_id": row["id"], "case_id": f"C{n}", "dice": 0.8 + n / 1000} for n in range(CASES)]
            connection.execute(insert(Evaluation), [row])
            connection.execute(insert(EvaluationCase), scored)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--scale", type=float, default=1.0)
    asked.add_argument("--times", type=int, default=20)
    options = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="femur-page-") as folder:
        os.environ |= {"FEMUR_HOME": folder, "AIRFLOW_HOME": f"{folder}/airflow"}
        url = f"sqlite:///{folder}/registry.db"
        migrate(url)
        registry = Registry(url)
        versions = fill(registry, options.scale)
        nights = versions // len(FAMILIES)
        with_test_cases(registry, nights)
        with_champions(registry, looked_at(nights, options.times))
        registry.engine.dispose()
        print(
            f"{versions:,} model versions, {versions * CASES:,} scored cases, {nights:,} dataset versions", flush=True
        )
        measure(nights, options.times)


def measure(nights: int, times: int) -> None:
    """Ask every tab, and print what it took."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "plugins"))
    from fastapi.testclient import TestClient
    from femur_page import access
    from femur_page.app import app

    app.dependency_overrides |= {access.READS.dependency: lambda: None, access.may_act: lambda: True}
    client, asked = TestClient(app), looked_at(nights, times)
    table, worst = Table("page", "median ms", "p95 ms", "kB", title_justify="left"), 0.0
    taken: dict[str, float] = {}
    for name, path in {**TABS, "rival": RIVAL}.items():
        spent = []
        for turn, night in enumerate(asked):
            started = time.perf_counter()
            answer = client.get(path.format(night=night, version=3 * night + 3))
            if turn:  # the first one loads what draws
                spent.append(1000 * (time.perf_counter() - started))
            answer.raise_for_status()
            if "verdict" in name and "pictures of" not in answer.text:
                raise SystemExit("a verdict without its slices measures nothing")
        taken[name] = statistics.quantiles(spent, n=20)[-1]
        table.add_row(name, f"{statistics.median(spent):.0f}", f"{taken[name]:.0f}", f"{len(answer.content) / 1e3:.0f}")
        worst = max(worst, taken[name])
    Console(width=100).print(table)
    print(f"worst p95: {worst:.0f} ms, goal {GOAL_MS}")
    print(f"ratio: {worst / taken['rival']:.1f}")


if __name__ == "__main__":
    main()
