"""Which cases of a dataset version train, choose the epoch and are scored, and their pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from femur_tasks.dataset.manifest import Manifest
from femur_tasks.dataset.picture import Array
from femur_tasks.dataset.resize import shrink_image, shrink_mask
from femur_tasks.dataset.shards import Shard, unpack
from femur_tasks.errors import FemurError
from femur_tasks.storage import ObjectStore

if TYPE_CHECKING:
    from femur_tasks.training.pipeline import Batches

TEST_CASES, FOLDS = 20, 5


@dataclass(frozen=True)
class Fold:
    """Which cases train, choose the epoch, and are scored."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]


def folds_of(manifest: Manifest, seed: int) -> list[Fold]:
    """The version's own splits, or five folds over its patients where its test split has fewer than 20 cases."""
    by_split = {
        split: tuple(c.case_id for c in manifest.cases if c.split == split) for split in ("train", "val", "test")
    }
    if len(by_split["test"]) >= TEST_CASES:
        return [Fold(by_split["train"], by_split["val"], by_split["test"])]
    patients = sorted({case.patient for case in manifest.cases})
    if len(patients) < FOLDS:
        raise FemurError(
            f"Expected {TEST_CASES} test cases, or {FOLDS} patients for folds. Received: {len(patients)} patients.",
            "Ingest more cases.",
        )
    order = np.random.default_rng(seed).permutation(len(patients))
    parts = [{patients[index] for index in part} for part in np.array_split(order, FOLDS)]
    ids = [tuple(case.case_id for case in manifest.cases if case.patient in part) for part in parts]
    return [
        Fold(
            train=tuple(i for n in range(FOLDS) if n not in (fold, (fold + 1) % FOLDS) for i in ids[n]),
            val=ids[(fold + 1) % FOLDS],
            test=ids[fold],
        )
        for fold in range(FOLDS)
    ]


class VersionPictures:
    """Every case of a version at one size, and the batches of each fold."""

    def __init__(self, store: ObjectStore, manifest: Manifest, size: int) -> None:
        self.size = size
        self._of: dict[str, tuple[Array, Array]] = {}
        for split in ("train", "val", "test"):
            for key in manifest.shard_keys(split):
                shard = unpack(store.get(key))
                for case, image, mask in zip(shard.case_ids, shard.images_bhw, shard.masks_bhw, strict=True):
                    self._of[case] = shrink_image(image, size), shrink_mask(mask, size)

    def shard(self, case_ids: Sequence[str]) -> Shard:
        """These cases, in this order."""
        images, masks = zip(*(self._of[case] for case in case_ids), strict=True)
        return Shard(tuple(case_ids), np.stack(images), np.stack(masks), ())


class FoldPictures:
    """The batches of one fold."""

    def __init__(self, pictures: VersionPictures, fold: Fold) -> None:
        self.size = pictures.size
        self._pictures, self._fold = pictures, fold
        self.batches: Callable[[str, int], Batches] = cache(self._batches)

    def _batches(self, split: str, batch_size: int) -> Batches:
        from femur_tasks.training.pipeline import Batches

        case_ids: tuple[str, ...] = getattr(self._fold, split)
        return Batches([split], lambda _: self._pictures.shard(case_ids), len(case_ids), self.size, batch_size)
