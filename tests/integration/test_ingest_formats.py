"""Every layout, format and way of packing that people send, through the whole ingest."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import tarfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import zstandard
from PIL import Image
from sqlalchemy import select

from femur_tasks.dataset import shards
from femur_tasks.dataset.manifest import Manifest, ManifestCase
from femur_tasks.dataset.masks import femur_of_labels
from femur_tasks.dataset.pictures import decode, read_labels, read_picture
from femur_tasks.parameters import IngestParameters
from femur_tasks.registry.tables import DatasetCase, DatasetVersion
from femur_tasks.settings import Settings
from femur_tasks.steps.context import Context
from femur_tasks.steps.export import export
from femur_tasks.steps.ingest import ingest
from femur_tasks.steps.publish import Ingested
from femur_tasks.storage import ObjectStore, open_store
from tests.radiographs import Array, packed

SIX = [f"HIP_{number:04d}" for number in range(6)]
BY_FOLDERS = dict(zip(SIX, ["train"] * 3 + ["val"] * 2 + ["test"], strict=True))
FLAT, NNUNET, DECATHLON = "flat_images_labels", "nnUNet_raw", "Task501_Femur_decathlon"
LOSSLESS, OUTLINES = 1.0, 0.98
SAMPLES: Mapping[str, float] = {
    "deck_imgs_targets": LOSSLESS,
    FLAT: LOSSLESS,
    NNUNET: LOSSLESS,
    DECATHLON: LOSSLESS,
    "pelvis-phantom.v1i.png-mask-semantic": LOSSLESS,
    "pelvis-phantom.v1i.coco-segmentation": OUTLINES,
    "pelvis-phantom.v1i.yolov8": OUTLINES,
}
JPEG_GREY_LEVELS = 3.0
"""How far JPEG may be from the original on average; a mirrored or turned picture is 20 away or more."""

# what an odd NIfTI file does to a dataset that is good otherwise: the error that refuses it, and the warning it leaves
ODD: Mapping[str, tuple[str | None, str | None]] = {
    "shape_hw1.nii.gz": (None, None),
    "shape_1hw.nii.gz": (None, None),
    "shape_hw11.nii.gz": (None, None),
    "rgb_struct.nii.gz": (None, None),
    "rgb_lastaxis.nii.gz": (None, None),
    "int16_slope.nii.gz": (None, None),
    "float64.nii": (None, None),
    "uint16_12bit.nii.gz": (None, None),
    "nan_inf.nii.gz": ("not_finite", None),
    "bigendian_i2.nii": (None, None),
    "pair.img": (None, None),
    "affine_rot20.nii.gz": (None, None),
    "affine_lps.nii.gz": (None, None),
    "spacing_0p143.nii.gz": (None, None),
    "constant.nii.gz": ("constant_image", None),
    "volume3d.nii.gz": ("wrong_shape", None),
    "empty_zero_dim.nii": ("wrong_shape", None),
    "inverted_mono1.nii.gz": (None, "inverted"),
    "nifti2.nii.gz": (None, None),
    "complex64.nii.gz": ("wrong_shape", None),
    "truncated.nii.gz": ("unreadable", None),
    "gz_named_nii.nii": (None, None),
    "not_nifti.nii.gz": ("unreadable", None),
    "zero_bytes.nii.gz": ("unreadable", None),
    "mask_float_0_1.nii.gz": (None, None),
    "mask_0_255.nii.gz": (None, None),
    "mask_soft_edges.nii.gz": (None, "soft_mask"),
    "mask_other_size.nii.gz": ("size_mismatch", None),
    "mask_empty.nii.gz": ("empty_mask", None),
}
ODD_IS_OF = "REAL_14.nii.gz"
"""The real case that all odd files were made from."""


def run(context: Context, path: Path | str, **parameters: Any) -> Ingested:
    return ingest(context, IngestParameters(path=str(path), **parameters))


def codes(result: Ingested, errors: bool = True) -> Counter[str]:
    return Counter(found.code for found in result.problems if found.is_error is errors)


def cases_of(context: Context, result: Ingested) -> dict[str, ManifestCase]:
    with context.registry.reading() as session:
        manifest = Manifest.from_json(context.store.get(session.get_one(DatasetVersion, result.digest).manifest_key))
    return {case.case_id: case for case in manifest.cases}


def shard_masks(context: Context, result: Ingested) -> dict[str, Array]:
    """The masks as training and scoring see them; of a test case its full size must be the same mask."""
    with context.registry.reading() as session:
        manifest = Manifest.from_json(context.store.get(session.get_one(DatasetVersion, result.digest).manifest_key))
    found = {}
    for split in manifest.shards:
        for key in manifest.shard_keys(split):
            shard = shards.unpack(context.store.get(key))
            found.update(dict(zip(shard.case_ids, shard.masks_bhw == 1, strict=True)))
            for case_id, full in zip(shard.case_ids if shard.full_masks else (), shard.full_masks, strict=True):
                np.testing.assert_array_equal(full, found[case_id])
    return found


def dice(first: Array, second: Array) -> float:
    return 2 * float((first & second).sum()) / float(first.sum() + second.sum())


def originals(shared_data: Path, folder: str) -> dict[str, Path]:
    deck = shared_data / "format_samples" / "deck_imgs_targets"
    return {path.name.removesuffix(".nii.gz"): path for path in deck.glob(f"*/{folder}/*")}


# ---- every layout


@pytest.mark.parametrize("name", SAMPLES)
def test_every_layout_gives_the_same_cases_masks_and_splits(context: Context, shared_data: Path, name: str) -> None:
    result = run(context, shared_data / "format_samples" / name, size=256)
    assert (result.state, codes(result)) == ("ingested", Counter())
    cases, masks = cases_of(context, result), shard_masks(context, result)
    assert sorted(cases) == sorted(masks) == (SIX[:5] if name == DECATHLON else SIX)
    worst = 1.0
    for case_id, case in cases.items():
        original, _ = femur_of_labels(read_labels(originals(shared_data, "targets")[case_id]).pixels_hw, frozenset({1}))
        assert original.any()
        labels = read_labels(stored(context, case.raw_mask_key)).pixels_hw
        raw, _ = femur_of_labels(labels, frozenset({int(np.median(labels[original]))}))
        worst = min(worst, dice(masks[case_id], original), dice(raw, original))
        grey = read_picture(originals(shared_data, "imgs")[case_id]).pixels_hw.astype(float)
        away = np.abs(decode(context.store.get(case.raw_image_key)).pixels_hw - grey).mean()
        assert away <= (JPEG_GREY_LEVELS if name.startswith("pelvis-phantom") else 0)
    assert worst >= SAMPLES[name], f"worst Dice {worst:.4f}"
    _check_splits(name, {case_id: case.split for case_id, case in cases.items()})
    drawn = {"split_drawn": 1} if name == NNUNET else {}
    unlabelled = {"unlabelled": 1} if name == DECATHLON else {}
    assert codes(result, errors=False) == {"few_test_cases": 1, **drawn, **unlabelled}


def _check_splits(name: str, splits: Mapping[str, str]) -> None:
    if name == NNUNET:  # which knows train and test alone
        assert Counter(splits.values()) == {"train": 4, "val": 1, "test": 1}
        assert splits["HIP_0005"] == "test"
    elif name in (FLAT, DECATHLON):  # none, and a test list without a mask
        assert set(splits.values()) == {"train", "val", "test"}
    else:
        assert splits == BY_FOLDERS


def stored(context: Context, key: str) -> Path:
    """An object as a file, for readers that take one."""
    path = context.settings.home / "object"
    context.store.download(key, path)
    return path


# ---- odd files


def odd_dataset(shared_data: Path, folder: Path, name: str) -> Path:
    """Four real cases, and one with the odd file as its picture or as its mask."""
    real = shared_data / "real_dev11"
    kept = {"train": ["REAL_01", "REAL_02"], "valid": ["REAL_00"], "test": ["REAL_20"]}
    for split, half in product(kept, ("imgs", "targets")):
        (folder / split / half).mkdir(parents=True)
        for case_id in kept[split]:
            shutil.copy(real / split / half / f"{case_id}.nii.gz", folder / split / half)
    odd = shared_data / "nifti_odd" / name
    half, other = ("targets", "imgs") if name.startswith("mask_") else ("imgs", "targets")
    for path in [odd, odd.with_suffix(".hdr")] if odd.suffix == ".img" else [odd]:
        shutil.copy(path, folder / "train" / half / f"ODD.{path.name.partition('.')[2]}")
    shutil.copy(real / "test" / other / ODD_IS_OF, folder / "train" / other / "ODD.nii.gz")
    return folder


def test_every_odd_file_has_its_expectation(shared_data: Path) -> None:
    expectations = json.loads((shared_data / "nifti_odd" / "expectations.json").read_text())
    assert {entry["file"] for entry in expectations} == ODD.keys()
    for entry in expectations:
        error, warning = ODD[entry["file"]]
        said = entry["expected"].removeprefix("target: ")
        if said.startswith(("reject", "refuse")) and " or " not in said:
            assert error, entry
        if said.startswith("accept") and " or " not in said:
            assert error is None, entry
        assert not (error and warning)


@pytest.mark.parametrize("name", ODD)
def test_odd_file_is_taken_or_refused_for_what_it_is(
    context: Context, shared_data: Path, tmp_path: Path, name: str
) -> None:
    error, warning = ODD[name]
    result = run(context, odd_dataset(shared_data, tmp_path / "data", name), size=32)
    told = {found.code for found in result.problems if found.case_id == "ODD"}
    assert told == {code for code in (error, warning) if code}
    assert (codes(result).total(), result.state) == ((1, "refused") if error else (0, "ingested"))
    if not error:
        case = cases_of(context, result)["ODD"]
        assert (case.height_px, case.width_px, case.split) == (256, 256, "train")
        assert case.spacing_mm is None, "none of them says its unit, and 0.143 of what would be a guess"


# ---- one digest, however packed


def tar_zst(folder: Path, archive: Path) -> Path:
    plain = archive.with_name("plain.tar")
    with tarfile.open(plain, "w") as tar:
        tar.add(folder, "export")
    archive.write_bytes(zstandard.ZstdCompressor().compress(plain.read_bytes()))
    return archive


@pytest.fixture
def on_store(context: Context, store_settings: Settings) -> Context:
    """The test's own registry with the real store."""
    return replace(context, store=open_store(store_settings))


