"""Training: pictures a second and time to a Dice, the reference's plain Keras script beside the family `tuned`.

    python benchmarks/train.py [--size 128] [--seeds 3] [--epochs 40] [--our-epochs 20] [--speed-at 256]
    python benchmarks/train.py --ways ours bfloat16 --seeds 8 --speed-at 0

Ours trains in float32, as it does by default, and then once more in bfloat16 where the processor computes in it: equal
Dice would allow that. That question alone, over more seeds, is the second line's.

Both train on the same synthetic cases, each run in a process of its own, one after the other. After every epoch both
are scored on the same cases by the product's hard Dice a case; that time is left out. The script has its own loss,
pipeline, optimizer and batches of 16; ours is `tuned` as it starts, without a search. Medians of the seeds.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from femur_tasks.evaluation.intervals import paired_interval
from femur_tasks.phantom import make_case
from femur_tasks.training import precision
from femur_tasks.training.hyperparameters import TUNED

Array = np.ndarray[Any, np.dtype[Any]]
TRAIN, VAL, SEED = 168, 48, 11
GOOD, NEAR, NOT_LOWER = 0.90, 0.005, 0.002
WAYS = ("script", "ours", "bfloat16")


@dataclass(frozen=True)
class Course:
    """One training: seconds since the start and mean Dice after each epoch, and what it used.

    Attributes:
        cases: Dice of every case after the best epoch.
        images_s: pictures a second, the first epoch left out.
        step_cpu_s: CPU seconds a step.
        waits_pct: share of an epoch in which the step waited for pictures; None for the script.
    """

    seconds: list[float]
    dice: list[float]
    cases: list[float]
    images_s: float
    first_epoch_s: float
    step_cpu_s: float
    peak_mb: float
    waits_pct: float | None

    def until(self, dice: float) -> float | None:
        return next((s for s, found in zip(self.seconds, self.dice, strict=True) if found >= dice), None)


def data(size: int) -> tuple[Array, Array]:
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        made = list(pool.map(_case, range(TRAIN + VAL), [size] * (TRAIN + VAL), chunksize=8))
    return np.stack([image for image, _ in made]), np.stack([mask for _, mask in made])


def _case(index: int, size: int) -> tuple[Array, Array]:
    case = make_case(index, SEED, size)
    return case.image_hw, (case.labels_hw == 1).astype(np.uint8)


def dice_of(probability_bhw: Array, masks_bhw: Array) -> list[float]:
    found = probability_bhw > 0.5
    both = (found & (masks_bhw > 0)).sum((1, 2))
    return [float(2 * b / (p + t)) for b, p, t in zip(both, found.sum((1, 2)), masks_bhw.sum((1, 2)), strict=True)]


def script(images: Array, masks: Array, seed: int, epochs: int) -> Course:
    import _reference

    seconds, dice, cases = [], [], []
    cpu = [time.process_time()]
    used = [0.0]

    def scored(model: Any, _epoch: int, taken_s: float) -> bool:
        used[0] += time.process_time() - cpu[0]
        found = dice_of(_reference.probabilities(model, images[TRAIN:]), masks[TRAIN:])
        seconds.append(taken_s)
        dice.append(float(np.mean(found)))
        cases.append(found)
        cpu[0] = time.process_time()
        return False

    _reference.train(images[:TRAIN], masks[:TRAIN], seed, scored, epochs)
    return _course(seconds, dice, cases, used[0] / (epochs * -(-TRAIN // _reference.BATCH)), None)


def ours(images: Array, masks: Array, seed: int, epochs: int) -> Course:
    return in_precision(images, masks, seed, epochs, TUNED.precision)


def bfloat16(images: Array, masks: Array, seed: int, epochs: int) -> Course:
    return in_precision(images, masks, seed, epochs, "mixed_bfloat16")


def in_precision(images: Array, masks: Array, seed: int, epochs: int, chosen: str) -> Course:
    from femur_tasks.dataset.shards import Shard
    from femur_tasks.training import networks
    from femur_tasks.training.fit import Epoch, Plan, fit, probabilities
    from femur_tasks.training.pipeline import Batches

    told = replace(TUNED, precision=chosen)
    seconds, dice, cases = [], [], []
    clock = {"val_s": 0.0, "val_cpu": 0.0}

    class Scored(Batches):
        """Validation batches whose time is left out, and whose masks score every case."""

        def in_order(self) -> Iterator[Any]:
            started, cpu = time.perf_counter(), time.process_time()
            yield from super().in_order()
            clock["val_s"] += time.perf_counter() - started
            clock["val_cpu"] += time.process_time() - cpu

    class Journal:
        def kept(self) -> tuple[None, None]:
            return None, None

        def record(self, epoch: Epoch) -> None:
            seconds.append(time.perf_counter() - begun - clock["val_s"])
            dice.append(epoch.val_dice)

        def keep(self, latest: bytes, best: bytes | None) -> None: ...

    def batches(kind: type[Batches], part: slice) -> Batches:
        names = tuple(str(n) for n in range(len(images[part])))
        shard = Shard(names, images[part], masks[part], ())
        return kind(["cases"], lambda _: shard, len(names), images.shape[1], told.batch_size)

    train, val = batches(Batches, slice(TRAIN)), batches(Scored, slice(TRAIN, None))
    model = networks.compiled("unet", images.shape[1], told, seed, epochs * train.steps())
    begun, cpu = time.perf_counter(), time.process_time()
    fit(model, train, val, Plan("ours", epochs, None, seed), Journal())
    used = time.process_time() - cpu - clock["val_cpu"]
    final = networks.in_float32(model, "unet", images.shape[1], told)
    cases.append(dice_of(probabilities(final, images[TRAIN:]), masks[TRAIN:]))
    return _course(seconds, dice, cases, used / (epochs * train.steps()), waiting(model, train))


def waiting(model: Any, train: Any) -> float:
    """Share of an epoch, in per cent, in which a step waits for its pictures: the loop that `fit` runs, timed."""
    waited, steps, iterator = 0.0, 0, None
    started = time.perf_counter()
    iterator = iter(train.epoch(0, 0))
    while True:
        asked = time.perf_counter()
        batch = next(iterator, None)
        waited += time.perf_counter() - asked
        if batch is None:
            return 100 * waited / (time.perf_counter() - started)
        model.train_on_batch(*batch)
        steps += 1


def _course(
    seconds: list[float], dice: list[float], cases: list[list[float]], step_cpu_s: float, waits_pct: float | None
) -> Course:
    best = cases[int(np.argmax(dice))] if len(cases) > 1 else cases[0]
    steady = (len(seconds) - 1) * TRAIN / (seconds[-1] - seconds[0]) if len(seconds) > 1 else 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Course(seconds, dice, best, steady, seconds[0], step_cpu_s, peak, waits_pct)


def run(way: str, images: Array, masks: Array, seed: int, epochs: int) -> Course:
    """In a process of its own: memory and TensorFlow's threads are its alone."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(
            {"script": script, "ours": ours, "bfloat16": bfloat16}[way], images, masks, seed, epochs
        ).result()
    curve = " ".join(f"{second:.0f}:{dice:.3f}" for second, dice in zip(found.seconds, found.dice, strict=True))
    print(f"{way} seed {seed} at {images.shape[1]}, best {max(found.dice):.4f}, Dice by second: {curve}", flush=True)
    return found


