"""A new clinic's first cases: five folds over eleven real radiographs, the reference's script beside ours.

    python benchmarks/few_cases.py [--data ../shared/data/real_dev11] [--epochs 80] [--size 128] [--overlays FOLDER]

Every case is scored once, by the model of the fold that held it out: our hard per-case Dice of the mask enlarged to
the original's size, as it is and without parts away from both femurs, as the product delivers it. Both train on the
same cases. The reference's script has its own 150 epochs; ours is the family
`tuned` at its defaults for few cases, and keeps the epoch that is best on the cases it trains on, since no case is to
spare. Fifteen minutes a fold on two cores is what it may take.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import _reference
import keras
import nibabel as nib
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from femur_tasks.dataset.resize import enlarge_probability, shrink_image, shrink_mask
from femur_tasks.dataset.shards import Shard
from femur_tasks.evaluation.metrics import mask_metrics
from femur_tasks.evaluation.strays import THRESHOLD, without_strays
from femur_tasks.phantom import make_case
from femur_tasks.training import networks
from femur_tasks.training.fit import Epoch, Plan, fit, probabilities
from femur_tasks.training.hyperparameters import TUNED
from femur_tasks.training.pipeline import Batches

Array = np.ndarray[Any, np.dtype[Any]]
FOLDS = 5
COLUMNS = ("reference, as it is", "reference", "ours, as it is", "ours")
PHANTOMS, PHANTOM_SEED = 11, 5


class NoJournal:
    """Keeps the best checkpoint in memory."""

    def kept(self) -> tuple[None, None]:
        return None, None

    def record(self, epoch: Epoch) -> None: ...

    def keep(self, latest: bytes, best: bytes | None) -> None: ...


def cases(folder: Path) -> tuple[list[str], list[Array], list[Array]]:
    if not folder.exists():
        print(f"no radiographs in {folder}: {PHANTOMS} synthetic ones instead, which say nothing about real ones")
        made = [make_case(index, PHANTOM_SEED, 256) for index in range(PHANTOMS)]
        return [f"phantom {n}" for n in range(PHANTOMS)], [c.image_hw for c in made], [c.labels_hw == 1 for c in made]
    paths = sorted(folder.rglob("imgs/*.nii.gz"))
    images = [np.asarray(nib.load(path).dataobj).T.astype(np.uint8) for path in paths]
    masks = [np.asarray(nib.load(path.parent.parent / "targets" / path.name).dataobj).T == 1 for path in paths]
    return [path.name.removesuffix(".nii.gz") for path in paths], images, masks


def ours(images: Array, masks: Array, epochs: int, seed: int) -> keras.Model:
    names = tuple(str(n) for n in range(len(images)))
    told = replace(TUNED, augmentation=1.0)
    batches = Batches(
        ["train"], lambda _: Shard(names, images, masks, ()), len(images), images.shape[1], told.batch_size
    )
    steps = epochs * batches.steps(told.augmented)
    model = networks.compiled("unet", images.shape[1], told, seed, steps)
    fit(model, batches, batches, Plan("fold", epochs, None, seed, augmentation=told.augmented), NoJournal())
    return model


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data/real_dev11")
    asked.add_argument("--epochs", type=int, default=80)
    asked.add_argument("--size", type=int, default=128)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--overlays", type=Path, help="where to draw every case: truth green, ours red, the script blue")
    options = asked.parse_args()
    names, images, masks = cases(options.data)
    small = np.stack([shrink_image(image, options.size) for image in images])
    small_masks = np.stack([shrink_mask(mask, options.size) for mask in masks])
    found: dict[str, dict[str, float]] = {column: {} for column in COLUMNS}
    drawn: dict[str, dict[str, Array]] = {column: {} for column in COLUMNS}
    seconds: dict[str, list[float]] = {"reference": [], "ours": []}
    order = np.random.default_rng(options.seed).permutation(len(names))
    for fold, held in enumerate(np.array_split(order, FOLDS)):
        train = np.setdiff1d(order, held)
        for way in ("ours", "reference"):
            keras.backend.clear_session()
            started = time.perf_counter()
            if way == "ours":
                model = ours(small[train], small_masks[train], options.epochs, options.seed + fold)
                predicted = probabilities(model, small[held])
            else:
                model = _reference.train(small[train], small_masks[train], options.seed + fold, lambda *_: False)
                predicted = _reference.probabilities(model, small[held])
            seconds[way].append(time.perf_counter() - started)
            for index, probability in zip(held, predicted, strict=True):
                for column, kept in ((way, without_strays(probability)), (f"{way}, as it is", probability)):
                    mask = enlarge_probability(kept, *masks[index].shape) > THRESHOLD
                    found[column][names[index]] = mask_metrics(masks[index], mask, None).dice
                    drawn[column][names[index]] = mask
            scores = ", ".join(
                f"{names[index]} {found[f'{way}, as it is'][names[index]]:.4f} -> {found[way][names[index]]:.4f}"
                for index in held
            )
            print(f"fold {fold + 1} {way}: {seconds[way][-1]:.0f} s, {scores}", flush=True)
    table = Table("case", *COLUMNS)
    for name in names:
        table.add_row(name, *(f"{found[column][name]:.4f}" for column in COLUMNS))
    for word, of in (("mean", np.mean), ("worst", np.min)):
        table.add_row(word, *(f"{of(list(found[column].values())):.4f}" for column in COLUMNS))
    table.add_row(
        "seconds a fold",
        *(f"{np.mean(seconds.get(column, [])):.0f}" if column in seconds else "" for column in COLUMNS),
    )
    Console().print(table)
    if options.overlays:
        options.overlays.mkdir(parents=True, exist_ok=True)
        for name, image, mask in zip(names, images, masks, strict=True):
            Image.fromarray(outlined(image, mask, drawn["ours"][name], drawn["reference"][name])).save(
                options.overlays / f"{name}.png"
            )
    print(f"mean Dice: {np.mean(list(found['ours'].values())):.4f}")


def outlined(image: Array, truth: Array, mine: Array, theirs: Array) -> Array:
    from scipy.ndimage import binary_erosion

    picture = np.stack([image] * 3, axis=-1)
    for mask, colour in ((theirs, (80, 120, 255)), (mine, (255, 70, 70)), (truth, (70, 230, 70))):
        picture[mask & ~binary_erosion(mask)] = colour
    return picture


if __name__ == "__main__":
    main()
