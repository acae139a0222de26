"""The gate's error rates: how often it promotes a model that is no better, and how often one that is.

    python benchmarks/gate.py [--nights 10000] [--years 10000] [--seed 0]

Pairs of models are simulated case by case: a case is easy or hard for both (Dice 0.94, spread 0.03), and each model has
noise of its own, so that differences have a spread of 0.015. A night asks the gate itself, with the policy as it is
shipped. Four shapes of noise: normal; heavy tails (Student's t with 3 degrees of freedom); failures (each model loses
0.1 to 0.5 on 2 % of the cases); skewed (the challenger's losses are rarer and larger than its gains).

A year asks once a night against one test split, the challenger always as good as the champion. The rivals are the
interval's other kinds, and a level that is the same every night.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy import stats

import femur_tasks.registry
from femur_tasks.evaluation.intervals import paired_interval
from femur_tasks.registry.evidence import Cases, CaseScore, Evidence
from femur_tasks.registry.gate import judge
from femur_tasks.registry.policy import Look, Policy, policy_of

Array = np.ndarray[Any, np.dtype[np.float64]]
MEAN, SPREAD, NOISE = 0.94, 0.03, 0.015 / 2**0.5
SIZES, GAINS, SHAPES = (12, 47, 200), (0.0, 0.002, 0.005, 0.01), ("normal", "heavy tails", "failures", "skewed")
NIGHTS_A_YEAR, YEAR_CASES, RESAMPLES = 365, 47, 999
LOOKS = (1, 5, 20, 100)
SHIPPED = Path(femur_tasks.registry.__path__[0]) / "policy.yaml"


def noise(shape: str, size: tuple[int, ...], random: np.random.Generator, challenger: bool) -> Array:
    """Noise of mean 0 of one model; equal models have the same but where the shape is skewed."""
    if shape == "heavy tails":
        return random.standard_t(3, size) * NOISE / 3**0.5
    if shape == "failures":
        lost = (random.random(size) < 0.02) * random.uniform(0.1, 0.5, size)
        return random.normal(0, NOISE, size) - lost + 0.02 * 0.3
    if shape == "skewed" and challenger:
        return -(random.gamma(0.5, 1, size) - 0.5) * NOISE / 0.5**0.5
    return random.normal(0, NOISE, size)


def nights(told: tuple[str, int, float, int, int]) -> tuple[tuple[str, int, float], float, float]:
    """How often the shipped policy promotes, and how often its rule of gain alone holds."""
    shape, cases, gain, count, seed = told
    policy, random = shipped(), np.random.default_rng([seed, SHAPES.index(shape), cases, round(gain * 1e4)])
    ids = [f"{index:03d}" for index in range(cases)]
    promoted = gained = 0
    for _ in range(count):
        difficulty = random.normal(MEAN, SPREAD, cases)
        models = []
        for shift, is_challenger in ((gain, True), (0.0, False)):
            dices = np.clip(difficulty + shift + noise(shape, (cases,), random, is_challenger), 0, 1).tolist()
            scores = {case: CaseScore(dice, dice, dice, 1.0) for case, dice in zip(ids, dices, strict=True)}
            models.append(Evidence("simulated", scores, 10.0, 100.0))
        verdict = judge(policy, Cases(ids), models[0], models[1], has_champion=True)
        promoted += verdict.outcome == "promote"
        gained += any(reason.code == "gain" and reason.passed for reason in verdict.reasons)
    return (shape, cases, gain), promoted / count, gained / count


def shipped() -> Policy:
    found = policy_of(yaml.safe_load(SHIPPED.read_text()))
    if found is None:
        raise SystemExit(f"no policy in {SHIPPED}")
    return found


def lower_ends(differences: Array, level: float, corrected: bool = True) -> Array:
    """The lower ends of `paired_interval` for many nights at once; checked against it at the start."""
    n = differences.shape[1]
    mean, sd = differences.mean(1), differences.std(1, ddof=1)
    q = float(stats.t.isf(level, n - 1)) / n**0.5
    cubes = (((differences - mean[:, None]) / sd[:, None]) ** 3).sum(1)
    k = n / ((n - 1) * (n - 2)) * cubes
    hall = 3 / k * (np.cbrt(1 + k * (q - k / (6 * n))) - 1)
    return np.asarray(mean - sd * (np.maximum(q, hall) if corrected else q))


def resampled(kind: str, differences: Array, level: float, random: np.random.Generator) -> bool:
    """Whether a bootstrap's lower end lies above 0."""
    n, mean = len(differences), differences.mean()
    drawn = differences[random.integers(0, n, (RESAMPLES, n))]
    means = drawn.mean(1)
    if kind == "studentized":
        errors = np.maximum(drawn.std(1, ddof=1), 1e-12) / n**0.5
        low = mean - np.quantile((means - mean) / errors, 1 - level) * differences.std(ddof=1) / n**0.5
    elif kind == "BCa":
        left = (differences.sum() - differences) / (n - 1)
        lean = left.mean() - left
        a = (lean**3).sum() / (6 * (lean**2).sum() ** 1.5)
        z0 = stats.norm.ppf(np.clip((means < mean).mean(), 1 / RESAMPLES, 1 - 1 / RESAMPLES))
        z = z0 + stats.norm.ppf(level)
        low = np.quantile(means, stats.norm.cdf(z0 + z / (1 - a * z)))
    else:
        low = np.quantile(means, level)
    return bool(low > 0)


