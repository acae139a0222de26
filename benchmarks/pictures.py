"""Work on one picture at ingest, each step beside the usual way to do it.

    python benchmarks/pictures.py [--rounds 5]

A 16-bit radiograph of 8 megapixels brought to grey values 0 to 255, beside NumPy's percentiles of all pixels; the femur
of a label picture of that size, beside np.unique and np.isin; 20,000 annotated parts made one mask, beside one merge
after another (of a tenth of them: it is quadratic). Both ways must give the same. A fingerprint stands beside pHash,
which finds fewer copies (benchmarks/near_duplicates.py). Medians of the rounds; the last line is the least ratio of
the ways that give the same.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from near_duplicates import phash
from PIL import Image, ImageDraw
from pycocotools import mask as coco
from rich.console import Console
from rich.table import Table

from femur_tasks.dataset.fingerprint import fingerprint
from femur_tasks.dataset.intensity import to_grey
from femur_tasks.dataset.layouts import Shape, Shapes
from femur_tasks.dataset.masks import femur_of_labels, rasterised
from femur_tasks.phantom import make_case

Array = np.ndarray[Any, np.dtype[Any]]
HEIGHT, WIDTH, SIDE, PARTS, FEMUR = 2874, 2860, 2000, 20_000, frozenset({1, 2})


def windowed(values: Array) -> Array:
    low, high = np.percentile(values, [0.5, 99.5], method="inverted_cdf").astype(float)
    return np.rint(255 * (np.clip(values, low, high) - low) / (high - low)).astype(np.uint8)


def labels() -> Array:
    canvas = Image.new("L", (WIDTH, HEIGHT))
    for number, box in enumerate([(300, 900, 900, 2500), (1900, 900, 2500, 2500), (800, 100, 2000, 900)], 1):
        ImageDraw.Draw(canvas).ellipse(box, fill=number)
    return np.asarray(canvas)


def femur_by_unique(picture: Array) -> Array:
    return np.isin(picture, [value for value in np.unique(picture) if value in FEMUR])


def boxes(count: int) -> list[Array]:
    corners = np.random.default_rng(0).uniform(0, SIDE - 10, (count, 2))
    return [np.array([(x, y), (x + 9, y), (x + 9, y + 9), (x, y + 9)]) for x, y in corners]


def merged(outlines: list[Array]) -> Array:
    return rasterised(Shapes(tuple(Shape(1, (outline,)) for outline in outlines)), SIDE, SIDE, FEMUR)


def merged_in_turn(outlines: list[Array]) -> Array:
    union, *others = (found for outline in outlines for found in coco.frPyObjects([outline.ravel()], SIDE, SIDE))
    for one in others:
        union = coco.merge([union, one])
    return np.asarray(coco.decode(union)).astype(bool)


def median_s(step: Callable[[], Any], rounds: int) -> float:
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        step()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--rounds", type=int, default=5)
    rounds = asked.parse_args().rounds
    raw = np.random.default_rng(2).integers(0, 4096, (HEIGHT, WIDTH), dtype=np.uint16)
    picture, few = labels(), boxes(PARTS // 10)
    steps: dict[str, tuple[Callable[[], Array], Callable[[], Array]]] = {
        "16 bits to grey, 8 megapixels": (lambda: to_grey(raw)[0], lambda: windowed(raw)),
        "femur of labels, 8 megapixels": (lambda: femur_of_labels(picture, FEMUR)[0], lambda: femur_by_unique(picture)),
        f"{len(few)} parts made one mask": (lambda: merged(few), lambda: merged_in_turn(few)),
    }
    table, ratios = Table("step", "ours", "usual way", "times"), []
    for name, (ours, usual) in steps.items():
        if not np.array_equal(ours(), usual()):
            raise SystemExit(f"{name}: the two ways differ")
        took, usually = median_s(ours, rounds), median_s(usual, rounds)
        ratios.append(usually / took)
        table.add_row(name, f"{1000 * took:.0f} ms", f"{1000 * usually:.0f} ms", f"{ratios[-1]:.1f}")
    case = make_case(1, 11, 256)
    took, usually = (
        median_s(partial(way, case.image_hw, *mask), rounds)
        for way, mask in ((fingerprint, (case.labels_hw == 1,)), (phash, ()))
    )
    table.add_row("fingerprint, pHash", f"{1000 * took:.1f} ms", f"{1000 * usually:.1f} ms", f"{usually / took:.2f}")
    many = boxes(PARTS)
    table.add_row(f"{PARTS} parts made one mask", f"{1000 * median_s(lambda: merged(many), rounds):.0f} ms", "", "")
    Console().print(table)
    print(f"least ratio (usual way / ours): {min(ratios):.1f}")


if __name__ == "__main__":
    main()
