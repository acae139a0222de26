"""Archives: what one may do to the machine that unpacks it."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import random
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from femur_tasks.dataset import archives, zips
from femur_tasks.dataset.archives import is_archive, unpack
from femur_tasks.dataset.problems import Faulty
from femur_tasks.errors import FemurError
from femur_tasks.settings import CHECKOUT

NAME = "MUSTERMANN"  # in the names of members, for no message to tell
HOSTILE = {
    "parent": "../{name}",
    "parent below": "a/../../{name}",
    "absolute": "{outside}/{name}",
    "backslash": "..\\{name}",
    "backslash below": "a\\..\\..\\{name}",
    "drive": "C:\\{name}",
    "drive without a folder": "C:{name}",
    "share": "\\\\server\\{name}",
    "control character": "a/\x07{name}",
    "line feed": "a\n{name}",
    "right to left": "a\u202e{name}",
    "long part": "a/{name}" + "x" * 246,
    "long part in bytes": "{name}" + "\u00fc" * 123,
    "long name": "/".join(["x" * 200] * 6) + "/{name}",
    "deep": "a/" * 64 + "{name}",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where to unpack, with room above it for whatever escapes."""
    folder = tmp_path / "work" / "inner"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unpacked(archive: Path) -> dict[str, bytes]:
    folder = archive.with_name("unpacked")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        unpack(archive, folder)
        return files_in(folder)
    finally:
        shutil.rmtree(folder)
        escaped = {path.name for path in archive.parent.iterdir()} - {archive.name, "work"}
        assert not escaped, "something was written outside the folder"


def refusal(archive: Path) -> str:
    """The code and the message of a refusal."""
    with pytest.raises(Faulty) as found:
        unpacked(archive)
    assert NAME.lower() not in f"{found.value}".lower()
    assert found.value.__context__ is None or found.value.__suppress_context__
    return f"{found.value.code}: {found.value}"


def zip_of(archive: Path, *members: tuple[str | zipfile.ZipInfo, bytes], compression: int = 8) -> Path:
    with zipfile.ZipFile(archive, "w", compression) as file:
        for name, data in members:
            file.writestr(name, data)
    return archive


def tar_of(archive: Path, *members: tuple[str | tarfile.TarInfo, bytes], mode: str = "gz") -> Path:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode=f"w:{'' if mode == 'zst' else mode}") as file:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    data = raw.getvalue()
    archive.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(data) if mode == "zst" else data)
    return archive


def of_mode(mode: str) -> Callable[..., Path]:
    return lambda archive, *members: tar_of(archive, *members, mode=mode)


def of_compression(compression: int) -> Callable[..., Path]:
    return lambda archive, *members: zip_of(archive, *members, compression=compression)


ZIPS = {"zip": zip_of, "zip lzma": of_compression(14), "zip bzip2": of_compression(12), "zip stored": of_compression(0)}
TARS = {name or "tar": of_mode(name) for name in ("", "gz", "bz2", "xz", "zst")}
EVERY = {**ZIPS, **TARS}
CHECKED = {kind: make for kind, make in EVERY.items() if kind != "tar"}  # which has no checksum of contents
both = pytest.mark.parametrize("make", [zip_of, tar_of], ids=["zip", "tar.gz"])
every = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)


def special(kind: bytes, linkname: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(f"train/{NAME}.nii.gz")
    info.type, info.linkname = kind, linkname
    return info


# ---- honest archives


@every
def test_every_common_archive_is_unpacked(archive: Path, make: Callable[..., Path]) -> None:
    noise = random.Random(1)
    files = {"train/imgs/a": noise.randbytes(700_000), "train/targets/a": bytes(1_000_000), "empty": b""}
    assert unpacked(make(archive, *files.items())) == files
    assert is_archive(archive)


@both
def test_files_and_folders_are_for_their_owner_only(archive: Path, folder: Path, make: Callable[..., Path]) -> None:
    unpack(make(archive, ("a/b/c", b"1")), folder)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder / "a", folder / "a/b")} == {0o700}
    assert stat.S_IMODE((folder / "a/b/c").stat().st_mode) == 0o600