def kinds(shape: str, cases: int, count: int, seed: int, level: float) -> dict[str, float]:
    """How often each kind of interval lies above 0 for equal models."""
    random = np.random.default_rng([seed, 7, SHAPES.index(shape), cases])
    differences = noise(shape, (count, cases), random, True) - noise(shape, (count, cases), random, False)
    some = differences[: count // 5]
    found = {
        "ours": (lower_ends(differences, level) > 0).mean(),
        "Student's t": (lower_ends(differences, level, corrected=False) > 0).mean(),
    }
    for kind in ("studentized", "BCa", "percentile"):
        found[kind] = np.mean([resampled(kind, one, level, random) for one in some])
    return {kind: float(share) for kind, share in found.items()}


def years(count: int, seed: int, level_of: Callable[[int], float], shape: str = "normal") -> float:
    """Share of years in which a model that is no better is promoted at least once."""
    random = np.random.default_rng([seed, 99])
    champion = noise(shape, (count, YEAR_CASES), random, False)
    promoted = np.zeros(count, bool)
    for night in range(1, NIGHTS_A_YEAR + 1):
        challenger = noise(shape, (count, YEAR_CASES), random, True)
        wins = lower_ends(challenger - champion, level_of(night)) > 0
        champion[wins] = challenger[wins]
        promoted |= wins
    return float(promoted.mean())


def checked(seed: int) -> None:
    random = np.random.default_rng(seed)
    differences = noise("skewed", (50, 47), random, True)
    ours = [paired_interval(list(one), 1 - 2 * 0.0125).low for one in differences]
    if not np.allclose(lower_ends(differences, 0.0125), ours, atol=1e-9):
        raise SystemExit("the many-at-once interval is not the gate's")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--nights", type=int, default=10_000, help="of each cell")
    asked.add_argument("--years", type=int, default=10_000)
    asked.add_argument("--seed", type=int, default=0)
    options = asked.parse_args()
    checked(options.seed)
    policy, console = shipped(), Console(width=120)

    jobs = [(shape, cases, gain, options.nights, options.seed) for shape, cases, gain in product(SHAPES, SIZES, GAINS)]
    with ProcessPoolExecutor(os.cpu_count()) as pool, Progress(console=Console(stderr=True)) as progress:
        found = {cell: rates for cell, *rates in progress.track(pool.map(nights, jobs), total=len(jobs))}
    title = f"{policy.name}, first look: % of {options.nights} nights promoted (in brackets: rule of gain alone)"
    table = Table("noise", "cases", *(f"{gain:+.3f}" if gain else "equal" for gain in GAINS), title=title)
    for shape, cases in product(SHAPES, SIZES):
        rates = [found[shape, cases, gain] for gain in GAINS]
        table.add_row(shape, str(cases), *(f"{100 * whole:.2f} ({100 * alone:.2f})" for whole, alone in rates))
    console.print(table)

    title = f"equal models: % of nights in which the interval at level {policy.level} lies above 0"
    table = Table("noise", "cases", "ours", "Student's t", "studentized", "BCa", "percentile", title=title)
    for shape, cases in product(SHAPES, SIZES):
        shares = kinds(shape, cases, options.nights, options.seed, policy.level)
        table.add_row(shape, str(cases), *(f"{100 * share:.2f}" for share in shares.values()))
    console.print(table)

    random = np.random.default_rng([options.seed, 3])
    table = Table("gain", *(f"look {look}" for look in LOOKS), title=f"% promoted at {YEAR_CASES} cases, by look")
    for gain in GAINS[1:]:
        differences = gain + random.normal(0, 0.015, (options.nights, YEAR_CASES))
        shares = [float((lower_ends(differences, Look(look).spends(policy.level)) > 0).mean()) for look in LOOKS]
        table.add_row(f"{gain:+.3f}", *(f"{100 * share:.1f}" for share in shares))
    console.print(table)

    table = Table("noise", "spent over looks", "same level every night", title="% of years with a wrong promotion")
    ratios = []
    for shape in SHAPES:
        spent = years(options.years, options.seed, lambda night: Look(night).spends(policy.level), shape)
        same = years(options.years, options.seed, lambda _: policy.level, shape)
        table.add_row(shape, f"{100 * spent:.2f}", f"{100 * same:.1f}")
        ratios.append(same / max(spent, 1 / options.years))
    console.print(table)
    print(f"equal models promoted at 47 cases, normal noise: {100 * found['normal', 47, 0.0][0]:.2f} % of nights")
    print(f"ratio: {ratios[0]:.0f}")


if __name__ == "__main__":
    main()
