"""The manifest: a digest of the cases and of nothing else, and the cases on which models are compared."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from femur_tasks.dataset.manifest import Manifest, ManifestCase, ShardRef, canonical_json, comparison_cases

CASES = tuple(
    ManifestCase(f"HIP_{i}", f"HIP_{i}", split, f"{i:064x}", f"{i + 9:064x}", 40, 48, None, f"raw/{i}", f"raw/m{i}")
    for i, split in enumerate(("train", "val", "test"))
)
SHARDS = {case.split: (ShardRef(f"shards/{case.split}", (case.case_id,)),) for case in CASES}
MANIFEST = Manifest("femur", 256, (1, 2), CASES, SHARDS)


def with_first(**changes: Any) -> Manifest:
    return replace(MANIFEST, cases=(replace(CASES[0], **changes), *CASES[1:]))


@pytest.mark.parametrize(
    "other",
    [
        with_first(case_id="HIP_9"),
        with_first(patient="HIP_1"),
        with_first(split="val"),
        with_first(image_sha256="f" * 64),
        with_first(mask_sha256="f" * 64),
        replace(MANIFEST, dataset="hip"),
        replace(MANIFEST, size=128),
        replace(MANIFEST, cases=CASES[:2]),
    ],
    ids=["id", "patient", "split", "image", "mask", "dataset", "size", "a case less"],
)
def test_what_is_learnt_from_changes_the_digest(other: Manifest) -> None:
    assert other.digest != MANIFEST.digest


@pytest.mark.parametrize(
    "other",
    [
        replace(MANIFEST, shards={}),
        with_first(raw_image_key="raw/z"),
        with_first(raw_mask_key="raw/z"),
        with_first(patient="p-0123456789ab"),
    ],
    ids=["shards", "image file", "mask file", "a patient's name"],
)
def test_how_it_is_packed_does_not_change_the_digest(other: Manifest) -> None:
    assert other.digest == MANIFEST.digest


@given(st.permutations(CASES))
def test_order_of_the_cases_does_not_change_the_digest(cases: list[ManifestCase]) -> None:
    assert replace(MANIFEST, cases=tuple(cases)).digest == MANIFEST.digest


def test_digest_is_that_of_earlier_releases() -> None:
    # the canonical JSON by hand: a change would orphan every version in the registries
    expected = (
        '{"cases":[["HIP_0","HIP_0","train","' + "0" * 64 + '","' + "0" * 63 + '9",null]],"dataset":"femur","size":256}'
    )
    assert replace(MANIFEST, cases=CASES[:1]).digest == hashlib.sha256(expected.encode()).hexdigest()


@pytest.mark.parametrize("spacing", [None, (0.143, 0.2)])
def test_manifest_is_read_as_it_was_written(spacing: tuple[float, float] | None) -> None:
    manifest = with_first(spacing_mm=spacing)
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert json.loads(manifest.to_json())["digest"] == manifest.digest


def test_equal_values_give_equal_json() -> None:
    assert canonical_json({"b": 1, "a": [2]}) == canonical_json({"a": [2], "b": 1}) == b'{"a":[2],"b":1}'


@pytest.mark.parametrize(
    ("trained", "expected"),
    [
        ([], (["a", "b", "c"], [])),
        ([["B"]], (["a", "c"], ["b"])),
        ([["B"], frozenset({"C"})], (["a"], ["b", "c"])),
        ([["A", "B"], ["C"]], ([], ["a", "b", "c"])),
        ([["Z"], []], (["a", "b", "c"], [])),
    ],
    ids=["nobody trained", "one model", "two models", "nothing left", "other images"],
)
def test_cases_that_a_model_trained_on_are_left_out(
    trained: list[list[str]], expected: tuple[list[str], list[str]]
) -> None:
    assert comparison_cases([("c", "C"), ("a", "A"), ("b", "B")], trained) == expected


def test_image_decides_not_its_name() -> None:
    # the same radiograph under another name in the training cases
    assert comparison_cases([("renamed", "A")], [["A"]]) == ([], ["renamed"])
