"""Near-duplicate radiographs: what is found of planted copies, and what is flagged among distinct pictures.

The cases of each group are the training cases, and one changed copy of each is a test case: a method should pair each
copy with its original and with nothing else. Rivals get the lowest threshold that flags no distinct pair among every
other case (calibration); all are then counted on the remaining cases. Ours runs as it is, with its fixed threshold.

Run: .venv/bin/python benchmarks/near_duplicates.py [DATA]
DATA holds real_dev11, real_multiclass1 and ood_pediatric_ddh; where there is none, only phantoms are compared.
It takes about a minute with, half of one without.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy import fft, ndimage

from femur_tasks.dataset import alignment
from femur_tasks.dataset.fingerprint import fingerprint
from femur_tasks.dataset.leakage import THRESHOLD, near_duplicates
from femur_tasks.phantom import LABELS, make_case

BESIDE = Path(__file__).parents[2] / "shared" / "data"
PHANTOMS, OWN_SEED = 40, 77
Array = np.ndarray[Any, np.dtype[Any]]
Case = tuple[Array, Array]
Change = Callable[[Array, Array, np.random.Generator], Case]


def jpeg(quality: int) -> Change:
    def change(image: Array, mask: Array, _: np.random.Generator) -> Case:
        packed = io.BytesIO()
        Image.fromarray(image).save(packed, "JPEG", quality=quality)
        return np.asarray(Image.open(packed)), mask

    return change


def cropped(share: float, every_side: bool = True) -> Change:
    def change(image: Array, mask: Array, rng: np.random.Generator) -> Case:
        sides = np.full(4, share) if every_side else np.roll([share, 0, 0, 0], rng.integers(4))
        top, low, left, right = (sides * np.repeat(image.shape, 2)).astype(int)
        kept = np.s_[top : image.shape[0] - low, left : image.shape[1] - right]
        return image[kept].copy(), mask[kept].copy()

    return change


def resampled(picture: Callable[[Image.Image, np.random.Generator], Image.Image]) -> Change:
    """Image and mask through one Pillow operation, drawn once."""

    def change(image: Array, mask: Array, rng: np.random.Generator) -> Case:
        seed = int(rng.integers(1 << 30))
        both = [
            np.asarray(picture(Image.fromarray(pixels), np.random.default_rng(seed)))
            for pixels in (image, mask.astype(np.uint8) * 255)
        ]
        return both[0], both[1] > 127

    return change


def turned(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return picture.rotate(float(rng.choice([-3, 3])), Image.Resampling.BILINEAR)


def squeezed(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    across, down = ((0.87, 1.0), (1.0, 0.87))[rng.integers(2)]
    return picture.resize((round(picture.width * across), round(picture.height * down)), Image.Resampling.BILINEAR)


def halved(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    return picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BILINEAR)


def toned(gamma: float, contrast: float, brightness: float) -> Change:
    def change(image: Array, mask: Array, _: np.random.Generator) -> Case:
        grey = ((image / 255) ** gamma - 0.5) * contrast + 0.5 + brightness
        return (grey.clip(0, 1) * 255).round().astype(np.uint8), mask

    return change


def redrawn(image: Array, mask: Array, rng: np.random.Generator) -> Case:
    """An outline that strays by 2 px at 256, and a shaft cut 12 px higher."""
    unit = mask.shape[0] / 256
    stray = ndimage.gaussian_filter(rng.normal(size=(2, *mask.shape)), (0, 10 * unit, 10 * unit))
    stray *= 2 * unit / stray.std()
    drawn = ndimage.map_coordinates(mask.astype(float), np.indices(mask.shape) + stray, order=1) > 0.5
    rows = np.flatnonzero(drawn.any(axis=1))
    if rows.size:
        drawn[rows[-1] - int(12 * unit) :] = False
    return image, drawn


def combined(image: Array, mask: Array, rng: np.random.Generator) -> Case:
    tone = toned(float(rng.uniform(0.7, 1.4)), float(rng.uniform(0.8, 1.2)), 0)
    for change in (cropped(0.1, every_side=False), resampled(turned), redrawn, tone, cropped(0.05), jpeg(50)):
        image, mask = change(image, mask, rng)
    return image, mask


CHANGES: dict[str, Change] = {
    "JPEG, quality 30": jpeg(30),
    "JPEG, quality 95": jpeg(95),
    "one side cropped by 15 %": cropped(0.15, every_side=False),
    "every side cropped by 8 %": cropped(0.08),
    "every side cropped by 15 %": cropped(0.15),
    "turned by 3 degrees": resampled(turned),
    "darker, flatter": toned(1.6, 0.8, -0.05),
    "brighter, clipped": toned(0.6, 1.3, 0.05),
    "inverted": lambda image, mask, rng: (255 - image, mask),
    "mirrored": lambda image, mask, rng: (image[:, ::-1].copy(), mask[:, ::-1].copy()),
    "mask 2 px thinner": lambda image, mask, rng: (image, ndimage.binary_erosion(mask, iterations=2)),
    "mask 2 px thicker": lambda image, mask, rng: (image, ndimage.binary_dilation(mask, iterations=2)),
    "mask moved by 2 px": lambda image, mask, rng: (image, np.roll(mask, (2, -2), (0, 1))),
    "mask drawn anew": redrawn,
    "half the size": resampled(halved),
    "aspect changed by 15 %": resampled(squeezed),
    "noise of 8 grey levels": lambda image, mask, rng: (
        (image + rng.normal(0, 8, image.shape)).clip(0, 255).astype(np.uint8),
        mask,
    ),
    "blurred by 1 px": lambda image, mask, rng: (ndimage.gaussian_filter(image, 1), mask),
    "several of these": combined,
}


def small(image: Array, width: int, height: int) -> Array:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX), float)


def unit(values: Array) -> Array:
    centred = values.ravel() - values.mean()
    return np.asarray(centred / max(float(np.linalg.norm(centred)), 1e-9))


def dhash(image: Array) -> Array:
    """64 signs; (64 - their product) / 2 is the Hamming distance."""
    return np.where(np.diff(small(image, 9, 8), axis=1).ravel() > 0, 1.0, -1.0)


def phash(image: Array) -> Array:
    low = fft.dctn(small(image, 32, 32))[:8, :8].ravel()[1:]
    return np.where(low > np.median(low), 1.0, -1.0)


def thumbnail(image: Array) -> Array:
    return unit(small(image, 32, 32))


def log_polar(image: Array) -> Array:
    """Amplitudes of the spectrum on log-polar rings: no shift changes them, after Reddy and Chatterji 1996."""
    side = 128
    window = np.outer(np.hanning(side), np.hanning(side))
    plain = small(image, side, side)
    amplitude = np.log1p(np.abs(np.fft.fftshift(np.fft.fft2((plain - plain.mean()) * window))))
    radius, angle = np.meshgrid(np.geomspace(4, 48, 24), np.linspace(0, np.pi, 48, endpoint=False))
    rings = ndimage.map_coordinates(amplitude, [64 + radius * np.sin(angle), 64 + radius * np.cos(angle)], order=1)
    return unit(rings - rings.mean(axis=0))


RIVALS = {"dHash": dhash, "pHash": phash, "thumbnail": thumbnail, "log-polar spectrum": log_polar}
OURS, USUAL = "ours", "dHash < 8"
NEVER, ALWAYS = 0.0, 2.0  # limits of the coarse likeness by which no pair and every pair is left early


def nifti_cases(folder: Path) -> list[Case]:
    cases = []
    for path in sorted(folder.rglob("imgs/*.nii.gz")):
        mask = path.parents[1] / "targets" / path.name
        image, labels = (np.asarray(nib.Nifti1Image.from_filename(file).dataobj).T for file in (path, mask))
        cases.append((np.ascontiguousarray(image), np.ascontiguousarray(labels == 1)))
    return cases


def infants(folder: Path) -> list[Case]:
    pictures = [pydicom.dcmread(path).pixel_array[..., 0] for path in sorted(folder.glob("*.dcm"))]
    once = {picture.tobytes(): picture for picture in pictures}  # the source holds one of them twice
    return [(picture, np.zeros(picture.shape, bool)) for picture in once.values()]


def groups(data: Path) -> Iterator[tuple[str, list[Case]]]:
    if (data / "real_dev11").is_dir():
        yield "real, with masks", nifti_cases(data / "real_dev11")
        yield "real infants, without masks", infants(data / "ood_pediatric_ddh")
        yield "phantoms of another maker", nifti_cases(data / "phantom" / "dataset240")[:PHANTOMS]
    made = [make_case(index, OWN_SEED, 256) for index in range(PHANTOMS)]
    yield "our phantoms", [(case.image_hw, case.labels_hw == LABELS["femur"]) for case in made]


def rival_scores(name: str, cases: list[Case], copies: list[Case]) -> Array:
    method = RIVALS[name]
    first, second = (np.stack([method(image) for image, _ in some]) for some in (cases, copies))
    return np.asarray(first @ second.T)


def our_flags(prints: Array, copied: Array) -> Array:
    count = len(prints)
    flags = np.zeros((count, count), bool)
    for pair in near_duplicates(np.concatenate([prints, copied]), ["train"] * count + ["test"] * count):
        flags[pair.first, pair.second - count] = True
    return flags


def measure(cases: list[Case]) -> tuple[dict[str, dict[str, Array]], list[str]]:
    """Flags [original, copy] of the measured half, by change and method, and how far apart our scores lie."""
    calibrating = np.arange(len(cases)) % 2 == 0
    prints = np.stack([fingerprint(*case) for case in cases])
    copies = {}
    for number, (kind, change) in enumerate(CHANGES.items()):
        rng = np.random.default_rng(number)
        copies[kind] = [change(image, mask, rng) for image, mask in cases]
    scores = {kind: {name: rival_scores(name, cases, made) for name in RIVALS} for kind, made in copies.items()}
    distinct = ~np.eye(len(cases), dtype=bool) & np.outer(calibrating, calibrating)
    limits = {name: max(by[name][distinct].max() for by in scores.values()) for name in RIVALS}
    flags, changed = {}, {}
    half = np.ix_(~calibrating, ~calibrating)
    for kind, made in copies.items():
        copied = np.stack([fingerprint(*case) for case in made])
        found = {OURS: our_flags(prints, copied), USUAL: scores[kind]["dHash"] > 64 - 2 * 8}
        found |= {name: scores[kind][name] > limits[name] for name in RIVALS}
        flags[kind] = {name: flag[half] for name, flag in found.items()}
        changed[kind] = copied
    pairs = [(index, len(cases) + index) for index in range(len(cases))]
    worst = {kind: alignment.similarities(np.concatenate([prints, copied]), pairs) for kind, copied in changed.items()}
    lines = []
    for name, which in (
        ("calibration half", calibrating),
        ("measured half", ~calibrating),
        ("all", calibrating | True),
    ):
        own = prints[which]
        best = scored(own, list(combinations(range(len(own)), 2)), NEVER).max()
        kind = min(worst, key=lambda kind: float(worst[kind][which].min()))
        lines.append(f"{name}: best distinct pair {best:.3f}, worst copy {worst[kind][which].min():.3f} ({kind})")
    return flags, [*lines, *leaving_early(np.concatenate([prints, *changed.values()]), len(cases))]


def scored(prints: Array, pairs: list[tuple[int, int]], limit: float) -> Array:
    """Likenesses with another limit for leaving early."""
    usual, alignment.HOPELESS = alignment.HOPELESS, limit
    scores = alignment.similarities(prints, pairs)
    alignment.HOPELESS = usual
    return scores


def leaving_early(prints: Array, count: int) -> list[str]:
    """What it costs and saves that pairs below `alignment.HOPELESS` are not compared in full.

    Args:
        prints: of the originals, and then of one copy of each after the other.
        count: how many are originals.
    """
    pairs = [(index % count, index) for index in range(count, len(prints))] + list(combinations(range(count), 2))
    usual, scores, pair_ms = alignment.HOPELESS, {}, {}
    for limit in (NEVER, usual, ALWAYS):
        started = time.perf_counter()
        scores[limit] = scored(prints, pairs, limit)
        pair_ms[limit] = 1e3 * (time.perf_counter() - started) / len(pairs)
    alike = scores[NEVER] >= THRESHOLD
    distinct = scores[ALWAYS][len(prints) - count :]
    lost, lowest = (scores[usual][alike] < THRESHOLD).sum(), scores[ALWAYS][alike].min()
    return [
        f"left early: {(distinct < usual).mean():.0%} of distinct pairs; of {alike.sum()} above the threshold"
        f" {lost}, their coarse likeness is {lowest:.2f} or more",
        f"{pair_ms[usual]:.2f} ms a pair, most of them copies, and {pair_ms[NEVER]:.2f} ms if none is left early",
    ]


def main() -> None:
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else BESIDE
    console, methods = Console(width=120), [OURS, USUAL, *RIVALS]
    found, planted = dict.fromkeys(methods, 0), 0
    for name, cases in groups(data):
        started = time.perf_counter()
        flags, lines = measure(cases)
        table = Table("planted change", *methods, title=f"{name}: copies found, %")
        false, distinct = dict.fromkeys(methods, 0), 0
        for kind, by_method in flags.items():
            table.add_row(kind, *(f"{100 * by_method[method].diagonal().mean():.0f}" for method in methods))
            count = len(by_method[OURS])
            planted, distinct = planted + count, distinct + count * (count - 1)
            for method in methods:
                hits = int(by_method[method].diagonal().sum())
                found[method] += hits
                false[method] += int(by_method[method].sum()) - hits
        table.add_section()
        table.add_row(f"false pairs of {distinct}", *(str(false[method]) for method in methods))
        console.print(table)
        print(*lines, f"threshold {THRESHOLD}; {time.perf_counter() - started:.0f} s", "", sep="\n")
    best = max(found[method] for method in RIVALS)
    print("copies found of", planted, {method: found[method] for method in methods})
    print("ratio: copies found by ours to those by the best rival that flags no distinct pair in calibration")
    print(f"ratio: {found[OURS] / best:.2f}")


if __name__ == "__main__":
    main()
