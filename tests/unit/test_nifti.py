"""Reading NIfTI: the picture as people look at it, or a code that says why not."""

from __future__ import annotations

import gzip
import io
import json
import random
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from femur_tasks.dataset import nifti as nifti_module
from femur_tasks.dataset.layouts import CaseFiles
from femur_tasks.dataset.nifti import Unreadable, like_input, read_file, read_picture
from femur_tasks.dataset.validation import ConvertedCase, problems_of_image, read_case
from tests.radiographs import grey_hw, labels_hw, nifti

UNITS_OFFSET, DIM_OFFSET, TYPE_OFFSET, ZOOMS_OFFSET = 123, 40, 70, 76

ODD_IMAGES = {
    "shape_hw1.nii.gz": None,
    "shape_1hw.nii.gz": "wrong_shape",
    "shape_hw11.nii.gz": None,
    "rgb_struct.nii.gz": "wrong_shape",
    "rgb_lastaxis.nii.gz": "wrong_shape",
    "int16_slope.nii.gz": "intensity_range",
    "float64.nii": "intensity_range",
    "uint16_12bit.nii.gz": "intensity_range",
    "nan_inf.nii.gz": "not_finite",
    "bigendian_i2.nii": None,
    "pair.img": "unreadable",
    "affine_rot20.nii.gz": None,
    "affine_lps.nii.gz": None,
    "spacing_0p143.nii.gz": None,
    "constant.nii.gz": "constant_image",
    "volume3d.nii.gz": "wrong_shape",
    "empty_zero_dim.nii": "wrong_shape",
    "inverted_mono1.nii.gz": None,
    "nifti2.nii.gz": "unreadable",
    "complex64.nii.gz": "wrong_shape",
    "truncated.nii.gz": "unreadable",
    "gz_named_nii.nii": None,
    "not_nifti.nii.gz": "unreadable",
    "zero_bytes.nii.gz": "unreadable",
}
ODD_MASKS = {
    "mask_float_0_1.nii.gz": None,
    "mask_0_255.nii.gz": "empty_mask",
    "mask_soft_edges.nii.gz": "mask_values",
    "mask_other_size.nii.gz": "size_mismatch",
    "mask_empty.nii.gz": "empty_mask",
}


def code_of(data: bytes) -> str:
    with pytest.raises(Unreadable) as refused:
        read_picture(data)
    assert refused.value.found
    return refused.value.code


def with_header(offset: int, patch: bytes) -> bytes:
    raw = bytearray(nifti(grey_hw(1).T))
    raw[offset : offset + len(patch)] = patch
    return bytes(raw)


def dims(*sizes: int) -> bytes:
    return np.array([len(sizes), *sizes, *([1] * (7 - len(sizes)))], "<i2").tobytes()


# ---- the picture


def test_picture_is_the_transpose_of_what_is_stored() -> None:
    stored_xy = np.array([[11, 21, 31], [12, 22, 32]], np.uint8)  # x = 0 has 11, 21, 31 from top to bottom
    picture = read_picture(nifti(stored_xy))
    assert picture.pixels_hw.tolist() == [[11, 12], [21, 22], [31, 32]]


def test_marker_in_the_upper_left_stays_there_however_the_affine_points() -> None:
    marked = np.zeros((30, 20), np.uint8)
    marked[2:6, 1:4] = 255
    for affine in (np.eye(4), np.diag([-1, -1, 1, 1]), np.diag([-0.1, 0.1, 1, 1])):
        data = nib.Nifti1Image(marked.T, affine).to_bytes()
        np.testing.assert_array_equal(read_picture(data).pixels_hw, marked)


def test_r_marker_of_a_real_radiograph_is_on_the_left_and_can_be_read(shared_data: Path) -> None:
    picture = read_file(shared_data / "real_dev11" / "test" / "imgs" / "REAL_14.nii.gz")[1].pixels_hw
    marker = picture[216:229, 6:15] > 150
    assert marker[:, :2].all()  # the stem of the R, and its legs apart at the bottom right
    assert marker[-1].tolist() == [True] * 2 + [False] * 5 + [True] * 2
    assert not (picture[216:229, -15:-6] > 150).any()


