"""Reading DICOM: bone bright, grey as the header shows it, and nothing kept of who it is."""

from __future__ import annotations

import gzip
import io
import random
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import Dataset, Sequence
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from femur_tasks.dataset.pictures import Picture, decode, dicom, read_labels
from femur_tasks.dataset.problems import Faulty
from tests.radiographs import Array, grey_hw, nifti

GREY = grey_hw(1)
TWELVE = GREY.astype(np.uint16) * 16
NAMES = {"PatientName": "Doe^Jane", "PatientID": "PID-4711", "PatientBirthDate": "19500102", "IssuerOfPatientID": "HIS"}


def dataset(pixels: Array, bits: int | None = None, syntax: str = ExplicitVRLittleEndian, **fields: Any) -> Dataset:
    """A DICOM picture of these pixels; `fields` set or, where None, remove elements."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = "1.2.3"
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    made.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        made.PlanarConfiguration = 0
    made.BitsAllocated = pixels.dtype.itemsize * 8
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.add_new("PixelData", "OB" if made.BitsAllocated == 8 else "OW", pixels.tobytes())
    for name, value in fields.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    return made


def written(made: Dataset) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()


def picture_of(pixels: Array, bits: int | None = None, **fields: Any) -> Picture:
    return decode(written(dataset(pixels, bits, **fields)))


def code_of(data: bytes) -> str:
    with pytest.raises(Faulty) as refused:
        decode(data)
    assert "Doe" not in str(refused.value)
    return refused.value.code


def coded(pixels: Array, option: str, bits: int, folder: Path) -> bytes:
    """The picture as GDCM's own tool compresses it: no plug-in of pydicom writes these codes."""
    (folder / "in.dcm").write_bytes(written(dataset(pixels, bits)))
    tool = Path(sys.executable).with_name("gdcmconv")
    subprocess.run([tool, option, folder / "in.dcm", folder / "out.dcm"], check=True, capture_output=True)  # noqa: S603
    return (folder / "out.dcm").read_bytes()


def as_jpeg(pixels: Array, kind: str = "JPEG", **fields: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind)
    made = dataset(pixels, **fields)
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if kind == "JPEG" else JPEG2000Lossless
    made.PixelData = encapsulate([buffer.getvalue()])
    made["PixelData"].is_undefined_length = True
    return written(made)


# ---- grey values