def test_archive_made_of_the_current_folder_is_unpacked(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "work" / "data").mkdir(parents=True)
    (tmp_path / "work" / "data" / "a").write_bytes(b"1")
    with tarfile.open(archive, "w:gz") as tar:  # as `tar czf archive .` writes it
        tar.add(tmp_path / "work" / "data", ".")
    assert unpacked(archive) == {"a": b"1"}


def test_archive_of_windows_with_backslashes_is_unpacked(archive: Path) -> None:
    assert unpacked(zip_of(archive, ("train\\", b""), ("train\\imgs\\a", b"1"))) == {"train/imgs/a": b"1"}


@pytest.mark.parametrize("name", ["Müller 1", "10:30 scan.png", "3.04\u202fPM.png", "大腿骨", "a" * 255, "a..b/..c"])
@both
def test_unusual_but_honest_names_are_kept(archive: Path, name: str, make: Callable[..., Path]) -> None:
    assert unpacked(make(archive, (name, b"1"))) == {name: b"1"}


def test_names_of_other_encodings_are_read(archive: Path) -> None:
    data = zip_of(archive, ("f_r", b"1")).read_bytes()
    archive.write_bytes(data.replace(b"f_r", b"f\x81r"))  # code page 437, as old Windows tools write it
    assert unpacked(archive) == {"für": b"1"}
    data = zip_of(archive, ("f__r", b"1")).read_bytes()
    archive.write_bytes(data.replace(b"f__r", "für".encode()))  # without the flag, as macOS writes it
    assert unpacked(archive) == {"für": b"1"}
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        tar.addfile(tarfile.TarInfo("für"))
    assert unpacked(archive) == {"für": b""}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_long_names_of_tars_are_read(archive: Path, form: int) -> None:
    names = ["/".join(["x" * 150] * 2), "ü" * 60, "y" * 120]
    with tarfile.open(archive, "w", format=form, pax_headers={"comment": "c" * 40}) as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    assert set(unpacked(archive)) == set(names)