@pytest.mark.parametrize("shape", [(48, 40, 1), (48, 40, 1, 1)], ids=["3-D", "4-D"])
def test_axes_of_one_pixel_are_dropped(shape: tuple[int, ...]) -> None:
    picture = read_picture(nifti(grey_hw(1).T.reshape(shape)))
    np.testing.assert_array_equal(picture.pixels_hw, grey_hw(1))


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "<u2", "<i4", "<f4", ">f8"])
def test_values_are_the_same_in_every_type(dtype: str) -> None:
    image = nib.Nifti1Image(grey_hw(1).T.astype(dtype), np.eye(4))
    picture = read_picture(image.to_bytes())
    np.testing.assert_array_equal(picture.pixels_hw, grey_hw(1))


def test_slope_of_the_header_is_applied() -> None:
    halves = read_picture(nifti(np.full((3, 2), 9, np.int16), slope=0.5)).pixels_hw
    assert halves.tolist() == [[4.5] * 3] * 2


@pytest.mark.parametrize(
    "packed", [bytes, gzip.compress, lambda raw: gzip.compress(raw[:500]) + gzip.compress(raw[500:])]
)
def test_packing_does_not_matter(packed: object) -> None:
    data = packed(nifti(grey_hw(1).T))  # type: ignore[operator]
    np.testing.assert_array_equal(read_picture(data).pixels_hw, grey_hw(1))


@pytest.mark.parametrize(
    ("units", "zooms", "expected"),
    [
        ("mm", (0.25, 0.5), (0.25, 0.5)),
        ("meter", (0.00025, 0.0005), (0.25, 0.5)),
        ("micron", (250, 500), (0.25, 0.5)),
        ("unknown", (0.25, 0.5), None),
    ],
)
def test_spacing_is_in_mm_along_x_and_y(
    units: str, zooms: tuple[float, float], expected: tuple[float, float] | None
) -> None:
    spacing = read_picture(nifti(grey_hw(1).T, units, zooms)).spacing_mm
    assert spacing == (pytest.approx(expected) if expected else None)


@pytest.mark.parametrize("zoom", [0.0, np.nan, np.inf])
def test_spacing_that_is_no_length_is_unknown(zoom: float) -> None:
    raw = bytearray(nifti(grey_hw(1).T, "mm", (0.5, 0.5)))
    raw[ZOOMS_OFFSET + 4 : ZOOMS_OFFSET + 8] = np.float32(zoom).tobytes()
    spacing = read_picture(bytes(raw)).spacing_mm
    assert spacing is None or (zoom == 0 and spacing == (1.0, 0.5))  # nibabel repairs a pixdim of 0 to 1


@pytest.mark.parametrize("code", [4, 5, 6, 7, 0x78, 0xFF])
def test_unit_that_nobody_knows_leaves_the_spacing_unknown(code: int) -> None:
    assert read_picture(with_header(UNITS_OFFSET, bytes([code]))).spacing_mm is None


# ---- what is no picture


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "unreadable"),
        (b"hello", "unreadable"),
        (nifti(grey_hw(1).T)[:347], "unreadable"),
        (nifti(grey_hw(1).T)[:-1], "unreadable"),
        (gzip.compress(nifti(grey_hw(1).T))[:-9], "unreadable"),
        (gzip.compress(b""), "unreadable"),
        (nifti(np.zeros((4, 4), np.complex64)), "wrong_shape"),
        (nifti(np.zeros((4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])), "wrong_shape"),
        (nifti(np.zeros((4, 4, 3), np.uint8)), "wrong_shape"),
        (nifti(np.zeros((1, 4, 4), np.uint8)), "wrong_shape"),
        (nifti(np.zeros((0, 4), np.uint8)), "wrong_shape"),
        (with_header(DIM_OFFSET, dims(10_000, 10_000, 10_000)), "unreadable"),
        (with_header(DIM_OFFSET, dims(*[32767] * 7)), "unreadable"),
        (with_header(DIM_OFFSET, dims(-48, -40)), "unreadable"),
        (with_header(TYPE_OFFSET, b"\x00\x00"), "unreadable"),
    ],
    ids=[
        "no bytes",
        "text",
        "part of a header",
        "one byte short",
        "truncated gzip",
        "gzip of nothing",
        "complex",
        "RGB",
        "three slices",
        "first axis of one pixel",
        "no pixels",
        "10^12 voxels",
        "10^31 voxels",
        "negative sizes",
        "no type",
    ],
)
def test_what_is_no_picture_has_a_code(data: bytes, code: str) -> None:
    assert code_of(data) == code