@pytest.mark.parametrize(
    ("pixels", "bits"),
    [(GREY, 8), (TWELVE, 12), (TWELVE * 16, 16), (TWELVE.astype(np.int16) - 900, 16), (GREY.astype(np.int8) // 2, 8)],
    ids=["8 bits", "12 bits", "16 bits", "signed 16 bits", "signed 8 bits"],
)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_values_are_those_of_the_file(pixels: Array, bits: int, syntax: str) -> None:
    found = picture_of(pixels, bits, syntax=syntax).pixels_hw
    assert found.dtype.itemsize == pixels.dtype.itemsize or pixels.min() < 0
    np.testing.assert_array_equal(found, pixels)


def test_big_endian_file_is_read() -> None:
    made = dataset(TWELVE, 12, syntax=ExplicitVRBigEndian)
    made.PixelData = TWELVE.astype(">u2").tobytes()
    buffer = io.BytesIO()
    dcmwrite(buffer, made, implicit_vr=False, little_endian=False, enforce_file_format=True)
    np.testing.assert_array_equal(decode(buffer.getvalue()).pixels_hw, TWELVE)


@pytest.mark.parametrize("option", ["--jpeg", "--jpegls", "--j2k", "--rle"])
@pytest.mark.parametrize(("pixels", "bits"), [(GREY, 8), (TWELVE, 12)], ids=["8 bits", "12 bits"])
def test_pixels_coded_without_loss_are_read(tmp_path: Path, option: str, pixels: Array, bits: int) -> None:
    data = coded(pixels, option, bits, tmp_path)
    assert data != written(dataset(pixels, bits))
    np.testing.assert_array_equal(decode(data).pixels_hw, pixels)


@pytest.mark.parametrize(("pixels", "bits"), [(GREY, 8), (TWELVE, 12)], ids=["8 bits", "12 bits"])
def test_run_lengths_are_read(pixels: Array, bits: int) -> None:
    made = dataset(pixels, bits)
    made.compress(RLELossless, encoding_plugin="pydicom")
    np.testing.assert_array_equal(decode(written(made)).pixels_hw, pixels)


def test_jpeg_within_is_read() -> None:
    smooth = np.repeat(np.arange(64, dtype=np.uint8)[None] * 4, 48, axis=0)
    np.testing.assert_allclose(decode(as_jpeg(smooth)).pixels_hw, smooth, atol=6)


def test_bone_is_bright_where_the_header_says_inverted() -> None:
    values = np.array([[0, 100], [4095, 4000]], np.uint16)
    found = picture_of(values, 12, PhotometricInterpretation="MONOCHROME1").pixels_hw
    assert found.tolist() == [[4095, 3995], [0, 95]]


def test_slope_and_intercept_are_applied() -> None:
    found = picture_of(np.array([[0, 3], [600, 5]], np.uint16), 12, RescaleSlope="2", RescaleIntercept="-1000")
    assert found.pixels_hw.tolist() == [[-1000, -994], [200, -990]]


def test_inverted_values_of_a_negative_slope_are_inverted_within_their_range() -> None:
    values = np.array([[0, 1], [255, 2]], np.uint8)
    fields = {"RescaleSlope": "-1", "RescaleIntercept": "255", "PhotometricInterpretation": "MONOCHROME1"}
    assert picture_of(values, **fields).pixels_hw.tolist() == values.tolist()


@pytest.mark.parametrize("slope", [1, -1])
def test_window_is_applied_to_the_scaled_values(slope: int) -> None:
    values = np.array([[0, 100], [150, 200]], np.uint8)  # 100 to 200 become 0 to 255
    intercept = 0 if slope == 1 else 255
    stored = values if slope == 1 else 255 - values
    fields = {"WindowCenter": "150.5", "WindowWidth": "101", "RescaleSlope": slope, "RescaleIntercept": intercept}
    assert picture_of(stored, **fields).pixels_hw.tolist() == [[0, 0], [128, 255]]  # 255 * 50 / 100 = 127.5


def test_first_of_several_windows_is_applied() -> None:
    found = picture_of(np.array([[0, 255]], np.uint8), WindowCenter=["300", "10"], WindowWidth=["2", "20"])
    assert found.pixels_hw.tolist() == [[0, 0]]


@pytest.mark.parametrize("width", ["0", ""])
def test_window_that_is_none_is_not_applied(width: str) -> None:
    assert picture_of(np.array([[3, 7]], np.uint8), WindowCenter="5", WindowWidth=width).pixels_hw.tolist() == [[3, 7]]


def test_table_of_interest_is_applied() -> None:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4, 0, 16])
    table.add_new("LUTData", "OW", np.array([9, 500, 1000, 40], np.uint16).tobytes())
    found = picture_of(np.array([[0, 1], [2, 3]], np.uint8), VOILUTSequence=Sequence([table])).pixels_hw
    assert found.tolist() == [[9, 500], [1000, 40]]


def test_colours_become_luminance() -> None:
    colour = np.array([[(255, 0, 0), (0, 255, 0)], [(10, 20, 30), (7, 7, 7)]], np.uint8)
    assert picture_of(colour).pixels_hw.tolist() == [[76, 150], [18, 7]]
    brightness = np.dstack([GREY, np.full_like(GREY, 128), np.full_like(GREY, 128)])
    found = picture_of(brightness, PhotometricInterpretation="YBR_FULL").pixels_hw
    np.testing.assert_array_equal(found, GREY)


