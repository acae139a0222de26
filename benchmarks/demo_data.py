"""Synthetic radiographs a second at 512 x 512: `femur demo-data`'s pool against one process.

Run: .venv/bin/python benchmarks/demo_data.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from femur_tasks.phantom import write_dataset

CASES, ROUNDS = 40, 3


def rate(workers: int | None) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        write_dataset(Path(folder) / "data", CASES, seed=1, size=512, workers=workers)
        return CASES / (time.perf_counter() - started)


def main() -> None:
    ways: dict[str, int | None] = {"one process": 1, "a process a core": None}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, workers in ways.items():
            rates[way].append(rate(workers))
    table = Table("way", "cases a second, median")
    medians = {way: statistics.median(found) for way, found in rates.items()}
    for way, median in medians.items():
        table.add_row(way, f"{median:.1f}")
    Console().print(table)
    print(f"ratio: {medians['a process a core'] / medians['one process']:.2f}")


if __name__ == "__main__":
    main()
