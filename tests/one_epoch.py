"""One epoch on the backend that KERAS_BACKEND names: `python -m tests.one_epoch WEIGHTS`, which are made where missing.

Prints the backend, the loss, the validation Dice, and the mean of every weight afterwards.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from safetensors.numpy import load_file, save_file

from femur_tasks.training import networks
from femur_tasks.training.fit import Plan, fit
from femur_tasks.training.hyperparameters import REFERENCE_UNET
from tests.tiny_fit import SEED, SIZE, MemoryJournal, batches

TOLD = replace(REFERENCE_UNET, learning_rate=1e-3, dropout=0.0, batch_size=4)


def main(path: Path) -> None:
    model = networks.compiled("unet", SIZE, TOLD, SEED)
    if path.exists():
        arrays = load_file(path)
        model.set_weights([arrays[name] for name in sorted(arrays)])
    else:
        save_file({f"{i:04d}": weight for i, weight in enumerate(model.get_weights())}, path)
    journal = MemoryJournal()
    fit(model, *batches(), Plan("one", 1, None, SEED), journal)
    (epoch,) = journal.epochs
    means = [float(np.mean(weight)) for weight in model.get_weights()]
    told = {"backend": keras.backend.backend(), "loss": epoch.loss, "dice": epoch.val_dice, "means": means}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
