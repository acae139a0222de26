"""Hostile sources: what somebody could send to make an ingest write, read, wait or eat where it must not."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import zstandard
from PIL import Image

from tests.radiographs import grey_hw, nifti, write_case, write_reference

SECRET = b"a secret of this machine "
"""What `secret.bin` beside the sources is full of: links lead there."""


@dataclass(frozen=True)
class Hostile:
    """A source and the code that it is refused with."""

    make: Callable[[Path], Path]
    code: str


def secret_of(folder: Path) -> Path:
    """A file outside of the source in this folder."""
    path = folder.parent / "secret.bin"
    if not path.exists():
        path.write_bytes(SECRET * 1000)
    return path


# ---- archives


def tar(folder: Path, info: tarfile.TarInfo, data: bytes = b"x", packed: Callable[[bytes], bytes] = bytes) -> Path:
    """An honest dataset with one member more."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as file:
        file.add(write_reference(folder / "honest"), "honest")
        info.size = len(data) if info.isreg() else 0
        file.addfile(info, io.BytesIO(data))
    (folder / "x.tar").write_bytes(packed(raw.getvalue()))
    return folder / "x.tar"


def zipped(folder: Path, name: str, data: bytes = b"x") -> Path:
    with zipfile.ZipFile(folder / "x.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(write_reference(folder / "honest").rglob("*.*")):
            file.write(path, path.relative_to(folder))
        file.writestr(name, data)
    return folder / "x.zip"


def member(kind: bytes, linkname: str = "", name: str = "honest/train/imgs/Z.nii.gz") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linkname
    info.devmajor, info.devminor = 1, 5  # /dev/zero
    return info


def zst_bomb(folder: Path) -> Path:
    """Zeros without end, 30,000 to 1."""
    info = tarfile.TarInfo("bomb")
    info.size = 1 << 40
    (folder / "x.tar.zst").write_bytes(
        zstandard.compress(info.tobuf()) + zstandard.ZstdCompressor().compress(bytes(1 << 27)) * 8
    )
    return folder / "x.tar.zst"


def gz_bomb(folder: Path) -> Path:
    info = tarfile.TarInfo("bomb")
    info.size = 1 << 40
    (folder / "x.tar.gz").write_bytes(gzip.compress(info.tobuf()) + gzip.compress(bytes(1 << 24)) * 64)
    return folder / "x.tar.gz"


def overlapping(folder: Path) -> Path:
    """500 members that share one piece of data. Source: Fifield, A better zip bomb, WOOT 2019."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    kernel = deflate.compress(bytes(1 << 24)) + deflate.flush()
    crc, count, header_bytes = zlib.crc32(bytes(1 << 24)), 500, 34
    raw, directory = b"", b""
    for i in range(count):
        packed_bytes = (count - 1 - i) * header_bytes + len(kernel)
        fixed, name = (20, 0, 8, 0, 33, crc, packed_bytes, 1 << 24, 4, 0), f"{i:04}".encode()
        raw += struct.pack("<4s5H3L2H", b"PK\3\4", *fixed) + name
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, *fixed, 0, 0, 0, 0, i * header_bytes) + name
    raw += kernel
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(raw), 0)
    (folder / "x.zip").write_bytes(raw + directory + end)
    return folder / "x.zip"


def nested(folder: Path) -> Path:
    inner = zipped(folder, "plain").read_bytes()
    with zipfile.ZipFile(folder / "x.zip", "w") as file:
        file.writestr("inner.bin", inner)
    return folder / "x.zip"


# ---- one file of a dataset


def with_image(data: Callable[[], bytes], suffix: str = ".nii.gz") -> Callable[[Path], Path]:
    """An honest dataset in which the picture of case A is this file."""

    def make(folder: Path) -> Path:
        source = write_reference(folder / "data")
        (source / "train" / "imgs" / "A.nii.gz").unlink()
        (source / "train" / "imgs" / f"A{suffix}").write_bytes(data())
        return source

    return make


def trillion_voxels() -> bytes:
    header = nib.Nifti2Header()
    header.set_data_dtype(np.uint8)
    header["dim"][:3] = 2, 1_000_000, 1_000_000
    header["magic"], header["vox_offset"] = b"n+2\0\r\n\x1a\n", 544
    return bytes(header.binaryblock) + bytes(1000)


def past_its_header() -> bytes:
    return gzip.compress(nifti(grey_hw(1).T)) + gzip.compress(bytes(1 << 26)) * 32


def gzip_in_gzip() -> bytes:
    return gzip.compress(gzip.compress(gzip.compress(nifti(grey_hw(1).T)) + gzip.compress(bytes(1 << 28), 1)))


def huge_png() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    head = struct.pack(">II", 100_000, 100_000) + b"\x08\x00\x00\x00\x00"
    chunk = struct.pack(">I", len(head)) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    return buffer.getvalue()[:8] + chunk + buffer.getvalue()[33:]


def png_text_bomb() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(grey_hw(1)).save(buffer, "PNG")
    text = b"zTXt" + b"Comment\0\0" + zlib.compress(bytes(512 << 20), 1)
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return buffer.getvalue()[:33] + chunk + buffer.getvalue()[33:]


def tiff(entries: list[tuple[int, int, int, int]], following: int, behind: bytes = b"") -> bytes:
    """A TIFF whose first directory, at byte 8, has these entries and names what follows it."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + struct.pack("<I", following) + behind


def tiff_loop() -> bytes:
    pixels = 8 + 2 + 12 * 8 + 4
    tags = [(256, 3, 1, 48), (257, 3, 1, 40), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 4, 1, pixels), (278, 3, 1, 40), (279, 4, 1, 1920)]
    return tiff(tags, 8, grey_hw(1).tobytes())


