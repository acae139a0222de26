"""Leakage: planted copies are found across splits, distinct pictures are not, and each pair is named once."""

from __future__ import annotations

import hashlib
import io
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from femur_tasks.dataset.alignment import similarities, similarity
from femur_tasks.dataset.fingerprint import fingerprint
from femur_tasks.dataset.leakage import THRESHOLD, Leak, Seen, leaks, near_duplicates
from femur_tasks.dataset.problems import CODES
from femur_tasks.parameters import IngestParameters
from femur_tasks.phantom import LABELS, make_case
from femur_tasks.steps.context import Context
from femur_tasks.steps.ingest import ingest
from tests.pages import text_of
from tests.radiographs import nifti

Array = np.ndarray
Change = Callable[[Array, Array], tuple[Array, Array]]
COUNT = 9


def case(index: int) -> tuple[Array, Array]:
    made = make_case(index, 3, 128)
    return made.image_hw, made.labels_hw == LABELS["femur"]


CASES = [case(index) for index in range(COUNT)]
PRINTS = np.stack([fingerprint(*one) for one in CASES])


def jpeg(image: Array, femur: Array) -> tuple[Array, Array]:
    packed = io.BytesIO()
    Image.fromarray(image).save(packed, "JPEG", quality=30)
    return np.asarray(Image.open(packed)), femur


def cropped(image: Array, femur: Array) -> tuple[Array, Array]:
    kept = np.s_[19:, 8:-8]  # 15 % off the top, 6 % off both sides
    return image[kept], femur[kept]


def turned(image: Array, femur: Array) -> tuple[Array, Array]:
    both = [Image.fromarray(a).rotate(3, Image.Resampling.BILINEAR) for a in (image, femur * np.uint8(255))]
    return np.asarray(both[0]), np.asarray(both[1]) > 127


def squeezed(image: Array, femur: Array) -> tuple[Array, Array]:
    both = [Image.fromarray(a).resize((128, 112), Image.Resampling.BILINEAR) for a in (image, femur * np.uint8(255))]
    return np.asarray(both[0]), np.asarray(both[1]) > 127


