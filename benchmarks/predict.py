"""What `femur predict` takes a picture, beside plain `keras.Model.predict` on the same pictures.

    python benchmarks/predict.py [--pictures 100] [--size 256]

The reference's U-Net (913,729 parameters, untrained: the arithmetic is the same) segments synthetic radiographs of
256 x 256. Ours is the whole way of a file: reading, the network by ONNX, mask, areas, flags, overlay and both files
written. Plain Keras gets arrays: one call a picture, and one call for all of them in batches of 16. The last line is
the ratio to one call a picture; the goal is 170 ms on two cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from femur_tasks.dataset.likeness import hips, learned
from femur_tasks.dataset.pictures.nifti import encode
from femur_tasks.phantom import make_case
from femur_tasks.serving.champion import Served
from femur_tasks.serving.inputs import find_inputs
from femur_tasks.serving.predict import predict
from femur_tasks.serving.runtime import by_onnx, cores
from femur_tasks.training import exchange, networks
from femur_tasks.training.hyperparameters import REFERENCE_UNET, TUNED

SEED, GOAL_MS, LEARNED, BATCH = 5, 170, 11, 16


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--pictures", type=int, default=100)
    asked.add_argument("--size", type=int, default=256)
    options = asked.parse_args()
    cases = [make_case(index, SEED, options.size) for index in range(options.pictures)]
    images = np.stack([case.image_hw for case in cases])
    known = learned(np.stack([hips(case.image_hw, case.labels_hw == 1) for case in cases[:LEARNED]]))
    table = Table("network", "way", "median ms", "95 %", "first", "s for all")
    ratio, worst = 0.0, 0.0
    for name, hyperparameters in (("reference", REFERENCE_UNET), ("tuned", TUNED)):
        network = networks.build("unet", options.size, hyperparameters)
        started = time.perf_counter()
        data = exchange.to_onnx(network)
        Console().print(f"{name}: {network.count_params():,} parameters, ONNX in {time.perf_counter() - started:.0f} s")
        started = time.perf_counter()
        served = Served(0, name, options.size, "", by_onnx(data), known)
        loaded_ms = 1000 * (time.perf_counter() - started)
        ours_s = whole_way(served, images)
        singly_s = [took(network, image[None], 1) for image in images]
        batch_s = took(network, images, BATCH)
        for way, seconds in (("femur predict, a file", ours_s), ("keras predict, a call", singly_s)):
            middle, late = np.percentile(seconds[1:], [50, 95]) * 1000
            table.add_row(name, way, f"{middle:.0f}", f"{late:.0f}", f"{1000 * seconds[0]:.0f}", f"{sum(seconds):.1f}")
        middle = 1000 * batch_s / len(images)
        table.add_row(name, "keras predict, in batches", f"{middle:.0f}", "", "", f"{batch_s:.1f}")
        table.add_row(name, "loading the ONNX session", f"{loaded_ms:.0f}", "", "", "")
        if hyperparameters is REFERENCE_UNET:
            ratio = statistics.median(ours_s[1:]) / statistics.median(singly_s[1:])
            worst = 1000 * statistics.median(ours_s[1:])
    Console().print(table)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{cores()} cores, load {load}; {worst:.0f} ms a picture, goal {GOAL_MS} ms")
    print(f"ratio to keras.Model.predict: {ratio:.2f}")


def whole_way(served: Served, images: np.ndarray) -> list[float]:
    """Seconds of each file."""
    with tempfile.TemporaryDirectory() as folder:
        for index, image in enumerate(images):
            (Path(folder) / f"{index:03d}.nii.gz").write_bytes(encode(image, (1.0, 1.0)))
        ends = [time.perf_counter()]
        found = predict(
            served,
            find_inputs([Path(folder)], Path(folder) / "out"),
            Path(folder) / "out",
            on_picture=lambda: ends.append(time.perf_counter()),
        )
    if refused := [one.problem for one in found if one.problem]:
        print(f"{len(refused)} of {len(found)} refused: {refused[0]}")
    return [end - start for start, end in pairwise(ends)]


def took(network: keras.Model, images: np.ndarray, batch: int) -> float:
    """Seconds that plain Keras takes."""
    started = time.perf_counter()
    network.predict(images[..., None], batch_size=batch, verbose=0)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