def tiff_of_strips() -> bytes:
    """Ten million strips, all of them one and the same."""
    tags = [(256, 3, 1, 6000), (257, 3, 1, 6000), (258, 3, 1, 8), (259, 3, 1, 5), (262, 3, 1, 1)]
    tags += [(273, 4, 10_000_000, 200), (278, 3, 1, 1), (279, 4, 10_000_000, 200)]
    return tiff(tags, 0, bytes(60_000_000))


def dicom(rows: int, columns: int, syntax: str, pixels: bytes, length: int | None = None) -> bytes:
    """A DICOM file by hand, so that it may say what a library would not."""

    def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
        return struct.pack("<HH2sH", group, number, vr, len(value)) + value

    meta = element(2, 0x10, b"UI", syntax.encode() + b"\0" * (len(syntax) % 2))
    head = element(2, 0, b"UL", struct.pack("<I", len(meta))) + meta
    for number, value in ((2, 1), (0x10, rows), (0x11, columns), (0x100, 8), (0x101, 8), (0x102, 7), (0x103, 0)):
        if number == 0x10:
            head += element(0x28, 4, b"CS", b"MONOCHROME2 ")
        head += element(0x28, number, b"US", struct.pack("<H", value))
    size = len(pixels) if length is None else length
    return bytes(128) + b"DICM" + head + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, size) + pixels


def run_lengths() -> bytes:
    """30 MB of run lengths that make 2 GB, in a picture of 36 million pixels."""
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x07" * (15 << 20)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    item += struct.pack("<HHI", 0xFFFE, 0xE000, len(frame)) + frame + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return dicom(6000, 6000, "1.2.840.10008.1.2.5", item, 0xFFFFFFFF)


