"""Conversion: what is known of a case, worked out by hand, and what is wrong with it, even if it kills its reader."""

from __future__ import annotations

import hashlib
import io
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from femur_tasks.dataset import cases, conversion, shards
from femur_tasks.dataset.cases import CaseFacts
from femur_tasks.dataset.conversion import Job, Reading, convert, convert_all, foreground_of_some, pixel_digest
from femur_tasks.dataset.layouts.layout import CaseFiles, Shape, Shapes
from tests.radiographs import Array, nifti

READING = Reading(size=2, femur=frozenset({1}), key=b"k" * 32)
LABELS = np.zeros((8, 16), np.uint8)
LABELS[4:, :4] = LABELS[4:, 10:14] = 1
LABELS[0, 15] = 2
GREY = np.where(LABELS == 1, 200, 80).astype(np.uint8)
"""Bone at 200 on soft tissue at 80, 8 rows of 16: a femur in each lower corner, 32 of 128 px."""


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    """A job of these two files' bytes."""

    def make(image: bytes, mask: bytes | Shapes, case_id: str = "A") -> Job:
        folder = tmp_path / case_id
        folder.mkdir()
        (folder / "image").write_bytes(image)
        if isinstance(mask, bytes):
            (folder / "mask").write_bytes(mask)
        there = folder / "mask" if isinstance(mask, bytes) else mask
        return Job(CaseFiles(case_id, "patient", "val", folder / "image", there), folder / "out.safetensors")

    return make


def png(pixels: Array, name: str = "") -> bytes:
    buffer, text = io.BytesIO(), PngImagePlugin.PngInfo()
    if name:
        text.add_text("Patient", name)
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def converted(job: Job, reading: Reading = READING) -> tuple[CaseFacts, list[str]]:
    convert(job, reading)
    facts, problems = cases.load_facts(job.out)
    assert facts is not None
    return facts, [problem.code for problem in problems]


def refused(job: Job, reading: Reading = READING) -> list[tuple[str, str]]:
    convert(job, reading)
    facts, problems = cases.load_facts(job.out)
    assert facts is None
    assert {problem.case_id for problem in problems} == {"A"}
    return [(problem.code, problem.found) for problem in problems]


def sha256_of(size: str, pixels: list[int]) -> str:
    return hashlib.sha256(f"{size}\n".encode() + bytes(pixels)).hexdigest()


# ---- a case that is right


def test_everything_that_is_known_of_a_case(job: Callable[..., Job]) -> None:
    one = job(nifti(GREY.T, "mm", (0.25, 0.5)), nifti(LABELS.T))
    facts, problems = converted(one)
    assert facts.intensity_sd == pytest.approx(120 * (0.25 * 0.75) ** 0.5)
    soft, row = [80] * 16, [200] * 4 + [80] * 6 + [200] * 4 + [80] * 2
    assert facts == CaseFacts(
        case_id="A",
        patient="patient",
        split="val",
        height_px=8,
        width_px=16,
        spacing_mm=(0.25, 0.5),
        mirrored=False,
        image_sha256=sha256_of("(8, 16)", soft * 4 + row * 4),
        mask_sha256=sha256_of("(8, 16)", [0] * 64 + ([1] * 4 + [0] * 6 + [1] * 4 + [0] * 2) * 4),
        window=None,
        intensity_mean=110.0,  # a quarter at 200, the rest at 80
        intensity_sd=facts.intensity_sd,
        femur_area_pct=25.0,
        femur_x_pct=43.75,  # the middle of columns 0 to 3 and 10 to 13 is 7 px from the left edge of 16
        femur_y_pct=75.0,
        labels=(),
        raw_image=str(one.files.image),
        raw_mask=str(one.files.mask),
    )
    assert problems == []
    assert [path.name for path in one.out.parent.iterdir() if path.suffix] == ["out.safetensors"]


def test_arrays_of_a_case(job: Callable[..., Job]) -> None:
    one = job(nifti(GREY.T), nifti(LABELS.T))
    converted(one)
    pixels = cases.load_pixels(one.out)
    assert pixels.image_hw.tolist() == [[80, 80], [140, 140]]
    assert pixels.mask_hw.tolist() == [[0, 0], [1, 1]], "half of each lower quarter"
    assert pixels.image_hw.dtype == pixels.mask_hw.dtype == np.uint8
    np.testing.assert_array_equal(pixels.small_image_hw, GREY)
    np.testing.assert_array_equal(pixels.small_mask_hw, LABELS == 1)
    (full,) = shards.unpack(shards.pack([("A", pixels)], with_full_masks=True)).full_masks
    np.testing.assert_array_equal(full, LABELS == 1)
    np.testing.assert_array_equal(cases.load_fingerprint(one.out), pixels.fingerprint)


