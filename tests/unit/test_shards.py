"""Shards: the same cases give the same bytes, and masks for testing lose nothing."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from femur_tasks.dataset import shards
from femur_tasks.dataset.cases import CasePixels, load_pixels
from femur_tasks.dataset.conversion import Job, Reading, convert
from femur_tasks.dataset.layouts import find_cases
from femur_tasks.dataset.manifest import Manifest, ManifestCase, ShardRef
from femur_tasks.dataset.naming import Namer
from femur_tasks.dataset.shards import pack, unpack
from tests.radiographs import labels_hw, write_flat

Cases = list[tuple[str, CasePixels]]
KEY = b"k" * 32


def converted(folder: Path) -> Cases:
    found = find_cases(folder, Namer(KEY)).cases
    for files in found:
        convert(Job(files, folder / f"{files.case_id}.safetensors"), Reading(32, frozenset({1}), KEY))
    return [(files.case_id, load_pixels(folder / f"{files.case_id}.safetensors")) for files in found]


@pytest.fixture
def cases(tmp_path: Path) -> Cases:
    return converted(write_flat(tmp_path, "AB"))


@pytest.mark.parametrize("with_full_masks", [False, True], ids=["train", "test"])
def test_what_is_packed_is_unpacked(cases: Cases, with_full_masks: bool) -> None:
    shard = unpack(pack(cases, with_full_masks))
    assert shard.case_ids == ("A", "B")
    np.testing.assert_array_equal(shard.images_bhw, [pixels.image_hw for _, pixels in cases])
    np.testing.assert_array_equal(shard.masks_bhw, [pixels.mask_hw for _, pixels in cases])
    assert shard.images_bhw.dtype == shard.masks_bhw.dtype == np.uint8
    assert len(shard.full_masks) == (2 if with_full_masks else 0)


def test_full_masks_are_kept_without_loss(cases: Cases) -> None:
    shard = unpack(pack(cases, with_full_masks=True))
    for name, full in zip(shard.case_ids, shard.full_masks, strict=True):
        assert full.dtype == np.bool_
        np.testing.assert_array_equal(full, labels_hw(ord(name)) == 1)


def test_full_masks_stay_in_the_order_of_the_cases(tmp_path: Path) -> None:
    # more than ten: their names in the file must sort as numbers do
    shard = unpack(pack(converted(write_flat(tmp_path, "ABCDEFGHIJKL")), with_full_masks=True))
    for name, full in zip(shard.case_ids, shard.full_masks, strict=True):
        np.testing.assert_array_equal(full, labels_hw(ord(name)) == 1)


def test_same_cases_give_the_same_bytes(tmp_path: Path, cases: Cases) -> None:
    again = converted(write_flat(tmp_path / "again", "AB", mtime=7))
    assert pack(again, with_full_masks=True) == pack(cases, with_full_masks=True)


def test_other_order_gives_other_bytes(cases: Cases) -> None:
    assert pack(cases[::-1], with_full_masks=False) != pack(cases, with_full_masks=False)


def test_another_process_packs_the_same_bytes(tmp_path: Path, cases: Cases) -> None:
    script = (
        "import hashlib; from pathlib import Path; from tests.unit.test_shards import converted, pack;"
        f"print(hashlib.sha256(pack(converted(Path({str(tmp_path)!r})), True)).hexdigest())"
    )
    other = subprocess.run(  # noqa: S603
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "5"}
    )
    assert other.stdout.strip() == hashlib.sha256(pack(cases, with_full_masks=True)).hexdigest()


# ---- which shards of the version before still hold


def described(names: str, changed: str = "", split: str = "train") -> tuple[ManifestCase, ...]:
    return tuple(
        ManifestCase(name, name, split, f"{name}{name in changed}", "m", 40, 48, None, f"raw/{name}", f"raw/m{name}")
        for name in names
    )


FULL, REST = ShardRef("shards/full", tuple("ABC")), ShardRef("shards/rest", tuple("DE"))
BEFORE = Manifest("femur", 32, (1,), described("ABCDE"), {"train": (FULL, REST)})


@pytest.mark.parametrize(
    ("cases", "kept", "new"),
    [
        (described("ABCDE"), [FULL], [["D", "E"]]),
        (described("ABCDEXY"), [FULL], [["D", "E", "X"], ["Y"]]),
        (described("ABDE"), [], [["A", "B", "D"], ["E"]]),
        (described("ABCDE", changed="B"), [], [["A", "B", "C"], ["D", "E"]]),
        (described("ABC", split="test"), [], [["A", "B", "C"]]),
    ],
    ids=["the same", "two more", "one gone", "one changed", "moved to another split"],
)
def test_full_shards_of_unchanged_cases_are_kept(
    monkeypatch: pytest.MonkeyPatch, cases: tuple[ManifestCase, ...], kept: list[ShardRef], new: list[list[str]]
) -> None:
    monkeypatch.setattr(shards, "CASES_A_SHARD", 3)
    assert shards.plan(cases, 32, BEFORE) == (kept, new)


@pytest.mark.parametrize(("size", "before"), [(64, BEFORE), (32, None)], ids=["another size", "first version"])
def test_nothing_is_kept_where_nothing_fits(
    monkeypatch: pytest.MonkeyPatch, size: int, before: Manifest | None
) -> None:
    monkeypatch.setattr(shards, "CASES_A_SHARD", 3)
    assert shards.plan(described("ABCDE"), size, before) == ([], [["A", "B", "C"], ["D", "E"]])