def largest() -> bytes:
    """As many numbers as a picture may have, 1000 to 1."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((6300, 6300))
    header["magic"], header["vox_offset"] = b"n+1\0", 352
    rows = np.tile(np.linspace(0, 1, 6300, dtype=np.float32), (100, 1)).tobytes()
    return gzip.compress(header.binaryblock + bytes(4), 1) + gzip.compress(rows, 1) * 63


def largest_case(folder: Path) -> Path:
    source = with_image(largest)(folder)
    labels = np.zeros((6300, 6300), np.uint8)
    labels[3300:6200:2, 100:2000] = labels[3300:6200:2, -2000:-100] = 1
    buffer = io.BytesIO()
    Image.fromarray(labels).save(buffer, "PNG", compress_level=1)
    (source / "train" / "targets" / "A.nii.gz").write_bytes(buffer.getvalue())
    (source / "train" / "targets" / "B.nii.gz").unlink()
    return source


# ---- annotations


def coco(text: Callable[[], str]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for name, split in {"A": "train", "B": "train", "C": "valid", "D": "test"}.items():
            (folder / "data" / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(grey_hw(ord(name))).save(folder / "data" / split / f"{name}.png")
        for split in ("train", "valid", "test"):
            (folder / "data" / split / "_annotations.coco.json").write_text(text())
        return folder / "data"

    return make


def points(count: int) -> str:
    drawn = "1,2," * (count - 1) + "30,30"
    return (
        '{"images":[{"id":1,"file_name":"A.png"}],"categories":[{"id":1,"name":"femur"}],"annotations":'
        f'[{{"id":1,"image_id":1,"category_id":1,"segmentation":[[{drawn}]]}}]}}'
    )


def huge_run() -> str:
    run = {"size": [40, 48], "counts": [10**12, 10**12]}
    return json.dumps(
        {
            "images": [{"id": 1, "file_name": f"{name}.png"} for name in "A"],
            "categories": [{"id": 1, "name": "femur"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": run}],
        }
    )


def alias_bomb(folder: Path) -> Path:
    for half in ("images", "labels"):
        (folder / "data" / "train" / half).mkdir(parents=True)
    Image.fromarray(grey_hw(1)).save(folder / "data" / "train" / "images" / "A.png")
    (folder / "data" / "train" / "labels" / "A.txt").write_text("0 .1 .1 .9 .1 .9 .9")
    lines = ["a0: &a0 [lol, lol]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40))]
    (folder / "data" / "data.yaml").write_text("\n".join([*lines, "names: *a39"]))
    return folder / "data"


# ---- folders


def fifo(name: str) -> Callable[[Path], Path]:
    """A pipe that nobody ever writes to: whoever opens it waits for ever."""

    def make(folder: Path) -> Path:
        source = write_reference(folder / "data")
        (source / name).unlink(missing_ok=True)
        os.mkfifo(source / name)
        (source / "train" / "targets" / "B.nii.gz").unlink()
        return source

    return make


def link(name: str, target: str = "") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        source = write_reference(folder / "data")
        (source / name).unlink(missing_ok=True)
        (source / name).symlink_to(target or secret_of(folder))
        return source

    return make


def linked_half(folder: Path) -> Path:
    """The header of a pair, whose pixels would be those of a file elsewhere."""
    source = write_reference(folder / "data")
    whole = nib.Nifti1Image(grey_hw(1).T, np.eye(4))
    header = whole.header.copy()
    header["magic"], header["vox_offset"] = b"ni1\0", 0
    (source / "train" / "imgs" / "A.nii.gz").unlink()
    (source / "train" / "imgs" / "A.hdr").write_bytes(header.binaryblock)
    (source / "train" / "imgs" / "A.img").symlink_to(secret_of(folder))
    return source


def linked_folder(folder: Path) -> Path:
    """A folder of pictures that lie elsewhere."""
    write_case(folder / "elsewhere" / "imgs", folder / "elsewhere" / "targets", "Z", seed=7)
    source = write_reference(folder / "data")
    (source / "train" / "targets" / "A.nii.gz").unlink()
    (source / "more").symlink_to(folder / "elsewhere")
    return source


def cycle(folder: Path) -> Path:
    source = write_reference(folder / "data")
    (source / "train" / "targets" / "A.nii.gz").unlink()
    (source / "train" / "again").symlink_to(source)
    (source / "self").symlink_to(source / "self")
    return source


def control_characters(folder: Path) -> Path:
    source = write_reference(folder / "data")
    (source / "train" / "imgs" / "A\x1b[2J\n.png").write_bytes(b"")
    return source


def unreadable_name(folder: Path) -> Path:
    source = write_reference(folder / "data")
    Path(os.fsdecode(os.fsencode(source / "train" / "imgs") + b"/\xff\xfe.png")).write_bytes(b"")
    return source


HOSTILE: Mapping[str, Hostile] = {
    "zip slip": Hostile(lambda at: zipped(at, "../../../escaped"), "hostile_archive"),
    "absolute path": Hostile(lambda at: tar(at, tarfile.TarInfo(f"{at.parent}/escaped")), "hostile_archive"),
    "symbolic link": Hostile(lambda at: tar(at, member(tarfile.SYMTYPE, str(secret_of(at)))), "hostile_archive"),
    "hard link": Hostile(lambda at: tar(at, member(tarfile.LNKTYPE, "/etc/passwd")), "hostile_archive"),
    "device": Hostile(lambda at: tar(at, member(tarfile.CHRTYPE)), "hostile_archive"),
    "pipe in a tar": Hostile(lambda at: tar(at, member(tarfile.FIFOTYPE)), "hostile_archive"),
    "control characters": Hostile(lambda at: zipped(at, "train/\x1b[2J"), "hostile_archive"),
    "zst bomb": Hostile(zst_bomb, "hostile_archive"),
    "gz bomb": Hostile(gz_bomb, "hostile_archive"),
    "overlapping zip": Hostile(overlapping, "hostile_archive"),
    "nested archive": Hostile(nested, "nested_archive"),
    "10^12 voxels": Hostile(with_image(trillion_voxels, ".nii"), "too_large"),
    "gzip past its header": Hostile(with_image(past_its_header), "hostile_file"),
    "gzip in gzip in gzip": Hostile(with_image(gzip_in_gzip), "unreadable"),
    "10^10 pixels": Hostile(with_image(huge_png, ".png"), "too_large"),
    "PNG of texts": Hostile(with_image(png_text_bomb, ".png"), "unreadable"),
    "TIFF loop": Hostile(with_image(tiff_loop, ".tif"), "wrong_shape"),
    "TIFF of 10^7 strips": Hostile(with_image(tiff_of_strips, ".tif"), "unreadable"),
    "DICOM of a wrong length": Hostile(
        with_image(lambda: dicom(40, 48, "1.2.840.10008.1.2.1", grey_hw(1).tobytes(), 0xFFFF_FFF0), ".dcm"),
        "unreadable",
    ),
    "DICOM of run lengths": Hostile(with_image(run_lengths, ".dcm"), "hostile_file"),
    "largest picture": Hostile(largest_case, "missing_partner"),
    "COCO of 10^7 points": Hostile(coco(lambda: points(10_000_000)), "too_large"),
    "COCO of 10^6 points": Hostile(coco(lambda: points(2_500_000)), "bad_annotations"),
    "COCO of huge runs": Hostile(coco(huge_run), "bad_annotations"),
    "deep JSON": Hostile(coco(lambda: '{"images":' + "[" * 100_000 + "]" * 100_000 + "}"), "bad_annotations"),
    "YAML of aliases": Hostile(alias_bomb, "bad_annotations"),
    "pipe as a picture": Hostile(fifo("train/imgs/A.nii.gz"), "missing_partner"),
    "pipe as a table": Hostile(fifo("_classes.csv"), "missing_partner"),
    "pipe as annotations": Hostile(fifo("train/_annotations.coco.json"), "missing_partner"),
    "link to a file": Hostile(link("train/imgs/A.nii.gz"), "missing_partner"),
    "link to passwd": Hostile(link("train/targets/A.nii.gz", "/etc/passwd"), "missing_partner"),
    "link to zeros": Hostile(link("train/imgs/A.nii.gz", "/dev/zero"), "missing_partner"),
    "link as half of a pair": Hostile(linked_half, "unreadable"),
    "link to a folder": Hostile(linked_folder, "missing_partner"),
    "circle of folders": Hostile(cycle, "missing_partner"),
    "name of control characters": Hostile(control_characters, "unreadable"),
    "name that is no text": Hostile(unreadable_name, "unreadable"),
}