CHANGES: dict[str, Change] = {
    "JPEG": jpeg,
    "cropped": cropped,
    "turned": turned,
    "squeezed": squeezed,
    "darker": lambda image, femur: (((image / 255) ** 1.5 * 220).astype(np.uint8), femur),
    "inverted": lambda image, femur: (255 - image, femur),
    "mirrored": lambda image, femur: (image[:, ::-1], femur[:, ::-1]),
    "redrawn": lambda image, femur: (image, np.roll(ndimage.binary_dilation(femur), 1, axis=0)),
    "all": lambda image, femur: cropped(*turned(*jpeg(255 - image[:, ::-1], ndimage.binary_erosion(femur)[:, ::-1]))),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_copy_in_another_split_is_found_and_nothing_else(change: Change) -> None:
    copies = np.stack([fingerprint(*change(*one)) for one in CASES[:4]])
    found = near_duplicates(np.concatenate([PRINTS, copies]), ["train"] * COUNT + ["test"] * 4)
    assert [(pair.first, pair.second) for pair in found] == [(index, COUNT + index) for index in range(4)]
    assert all(THRESHOLD <= pair.score <= 1.0001 for pair in found)


def test_copy_in_the_same_split_is_no_leak() -> None:
    assert near_duplicates(np.concatenate([PRINTS, PRINTS]), ["train"] * 2 * COUNT) == []


def test_distinct_pictures_are_not_flagged() -> None:
    splits = ["train", "val", "test"] * (COUNT // 3)
    assert near_duplicates(PRINTS, splits) == []
    alike = similarities(PRINTS, [(i, j) for i in range(COUNT) for j in range(i)])
    assert alike.max() < THRESHOLD - 0.04


@pytest.mark.parametrize("block", [2, 5, 2048])
def test_size_of_the_blocks_changes_nothing(block: int) -> None:
    copies = np.stack([fingerprint(*jpeg(*one)) for one in CASES])
    prints = np.concatenate([PRINTS, copies])
    splits = ["train"] * COUNT + ["val", "test", "test"] * (COUNT // 3)
    found = near_duplicates(prints, splits, block)
    assert [(pair.first, pair.second) for pair in found] == [(i, COUNT + i) for i in range(COUNT)]


def test_memory_grows_with_the_cases_and_not_with_their_square() -> None:
    count = 4000
    prints = np.zeros((count, 32 * 32), np.float16)  # nothing to see: every product is made, nothing compared in full
    tracemalloc.start()
    try:
        assert near_duplicates(prints, ["train", "test"] * (count // 2), block=200) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16e6, "a quarter of the square in float32, which is all pairs across splits"


def test_likeness_does_not_depend_on_who_comes_first() -> None:
    copy = fingerprint(*turned(*CASES[0]))
    assert similarity(PRINTS[0], copy) == pytest.approx(similarity(copy, PRINTS[0]), abs=0.03)
    assert similarity(PRINTS[0], PRINTS[0]) == pytest.approx(1, abs=1e-4)


def test_likeness_does_not_depend_on_which_pairs_are_compared_with_it() -> None:
    copies = np.stack([fingerprint(*changed(*CASES[0])) for changed in CHANGES.values()])
    prints = np.concatenate([PRINTS, copies, np.zeros_like(PRINTS[:1])])
    pairs = [(i, j) for i in range(len(prints)) for j in range(i)]
    alone = [similarity(prints[first], prints[second]) for first, second in pairs]
    np.testing.assert_allclose(similarities(prints, pairs), alone, atol=1e-4)
    assert similarities(prints, []).shape == (0,)


def test_pair_that_is_unlike_from_afar_goes_no_further_and_stays_below_the_threshold() -> None:
    noise = np.random.default_rng(0).normal(size=(2, 64, 64))
    prints = ndimage.gaussian_filter(noise, (0, 1, 1)).reshape(2, -1).astype(np.float16)
    assert 0 < similarity(*prints) < 0.7 < THRESHOLD


def test_frame_that_lies_elsewhere_is_found() -> None:
    patch = PRINTS[0].reshape(64, 64)
    moved = np.zeros_like(patch)
    moved[10:, :-7] = patch[:-10, 7:]
    assert similarity(PRINTS[0], moved.ravel()) > 0.95


def test_picture_that_shows_nothing_is_like_nothing() -> None:
    empty = np.zeros_like(PRINTS[0])
    assert similarity(empty, empty) == 0
    assert similarity(empty, PRINTS[0]) == 0


def seen(
    case_id: str, split: str, picture: str | None = None, patient: str | None = None, of: int | None = None
) -> Seen:
    digest = hashlib.sha256((picture or case_id).encode()).hexdigest()
    return Seen(case_id, patient or case_id, split, digest, None if of is None else PRINTS[of])


def named(found: list[Leak]) -> list[tuple[str, str]]:
    assert all(leak.problem.code in CODES for leak in found)
    return [(leak.problem.code, leak.problem.case_id) for leak in found]


def test_equal_pictures_are_named_once_with_the_first() -> None:
    cases = [seen("D", "test", "x"), seen("C", "test", "x"), seen("B", "train", "x"), seen("A", "train", "x")]
    found = leaks(cases)
    assert named(found) == [("duplicate_pixels", "B"), ("duplicate_across_splits", "C"), ("duplicate_pixels", "D")]
    assert [leak.problem.found for leak in found] == [
        "in train, the same pixels as A in train",
        "in test, the same pixels as A in train",
        "in test, the same pixels as C in test",
    ]
    assert [(leak.other_id, leak.score) for leak in found] == [("A", 1.0), ("A", 1.0), ("C", 1.0)]


def test_patient_is_named_once_a_split() -> None:
    cases = [
        seen("A", "train", patient="p"),
        seen("B", "train", patient="p"),
        seen("C", "test", patient="p"),
        seen("D", "test", patient="p"),
        seen("E", "val", patient="p"),
        seen("F", "val", patient="q"),
    ]
    found = leaks(cases)
    assert named(found) == [("patient_in_two_splits", "C"), ("patient_in_two_splits", "E")]
    assert [leak.problem.found for leak in found] == [
        "in test, the patient of A in train",
        "in val, the patient of A in train",
    ]
    assert [(leak.other_id, leak.score) for leak in found] == [("A", None), ("A", None)]


def test_near_duplicate_names_both_cases_and_the_likeness() -> None:
    (leak,) = leaks([seen("B", "test", of=0), seen("A", "train", of=0), seen("C", "val", of=1)])
    assert (leak.problem.code, leak.problem.case_id, leak.other_id) == ("near_duplicate", "B", "A")
    assert leak.problem.found == "in test, a likeness of 1.00 to A in train"
    assert leak.problem.expected == f"less than {THRESHOLD} across splits"
    assert leak.score == pytest.approx(1, abs=1e-3)


def test_equal_pictures_are_not_near_duplicates_too() -> None:
    assert named(leaks([seen("A", "train", "x", of=0), seen("B", "test", "x", of=0)])) == [
        ("duplicate_across_splits", "B")
    ]


def test_near_duplicate_is_found_behind_many_equal_pictures() -> None:
    equal = [seen(f"A{index}", "train", "x", of=0) for index in range(9)]
    found = leaks([*equal, seen("B", "train", of=1), seen("C", "test", of=0)])
    assert named(found) == [("duplicate_pixels", f"A{index}") for index in range(1, 9)] + [("near_duplicate", "C")]


def test_cases_without_fingerprint_are_judged_by_digest_alone() -> None:
    assert named(leaks([seen("A", "train"), seen("B", "test", of=0), seen("C", "val", "A")])) == [
        ("duplicate_across_splits", "C")
    ]


def test_order_of_the_cases_does_not_matter() -> None:
    cases = [
        seen("A", "train", of=0),
        seen("B", "test", of=0, patient="A"),
        seen("C", "val", "A"),
        seen("D", "val", of=2),
    ]
    assert leaks(cases) == leaks(cases[::-1])
    assert len(leaks(cases)) == 3


def test_nothing_leaks_from_nothing() -> None:
    assert leaks([]) == []
    assert near_duplicates(np.zeros((0, 4096), np.float16), []) == []


def test_reference_picture_in_two_sizes_is_a_near_duplicate(shared_data: Path) -> None:
    cases = []
    for path in sorted(shared_data.glob("real_*1*/**/imgs/*.nii.gz")):
        files = path, path.parents[1] / "targets" / path.name
        image, labels = (np.asarray(nib.Nifti1Image.from_filename(file).dataobj).T for file in files)
        name, digest = path.name.partition(".")[0], hashlib.sha256(image.tobytes()).hexdigest()
        cases.append(
            Seen(name, name, "test" if name == "HIP_0411" else "train", digest, fingerprint(image, labels == 1))
        )
    assert len(cases) == 12
    assert named(leaks(cases)) == [("near_duplicate", "REAL_10")]


# ---- through an ingest


def write(folder: Path, case_id: str, image: Array, femur: Array) -> None:
    for name, pixels in (("imgs", image), ("targets", femur.astype(np.uint8))):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{case_id}.nii").write_bytes(nifti(np.ascontiguousarray(pixels.T)))


def test_ingest_with_a_copy_in_another_split_is_refused_and_shows_both(context: Context, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for index, split in enumerate(("train", "train", "valid", "test")):
        write(folder / split, f"C{index}", *CASES[index])
    write(folder / "test", "X copy", *CHANGES["all"](*CASES[1]))
    write(folder / "test", "Y same", *CASES[0])
    result = ingest(context, IngestParameters(path=str(folder), size=64))
    errors = [(problem.code, problem.case_id) for problem in result.problems if problem.is_error]
    assert result.state == "refused"
    assert errors == [("duplicate_across_splits", "Y same"), ("near_duplicate", "X copy")]
    assert context.store.get(str(result.report_key)) == result.report
    text = text_of(result.report.decode())
    pairs = re.findall(r"(\d) (C\d) train (. \w+) test ([01]\.\d{3})", text)
    assert [pair[:3] for pair in pairs] == [("1", "C0", "Y same"), ("2", "C1", "X copy")]
    assert float(pairs[0][3]) == 1
    assert THRESHOLD <= float(pairs[1][3]) < 1