def in_turn(plans: dict[str, int], size: int, seeds: int) -> dict[str, list[Course]]:
    """Each way's trainings, one a seed, for so many epochs as planned; the ways take turns."""
    images, masks = data(size)
    courses: dict[str, list[Course]] = {way: [] for way in plans}
    for seed in range(seeds):
        for way, epochs in plans.items():
            courses[way].append(run(way, images, masks, seed, epochs))
    return courses


def speed(found: list[Course]) -> list[str]:
    return [f"{median([getattr(course, name) for course in found]):.{digits}f}" for name, digits in _SHOWN]


def compare(way: str, other: str, courses: dict[str, list[Course]]) -> None:
    """Print the difference in Dice of the same cases, each the mean of its seeds."""
    per_case = [np.mean([course.cases for course in courses[name]], 0) for name in (way, other)]
    interval = paired_interval([float(value) for value in per_case[0] - per_case[1]])
    span = f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
    shown = "yes" if interval.low > -NOT_LOWER else "not shown"
    print(f"Dice, {way} minus {other}, over {VAL} cases: {span}; not lower by more than {NOT_LOWER}: {shown}")


def median(values: list[float | None]) -> float:
    return statistics.median(float("inf") if value is None else value for value in values)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--size", type=int, default=128)
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--epochs", type=int, default=40, help="the script's")
    asked.add_argument("--our-epochs", type=int, default=20)
    asked.add_argument("--speed-at", type=int, default=256, help="another size, for pictures a second alone")
    asked.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="which of them train")
    options = asked.parse_args()
    plans = {way: options.epochs if way == "script" else options.our_epochs for way in options.ways}
    if precision.chosen() == "float32":
        plans.pop("bfloat16", None)
    courses = in_turn(plans, options.size, options.seeds)
    larger = in_turn(dict.fromkeys(plans, 2), options.speed_at, options.seeds) if options.speed_at else {}

    columns = ("", "images/s", "first epoch s", "CPU s a step", "peak MB", "s to 0.90", "s to near best", "best Dice")
    table = Table(*columns, "waits for data")
    near: dict[str, list[float | None]] = {}
    for way, found in courses.items():
        rivals = courses.get("script", found)
        near[way] = [mine.until(max(its.dice) - NEAR) for mine, its in zip(found, rivals, strict=True)]
        waits = "" if found[0].waits_pct is None else f"{median([c.waits_pct for c in found]):.1f} %"
        reached = [f"{median([c.until(GOOD) for c in found]):.0f}", f"{median(near[way]):.0f}"]
        best = f"{statistics.median(max(c.dice) for c in found):.4f}"
        table.add_row(f"{way}, {options.size}", *speed(found), *reached, best, waits)
    for way, found in larger.items():
        table.add_row(f"{way}, {options.speed_at}", *speed(found))
    Console(width=140).print(table)
    for way, other in (("ours", "script"), ("bfloat16", "ours")):
        if {way, other} <= courses.keys():
            compare(way, other, courses)
    if not {"ours", "script"} <= courses.keys():
        return
    for size, of in ((options.size, courses), (options.speed_at, larger)):
        if of:
            ours_s, script_s = (median([course.images_s for course in of[way]]) for way in ("ours", "script"))
            print(f"images a second at {size}: {ours_s / script_s:.2f} times")
    print(f"time to 0.90: {_times(courses, [[c.until(GOOD) for c in courses[w]] for w in ('script', 'ours')])}")
    print(f"time-to-dice ratio: {median(near['script']) / median(near['ours']):.1f}")


_SHOWN = (("images_s", 1), ("first_epoch_s", 1), ("step_cpu_s", 2), ("peak_mb", 0))


def _times(courses: dict[str, list[Course]], reached: list[list[float | None]]) -> str:
    return f"{median(reached[0]) / median(reached[1]):.1f} times sooner, {len(courses['ours'])} seeds"


if __name__ == "__main__":
    main()