def upload(store: ObjectStore, folder: Path, prefix: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            store.put_named(path, f"{prefix}/{path.relative_to(folder)}")


def test_real_cases_have_one_digest_however_they_come(on_store: Context, shared_data: Path, tmp_path: Path) -> None:
    real, prefix = shared_data / "real_dev11", f"drops/{uuid4().hex}"
    archives = [
        packed(real, tmp_path / "real.zip"),
        packed(real, tmp_path / "real.tar.gz", top="export"),
        tar_zst(real, tmp_path / "real.tar.zst"),
    ]
    upload(on_store.store, real, f"{prefix}/folder")
    on_store.store.put_named(archives[2], f"{prefix}/real.tar.zst")
    bucket = on_store.settings.s3_bucket
    sources: list[Path | str] = [
        *(real, *archives),
        *(f"s3://{bucket}/{prefix}/folder", f"s3://{bucket}/{prefix}/real.tar.zst"),
    ]
    results = [run(on_store, source) for source in sources]
    assert [result.state for result in results] == ["ingested", *["known"] * 5]
    assert len({result.digest for result in results}) == 1
    assert dict(results[0].counts) == {"train": 7, "val": 2, "test": 2}


@pytest.mark.parametrize("name", ["real_dev11", "format_samples/pelvis-phantom.v1i.coco-segmentation"])
def test_export_comes_back_as_the_version_it_is(context: Context, shared_data: Path, tmp_path: Path, name: str) -> None:
    first = run(context, shared_data / name)
    export(context, "femur", tmp_path / "out")
    again = run(context, tmp_path / "out")
    assert (again.state, again.digest) == ("known", first.digest)


# ---- real DICOM


def infants(shared_data: Path, folder: Path, splits: Mapping[str, str]) -> Path:
    """Radiographs of infants by split folder, with made-up femurs."""
    for file in sorted((shared_data / "ood_pediatric_ddh").glob("*.dcm")):
        split = splits.get(file.stem, "train")
        if split:
            for half in ("imgs", "targets"):
                (folder / split / half).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / split / "imgs")
            height, width = read_picture(file).pixels_hw.shape
            mask = np.zeros((height, width), np.uint8)
            mask[height // 2 : -20, 60:95] = mask[height // 2 : -20, -95:-60] = 1
            Image.fromarray(mask).save(folder / split / "targets" / f"{file.stem}.png")
    return folder


SPREAD = {"331_DDH_121": "valid", "331_DDH_138": "test"}


def test_radiographs_of_infants_are_ingested_under_pseudonyms(
    context: Context, shared_data: Path, tmp_path: Path
) -> None:
    result = run(context, infants(shared_data, tmp_path, {**SPREAD, "331_DDH_12": ""}))
    assert (codes(result), result.state, dict(result.counts)) == (
        Counter(),
        "ingested",
        {"train": 7, "val": 1, "test": 1},
    )
    with context.registry.reading() as session:
        rows = session.scalars(select(DatasetCase).where(DatasetCase.digest == result.digest)).all()
    assert all(re.fullmatch(r"p-[0-9a-f]{12}", name) for row in rows for name in (row.case_id, row.patient))
    assert len({row.case_id for row in rows}) == len({row.patient for row in rows}) == 9
    for case in cases_of(context, result).values():
        raw = gzip.decompress(context.store.get(case.raw_image_key))
        assert b"331_DDH" not in raw
        assert len(raw) == 352 + case.height_px * case.width_px, "a bare header and one byte a pixel"


@pytest.mark.parametrize(
    ("split", "code"), [("train", "duplicate_pixels"), ("test", "duplicate_across_splits")], ids=["same", "other"]
)
def test_picture_of_two_infants_is_found(
    context: Context, shared_data: Path, tmp_path: Path, split: str, code: str
) -> None:
    result = run(context, infants(shared_data, tmp_path, {**SPREAD, "331_DDH_12": split}))
    assert (result.state, codes(result)) == ("refused", {code: 1})
    (told,) = (found for found in result.problems if found.is_error)
    assert "DDH" not in f"{told}"