@pytest.mark.parametrize("packed", [gzip.compress, bytes], ids=["gzip that expands", "uncompressed"])
def test_file_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch, packed: type[bytes], tmp_path: Path) -> None:
    monkeypatch.setattr(nifti_module, "MAX_BYTES", 2000)
    data = packed(nifti(np.zeros((48, 48), np.uint8)))
    assert code_of(data) == "unreadable"
    (tmp_path / "a.nii").write_bytes(data)
    with pytest.raises(Unreadable, match="radiograph"):
        read_file(tmp_path / "a.nii")


def test_file_that_is_not_there_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="No such file"):
        read_file(tmp_path / "none.nii")


def test_damaged_gzip_is_unreadable_or_unharmed() -> None:
    noise, whole = random.Random(3), gzip.compress(nifti(grey_hw(1).T))
    for place in noise.sample(range(10, len(whole)), 150):
        damaged = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
        try:
            found = read_picture(damaged).pixels_hw
        except Unreadable:
            continue
        np.testing.assert_array_equal(found, grey_hw(1))


@pytest.mark.filterwarnings("ignore")
def test_no_header_makes_the_reader_crash() -> None:
    noise, whole = random.Random(4), nifti(grey_hw(1).T)
    for _ in range(400):
        damaged = bytearray(whole)
        for place in noise.sample(range(352), noise.randint(1, 4)):
            damaged[place] = noise.choice([0, 1, 127, 128, 255])
        try:
            assert problems_of_image("x", read_picture(bytes(damaged)).pixels_hw) is not None
        except Unreadable as err:
            assert err.code in {"unreadable", "wrong_shape"}  # noqa: PT017


# ---- the odd files, as a case's image or mask


def as_case(folder: Path, image: Path, mask: Path) -> ConvertedCase | list[str]:
    read = read_case(CaseFiles("x", None, image, mask), 64, 1)
    return read if isinstance(read, ConvertedCase) else [problem.code for problem in read]


@pytest.fixture
def odd(shared_data: Path) -> Path:
    return shared_data / "nifti_odd"


@pytest.mark.parametrize(("name", "code"), ODD_IMAGES.items(), ids=ODD_IMAGES)
def test_odd_image_is_read_or_is_one_problem(odd: Path, name: str, code: str | None) -> None:
    read = as_case(odd, odd / name, odd / "mask_float_0_1.nii.gz")
    assert isinstance(read, ConvertedCase) if code is None else read == [code]


@pytest.mark.parametrize(("name", "code"), ODD_MASKS.items(), ids=ODD_MASKS)
def test_odd_mask_is_read_or_is_one_problem(odd: Path, name: str, code: str | None) -> None:
    read = as_case(odd, odd / "shape_hw1.nii.gz", odd / name)
    assert isinstance(read, ConvertedCase) if code is None else read == [code]


def test_every_odd_file_is_tried(odd: Path) -> None:
    listed = {case["file"] for case in json.loads((odd / "expectations.json").read_text())}
    assert listed == {*ODD_IMAGES, *ODD_MASKS}


@pytest.mark.parametrize(
    "name",
    [
        "shape_hw11.nii.gz",
        "bigendian_i2.nii",
        "affine_rot20.nii.gz",
        "affine_lps.nii.gz",
        "gz_named_nii.nii",
    ],
)
def test_odd_files_that_show_the_same_picture_read_the_same(odd: Path, name: str) -> None:
    plain = read_file(odd / "shape_hw1.nii.gz")[1].pixels_hw
    np.testing.assert_allclose(read_file(odd / name)[1].pixels_hw, plain, atol=0.5)


def test_files_of_nibabel_are_read_or_unreadable(odd: Path) -> None:
    for path in sorted((odd / "nibabel_mit").iterdir()):
        with pytest.raises(Unreadable):
            read_file(path)


def test_dicom_is_unreadable_not_a_crash(shared_data: Path) -> None:
    with pytest.raises(Unreadable):
        read_file(next(iter((shared_data / "ood_pediatric_ddh").glob("*.dcm"))))


# ---- problems of pixels