def test_more_than_eight_bits_are_windowed_and_the_window_told(job: Callable[..., Job]) -> None:
    twelve_bits = np.arange(1000, dtype=np.uint16).reshape(20, 50) * 4  # its 0.5th percentile is 16, its 99.5th 3976
    labels = np.zeros((20, 50), np.uint8)
    labels[10:, 5:15] = 1
    one = job(nifti(twelve_bits.T), nifti(labels.T))
    facts, _ = converted(one)
    grey = cases.load_pixels(one.out).small_image_hw
    assert facts.window == (16, 3976)
    assert grey.ravel()[[0, 4, 5, 499, 994, 999]].tolist() == [0, 0, 0, 128, 255, 255]  # 255 * 495 / 990 = 127.5
    assert facts.image_sha256 == pixel_digest(grey), "of the grey values that are trained on"


def test_small_copy_keeps_the_proportions_of_a_large_picture(job: Callable[..., Job]) -> None:
    large = [np.kron(pixels, np.ones((64, 64), np.uint8)) for pixels in (GREY, LABELS)]
    one = job(png(large[0]), png(large[1]))
    facts, _ = converted(one)
    pixels = cases.load_pixels(one.out)
    assert (facts.height_px, facts.width_px, pixels.small_mask_hw.shape) == (512, 1024, (128, 256))
    assert (facts.femur_area_pct, facts.femur_x_pct, facts.femur_y_pct) == (25.0, 43.75, 75.0)


def test_file_with_words_in_it_is_stored_without_them(job: Callable[..., Job]) -> None:
    one = job(png(GREY, "Doe^Jane"), png(LABELS, "Doe^Jane"))
    facts, _ = converted(one)
    assert (facts.raw_image, facts.raw_mask) == (
        str(one.out.with_suffix(".image")),
        str(one.out.with_suffix(".mask")),
    )
    for raw, pixels in ((facts.raw_image, GREY), (facts.raw_mask, LABELS)):
        data = Path(raw).read_bytes()
        assert b"Doe" not in data
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)


def test_drawn_mask_is_stored_as_a_picture(job: Callable[..., Job]) -> None:
    corner = np.array([[0, 4], [4, 4], [4, 8], [0, 8]], np.float64)
    one = job(png(GREY), Shapes((Shape(1, (corner,)), Shape(2, (corner * 2,)))))
    facts, _ = converted(one)
    assert facts.femur_area_pct == 12.5
    with Image.open(facts.raw_mask) as stored:
        np.testing.assert_array_equal(np.asarray(stored), 255 * (np.arange(16) < 4) * (np.arange(8) >= 4)[:, None])


def test_mask_of_other_classes_is_empty_and_the_case_is_kept_for_who_lifts_it(job: Callable[..., Job]) -> None:
    facts, problems = converted(job(png(GREY), png(LABELS)), replace(READING, femur=frozenset({3})))
    assert problems == ["empty_mask"]
    assert (facts.femur_area_pct, facts.femur_x_pct, facts.femur_y_pct) == (0.0, None, None)


def test_mask_is_not_judged_where_nobody_knows_the_femur(job: Callable[..., Job]) -> None:
    assert converted(job(png(GREY), png(LABELS)), replace(READING, femur=frozenset()))[1] == []


def test_classes_are_told_where_the_femur_was_assumed(job: Callable[..., Job]) -> None:
    facts, _ = converted(job(png(GREY), png(LABELS)), replace(READING, assumed=True))
    assert facts.labels == (1, 2)


def test_soft_mask_is_cut_at_one_half_and_said(job: Callable[..., Job]) -> None:
    soft = np.where(LABELS == 1, 0.5, 0.25).astype(np.float32)
    facts, problems = converted(job(nifti(GREY.T), nifti(soft.T)))
    assert (facts.femur_area_pct, problems) == (25.0, ["soft_mask"])


def test_digest_is_of_size_and_values_and_not_of_their_order_in_memory() -> None:
    row = np.arange(6, dtype=np.uint8)
    digests = {pixel_digest(row.reshape(shape)) for shape in ((2, 3), (3, 2), (1, 6))}
    assert len(digests) == 3
    assert pixel_digest(np.asfortranarray(row.reshape(2, 3))) == pixel_digest(row.reshape(2, 3))


# ---- what is wrong with a case


def test_both_files_broken_are_both_problems(job: Callable[..., Job]) -> None:
    said = refused(job(b"", b"nothing of ours"))
    assert [code for code, _ in said] == ["unreadable", "unreadable"]
    assert [found.split(":")[0] for _, found in said] == ["image", "mask"]


