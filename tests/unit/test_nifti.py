"""Reading NIfTI: the picture as people look at it, or a code that says why not."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from femur_tasks.dataset.pictures import nifti as nifti_module
from femur_tasks.dataset.pictures import nifti_header, read_labels, read_picture
from femur_tasks.dataset.pictures.nifti import decode, decode_pair, encode, like_input, read_file
from femur_tasks.dataset.problems import Faulty
from tests.radiographs import Array, grey_hw, labels_hw, nifti

UNITS_OFFSET, DIM_OFFSET, TYPE_OFFSET, ZOOMS_OFFSET, VOX_OFFSET = 123, 40, 70, 76, 108
RGB, RGBA = [(name, "u1") for name in "RGB"], [(name, "u1") for name in "RGBA"]

# the picture's least and greatest value, or a code
ODD: dict[str, tuple[float, float] | str] = {
    "shape_hw1.nii.gz": (4, 254),
    "shape_1hw.nii.gz": (4, 254),
    "shape_hw11.nii.gz": (4, 254),
    "rgb_struct.nii.gz": (4, 254),
    "rgb_lastaxis.nii.gz": (4, 254),
    "int16_slope.nii.gz": (-1535, -1472.5),
    "float64.nii": (4 / 255, 254 / 255),
    "uint16_12bit.nii.gz": (64, 4064),
    "nan_inf.nii.gz": (np.nan, np.nan),
    "bigendian_i2.nii": (4, 254),
    "pair.img": (4, 254),
    "pair.hdr": (4, 254),
    "affine_rot20.nii.gz": (4, 254),
    "affine_lps.nii.gz": (4, 254),
    "spacing_0p143.nii.gz": (4, 254),
    "constant.nii.gz": (7, 7),
    "volume3d.nii.gz": "wrong_shape",
    "empty_zero_dim.nii": "wrong_shape",
    "inverted_mono1.nii.gz": (1, 251),
    "nifti2.nii.gz": (4, 254),
    "complex64.nii.gz": "wrong_shape",
    "truncated.nii.gz": "unreadable",
    "gz_named_nii.nii": (4, 254),
    "not_nifti.nii.gz": "unreadable",
    "zero_bytes.nii.gz": "unreadable",
    "mask_float_0_1.nii.gz": (0, 1),
    "mask_0_255.nii.gz": (0, 255),
    "mask_soft_edges.nii.gz": (0, 1),
    "mask_other_size.nii.gz": (0, 1),
    "mask_empty.nii.gz": (0, 0),
}
OF_NIBABEL: dict[str, tuple[float, float] | str] = {
    "0.dcm": (161, 4095),
    "analyze.hdr": "unreadable",
    "anatomical.nii": "wrong_shape",
    "example4d.nii.gz": "wrong_shape",
    "example_nifti2.nii.gz": "wrong_shape",
    "functional.nii": "wrong_shape",
    "nifti1.hdr": "unreadable",
    "nifti2.hdr": "unreadable",
    "reoriented_anat_moved.nii": "wrong_shape",
    "resampled_anat_moved.nii": "wrong_shape",
    "standard.nii.gz": "wrong_shape",
    "test.mgz": "unreadable",
}


def code_of(data: bytes) -> str:
    with pytest.raises(Faulty) as refused:
        decode(data)
    assert refused.value.found
    return refused.value.code


def with_header(offset: int, patch: bytes) -> bytes:
    raw = bytearray(nifti(grey_hw(1).T))
    raw[offset : offset + len(patch)] = patch
    return bytes(raw)


def dims(*sizes: int) -> bytes:
    return np.array([len(sizes), *sizes, *([1] * (7 - len(sizes)))], "<i2").tobytes()


def zipped(raw: bytes) -> bytes:
    return gzip.compress(raw, mtime=0)


# ---- the picture


def test_picture_is_the_transpose_of_what_is_stored() -> None:
    stored_xy = np.array([[11, 21, 31], [12, 22, 32]], np.uint8)  # x = 0 has 11, 21, 31 from top to bottom
    picture = decode(nifti(stored_xy))
    assert picture.pixels_hw.tolist() == [[11, 12], [21, 22], [31, 32]]


def test_marker_in_the_upper_left_stays_there_however_the_affine_points() -> None:
    marked = np.zeros((30, 20), np.uint8)
    marked[2:6, 1:4] = 255
    for affine in (np.eye(4), np.diag([-1, -1, 1, 1]), np.diag([-0.1, 0.1, 1, 1])):
        data = nib.Nifti1Image(marked.T, affine).to_bytes()
        np.testing.assert_array_equal(decode(data).pixels_hw, marked)


def test_r_marker_of_a_real_radiograph_is_on_the_left_and_can_be_read(shared_data: Path) -> None:
    picture = read_file(shared_data / "real_dev11" / "test" / "imgs" / "REAL_14.nii.gz")[1].pixels_hw
    marker = picture[216:229, 6:15] > 150
    assert marker[:, :2].all()  # the stem of the R, and its legs apart at the bottom right
    assert marker[-1].tolist() == [True] * 2 + [False] * 5 + [True] * 2
    assert not (picture[216:229, -15:-6] > 150).any()


@pytest.mark.parametrize("shape", [(48, 40, 1), (48, 40, 1, 1)], ids=["3-D", "4-D"])
def test_axes_of_one_pixel_are_dropped(shape: tuple[int, ...]) -> None:
    picture = decode(nifti(grey_hw(1).T.reshape(shape)))
    np.testing.assert_array_equal(picture.pixels_hw, grey_hw(1))


def test_first_axis_of_one_pixel_is_dropped_and_the_spacing_is_that_of_the_others() -> None:
    image = nib.Nifti1Image(grey_hw(1).T[None], np.eye(4))
    image.header.set_xyzt_units("mm")
    image.header.set_zooms((9, 0.25, 0.5))
    picture = decode(image.to_bytes())
    np.testing.assert_array_equal(picture.pixels_hw, grey_hw(1))
    assert picture.spacing_mm == (0.25, 0.5)


COLOURS = [[(255, 0, 0), (0, 255, 0), (0, 0, 255)], [(255, 255, 255), (10, 20, 30), (7, 7, 7)]]
LUMINANCE = [[76, 150, 29], [255, 18, 7]]  # 0.299 red + 0.587 green + 0.114 blue


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("structured", [True, False], ids=["type", "last axis"])
def test_colours_become_luminance(channels: int, structured: bool) -> None:
    colour = np.full((2, 3, channels), 99, np.uint8)
    colour[..., :3] = COLOURS
    xy = np.ascontiguousarray(colour.transpose(1, 0, 2))
    stored = xy.view(RGB if channels == 3 else RGBA)[..., 0] if structured else xy
    assert decode(nifti(stored)).pixels_hw.tolist() == LUMINANCE


@pytest.mark.parametrize("structured", [True, False], ids=["type", "last axis"])
def test_mask_in_colours_is_refused_and_one_in_equal_channels_is_read(tmp_path: Path, structured: bool) -> None:
    classes = np.repeat(labels_hw(1).T[..., None], 3, axis=2)
    for code, colour in ((None, classes), ("mask_values", classes * np.array([1, 0, 0], np.uint8))):
        (tmp_path / "mask.nii").write_bytes(nifti(colour.view(RGB)[..., 0] if structured else colour))
        if code is None:
            np.testing.assert_array_equal(read_labels(tmp_path / "mask.nii").pixels_hw, labels_hw(1))
            continue
        with pytest.raises(Faulty) as refused:
            read_labels(tmp_path / "mask.nii")
        assert refused.value.code == code


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "<u2", "<i4", "<f4", ">f8"])
def test_values_are_the_same_in_every_type(dtype: str) -> None:
    image = nib.Nifti1Image(grey_hw(1).T.astype(dtype), np.eye(4))
    picture = decode(image.to_bytes())
    np.testing.assert_array_equal(picture.pixels_hw, grey_hw(1))


def test_slope_of_the_header_is_applied() -> None:
    halves = decode(nifti(np.full((3, 2), 9, np.int16), slope=0.5)).pixels_hw
    assert halves.tolist() == [[4.5] * 3] * 2


@pytest.mark.parametrize(
    "packed", [bytes, gzip.compress, lambda raw: gzip.compress(raw[:500]) + gzip.compress(raw[500:])]
)
def test_packing_does_not_matter(packed: object) -> None:
    data = packed(nifti(grey_hw(1).T))  # type: ignore[operator]
    np.testing.assert_array_equal(decode(data).pixels_hw, grey_hw(1))


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
    spacing = decode(nifti(grey_hw(1).T, units, zooms)).spacing_mm
    assert spacing == (pytest.approx(expected) if expected else None)


@pytest.mark.parametrize("zoom", [0.0, np.nan, np.inf])
def test_spacing_that_is_no_length_is_unknown(zoom: float) -> None:
    raw = bytearray(nifti(grey_hw(1).T, "mm", (0.5, 0.5)))
    raw[ZOOMS_OFFSET + 4 : ZOOMS_OFFSET + 8] = np.float32(zoom).tobytes()
    spacing = decode(bytes(raw)).spacing_mm
    assert spacing is None


@pytest.mark.parametrize("code", [4, 5, 6, 7, 0x78, 0xFF])
def test_unit_that_nobody_knows_leaves_the_spacing_unknown(code: int) -> None:
    assert decode(with_header(UNITS_OFFSET, bytes([code]))).spacing_mm is None


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
        (nifti(np.zeros((4, 4, 2), np.uint8)), "wrong_shape"),
        (nifti(np.zeros((4, 4, 3), np.int16)), "wrong_shape"),
        (nifti(np.zeros((1, 1, 4, 4), np.uint8)), "wrong_shape"),
        (with_header(DIM_OFFSET, dims(1920)), "wrong_shape"),
        (nifti(np.zeros((0, 4), np.uint8)), "wrong_shape"),
        (with_header(DIM_OFFSET, dims(10_000, 10_000, 10_000)), "wrong_shape"),
        (with_header(DIM_OFFSET, dims(32767, 32767)), "too_large"),
        (zipped(with_header(DIM_OFFSET, dims(32767, 32767))), "too_large"),
        (with_header(DIM_OFFSET, dims(-48, -40)), "wrong_shape"),
        (with_header(DIM_OFFSET, b"\x09"), "unreadable"),
        (with_header(TYPE_OFFSET, b"\x00\x00"), "unreadable"),
        *((with_header(VOX_OFFSET, np.float32(at).tobytes()), "unreadable") for at in (0, -1, 351, 352.5, np.nan)),
        (with_header(VOX_OFFSET, np.float32(np.inf).tobytes()), "too_large"),
        (zipped(nifti(np.zeros((4, 4), np.uint8)) + bytes(5000)), "hostile_file"),
    ],
    ids=[
        "no bytes",
        "text",
        "part of a header",
        "one byte short",
        "truncated gzip",
        "gzip of nothing",
        "complex",
        "two slices",
        "three slices of 16 bits",
        "two first axes of one pixel",
        "one axis",
        "no pixels",
        "10^12 voxels",
        "10^9 pixels",
        "10^9 pixels in a gzip",
        "negative sizes",
        "nine axes",
        "no type",
        *(f"pixels at {at}" for at in ("0", "-1", "351", "352.5", "nan", "inf")),
        "gzip that goes on",
    ],
)
def test_what_is_no_picture_has_a_code(data: bytes, code: str) -> None:
    assert code_of(data) == code


def test_header_of_a_terabyte_is_refused_at_once() -> None:
    header = nib.Nifti2Header()
    header.set_data_shape((10**6, 10**6))
    header["magic"], header["vox_offset"] = b"n+2\0\r\n\x1a\n", 544
    assert code_of(header.binaryblock + bytes(4)) == "too_large"


def test_gzip_is_unpacked_no_further_than_its_header_says() -> None:
    bomb = zipped(nifti(np.zeros((4, 4), np.uint8)) + bytes(200 << 20))
    tracemalloc.start()
    assert code_of(bomb) == "hostile_file"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_file_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(nifti(grey_hw(1).T))  # 352 + 40 * 48 = 2272 bytes
    monkeypatch.setattr(nifti_module, "MAX_FILE_BYTES", 2272)
    assert read_picture(tmp_path / "a.nii").pixels_hw.shape == (40, 48)
    monkeypatch.setattr(nifti_module, "MAX_FILE_BYTES", 2271)
    with pytest.raises(Faulty) as refused:
        read_picture(tmp_path / "a.nii")
    assert refused.value.code == "too_large"


@pytest.mark.parametrize(("limit", "one_less"), [("MAX_PIXELS", 1919), ("MAX_DECODED_BYTES", 1919)])
def test_limits_are_those_of_pictures(monkeypatch: pytest.MonkeyPatch, limit: str, one_less: int) -> None:
    monkeypatch.setattr(nifti_header, limit, one_less + 1)
    assert decode(nifti(grey_hw(1).T)).pixels_hw.size == 1920
    monkeypatch.setattr(nifti_header, limit, one_less)
    assert code_of(nifti(grey_hw(1).T)) == "too_large"


@pytest.mark.timeout(5)
def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.nii")
    for path in (tmp_path / "a.nii", tmp_path):
        with pytest.raises(Faulty, match="no plain file"):
            read_picture(path)


def test_file_that_is_not_there_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(Faulty, match="No such file"):
        read_file(tmp_path / "none.nii")


def test_damaged_gzip_is_unreadable_or_unharmed() -> None:
    noise, whole = random.Random(3), gzip.compress(nifti(grey_hw(1).T))
    for place in noise.sample(range(10, len(whole)), 150):
        damaged = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
        try:
            found = decode(damaged).pixels_hw
        except Faulty:
            continue
        np.testing.assert_array_equal(found, grey_hw(1))


def test_no_header_makes_the_reader_crash() -> None:
    noise, whole = random.Random(4), nifti(grey_hw(1).T)
    for _ in range(400):
        damaged = bytearray(whole)
        for place in noise.sample(range(352), noise.randint(1, 4)):
            damaged[place] = noise.choice([0, 1, 127, 128, 255])
        try:
            assert decode(bytes(damaged)).pixels_hw.ndim == 2
        except Faulty as err:
            assert err.code in {"unreadable", "wrong_shape", "too_large"}  # noqa: PT017


# ---- the odd files


def outcome(path: Path) -> tuple[float, float] | str:
    try:
        pixels = read_picture(path).pixels_hw
    except Faulty as err:
        return err.code
    return float(pixels.min()), float(pixels.max())


@pytest.fixture
def odd(shared_data: Path) -> Path:
    return shared_data / "nifti_odd"


@pytest.mark.parametrize(("name", "expected"), ODD.items(), ids=ODD)
def test_odd_file_is_read_or_has_a_code(odd: Path, name: str, expected: tuple[float, float] | str) -> None:
    found = outcome(odd / name)
    assert found == (expected if isinstance(expected, str) else pytest.approx(expected, nan_ok=True))


@pytest.mark.parametrize(("name", "expected"), OF_NIBABEL.items(), ids=OF_NIBABEL)
def test_file_of_nibabel_is_read_or_has_a_code(odd: Path, name: str, expected: tuple[float, float] | str) -> None:
    assert outcome(odd / "nibabel_mit" / name) == expected


def test_every_odd_file_is_tried(odd: Path) -> None:
    listed = {case["file"] for case in json.loads((odd / "expectations.json").read_text())}
    assert {*ODD} == {*listed, "pair.hdr"}
    assert {*OF_NIBABEL} == {path.name for path in (odd / "nibabel_mit").iterdir()}


SAME = ["shape_1hw.nii.gz", "shape_hw11.nii.gz", "rgb_struct.nii.gz", "rgb_lastaxis.nii.gz", "bigendian_i2.nii"]
SAME += ["pair.img", "pair.hdr", "affine_rot20.nii.gz", "affine_lps.nii.gz", "spacing_0p143.nii.gz"]
SAME += ["nifti2.nii.gz", "gz_named_nii.nii"]


@pytest.mark.parametrize("name", SAME)
def test_odd_files_that_show_the_same_picture_read_the_same(odd: Path, name: str) -> None:
    plain = read_picture(odd / "shape_hw1.nii.gz").pixels_hw
    np.testing.assert_array_equal(read_picture(odd / name).pixels_hw, plain)


def test_faulty_file_does_not_tell_its_name(tmp_path: Path) -> None:
    for data in (b"", b"text", nifti(grey_hw(1).T)[:-1], nifti(np.zeros((2, 2, 2), np.uint8))):
        (tmp_path / "Doe_Jane.nii").write_bytes(data)
        with pytest.raises(Faulty) as refused:
            read_picture(tmp_path / "Doe_Jane.nii")
        assert "Doe" not in f"{refused.value}{refused.value.found}{refused.value.expected}"


# ---- what may be stored


def named(pixels_xy: Array, field: str, second: bool = False) -> bytes:
    image = (nib.Nifti2Image if second else nib.Nifti1Image)(pixels_xy, np.diag([-1, 1, 1, 1]))
    image.header[field] = b"\0Doe^Jane"  # behind a NUL, where few look
    return bytes(image.to_bytes())


def with_extension(pixels_xy: Array) -> bytes:
    image = nib.Nifti1Image(pixels_xy, np.diag([-1, 1, 1, 1]))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Doe^Jane"))
    return bytes(image.to_bytes())


def with_file_name(raw: bytes) -> bytes:
    buffer = io.BytesIO()
    with gzip.GzipFile("Doe^Jane.nii", "wb", fileobj=buffer) as file:
        file.write(raw)
    return buffer.getvalue()


PIXELS_XY = np.arange(12, dtype=">i2").reshape(3, 4) - 3


@pytest.mark.parametrize(
    "data",
    [
        *(named(PIXELS_XY, field) for field in ("descrip", "aux_file", "db_name", "data_type", "intent_name")),
        named(PIXELS_XY, "unused_str", second=True),
        with_extension(PIXELS_XY),
        with_file_name(nifti(PIXELS_XY)),
        nifti(PIXELS_XY) + b"Doe^Jane",
        zipped(nifti(PIXELS_XY) + b"Doe^Jane"),
        zipped(nifti(PIXELS_XY)) + with_file_name(b""),
    ],
    ids=[
        *("description", "other file", "database", "type", "intent", "unused text", "extension", "name in the gzip"),
        *("behind the pixels", "behind the pixels of a gzip", "name in a second gzip"),
    ],
)
def test_what_is_stored_has_no_texts_and_the_same_pixels(data: bytes) -> None:
    picture = decode(data)
    assert picture.clean
    assert b"Doe" not in picture.clean
    assert b"Doe" not in gzip.decompress(picture.clean)
    again = decode(picture.clean)
    assert again.clean is None
    assert again.spacing_mm == picture.spacing_mm
    assert again.pixels_hw.tolist() == picture.pixels_hw.tolist() == PIXELS_XY.T.tolist()


@pytest.mark.parametrize("pack", [bytes, zipped], ids=["uncompressed", "gzip"])
def test_file_of_pixels_and_geometry_may_be_stored_itself(pack: type[bytes]) -> None:
    assert decode(pack(nifti(PIXELS_XY, "mm", (0.1, 0.2)))).clean is None


def test_stored_file_keeps_the_affine() -> None:
    clean = decode(with_extension(PIXELS_XY)).clean
    assert clean
    assert nib.Nifti1Image.from_bytes(gzip.decompress(clean)).affine.tolist() == np.diag([-1.0, 1, 1, 1]).tolist()


# ---- a pair of files


@pytest.mark.parametrize(
    ("header", "image"),
    [("a.hdr", "a.img"), ("a.hdr.gz", "a.img.gz"), ("a.hdr", "a.img.gz"), ("a.HDR", "a.IMG")],
)
def test_pair_is_read_from_either_file_and_stored_as_one(tmp_path: Path, header: str, image: str) -> None:
    files = nib.Nifti1Pair(PIXELS_XY, np.eye(4))
    files.header.set_slope_inter(2, 1)
    files.header["descrip"] = b"Doe^Jane"
    for name, data in ((header, files.header.binaryblock), (image, PIXELS_XY.tobytes(order="F"))):
        (tmp_path / name).write_bytes(zipped(data) if name.endswith("gz") else data)
    for name in (header, image):
        picture = read_picture(tmp_path / name)
        assert picture.pixels_hw.tolist() == (PIXELS_XY.T * 2 + 1).tolist()
        assert picture.clean
        assert decode(picture.clean).clean is None
        assert decode(picture.clean).pixels_hw.tolist() == picture.pixels_hw.tolist()
        assert read_file(tmp_path / name)[0] == picture.clean


def test_pixels_that_are_too_few_for_their_header_are_unreadable() -> None:
    with pytest.raises(Faulty, match="promises"):
        decode_pair(nib.Nifti1Pair(PIXELS_XY, np.eye(4)).header.binaryblock, bytes(23))


def test_picture_named_img_is_recognised_beside_a_header(tmp_path: Path) -> None:
    (tmp_path / "a.hdr").write_bytes(b"no header")
    Image.fromarray(grey_hw(1)).save(tmp_path / "a.img", format="PNG")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.img").pixels_hw, grey_hw(1))


# ---- pixels and spacing alone


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int16])
@pytest.mark.parametrize("spacing", [None, (0.143, 0.2)])
def test_what_is_encoded_is_read_back(dtype: type, spacing: tuple[float, float] | None) -> None:
    pixels = np.arange(12).reshape(3, 4).astype(dtype)
    data = encode(pixels, spacing)
    picture = decode(data)
    assert picture.pixels_hw.dtype == dtype
    assert picture.pixels_hw.tolist() == pixels.tolist()
    assert picture.clean is None
    assert data == encode(pixels, spacing)
    assert data == encode(np.asfortranarray(pixels), spacing)
    assert (picture.spacing_mm and tuple(round(mm, 6) for mm in picture.spacing_mm)) == spacing


def test_picture_wider_than_nifti_1_can_say_is_encoded() -> None:
    assert decode(encode(np.ones((1, 40_000), np.uint8), None)).pixels_hw.shape == (1, 40_000)


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
    assert decode(written).spacing_mm == decode(original.to_bytes()).spacing_mm
    np.testing.assert_array_equal(decode(written).pixels_hw, mask_hw)
    assert set(np.unique(np.asanyarray(image.dataobj))) == {0, 1}


def test_mask_is_written_the_same_every_time() -> None:
    original = nifti(grey_hw(1).T)
    first = like_input(labels_hw(1) == 1, original)
    assert first == like_input(labels_hw(1) == 1, original)
    assert gzip.GzipFile(fileobj=io.BytesIO(first)).read(4) == (348).to_bytes(4, "little")


@pytest.mark.parametrize("second", [False, True], ids=["NIfTI-1", "NIfTI-2"])
def test_mask_of_a_picture_in_colours_is_grey_and_has_no_texts(second: bool) -> None:
    image = (nib.Nifti2Image if second else nib.Nifti1Image)(np.zeros((48, 40, 3), np.uint8), np.eye(4))
    image.header["intent_name"] = b"Doe^Jane"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Doe^Jane"))
    written = gzip.decompress(like_input(labels_hw(1) == 1, image.to_bytes()))
    assert b"Doe" not in written
    again = type(image).from_bytes(written)
    assert again.shape == (48, 40)
    np.testing.assert_array_equal(np.asanyarray(again.dataobj), (labels_hw(1) == 1).T)
