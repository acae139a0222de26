"""Shards: the same cases give the same bytes, and masks for testing lose nothing."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from femur_tasks.dataset.layouts import find_cases
from femur_tasks.dataset.shards import pack, unpack
from femur_tasks.dataset.validation import ConvertedCase, read_case
from tests.radiographs import labels_hw, write_flat


def converted(folder: Path, label: int = 1) -> list[ConvertedCase]:
    read = [read_case(files, 32, label) for files in find_cases(folder)[0]]
    return [case for case in read if isinstance(case, ConvertedCase)]


@pytest.fixture
def cases(tmp_path: Path) -> list[ConvertedCase]:
    return converted(write_flat(tmp_path, "AB"))


@pytest.mark.parametrize("with_full_masks", [False, True], ids=["train", "test"])
def test_what_is_packed_is_unpacked(cases: list[ConvertedCase], with_full_masks: bool) -> None:
    shard = unpack(pack(cases, with_full_masks))
    assert shard.case_ids == ("A", "B")
    np.testing.assert_array_equal(shard.images_bhw, [case.image_hw for case in cases])
    np.testing.assert_array_equal(shard.masks_bhw, [case.mask_hw for case in cases])
    assert shard.images_bhw.dtype == shard.masks_bhw.dtype == np.uint8
    assert len(shard.full_masks) == (2 if with_full_masks else 0)


def test_full_masks_are_kept_without_loss(cases: list[ConvertedCase]) -> None:
    shard = unpack(pack(cases, with_full_masks=True))
    for name, full in zip(shard.case_ids, shard.full_masks, strict=True):
        assert full.dtype == np.bool_
        np.testing.assert_array_equal(full, labels_hw(ord(name)) == 1)


def test_full_masks_stay_in_the_order_of_the_cases(tmp_path: Path) -> None:
    # more than ten: their names in the file must sort as numbers do
    shard = unpack(pack(converted(write_flat(tmp_path, "ABCDEFGHIJKL")), with_full_masks=True))
    for name, full in zip(shard.case_ids, shard.full_masks, strict=True):
        np.testing.assert_array_equal(full, labels_hw(ord(name)) == 1)


def test_same_cases_give_the_same_bytes(tmp_path: Path, cases: list[ConvertedCase]) -> None:
    again = converted(write_flat(tmp_path / "again", "AB", mtime=7))
    assert pack(again, with_full_masks=True) == pack(cases, with_full_masks=True)


def test_other_order_gives_other_bytes(cases: list[ConvertedCase]) -> None:
    assert pack(cases[::-1], with_full_masks=False) != pack(cases, with_full_masks=False)


def test_another_process_packs_the_same_bytes(tmp_path: Path, cases: list[ConvertedCase]) -> None:
    script = (
        "import hashlib; from pathlib import Path; from tests.unit.test_shards import converted, pack;"
        f"print(hashlib.sha256(pack(converted(Path({str(tmp_path)!r})), True)).hexdigest())"
    )
    other = subprocess.run(  # noqa: S603
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "5"}
    )
    assert other.stdout.strip() == hashlib.sha256(pack(cases, with_full_masks=True)).hexdigest()