@pytest.mark.parametrize(
    ("image", "mask", "codes"),
    [
        (b"", png(LABELS), ["unreadable"]),
        (png(GREY), b"", ["unreadable"]),
        (png(np.full((8, 16), 7, np.uint8)), b"", ["constant_image", "unreadable"]),
        (png(GREY), png(LABELS.T), ["size_mismatch"]),
        (png(np.full((8, 16), 7, np.uint8)), png(LABELS.T), ["constant_image", "size_mismatch"]),
        (nifti(np.where(GREY.T > 100, np.nan, 1.5)), png(LABELS), ["not_finite"]),
        (png(GREY), png(np.arange(128, dtype=np.uint8).reshape(8, 16)), ["mask_values"]),
        (png(GREY), nifti(np.where(LABELS.T, 1.0, np.nan)), ["not_finite"]),
    ],
    ids=["image", "mask", "constant and mask", "turned", "constant and turned", "nan", "grey mask", "nan in the mask"],
)
def test_all_that_is_wrong_is_said_and_nothing_converted(
    job: Callable[..., Job], image: bytes, mask: bytes, codes: list[str]
) -> None:
    assert [code for code, _ in refused(job(image, mask))] == codes


def test_sizes_that_differ_are_named(job: Callable[..., Job]) -> None:
    assert refused(job(png(GREY), png(LABELS.T))) == [("size_mismatch", "image 16 x 8, mask 8 x 16 px")]


# ---- many cases


def test_converted_cases_are_not_looked_at_again(job: Callable[..., Job]) -> None:
    jobs = [job(png(GREY), png(LABELS), case_id) for case_id in "ABC"]
    counted: list[int] = []
    convert_all(jobs[:2], READING)
    before = [one.out.stat().st_mtime_ns for one in jobs[:2]]
    for one in jobs[:2]:
        one.files.image.unlink()
    convert_all(jobs, READING, lambda: counted.append(1))
    assert [one.out.stat().st_mtime_ns for one in jobs[:2]] == before
    assert cases.load_facts(jobs[2].out)[0] is not None
    assert len(counted) == 3, "they count all the same"


def test_conversion_that_was_killed_in_a_case_does_it_again(job: Callable[..., Job]) -> None:
    one = job(png(GREY), png(LABELS))
    one.out.with_suffix(".part").write_bytes(b"half a fi")
    convert_all([one], READING)
    assert cases.load_facts(one.out)[0] is not None


def convert_or_fail(job: Job, reading: Reading) -> None:
    """What a reader does to a hostile file; it stands for native code, so in a process of its own."""
    if job.files.case_id == "crash":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.abort()
    if job.files.case_id == "hang":
        time.sleep(600)
    if job.files.case_id == "memory":
        raise MemoryError
    convert(job, reading)


def test_case_that_crashes_or_hangs_its_reader_costs_itself_alone(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "convert", convert_or_fail)
    monkeypatch.setattr(conversion, "CASE_TIMEOUT_S", 5)
    names = ("A", "crash", "B", "hang", "memory", "C", "D")
    jobs = {name: job(png(GREY), png(LABELS), name) for name in names}
    counted: list[int] = []
    convert_all(list(jobs.values()), READING, lambda: counted.append(1))
    said: dict[str, Any] = {}
    for name, one in jobs.items():
        facts, problems = cases.load_facts(one.out)
        assert (facts is None) is bool(problems)
        said |= {name: [(problem.case_id, problem.code, problem.found) for problem in problems]}
    assert {name for name in names if not said[name]} == set("ABCD")
    assert said["crash"] == [("crash", "hostile_file", "a reader that crashed with code -6")]
    assert said["hang"] == [("hang", "hostile_file", "a reader that was not done after 5 s")]
    assert said["memory"] == [("memory", "hostile_file", "a reader that ran out of memory")]
    assert len(counted) == len(names)


def test_classes_are_gathered_from_masks_and_what_cannot_be_read_is_left(job: Callable[..., Job]) -> None:
    masks = [png(LABELS), b"", png(LABELS * 3), png(np.arange(128, dtype=np.uint8).reshape(8, 16))]
    jobs = [job(b"", mask, f"{n}") for n, mask in enumerate(masks)]
    assert foreground_of_some([one.files.mask for one in jobs if isinstance(one.files.mask, Path)]) == {1, 2, 3, 6}
    assert foreground_of_some([]) == frozenset()


def test_workers_do_not_load_the_main_program_again(job: Callable[..., Job], tmp_path: Path) -> None:
    """Under Airflow the main program takes seconds to load, in every worker of every chunk."""
    made = job(nifti(GREY), nifti(LABELS))
    (tmp_path / "main.py").write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from femur_tasks.dataset.conversion import Job, Reading, convert_all\n"
        "from femur_tasks.dataset.layouts.layout import CaseFiles\n"
        "with open('loaded', 'a') as seen: print(__name__, file=seen)\n"
        "if __name__ == '__main__':\n"
        "    image, mask, out = map(Path, sys.argv[1:])\n"
        "    job = Job(CaseFiles('A', 'patient', 'val', image, mask), out)\n"
        "    convert_all([job], Reading(2, frozenset({1}), b'k' * 32))\n"
    )
    files = [str(made.files.image), str(made.files.mask), str(made.out)]
    subprocess.run([sys.executable, "main.py", *files], cwd=tmp_path, check=True, timeout=60)  # noqa: S603
    assert made.out.exists()
    assert (tmp_path / "loaded").read_text() == "__main__\n"
