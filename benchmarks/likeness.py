"""What `femur predict` calls unlike the training data: real adults and infants, and pictures that are no AP pelvis.

    python benchmarks/likeness.py [--data ../shared/data] [--epochs 40] [--size 64]

Leave one out: each real adult is predicted by a model, and judged by the likeness, of the ten others. The infants,
and what is made of the adults, are predicted and judged by a model of all eleven; once more by the likeness of seven
of them, drawn fifty times. Synthetic radiographs: the likeness of n true ones, and 300 others, true masks. About 15
minutes on two cores. The last line is the share of real adults flagged.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from few_cases import cases, ours
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from femur_tasks.dataset.intensity import to_grey
from femur_tasks.dataset.likeness import Likeness, hips, learned
from femur_tasks.dataset.pictures import read_picture
from femur_tasks.dataset.resize import shrink_image, shrink_mask
from femur_tasks.phantom import make_case
from femur_tasks.training.fit import probabilities

Array = np.ndarray[Any, np.dtype[Any]]
SEED, UNSEEN, DRAWS, SOME = 7, 300, 50, 7
NO_PELVIS: dict[str, Callable[[Array], Array]] = {
    "inverted": lambda image: 255 - image,
    "turned left": lambda image: np.ascontiguousarray(np.rot90(image)),
    "turned right": lambda image: np.ascontiguousarray(np.rot90(image, 3)),
    "upside down": lambda image: np.ascontiguousarray(image[::-1]),
    "smooth noise": lambda image: noise(image, 5),
    "white noise": lambda image: noise(image, 0),
}


def noise(image: Array, sd: float) -> Array:
    drawn = np.random.default_rng(int(image.sum())).normal(size=image.shape)
    smooth = ndimage.gaussian_filter(drawn, sd) if sd else drawn
    return np.asarray(255 * (smooth - smooth.min()) / np.ptp(smooth), np.uint8)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data")
    asked.add_argument("--epochs", type=int, default=40)
    asked.add_argument("--size", type=int, default=64)
    options = asked.parse_args()
    synthetic(options.size)
    names, images, masks = cases(options.data / "real_dev11")
    small = np.stack([shrink_image(image, options.size) for image in images])
    small_masks = np.stack([shrink_mask(mask, options.size) for mask in masks])
    known = np.stack([hips(image, mask > 0) for image, mask in zip(small, small_masks, strict=True)])

    def trained(chosen: Array) -> keras.Model:
        keras.backend.clear_session()
        return ours(small[chosen], small_masks[chosen], options.epochs, 0)

    every = np.arange(len(names))
    table = Table(
        "pictures", "flagged by all", f"flagged by {SOME}, mean and least of {DRAWS}", "scores above the limit"
    )
    model = trained(every)
    infants = [to_grey(read_picture(path).pixels_hw)[0] for path in sorted(options.data.glob("ood_*/*.dcm"))]
    sets = {"infants": np.stack([shrink_image(image, options.size) for image in infants])} if infants else {}
    sets |= {what: np.stack([make(image) for image in small]) for what, make in NO_PELVIS.items()}
    random = np.random.default_rng(SEED)
    some = [learned(known[random.choice(every, SOME, replace=False)]) for _ in range(DRAWS)]
    for what, pictures in sets.items():
        found = found_by(model, pictures)
        margins = margins_of(learned(known), found)
        shares = [float(np.mean(margins_of(few, found) < 0)) for few in some]
        judged = f"{np.mean(shares):.1%}, {min(shares):.0%}"
        table.add_row(what, f"{(margins < 0).sum()} of {len(pictures)}", judged, spread(margins))
    margins_of_adults = []
    for index, name in enumerate(names):
        others = np.delete(every, index)
        found = found_by(trained(others), small[index : index + 1])
        margins_of_adults += list(margins_of(learned(known[others]), found))
        print(f"{name}: {margins_of_adults[-1]:+.3f}", flush=True)
    flagged = sum(margin < 0 for margin in margins_of_adults)
    table.add_row("real adults, left out", f"{flagged} of {len(names)}", "", spread(np.array(margins_of_adults)))
    Console().print(table)
    print(f"share of real adults flagged: {flagged / len(names):.3f}")


def synthetic(size: int) -> None:
    counts = (5, 7, 11, 20, 40, 160)
    made = [make_case(index, SEED, 256) for index in range(max(counts) + UNSEEN)]
    found = np.stack(
        [hips(shrink_image(case.image_hw, size), shrink_mask(case.labels_hw == 1, size) > 0) for case in made]
    )
    unseen = found[max(counts) :]
    table = Table("training cases", "synthetic pictures flagged, mean", "worst of 20 draws")
    for count in counts:
        shares = []
        for draw in range(20):
            chosen = np.random.default_rng(draw).permutation(max(counts))[:count]
            likeness = learned(found[chosen])
            shares.append(np.mean([likeness.is_unlike(likeness.score(one)) for one in unseen]))
        table.add_row(str(count), f"{np.mean(shares):.2%}", f"{max(shares):.2%}")
    Console().print(table)


def found_by(model: keras.Model, pictures: Array) -> list[Array | None]:
    """The hips of each picture where the model sees a femur."""
    seen = probabilities(model, pictures) > 0.5
    return [hips(image, mask) if mask.any() else None for image, mask in zip(pictures, seen, strict=True)]


def margins_of(likeness: Likeness, found: list[Array | None]) -> Array:
    """Scores less the limit; where no femur is seen the picture is refused, which counts as flagged."""
    scores = [None if one is None else likeness.score(one) for one in found]
    return np.array([-np.inf if score is None else score - float(likeness.limit or 0) for score in scores])


def spread(margins: Array) -> str:
    return f"{margins.min():+.2f} to {margins.max():+.2f}"


if __name__ == "__main__":
    main()