class Pipe(io.RawIOBase):
    """A file that can't be sought in, so that zip writers put sizes behind the data."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return self._file.write(data)  # type: ignore[arg-type]

    def close(self) -> None:
        self._file.close()


@pytest.mark.parametrize("wide", [False, True], ids=["zip", "zip64"])
def test_zip_written_as_a_stream_is_unpacked(archive: Path, wide: bool) -> None:
    pipe = Pipe(archive)
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("a", "b"):
            with file.open(name, "w", force_zip64=wide) as member:
                member.write(bytes(5000))
        file.comment = b"PK\x05\x06 a comment that looks like an end" + bytes(60)
    pipe.close()
    assert unpacked(archive) == {"a": bytes(5000), "b": bytes(5000)}


def test_zip_with_more_members_than_its_end_can_count_is_read(archive: Path) -> None:
    zip_of(archive, *((f"{i}", b"") for i in range(65_537)), compression=0)
    data = archive.read_bytes()
    assert b"PK\x06\x06" in data
    with archive.open("rb") as file:
        assert [member.name for member in zips.members(file, 65_537)] == [f"{i}" for i in range(65_537)]


@pytest.mark.parametrize(
    ("tool", "command"),
    [
        ("zip", "zip -qr - ."),
        ("zip", "zip -q0rfz {archive}.zip . && mv {archive}.zip {archive}"),
        ("jar", "jar cf {archive} ."),
        ("tar", "tar cf - --format=gnu ."),
        ("tar", "tar cf - --format=pax ."),
        ("tar", "tar cf - --format=v7 ."),
        ("xz", "tar cf - . | xz -9e"),
        ("zstd", "tar cf - . | zstd -q --ultra -22 --long=27"),
        ("bzip2", "tar cf - . | bzip2"),
        ("gzip", "tar cf - . | gzip; head -c 3000 /dev/zero"),
    ],
    ids=["zip to a pipe", "zip64", "jar", "gnu", "pax", "v7", "xz", "zstd", "bzip2", "gzip padded"],
)
def test_archives_of_common_tools_are_unpacked(archive: Path, folder: Path, tool: str, command: str) -> None:
    if shutil.which(tool) is None:
        reason = f"no {tool} here"
        pytest.fail(reason) if "CI" in os.environ else pytest.skip(reason)
    files = {"train/a b": random.Random(1).randbytes(200_000), "train/b": b"", "c": b"text"}
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    with Path(f"{archive}.out").open("wb") as out:
        subprocess.run(  # noqa: S602
            command.format(archive=archive), shell=True, check=True, cwd=folder, stdout=out, stderr=subprocess.DEVNULL
        )
    written = Path(f"{archive}.out")
    written.unlink() if archive.exists() else written.rename(archive)
    assert {name: data for name, data in unpacked(archive).items() if not name.startswith("META-INF")} == files


# ---- names and kinds of members


@both
@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_member_with_a_hostile_name_is_refused(
    archive: Path, tmp_path: Path, name: str, make: Callable[..., Path]
) -> None:
    make(archive, ("fine", b"1"), (name.format(outside=tmp_path, name=NAME), b"evil"))
    assert refusal(archive).startswith("hostile_archive: Expected plain names")
    assert "member 2 of the archive" in refusal(archive)


def test_name_with_nul_is_refused(archive: Path) -> None:
    data = zip_of(archive, ("a_png", b"1")).read_bytes()
    archive.write_bytes(data.replace(b"a_png", b"a\0png"))
    assert "plain names" in refusal(archive)
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a")
        info.pax_headers = {"path": "a\0png"}
        tar.addfile(info)
    assert "plain names" in refusal(archive)


SPECIAL = {
    "symlink outside": special(tarfile.SYMTYPE, f"/etc/{NAME}"),
    "symlink inside": special(tarfile.SYMTYPE, "b.nii.gz"),
    "hard link": special(tarfile.LNKTYPE, "fine"),
    "character device": special(tarfile.CHRTYPE),
    "block device": special(tarfile.BLKTYPE),
    "fifo": special(tarfile.FIFOTYPE),
    "gnu sparse": special(tarfile.GNUTYPE_SPARSE),
    "unknown": special(b"V"),
}


@pytest.mark.parametrize("info", SPECIAL.values(), ids=SPECIAL)
def test_links_devices_and_the_like_in_a_tar_are_refused(archive: Path, info: tarfile.TarInfo) -> None:
    tar_of(archive, ("fine", b"1"), (info, b""))
    assert "files and folders only. Received: a link, a device or the like as member 2" in refusal(archive)


@pytest.mark.parametrize("version", ["0.1", "1.0"])
def test_sparse_file_of_a_tar_is_refused(archive: Path, version: str) -> None:
    info = tarfile.TarInfo(NAME)
    sparse = {"map": "0,1"} if version == "0.1" else {"major": "1", "minor": "0", "realsize": str(1 << 50)}
    info.pax_headers = {f"GNU.sparse.{key}": value for key, value in sparse.items()}
    info.size = 512
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(b"1\n" * 256))
    assert "files and folders only" in refusal(archive)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO], ids=["symlink", "device", "fifo"])
@pytest.mark.parametrize("name", [NAME, f"{NAME}/"], ids=["file", "folder"])
def test_links_and_devices_in_a_zip_are_refused(archive: Path, kind: int, name: str) -> None:
    link = zipfile.ZipInfo(name)
    link.external_attr = (kind | 0o777) << 16
    zip_of(archive, (link, b"" if name.endswith("/") else b"/etc"))
    assert "files and folders only" in refusal(archive)


@both
@pytest.mark.parametrize("second", ["a/b", "a//b", "./a/b", "a/./b", "a\\b"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_path_are_refused(archive: Path, make: Callable[..., Path], second: str) -> None:
    make(archive, ("a/b", b"1"), (second, b"2"))
    assert refusal(archive).startswith("hostile_archive: Expected one path each")


@both
@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a")])
def test_file_that_is_also_a_folder_is_refused(
    archive: Path, names: tuple[str, str], make: Callable[..., Path]
) -> None:
    make(archive, *((name, b"1") for name in names))
    assert "hostile_archive" in refusal(archive)


def test_folder_may_come_twice_and_behind_its_files(archive: Path) -> None:
    again = tarfile.TarInfo("a")
    again.type = tarfile.DIRTYPE
    assert unpacked(tar_of(archive, ("a/b", b"1"), (again, b""), (again, b""))) == {"a/b": b"1"}


# ---- archives in archives


PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.compress,
}


def packed(mode: str) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as file:
        file.addfile(tarfile.TarInfo("a"))
    return PACK[mode](raw.getvalue())


def empty_zip() -> bytes:
    raw = io.BytesIO()
    zipfile.ZipFile(raw, "w").close()
    return raw.getvalue()


NESTED = {
    **{mode or "tar": packed(mode) for mode in ("", "gz", "bz2", "xz", "zst")},
    "zip": b"PK\x03\x04" + bytes(40),
    "empty zip": empty_zip(),
    "7z": b"7z\xbc\xaf\x27\x1c" + bytes(40),
    "rar": b"Rar!\x1a\x07\x01\x00" + bytes(40),
}


@both
@pytest.mark.parametrize("data", NESTED.values(), ids=NESTED)
def test_archive_in_an_archive_is_refused(archive: Path, data: bytes, make: Callable[..., Path]) -> None:
    make(archive, ("a", b"1"), (f"{NAME}.png", data))
    assert refusal(archive).startswith("nested_archive")
    assert "member 2" in refusal(archive)


PLAIN = {
    "nii.gz": gzip.compress(b"\x5c\x01\0\0" + bytes(5000)),
    "black picture": bytes(5000),
    "text": b"BZh is how bzip2 begins, PK a zip",
    "broken gzip": b"\x1f\x8b broken",
    "nothing": b"",
}


@pytest.mark.parametrize("data", PLAIN.values(), ids=PLAIN)
def test_other_file_is_no_archive(archive: Path, data: bytes) -> None:
    archive.write_bytes(data)
    assert not is_archive(archive)
    assert refusal(archive).startswith("broken_archive: Expected a .zip")
    assert unpacked(zip_of(archive, ("a", data))) == {"a": data}


def test_sample_pictures_are_no_archives(shared_data: Path) -> None:
    pictures = [path for path in (shared_data / "nifti_odd").rglob("*") if path.is_file()]
    assert len(pictures) > 30
    assert not [path for path in pictures if is_archive(path)]


@pytest.mark.parametrize("kind", ["7z", "rar"])
def test_archive_of_a_kind_that_is_not_read_says_what_is(archive: Path, kind: str) -> None:
    archive.write_bytes(NESTED[kind])
    assert is_archive(archive)
    assert refusal(archive).startswith(
        f"broken_archive: Expected a .zip, or a .tar, plain or as .gz, .bz2, .xz or .zst. Received: a .{kind}"
    )


# ---- bombs


@every
def test_bytes_that_come_out_are_counted_not_those_promised(
    archive: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Path]
) -> None:
    make(archive, ("a", bytes(2 << 20)), ("b", bytes(2 << 20)))
    monkeypatch.setattr(archives, "MAX_BYTES", 3 << 20)
    assert refusal(archive).startswith("too_large")
    monkeypatch.undo()
    monkeypatch.setattr(archives, "FREE_BYTES", 3 << 20)
    monkeypatch.setattr(archives, "MAX_RATIO", 0)
    assert refusal(archive).startswith("hostile_archive: Expected at most")


@both
def test_too_many_members_are_refused(
    archive: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Path]
) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    assert len(unpacked(make(archive, *((f"{i}", b"") for i in range(3))))) == 3
    assert refusal(make(archive, *((f"{i}", b"") for i in range(4)))).startswith("too_large")


@both
def test_folders_count_as_members(archive: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Path]) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    assert unpacked(make(archive, ("a/b/c", b""))) == {"a/b/c": b""}
    assert refusal(make(archive, ("a/b/c/d", b""))).startswith("too_large")


_MEASURED = """
import sys, time
from pathlib import Path
from femur_tasks.dataset.archives import unpack
from femur_tasks.dataset.problems import Faulty
out = [0]
try:
    unpack(Path(sys.argv[1]), Path(sys.argv[2]), out.append)
    code = "none"