def test_palette_becomes_luminance_or_class_numbers(tmp_path: Path) -> None:
    made = dataset(np.array([[0, 1], [2, 1]], np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for colour, table in (("Red", b"\0\xff\0\0"), ("Green", b"\0\0\xff\0"), ("Blue", b"\0\0\0\0")):
        made.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [4, 0, 8])
        made.add_new(f"{colour}PaletteColorLookupTableData", "OW", table)
    assert decode(written(made)).pixels_hw.tolist() == [[0, 76], [150, 76]]
    (tmp_path / "mask").write_bytes(written(made))
    assert read_labels(tmp_path / "mask").pixels_hw.tolist() == [[0, 1], [2, 1]]


def test_mask_is_not_windowed(tmp_path: Path) -> None:
    fields = {"WindowCenter": "1", "WindowWidth": "2", "PhotometricInterpretation": "MONOCHROME1"}
    (tmp_path / "mask").write_bytes(written(dataset(np.array([[0, 1], [2, 3]], np.uint8), **fields)))
    assert read_labels(tmp_path / "mask").pixels_hw.tolist() == [[0, 1], [2, 3]]


def test_radiographs_of_children_are_read(shared_data: Path) -> None:
    paths = sorted((shared_data / "ood_pediatric_ddh").glob("*.dcm"))
    pictures = [decode(path.read_bytes()) for path in paths]
    assert [picture.pixels_hw.shape for picture in pictures] == [(331, 331)] * 10
    assert all(picture.pixels_hw.dtype == np.uint8 and picture.pixels_hw.max() > 100 for picture in pictures)
    assert [picture.patient for picture in pictures] == [f"|{path.stem}" for path in paths]
    assert all(picture.spacing_mm == (1, 1) and not picture.mirrored for picture in pictures)


# ---- what the header knows


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"PixelSpacing": ["0.2", "0.1"]}, (0.1, 0.2)),
        ({"ImagerPixelSpacing": ["0.2", "0.1"]}, (0.1, 0.2)),
        ({"PixelSpacing": ["0.2", "0.1"], "ImagerPixelSpacing": ["9", "9"]}, (0.1, 0.2)),
        ({"PixelSpacing": ["0", "0.1"], "ImagerPixelSpacing": ["0.4", "0.3"]}, (0.3, 0.4)),
        ({"PixelSpacing": ["-0.2", "0.1"]}, None),
        ({"PixelSpacing": ["0.2"]}, None),
        ({"PixelSpacing": ["1e300", "0.1"]}, None),
        ({}, None),
    ],
    ids=["rows first", "of the detector", "both", "the one is none", "negative", "one value", "no length", "none"],
)
def test_spacing_is_along_x_and_y(fields: dict[str, Any], expected: tuple[float, float] | None) -> None:
    assert picture_of(GREY, **fields).spacing_mm == expected


@pytest.mark.parametrize("text", [b"nan\\0.1", b"inf\\0.1", b"x\\y "], ids=["NaN", "Inf", "text"])
def test_spacing_that_is_no_number_is_unknown(text: bytes) -> None:
    whole = written(dataset(GREY, PixelSpacing=["777", "0.1"]))
    text = text.ljust(8)
    assert decode(whole.replace(b"777\\0.1 ", text)).spacing_mm is None


@pytest.mark.parametrize(
    ("orientation", "mirrored"), [(["L", "F"], False), (["R", "F"], True), (["RA", "F"], True), (None, False)]
)
def test_picture_whose_columns_run_to_the_patients_right_is_mirrored(
    orientation: list[str] | None, mirrored: bool
) -> None:
    fields = {"PatientOrientation": orientation} if orientation else {}
    assert picture_of(GREY, **fields).mirrored is mirrored


@pytest.mark.parametrize(("value", "burned_in"), [("YES", True), ("NO", False), (None, False)])
def test_burned_in_text_is_told(value: str | None, burned_in: bool) -> None:
    assert picture_of(GREY, **({"BurnedInAnnotation": value} if value else {})).burned_in is burned_in


@pytest.mark.parametrize(
    ("fields", "patient"),
    [
        (NAMES, "HIS|PID-4711"),
        ({"PatientID": "7"}, "|7"),
        ({"PatientID": " ", "PatientName": "Doe^Jane", "PatientBirthDate": "19500102"}, "Doe^Jane|19500102"),
        ({"PatientName": "Doe^Jane"}, "Doe^Jane|"),
        ({"PatientName": "", "PatientBirthDate": "19500102"}, None),
        ({}, None),
    ],
    ids=["identifier", "identifier alone", "name and birth", "name", "birth alone", "nothing"],
)
def test_patient_is_the_identifier_else_the_name(fields: dict[str, str], patient: str | None) -> None:
    assert picture_of(GREY, **fields).patient == patient


