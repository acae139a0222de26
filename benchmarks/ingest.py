"""Ingest: files a second from an archive to published shards, against the script of the reference.

    python benchmarks/ingest.py [--pairs 48] [--rounds 3] [--keep FOLDER]

Both work on the same 2860 x 2874 uint8 NIfTI pairs, in one run. The reference's way is what its notebooks do, file by
file: nibabel get_fdata, cast, write PNG, read it back, resize to 256. Ours unpacks the zip, recognises it, decodes,
checks, hashes, resizes, looks for near-duplicates, stores the shards in a SeaweedFS on the same two cores, records the
version and writes the report: that is the ratio of the last line. A second run of ours also sends the raw files, as
every ingest does; the store's own work on 270 MB then counts too. Medians of the rounds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
import psutil
from PIL import Image

from femur_tasks.dataset.pictures.nifti import encode
from femur_tasks.parameters import IngestParameters
from femur_tasks.phantom import make_case
from femur_tasks.registry.database import Registry, migrate
from femur_tasks.settings import Settings
from femur_tasks.stack.control import down, up
from femur_tasks.steps.context import Context, utc_now
from femur_tasks.steps.ingest import ingest
from femur_tasks.storage import ObjectStore, open_store

WIDTH, HEIGHT = 2860, 2874
_DRAWN_PX = 718  # a phantom is drawn small and enlarged: its outlines do not matter here, its grain does
_GRAIN_SD, _GRAIN_PX = 1.0, 0.7


def write_pair(index: int, folder: Path) -> None:
    """One pair with the grain of a real plate: gzip leaves about two thirds of it, as it does of real radiographs."""
    from scipy.ndimage import gaussian_filter

    case = make_case(index, 0, _DRAWN_PX)
    image = Image.fromarray(case.image_hw).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    labels = Image.fromarray((case.labels_hw == 1).astype(np.uint8)).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
    grain = gaussian_filter(np.random.default_rng(index).standard_normal((HEIGHT, WIDTH), np.float32), _GRAIN_PX)
    grain *= _GRAIN_SD / grain.std()
    noisy = np.clip(np.asarray(image, np.float32) + grain, 0, 255).astype(np.uint8)
    for name, pixels in (("imgs", noisy), ("targets", np.asarray(labels))):
        path = folder / case.split / name / f"HIP_{index:04d}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(pixels, (0.143, 0.143)))


def reference_way(files: list[Path], out: Path) -> float:
    """Seconds of the reference's conversion of these files, one after the other."""
    started = time.perf_counter()
    for number, path in enumerate(files):
        pixels = nib.load(path).get_fdata().astype(np.uint8)
        png = out / f"{number}.png"
        Image.fromarray(pixels.T).save(png)
        np.asarray(Image.open(png).resize((256, 256)))
    return time.perf_counter() - started


@contextmanager
def peak_mb() -> Iterator[list[float]]:
    """The highest memory of this process with all its children, in MB, shared pages counted once."""
    found, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):  # more often would slow what is measured
            total = 0
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                try:
                    if "weed" not in process.name():
                        total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            found[0] = max(found[0], total / 2**20)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


class ShardsOnly:
    """A store that takes raw files for sent: what is left is the way from the archive to published shards."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, data: bytes | Path, kind: str) -> str:
        return f"raw/{'0' * 64}" if kind == "raw" else self._store.put(data, kind)


def our_way(archive: Path, home: Path, with_raw: bool) -> tuple[float, float]:
    """Seconds from the archive to a published version, and the highest memory meanwhile, MB."""
    os.sync()  # what was written before must not be waited for
    settings = Settings(home=home, _env_file=home / "stack.env")
    up(settings, only={"store"}, wait_s=60)
    try:
        settings = Settings(home=home, _env_file=home / "stack.env")
        migrate(settings.database_url)
        store = open_store(settings)
        context = Context(Registry(settings.database_url), store if with_raw else ShardsOnly(store), settings, utc_now)
        with peak_mb() as peak:
            started = time.perf_counter()
            result = ingest(context, IngestParameters(path=str(archive), femur_class="1"))
            seconds = time.perf_counter() - started
        if result.state != "ingested":
            raise SystemExit(f"refused: {[problem.as_dict() for problem in result.problems if problem.is_error]}")
        return seconds, peak[0]
    finally:
        down(settings)
        shutil.rmtree(home)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--pairs", type=int, default=48)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--keep", type=Path, help="where to keep the pairs for another run")
    options = asked.parse_args()
    with TemporaryDirectory(prefix="femur-bench-") as temporary:
        folder = Path(temporary)
        data = options.keep or folder / "data"
        if not data.exists():
            with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
                list(pool.map(partial(write_pair, folder=data), range(options.pairs)))
        files = sorted(data.rglob("*.nii.gz"))
        packed = sum(path.stat().st_size for path in files if path.parent.name == "imgs")
        images = len(files) // 2
        print(f"{images} pairs of {WIDTH} x {HEIGHT}; gzip leaves {packed / images / WIDTH / HEIGHT:.0%} of a picture")
        archive = folder / "export.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
            for path in files:
                zipped.write(path, path.relative_to(data))
        (folder / "png").mkdir()
        reference_s = reference_way(files, folder / "png")
        shutil.rmtree(folder / "png")
        rows = {"the reference": (reference_s, 0.0)}
        for name, with_raw in (("ours, to published shards", False), ("ours, raw files too", True)):
            found = [our_way(archive, folder / f"{with_raw}{n}", with_raw) for n in range(options.rounds)]
            rows[name] = statistics.median(s for s, _ in found), max(mb for _, mb in found)
        print(f"{'':28}{'seconds':>10}{'files/s':>10}{'ratio':>8}{'peak MB':>10}")
        for name, (seconds, mb) in rows.items():
            rate, memory = len(files) / seconds, f"{mb:.0f}" if mb else ""
            print(f"{name:28}{seconds:10.1f}{rate:10.2f}{reference_s / seconds:8.1f}{memory:>10}")
        print(f"ratio: {reference_s / rows['ours, to published shards'][0]:.1f}")


if __name__ == "__main__":
    main()
