"""A fit small enough for tests: a U-Net of 16 x 16 on made-up discs, and a journal in memory.

`python -m tests.tiny_fit JOURNAL EPOCHS` goes on with the fit of a journal's file in a process of its own.
"""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from femur_tasks.dataset.shards import Shard
from femur_tasks.training import checkpoint, networks
from femur_tasks.training.fit import Epoch, Plan, fit
from femur_tasks.training.hyperparameters import REFERENCE_UNET, TUNED
from femur_tasks.training.pipeline import Batches

SIZE = 16
SEED = 11
HYPERPARAMETERS = {
    "reference": replace(REFERENCE_UNET, learning_rate=1e-3, dropout=0.5, batch_size=4),
    "tuned": replace(
        TUNED,
        dropout=0.5,
        batch_size=4,
        block="residual",
        norm="instance",
        augmentation=0.5,
        precision="mixed_bfloat16",
    ),
}
STEPS = 75  # three epochs of 25: ten cases come ten times each where they are augmented


class MemoryJournal:
    """Keeps every epoch's row and every checkpoint."""

    def __init__(self, inherited: bytes | None = None, kind: str = "reference") -> None:
        self.kind = kind
        self.curve: dict[int, Epoch] = {}
        self.states: list[bytes] = []
        self._best = inherited
        self._latest = inherited

    @property
    def epochs(self) -> list[Epoch]:
        return list(self.curve.values())

    def kept(self) -> tuple[bytes | None, bytes | None]:
        return self._latest, self._best

    def record(self, epoch: Epoch) -> None:
        self.curve[epoch.epoch] = epoch

    def keep(self, latest: bytes, best: bytes | None) -> None:
        self.states.append(latest)
        self._latest = latest
        self._best = best or self._best


def shard(count: int, seed: int = 0) -> Shard:
    """Pictures of a bright disc in noise, and where it is."""
    drawn = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    masks = np.stack(
        [
            ((rows - row) ** 2 + (columns - column) ** 2 <= 16).astype(np.uint8)
            for row, column in drawn.integers(5, 11, (count, 2))
        ]
    )
    images = (masks * 100 + drawn.integers(0, 100, masks.shape)).astype(np.uint8)
    return Shard(tuple(f"case-{i}" for i in range(count)), images, masks, ())


def batches() -> tuple[Batches, Batches]:
    """Ten cases to train on, in batches of 4, 4 and 2, and three to validate on."""
    shards = {"train": shard(10, seed=1), "val": shard(3, seed=2)}
    train, val = (Batches([name], shards.__getitem__, len(found.case_ids), SIZE, 4) for name, found in shards.items())
    return train, val


def model(seed: int = SEED, kind: str = "reference") -> Any:
    return networks.compiled("unet", SIZE, HYPERPARAMETERS[kind], seed, STEPS)


def go_on(journal: MemoryJournal, epochs: int) -> None:
    """The fit to `epochs`, from where the journal stands."""
    plan = Plan("tiny", epochs, patience=None, seed=SEED, augmentation=HYPERPARAMETERS[journal.kind].augmented)
    fit(model(kind=journal.kind), *batches(), plan, journal)


def forget_dropout(journal: MemoryJournal) -> None:
    """Take the Dropout layers' seed generators back to their start, as a format without them would."""
    there = model(kind=journal.kind)
    fresh = checkpoint.state_of(there)
    arrays, memory = checkpoint.unpack(journal.states[-1])
    pairs = zip(sorted(arrays), sorted(fresh), strict=True)
    checkpoint.put_back(there, {name: (fresh[its] if "seed_generator" in its else arrays[name]) for name, its in pairs})
    journal._latest = checkpoint.pack(there, memory)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    kept = pickle.loads(path.read_bytes())  # noqa: S301 - our own file
    go_on(kept, int(sys.argv[2]))
    path.write_bytes(pickle.dumps(kept))
