"""Reading PNG, JPEG and TIFF: grey values or class numbers, turned as the camera says, and without a word of text."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from femur_tasks.dataset.pictures import decode, raster, read_labels, read_picture
from femur_tasks.dataset.problems import Faulty
from tests.radiographs import Array, grey_hw, labels_hw

GREY = grey_hw(1)
SIXTEEN = GREY.astype(np.uint16) * 257
COLOUR = np.array([[(255, 0, 0), (0, 255, 0), (0, 0, 255)], [(255, 255, 255), (10, 20, 30), (7, 7, 7)]], np.uint8)
LUMINANCE = [[76, 150, 29], [255, 18, 7]]  # 0.299 red + 0.587 green + 0.114 blue
NAME = "Doe^Jane"


def saved(picture: Image.Image | Array, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def labels_of(data: bytes, folder: Path) -> Array:
    (folder / "mask").write_bytes(data)
    return read_labels(folder / "mask").pixels_hw


def code_of(data: bytes) -> str:
    with pytest.raises(Faulty) as refused:
        decode(data)
    return refused.value.code


def chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows))
    return b"".join((b"\x89PNG\r\n\x1a\n", header, *chunks, body, chunk(b"IEND", b"")))


def big_endian_tiff(values: Array, photometric: int = 1) -> bytes:
    pixels = values.astype(">u2").tobytes()
    height, width = values.shape
    tags = [(256, 3, width), (257, 3, height), (258, 3, 16), (259, 3, 1), (262, 3, photometric), (273, 4, None)]
    tags += [(277, 3, 1), (278, 3, height), (279, 4, len(pixels))]
    start = 8 + 2 + 12 * len(tags) + 4
    rows = b"".join(
        struct.pack(">HHI", tag, kind, 1) + (struct.pack(">HH", v, 0) if kind == 3 else struct.pack(">I", v or start))
        for tag, kind, v in tags
    )
    return b"MM\0*" + struct.pack(">IH", 8, len(tags)) + rows + bytes(4) + pixels


# ---- grey values


@pytest.mark.parametrize(
    ("data", "pixels"),
    [
        (saved(GREY, "PNG"), GREY),
        (saved(GREY, "TIFF"), GREY),
        (saved(GREY, "TIFF", compression="tiff_lzw"), GREY),
        (saved(SIXTEEN, "PNG"), SIXTEEN),
        (saved(SIXTEEN, "TIFF"), SIXTEEN),
        (big_endian_tiff(SIXTEEN), SIXTEEN),
        (saved(SIXTEEN.astype(np.int32) * 9, "TIFF"), SIXTEEN.astype(np.int32) * 9),
        (saved(GREY.astype(np.float32) / 7, "TIFF"), GREY.astype(np.float32) / 7),
        (saved(Image.merge("LA", [Image.fromarray(GREY)] * 2), "PNG"), GREY),
        (saved(Image.fromarray(GREY > 99), "PNG"), np.where(GREY > 99, 255, 0)),
        (saved(Image.fromarray(GREY > 99), "TIFF", compression="group4"), np.where(GREY > 99, 255, 0)),
    ],
    ids=[
        *("PNG", "TIFF", "packed TIFF", "16-bit PNG", "16-bit TIFF", "16-bit TIFF of the other order", "32-bit TIFF"),
        *("float TIFF", "with alpha", "bits", "bits by fax"),
    ],
)
def test_values_are_those_of_the_file(data: bytes, pixels: Array) -> None:
    picture = decode(data)
    np.testing.assert_array_equal(picture.pixels_hw, pixels)
    assert picture.pixels_hw.dtype.isnative
    assert picture.pixels_hw.dtype.itemsize == max(pixels.dtype.itemsize if pixels.dtype != np.int64 else 1, 1)
    assert picture.spacing_mm is None


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_become_luminance(mode: str) -> None:
    image = Image.fromarray(COLOUR)
    data = saved(image.quantize(6) if mode == "P" else image.convert(mode), "PNG")
    assert decode(data).pixels_hw.tolist() == LUMINANCE


def test_jpeg_for_printing_is_read() -> None:
    data = saved(Image.merge("CMYK", [Image.new("L", (16, 16), value) for value in (0, 0, 0, 155)]), "JPEG", quality=95)
    np.testing.assert_allclose(decode(data).pixels_hw, 100, atol=3)


def test_jpeg_is_read() -> None:
    smooth = np.repeat(np.arange(64, dtype=np.uint8)[None] * 4, 48, axis=0)
    np.testing.assert_allclose(decode(saved(smooth, "JPEG", quality=95)).pixels_hw, smooth, atol=3)


def test_tiff_in_which_zero_is_white_is_turned() -> None:
    values = np.array([[0, 1000], [65535, 5]], np.uint16)
    assert decode(saved(values, "TIFF", tiffinfo={262: 0})).pixels_hw.tolist() == [[65535, 64535], [0, 65530]]
    assert decode(big_endian_tiff(values, photometric=1)).pixels_hw.tolist() == values.tolist()


def test_resolution_is_no_spacing() -> None:
    for kind in ("PNG", "JPEG", "TIFF"):
        assert decode(saved(GREY, kind, dpi=(254, 254))).spacing_mm is None


# ---- class numbers


def test_palette_of_a_mask_gives_its_indices(tmp_path: Path) -> None:
    mask = Image.fromarray(labels_hw(1))
    mask.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    data = saved(mask, "PNG")
    np.testing.assert_array_equal(labels_of(data, tmp_path), labels_hw(1))
    (tmp_path / "picture").write_bytes(data)
    np.testing.assert_array_equal(read_picture(tmp_path / "picture").pixels_hw, np.array([0, 76, 29])[labels_hw(1)])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L"])
def test_equal_channels_of_a_mask_are_one(tmp_path: Path, mode: str) -> None:
    data = saved(Image.fromarray(labels_hw(1)).convert(mode), "PNG")
    np.testing.assert_array_equal(labels_of(data, tmp_path), labels_hw(1))


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_mask_drawn_in_colours_is_refused(tmp_path: Path, mode: str) -> None:
    with pytest.raises(Faulty) as refused:
        labels_of(saved(Image.fromarray(COLOUR).convert(mode), "PNG"), tmp_path)
    assert refused.value.code == "mask_values"


@pytest.mark.parametrize(
    ("bits", "row", "expected"),
    [(1, 0b01100000, [0, 1, 1, 0]), (2, 0b00011011, [0, 1, 2, 3]), (4, 0x0F, [0, 15])],
    ids=["1 bit", "2 bits", "4 bits"],
)
def test_class_numbers_of_few_bits_are_not_stretched(tmp_path: Path, bits: int, row: int, expected: list[int]) -> None:
    data = png(len(expected), 1, bits, 0, bytes([0, row]))
    assert labels_of(data, tmp_path).tolist() == [expected]


# ---- turned as the camera says

MARKED = np.zeros((16, 24), np.uint8)
MARKED[:8, :8], MARKED[:8, 16:] = 200, 100  # upper left, upper right
UP = {  # for each orientation: where the two end up, (row, column) of a corner
    1: ((0, 0), (0, -1)),
    2: ((0, -1), (0, 0)),
    3: ((-1, -1), (-1, 0)),
    4: ((-1, 0), (-1, -1)),
    5: ((0, 0), (-1, 0)),
    6: ((0, -1), (-1, -1)),
    7: ((-1, -1), (0, -1)),
    8: ((-1, 0), (0, 0)),
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "16-bit PNG", "16-bit TIFF", "palette"])
@pytest.mark.parametrize("orientation", UP)
def test_orientation_is_applied_to_pictures_and_masks(tmp_path: Path, kind: str, orientation: int) -> None:
    image = Image.fromarray(MARKED.astype(np.uint16) if kind.startswith("16") else MARKED)
    if kind == "palette":
        image.putpalette([grey for grey in range(256) for _ in range(3)])
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(image, "PNG" if kind == "palette" else kind.split()[-1], exif=exif)
    for pixels in (decode(data).pixels_hw, labels_of(data, tmp_path)):
        assert pixels.shape == ((16, 24) if orientation < 5 else (24, 16))
        assert [round(int(pixels[at]), -1) for at in UP[orientation]] == [200, 100]
    clean = decode(data).clean
    assert clean
    np.testing.assert_array_equal(decode(clean).pixels_hw, decode(data).pixels_hw)


# ---- what may be stored


def with_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E] = NAME
    return exif


def texts(zipped: bool) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Patient", NAME, zip=zipped)
    return info


def commented(data: bytes) -> bytes:
    return data[:2] + b"\xff\xfe" + struct.pack(">H", 2 + len(NAME)) + NAME.encode() + data[2:]


@pytest.mark.parametrize(
    "data",
    [
        saved(GREY, "PNG", pnginfo=texts(False)),
        saved(GREY, "PNG", pnginfo=texts(True)),
        saved(GREY, "PNG", exif=with_exif()),
        saved(GREY, "PNG", icc_profile=NAME.encode()),
        saved(GREY, "PNG") + NAME.encode(),
        saved(SIXTEEN, "PNG", pnginfo=texts(False)),
        commented(saved(GREY, "JPEG")),
        saved(GREY, "JPEG", exif=with_exif()),
        saved(GREY, "JPEG", icc_profile=NAME.encode()),
        saved(GREY, "JPEG", xmp=NAME.encode()),
        saved(GREY, "JPEG") + NAME.encode(),
        saved(GREY, "JPEG") + NAME.encode() + b"\xff\xd9",
        saved(COLOUR, "JPEG", comment=NAME.encode(), progressive=True),
        saved(GREY, "TIFF", description=NAME),
        saved(GREY, "TIFF") + NAME.encode(),
        saved(GREY.astype(np.float32) / 7, "TIFF", description=NAME),
    ],
    ids=[
        *("PNG text", "packed PNG text", "EXIF of PNG", "profile of PNG", "behind a PNG", "16-bit PNG text"),
        *("JPEG comment", "EXIF of JPEG", "profile of JPEG", "XMP of JPEG", "behind a JPEG", "behind a JPEG, ended"),
        *("comment of a progressive JPEG", "TIFF description", "behind a TIFF", "float TIFF"),
    ],
)
def test_what_is_stored_has_no_texts_and_the_same_pixels(data: bytes) -> None:
    picture = decode(data)
    assert picture.clean
    assert NAME.encode() not in picture.clean
    again = decode(picture.clean)
    assert again.clean is None
    assert again.pixels_hw.dtype == picture.pixels_hw.dtype
    np.testing.assert_array_equal(again.pixels_hw, picture.pixels_hw)


@pytest.mark.parametrize(
    "data",
    [
        saved(GREY, "PNG"),
        saved(GREY, "PNG", dpi=(72, 72)),
        saved(SIXTEEN, "PNG"),
        saved(Image.fromarray(COLOUR).quantize(6), "PNG"),
        saved(GREY, "JPEG"),
        saved(COLOUR, "JPEG", progressive=True, dpi=(72, 72)),
        saved(Image.new("CMYK", (8, 8)), "JPEG"),
        saved(GREY, "JPEG", restart_marker_rows=1),
    ],
    ids=["PNG", "with resolution", "16 bits", "palette", "JPEG", "progressive JPEG", "JPEG for printing", "restarts"],
)
def test_file_of_pixels_alone_may_be_stored_itself(data: bytes) -> None:
    assert decode(data).clean is None


def test_clean_mask_gives_the_same_class_numbers(tmp_path: Path) -> None:
    mask = Image.fromarray(labels_hw(1))
    mask.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    (tmp_path / "mask").write_bytes(saved(mask, "PNG", pnginfo=texts(False)))
    clean = read_labels(tmp_path / "mask").clean
    assert clean
    np.testing.assert_array_equal(labels_of(clean, tmp_path), labels_hw(1))


# ---- what is no picture


def animated(kind: str) -> bytes:
    return saved(GREY, kind, save_all=True, append_images=[Image.fromarray(GREY[::-1])])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (animated("PNG"), "wrong_shape"),
        (animated("TIFF"), "wrong_shape"),
        (saved(GREY, "PNG")[:-200], "unreadable"),
        (saved(GREY, "JPEG")[:-200], "unreadable"),
        (saved(GREY, "TIFF")[:-200], "unreadable"),
        (b"\x89PNG\r\n\x1a\n", "unreadable"),
        (b"\xff\xd8\xff", "unreadable"),
        (b"II*\0", "unreadable"),
        (saved(GREY, "GIF"), "unreadable"),
        (saved(GREY, "BMP"), "unreadable"),
        (png(100_000, 100_000, 8, 0, b""), "too_large"),
        (png(8000, 5001, 8, 0, b""), "too_large"),
        (png(0, 5, 8, 0, b""), "unreadable"),
    ],
    ids=[
        *("APNG", "TIFF of two", "broken PNG", "broken JPEG", "broken TIFF", "PNG of nothing", "JPEG of nothing"),
        *("TIFF of nothing", "GIF", "BMP", "10^10 pixels", "just too many pixels", "no pixels"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_no_picture_has_a_code(data: bytes, code: str) -> None:
    assert code_of(data) == code


def test_limit_is_reached_and_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster, "MAX_PIXELS", GREY.size)
    assert decode(saved(GREY, "PNG")).pixels_hw.size == GREY.size
    monkeypatch.setattr(raster, "MAX_PIXELS", GREY.size - 1)
    assert code_of(saved(GREY, "PNG")) == "too_large"


def test_jpeg_of_endless_scans_is_hostile() -> None:
    data = saved(COLOUR, "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert code_of(data[:-2] + scan * 200 + data[-2:]) == "hostile_file"


def test_format_is_told_by_content(tmp_path: Path) -> None:
    for kind in ("PNG", "JPEG", "TIFF"):
        (tmp_path / "scan.nii.gz").write_bytes(saved(GREY, kind))
        assert read_picture(tmp_path / "scan.nii.gz").pixels_hw.shape == GREY.shape