@pytest.mark.parametrize(
    ("grey", "codes"),
    [
        ([[0, 255]], []),
        ([[0.0, 255.0]], []),
        ([[0, 256]], ["intensity_range"]),
        ([[-1, 200]], ["intensity_range"]),
        ([[0.0, 1.0]], ["intensity_range"]),
        ([[0.0, 2.0]], []),
        ([[7, 7]], ["constant_image"]),
        ([[0, 0]], ["constant_image"]),
        ([[np.nan, 3]], ["not_finite"]),
        ([[np.inf, 3]], ["not_finite"]),
    ],
)
def test_grey_values_are_0_to_255(grey: list[list[float]], codes: list[str]) -> None:
    assert [problem.code for problem in problems_of_image("x", np.array(grey))] == codes


def test_every_problem_of_a_case_is_reported_at_once(tmp_path: Path) -> None:
    image, mask = tmp_path / "image.nii", tmp_path / "mask.nii"
    image.write_bytes(nifti(np.full((8, 8), 300, np.int16)))
    mask.write_bytes(nifti(np.full((8, 9), 4, np.uint8)))
    problems = read_case(CaseFiles("x", None, image, mask), 32, 1)
    assert isinstance(problems, list)
    assert [problem.code for problem in problems] == ["constant_image", "empty_mask", "size_mismatch"]
    image.write_bytes(b"")
    mask.write_bytes(b"")
    problems = read_case(CaseFiles("x", None, image, mask), 32, 1)
    assert isinstance(problems, list)
    assert [problem.found.split(":")[0] for problem in problems] == ["image", "mask"]


@pytest.mark.parametrize(("label", "pixels"), [(1, 3), (2, 2)], ids=["femur is 1", "femur is 2"])
def test_femur_label_chooses_the_class(tmp_path: Path, label: int, pixels: int) -> None:
    image, mask = tmp_path / "image.nii", tmp_path / "mask.nii"
    image.write_bytes(nifti(np.arange(64, dtype=np.uint8).reshape(8, 8)))
    classes = np.zeros((8, 8), np.uint8)
    classes[0, :3], classes[1, :2] = 1, 2
    mask.write_bytes(nifti(classes))
    case = read_case(CaseFiles("x", None, image, mask), 8, label)
    assert isinstance(case, ConvertedCase)
    assert case.mask_hw.sum() == pixels


def test_empty_mask_lists_the_classes_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "image.nii").write_bytes(nifti(grey_hw(1).T))
    (tmp_path / "mask.nii").write_bytes(nifti(labels_hw(1).T))
    problems = read_case(CaseFiles("x", None, tmp_path / "image.nii", tmp_path / "mask.nii"), 32, 5)
    assert isinstance(problems, list)
    assert [(problem.code, problem.found) for problem in problems] == [("empty_mask", "classes 0, 1, 2")]
    assert "--femur-label" in problems[0].expected


# ---- a mask in the input's geometry


@pytest.mark.parametrize("shape", [(48, 40), (48, 40, 1), (48, 40, 1, 1)], ids=["2-D", "3-D", "4-D"])
def test_mask_comes_back_in_the_geometry_of_the_picture(shape: tuple[int, ...]) -> None:
    affine = np.array([[0, -0.2, 0, 5], [0.3, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]])
    original = nib.Nifti1Image(grey_hw(1).T.reshape(shape).astype(">i2"), affine)
    original.header.set_xyzt_units("mm")
    original.header.set_slope_inter(0.5, 3)
    mask_hw = labels_hw(1) == 1
    written = like_input(mask_hw, gzip.compress(original.to_bytes()))
    image = nib.Nifti1Image.from_bytes(gzip.decompress(written))
    assert image.shape == shape
    np.testing.assert_allclose(image.affine, affine, atol=1e-6)
    assert image.header.get_zooms()[:2] == original.header.get_zooms()[:2]
    assert read_picture(written).spacing_mm == read_picture(original.to_bytes()).spacing_mm
    np.testing.assert_array_equal(read_picture(written).pixels_hw, mask_hw)
    assert set(np.unique(np.asanyarray(image.dataobj))) == {0, 1}


def test_mask_is_written_the_same_every_time() -> None:
    original = nifti(grey_hw(1).T)
    first = like_input(labels_hw(1) == 1, original)
    assert first == like_input(labels_hw(1) == 1, original)
    assert gzip.GzipFile(fileobj=io.BytesIO(first)).read(4) == (348).to_bytes(4, "little")