# ---- what may be stored


@pytest.mark.parametrize(
    "made",
    [
        written(dataset(GREY, PixelSpacing=["0.2", "0.143"], StudyDescription="of Doe", **NAMES)),
        written(dataset(TWELVE, 12, RescaleSlope="0.5", RescaleIntercept="0", **NAMES)),
        written(dataset(TWELVE, 12, RescaleSlope="0.0001", RescaleIntercept="0", **NAMES)),
        written(dataset(TWELVE.astype(np.int16) - 9, 16, **NAMES)),
        as_jpeg(np.dstack([GREY] * 3), "JPEG2000", **NAMES),
    ],
    ids=["8 bits", "scaled", "scaled to fractions", "signed", "colours, coded"],
)
def test_what_is_stored_is_pixels_and_spacing_alone(made: bytes) -> None:
    picture = decode(made)
    assert picture.clean
    for name in ("Doe", "4711", "19500102", "DICM"):
        assert name.encode() not in gzip.decompress(picture.clean)
    again = decode(picture.clean)
    assert again.clean is None
    assert again.patient is None
    assert again.pixels_hw.dtype == picture.pixels_hw.dtype
    np.testing.assert_array_equal(again.pixels_hw, picture.pixels_hw)
    expected = picture.spacing_mm and pytest.approx(picture.spacing_mm, abs=5e-7)
    assert again.spacing_mm == expected


