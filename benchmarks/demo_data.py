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

from femur_tasks.phantom import make_case, write_dataset

CASES, ROUNDS = 40, 3


def one_process() -> float:
    started = time.perf_counter()
    for index in range(CASES // 4):
        make_case(index, seed=1, size=512)
    return CASES / 4 / (time.perf_counter() - started)


def pool() -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        write_dataset(Path(folder) / "data", CASES, seed=1, size=512)
        return CASES / (time.perf_counter() - started)


def main() -> None:
    rates = {"one process, not written": [], "pool, written as NIfTI": []}
    for _ in range(ROUNDS):
        rates["one process, not written"].append(one_process())
        rates["pool, written as NIfTI"].append(pool())
    table = Table("way", "cases a second, median")
    medians = {way: statistics.median(found) for way, found in rates.items()}
    for way, median in medians.items():
        table.add_row(way, f"{median:.1f}")
    Console().print(table)
    print(f"ratio: {medians['pool, written as NIfTI'] / medians['one process, not written']:.2f}")


if __name__ == "__main__":
    main()
