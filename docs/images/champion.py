"""Makes champion.png: what the demo's champion does on the demo's test cases.

Run after `make demo`: .venv/bin/python docs/images/champion.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from femur_tasks.dataset.pictures.nifti import read_file
from femur_tasks.demo import MODEL
from femur_tasks.evaluation.overlays import contact_sheet, overlay
from femur_tasks.serving.champion import serve
from femur_tasks.serving.inputs import find_inputs
from femur_tasks.serving.predict import predict
from femur_tasks.steps.context import open_context

SHOWN, COLUMNS = 8, 4


def main() -> None:
    context = open_context()
    newest = max((context.settings.home / "demo").iterdir(), key=lambda folder: folder.stat().st_mtime)
    pictures = sorted(newest.glob("test/imgs/*.nii.gz"))
    chosen = pictures[:: len(pictures) // SHOWN][:SHOWN]
    panels, captions = [], []
    with tempfile.TemporaryDirectory() as folder:
        served = serve(context.registry, context.store, MODEL, "onnx", context.settings.cache_folder)
        for found, path in zip(predict(served, find_inputs(chosen, Path(folder)), Path(folder)), chosen, strict=True):
            truth = read_file(newest / "test/targets" / path.name)[1].pixels_hw == 1
            mask = read_file(Path(str(found.mask)))[1].pixels_hw > 0
            picture = np.ascontiguousarray(read_file(path)[1].pixels_hw, np.uint8)
            panels.append(overlay(picture, mask, truth))
            dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
            captions.append(f"{path.name.partition('.')[0]}  Dice {dice:.2f}")
    contact_sheet(panels, captions, COLUMNS, panel_px=300).save(Path(__file__).with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main()