except Faulty as err:
    code = err.code
status = Path("/proc/self/status").read_text()  # its own peak, where rusage has that of the process it was forked from
print(code, out[-1], time.process_time(), int(status.split("VmHWM:")[1].split()[0]) // 1024)
"""


def zeros(pack: Callable[[bytes], bytes], whole: bytes, tail: bytes = b"", size: int = 1 << 20) -> bytes:
    """As many streams of zeros behind a first one as make 1 GiB."""
    return pack(whole) + pack(bytes(size)) * ((1 << 30) // size) + tail


def header(size: int, kind: bytes = tarfile.REGTYPE, name: str = NAME) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def pax_of_many_records() -> Iterator[bytes]:
    records = b"5 a=\n" * 90 + bytes(62)
    for number in range(15_000):
        yield header(450, tarfile.XHDTYPE) + records + header(0, name=f"{number}")


def fifield(archive: Path) -> bytes:
    """Members that all use one kernel of data, each through the headers of those behind it.

    Source: Fifield, A better zip bomb, WOOT 2019.
    """
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
    return raw + directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(raw), 0)


def zip_bomb(compression: int) -> Callable[[Path], bytes]:
    def make(archive: Path) -> bytes:
        with zipfile.ZipFile(archive, "w", compression) as file, file.open(NAME, "w", force_zip64=True) as member:
            for _ in range(640):
                member.write(bytes(1 << 20))
        return archive.read_bytes()

    return make


def huge_directory(archive: Path) -> bytes:
    """A gibibyte of directory would be read, were its end believed."""
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    directory = entry * 2_000_000
    return b"PK\3\4" + bytes(27) + directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 7, 7, len(directory), 31, 0)


BOMBS: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "zip": ("hostile_archive", zip_bomb(8)),
    "zip bzip2": ("hostile_archive", zip_bomb(12)),
    "zip lzma": ("hostile_archive", zip_bomb(14)),
    "zip overlapping": ("hostile_archive", fifield),
    "zip directory": ("too_large", huge_directory),
    "gz": ("hostile_archive", lambda _: zeros(gzip.compress, header(1 << 40))),
    "bz2": ("hostile_archive", lambda _: zeros(bz2.compress, header(1 << 40), size=1 << 25)),
    "xz": ("hostile_archive", lambda _: zeros(lzma.compress, header(1 << 40), size=1 << 27)),
    "zst": ("hostile_archive", lambda _: zeros(zstandard.compress, header(1 << 40), size=1 << 27)),
    "behind the end": ("hostile_archive", lambda _: zeros(gzip.compress, header(0) + bytes(1024))),
    "pax header": ("hostile_archive", lambda _: zeros(gzip.compress, header(10 << 30, tarfile.XHDTYPE))),
    "long name": ("hostile_archive", lambda _: zeros(gzip.compress, header(1 << 30, tarfile.GNUTYPE_LONGNAME))),
    "headers in a row": (
        "hostile_archive",
        lambda _: gzip.compress((header(6, tarfile.XGLTYPE) + b"6 a=b\n".ljust(512)) * 500_000, 1),
    ),
    "pax records": ("too_large", lambda _: gzip.compress(b"".join(pax_of_many_records()), 9)),
    "folders": (
        "too_large",
        lambda _: gzip.compress(b"".join(header(0, tarfile.DIRTYPE, f"{i}") for i in range(15_000)), 9),
    ),
    "files": ("too_large", lambda _: gzip.compress(b"".join(header(0, name=f"{i}") for i in range(15_000)), 9)),
}


@pytest.mark.parametrize(("code", "make"), BOMBS.values(), ids=BOMBS)
def test_bomb_is_refused_in_little_time_and_memory(
    archive: Path, folder: Path, code: str, make: Callable[[Path], bytes]
) -> None:
    archive.write_bytes(make(archive))
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", _MEASURED, str(archive), str(folder)],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        written = sum(1 for _ in folder.rglob("*"))
    finally:
        shutil.rmtree(folder)
    found, out_bytes, seconds, mib = done.stdout.split()
    assert found == code
    assert float(seconds) < 10
    assert int(out_bytes) < 700 << 20, "of a GiB and more"
    assert written < 12_000, "of 15,000 and more"
    assert int(mib) < 700


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_huge_header_of_a_tar_is_refused_before_it_is_read(archive: Path, kind: bytes) -> None:
    archive.write_bytes(header(2 << 20, kind))
    assert refusal(archive).startswith("hostile_archive: Expected headers of some bytes")


@pytest.mark.parametrize("kind", ["zst", "xz", "zip lzma"])
def test_window_of_gigabytes_is_not_allocated(archive: Path, kind: str) -> None:
    if kind == "zst":
        parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
        packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        archive.write_bytes(packer.compress(packed("")) + packer.flush())
    elif kind == "xz":
        data = bytearray(lzma.compress(packed(""), filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]))
        at = data.index(b"\x21\x01") + 2  # id and length of the filter's properties
        data[at] = 38  # 2 GiB
        data[20:24] = struct.pack("<L", zlib.crc32(data[12:20]))
        archive.write_bytes(data)
    else:
        data = bytearray(zip_of(archive, ("a", b"1" * 100), compression=14).read_bytes())
        data[30 + 1 + 5 : 30 + 1 + 9] = struct.pack("<L", 2 << 30)
        archive.write_bytes(data)
    message = refusal(archive)
    assert message.startswith("broken_archive")
    assert "memory" in message.lower()


# ---- our own machine


def test_full_disk_is_seen_before_it_is_full(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    assert unpacked(zip_of(archive, ("a", bytes(900)), ("b", bytes(900)))) != {}
    with pytest.raises(FemurError, match="Make room") as found:
        unpacked(zip_of(archive, (NAME, bytes(1100))))
    assert not isinstance(found.value, Faulty), "the archive is not to blame"
    assert NAME not in str(found.value)


def test_missing_archive_is_no_fault_of_the_archive(archive: Path, folder: Path) -> None:
    with pytest.raises(FemurError, match="No such file") as found:
        unpack(archive, folder)
    assert not isinstance(found.value, Faulty)


def test_broken_disk_is_no_fault_of_the_archive(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zip_of(archive, (NAME, b"1"))

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error", NAME)

    monkeypatch.setattr("os.open", broken)
    with pytest.raises(FemurError, match="Look at the disk") as found:
        unpack(archive, archive.parent)
    assert not isinstance(found.value, Faulty)
    assert NAME not in str(found.value)


# ---- damage


@every
def test_archive_that_breaks_off_is_refused_wherever_it_does(archive: Path, make: Callable[..., Path]) -> None:
    noise = random.Random(1)
    whole = make(archive, *((f"train/imgs/{i}", noise.randbytes(700)) for i in range(4))).read_bytes()
    end_of_tar = whole.find(bytes(1024), 4 * (512 + 1024) - 512) if whole[257:262] == b"ustar" else len(whole)
    for length in range(0, min(len(whole), end_of_tar + 512), 256):
        archive.write_bytes(whole[:length])
        assert refusal(archive).startswith("broken_archive")


@pytest.mark.parametrize("make", CHECKED.values(), ids=CHECKED)
def test_flipped_byte_never_changes_what_is_unpacked(archive: Path, make: Callable[..., Path]) -> None:
    """Wherever it is: in a member, in its name, or in the directory of a zip, which has no checksum."""
    noise = random.Random(1)
    members = {f"imgs/{i}": bytes(noise.choice(b"abcd") for _ in range(900)) for i in range(3)}
    whole = make(archive, *members.items()).read_bytes()
    of_zip = whole[:2] == b"PK"
    directory = whole.find(b"PK\1\2") if of_zip else len(whole)
    for place in [*noise.sample(range(directory), 80), *range(directory, len(whole))]:
        for flip in (0x55, 0x01, 0xFF) if place >= directory else (0x55,):
            archive.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
            try:
                found = unpacked(archive)
            except Faulty:
                continue
            assert found == members


@pytest.mark.parametrize("field", ["count", "name length", "extra length", "comment length", "size", "offset"])
def test_damaged_directory_does_not_hide_members(archive: Path, field: str) -> None:
    """Reading on from a wrong place, or to a wrong one, is how a reader that believes it loses members."""
    data = bytearray(zip_of(archive, *((f"{i:08}", b"1") for i in range(6))).read_bytes())
    directory, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    entry = 46 + 8
    if field == "count":
        data[end + 8 : end + 12] = struct.pack("<2H", 5, 5)
    elif field == "size":
        data[end + 12 : end + 16] = struct.pack("<L", 5 * entry)
    elif field == "offset":
        data[end + 12 : end + 20] = struct.pack("<2L", 5 * entry, directory + entry)
        data[end + 8 : end + 12] = struct.pack("<2H", 5, 5)
    else:
        at = directory + 2 * entry + {"name length": 28, "extra length": 30, "comment length": 32}[field]
        data[at : at + 2] = struct.pack("<H", struct.unpack("<H", data[at : at + 2])[0] + entry)
    archive.write_bytes(data)
    assert refusal(archive).startswith("broken_archive")


def test_member_that_the_directory_does_not_list_is_not_lost_silently(archive: Path) -> None:
    data = zip_of(archive, *((f"{i:08}", b"1") for i in range(3)), compression=0).read_bytes()
    directory, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    entry, local = 46 + 8, 30 + 8 + 1
    for gone in range(3):  # an honest directory, of the others
        kept = (
            data[:directory] + data[directory : directory + gone * entry] + data[directory + (gone + 1) * entry : end]
        )
        archive.write_bytes(kept + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, 2 * entry, 3 * local, 0))
        assert "its directory does not know" in refusal(archive)


def test_zip_behind_other_data_is_refused(archive: Path) -> None:
    data = zip_of(archive, ("a", b"1")).read_bytes()
    archive.write_bytes(b"MZ a program" + data)
    assert refusal(archive).startswith("hostile_archive: Expected a zip from its first byte on")
    assert not is_archive(archive)
    archive.write_bytes(data + zip_of(archive, ("bb", b"2")).read_bytes())
    assert refusal(archive).startswith(("hostile_archive", "broken_archive"))


def test_overlapping_members_are_refused_before_anything_is_unpacked(archive: Path, folder: Path) -> None:
    archive.write_bytes(fifield(archive))
    with pytest.raises(Faulty, match="over one another"):
        unpack(archive, folder)
    assert list(folder.iterdir()) == []


def test_damaged_header_does_not_end_a_tar_early(archive: Path) -> None:
    whole = bytearray(tar_of(archive, ("a", b"1"), ("b", b"2"), mode="").read_bytes())
    whole[1024] ^= 0x55  # the name in the second header
    archive.write_bytes(whole)
    assert "a damaged header of member 2" in refusal(archive)


def test_second_tar_behind_the_end_of_the_first_is_refused(archive: Path) -> None:
    tar = tar_of(archive, ("a", b"1"), mode="").read_bytes()
    archive.write_bytes(tar + tar_of(archive, ("b", b"2"), mode="").read_bytes())
    assert "data after the archive's end" in refusal(archive)


@pytest.mark.parametrize(
    "record", [b"0 path=a\n", b"-9 path=a\n", b"9999999 path=a\n", b"path=a\n", b"7 path\n", b"11 size=-99\n"]
)
def test_damaged_pax_header_is_refused(archive: Path, record: bytes) -> None:
    archive.write_bytes(header(len(record), tarfile.XHDTYPE) + record.ljust(512, b"\0") + header(0) + bytes(1024))
    assert refusal(archive).startswith("broken_archive")


def test_encrypted_zip_is_refused(archive: Path) -> None:
    data = bytearray(zip_of(archive, (NAME, b"1")).read_bytes())
    data[6] |= 1  # the flag in the member's own header
    data[data.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(data)
    assert refusal(archive).startswith("broken_archive: Expected one without a password. Received: an encrypted")


def test_method_that_is_not_read_is_told(archive: Path) -> None:
    data = bytearray(zip_of(archive, (NAME, b"1")).read_bytes())
    data[8] = data[data.index(b"PK\1\2") + 10] = 9
    archive.write_bytes(data)
    assert "member 1 packed by method 9" in refusal(archive)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data(), kind=st.sampled_from(list(EVERY)))
def test_no_damage_raises_anything_but_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kind: str
) -> None:
    place = tmp_path_factory.mktemp("damage")
    members = [("train/a", b"abc" * 200), ("train/\u00fc" * 12, b""), ("train/b", bytes(700))]
    whole = bytearray(EVERY[kind](place / "archive", *members).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        change = data.draw(st.one_of(st.binary(max_size=8), st.sampled_from([b"\xff" * 4, b"PK\5\6", b"\0" * 8])))
        whole[at : at + data.draw(st.integers(0, 8))] = change
    (place / "archive").write_bytes(whole)
    with suppress(Faulty):
        unpacked(place / "archive")
    shutil.rmtree(place)