def test_no_value_of_the_header_is_printed(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    whole = written(dataset(GREY, SpecificCharacterSet="ISO_IR 6", PixelSpacing=["777", "0.1"]))
    longer = written(dataset(GREY, Rows=39))
    for data in (whole.replace(b"ISO_IR 6", b"Doe^Jane"), whole.replace(b"777\\0.1 ", b"Doe^Jane"), whole[:-9], longer):
        try:
            decode(data)
        except Faulty as err:
            assert "Doe" not in str(err)  # noqa: PT017
    assert not capfd.readouterr().err
    assert not caplog.text
    assert not list(recwarn)


# ---- what is no picture


def element(group: int, number: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    long = vr in (b"OB", b"OW", b"SQ", b"UN")
    return (
        struct.pack("<HH", group, number)
        + vr
        + (struct.pack("<HI", 0, size) if long else struct.pack("<H", size))
        + value
    )


def deflated(bomb: int) -> bytes:
    made = written(dataset(GREY))
    body = made[made.index(b"\x08\x00\x16\x00UI") :]
    head = written(dataset(GREY, syntax=DeflatedExplicitVRLittleEndian))[:400]
    meta = head[: 132 + 12 + struct.unpack("<I", head[140:144])[0]]
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    return meta + pack.compress(body + bytes(bomb)) + pack.flush()


def nested(depth: int) -> bytes:
    opened = element(0x0040, 0x0275, b"SQ", b"", 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    whole = written(dataset(GREY))
    return whole.replace(b"\x28\x00\x02\x00US", opened * depth + b"\x28\x00\x02\x00US")


def endless(count: int) -> bytes:
    whole = written(dataset(GREY))
    return whole.replace(b"\x28\x00\x02\x00US", element(0x0009, 0x0010, b"LO", b"") * count + b"\x28\x00\x02\x00US")


def in_pieces(count: int) -> bytes:
    made = dataset(GREY, syntax=JPEGBaseline8Bit)
    made.PixelData = encapsulate([b"\xff\xd8"] * count, has_bot=False)
    made["PixelData"].is_undefined_length = True
    return written(made)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (written(dataset(GREY, NumberOfFrames=2, PixelData=GREY.tobytes() * 2)), "wrong_shape"),
        (written(dataset(GREY, SamplesPerPixel=2)), "wrong_shape"),
        (written(dataset(GREY, Rows=0)), "wrong_shape"),
        (written(dataset(GREY, Rows=65535, Columns=65535)), "too_large"),
        (written(dataset(GREY, Rows=41)), "unreadable"),
        (written(dataset(GREY, Rows=None)), "unreadable"),
        (written(dataset(GREY, PixelData=None)), "unreadable"),
        (written(dataset(GREY))[:-1], "unreadable"),
        (written(dataset(GREY))[:200], "unreadable"),
        (written(dataset(GREY))[:132], "unreadable"),
        (deflated(0), "unreadable"),
        (deflated(300 << 20), "unreadable"),
        (nested(5000), "unreadable"),
        (endless(250_000), "hostile_file"),
        (in_pieces(10_001), "hostile_file"),
        (as_jpeg(GREY, Rows=4), "hostile_file"),
        (as_jpeg(GREY, "JPEG2000", Columns=4), "hostile_file"),
        (as_jpeg(np.dstack([GREY] * 3), "JPEG2000", SamplesPerPixel=1), "hostile_file"),
        (as_jpeg(GREY)[:-400], "unreadable"),
        (written(dataset(GREY, RedPaletteColorLookupTableData=bytes(2 << 20))), "hostile_file"),
    ],
    ids=[
        *("two frames", "two samples", "no rows", "4 billion pixels", "fewer pixels"),
        *("no height", "no pixels", "one byte short", "broken header", "no header", "deflated", "deflated bomb"),
        *("deep sequences", "endless elements", "endless pieces", "JPEG of another size", "J2K of another size"),
        *("J2K of other samples", "broken JPEG", "a table of megabytes"),
    ],
)
def test_what_is_no_picture_has_a_code(data: bytes, code: str) -> None:
    assert dicom.is_dicom(data)
    assert code_of(data) == code


def test_deflated_file_is_refused_for_what_it_is() -> None:
    with pytest.raises(Faulty, match="deflated"):
        decode(deflated(0))


# ---- damaged files of every format


def seeds() -> list[bytes]:
    """A small whole file of every format."""
    kinds = []
    for kind in ("PNG", "JPEG", "TIFF"):
        buffer = io.BytesIO()
        Image.fromarray(GREY).save(buffer, format=kind)
        kinds.append(buffer.getvalue())
    raw = nifti(GREY.T)
    return [*kinds, raw, gzip.compress(raw, mtime=0), written(dataset(TWELVE, 12, **NAMES)), as_jpeg(GREY)]


SEEDS = seeds()


DAMAGE = st.tuples(st.floats(0, 1), st.sampled_from(["flip", "cut", "put"]), st.binary(min_size=1, max_size=4))


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(
        st.tuples(st.floats(0, 1), st.sampled_from(["flip", "cut", "put"]), st.binary(min_size=1, max_size=4)),
        max_size=5,
    ),
)
def test_damaged_file_is_read_or_faulty(whole: bytes, damages: list[tuple[float, str, bytes]]) -> None:
    data = bytearray(whole)
    for share, kind, with_bytes in damages:
        place = int(share**3 * len(data))  # headers are at the front
        if kind == "flip":
            data[place : place + len(with_bytes)] = with_bytes
        elif kind == "put":
            data[place:place] = with_bytes
        elif share > 0.8:
            del data[place:]
        else:
            del data[place : place + len(with_bytes)]
    try:
        assert decode(bytes(data)).pixels_hw.ndim == 2
    except Faulty as err:
        assert err.found  # noqa: PT017


@pytest.mark.parametrize("option", ["--jpeg", "--jpegls"])
def test_damaged_lossless_code_does_not_end_the_process(tmp_path: Path, option: str) -> None:
    # in one process with it, GDCM was seen to write beyond its memory on damaged JPEG
    noise, whole = random.Random(5), coded(TWELVE, option, 12, tmp_path)
    start = whole.index(b"\xff\xd8")
    for _ in range(12):
        data = bytearray(whole)
        for place in noise.sample(range(start, start + 200), 3):
            data[place] = noise.choice([0, 1, 127, 255])
        try:
            assert decode(bytes(data)).pixels_hw.shape == TWELVE.shape
        except Faulty as err:
            assert err.code in {"unreadable", "hostile_file"}  # noqa: PT017
