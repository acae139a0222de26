"""Sources: what an archive may do to the machine that unpacks it."""

from __future__ import annotations

import io
import random
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from femur_tasks.dataset import sources
from femur_tasks.dataset.sources import opened
from femur_tasks.errors import FemurError, NotFound, Rejected

HOSTILE = ["../evil", "a/../../evil", "{outside}/evil", "..\\evil", "a\\..\\..\\evil", "C:\\evil", "a/\x07evil"]
IDS = ["parent", "parent below", "absolute", "backslash", "backslash below", "drive", "control character"]


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for temporary files, so that whatever lands beside it is seen."""
    folder = tmp_path / "work" / "inner"
    folder.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unpacked(archive: Path) -> dict[str, bytes]:
    with opened(archive) as folder:
        return files_in(folder)


def zip_of(archive: Path, *members: tuple[str | zipfile.ZipInfo, bytes], compression: int = 8) -> Path:
    with zipfile.ZipFile(archive, "w", compression) as file:
        for name, data in members:
            file.writestr(name, data)
    return archive


def tar_of(archive: Path, *members: tuple[str | tarfile.TarInfo, bytes], mode: str = "gz") -> Path:
    with tarfile.open(archive, f"w:{mode}") as file:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return archive


def special(kind: bytes, linkname: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo("train/imgs/a.nii.gz")
    info.type, info.linkname = kind, linkname
    return info


def test_folder_is_read_where_it_is(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        assert folder == tmp_path
    assert tmp_path.exists()


@pytest.mark.parametrize("make", [zip_of, tar_of], ids=["zip", "tar.gz"])
def test_archive_is_unpacked_and_removed_afterwards(archive: Path, work: Path, make: Callable[..., Path]) -> None:
    make(archive, ("train/imgs/a", b"1"), ("train/targets/a", b"2"))
    with opened(archive) as folder:
        assert folder.is_relative_to(work)
        assert files_in(folder) == {"train/imgs/a": b"1", "train/targets/a": b"2"}
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("mode", ["", "gz", "bz2", "xz"])
def test_every_common_tar_is_unpacked(archive: Path, mode: str) -> None:
    assert unpacked(tar_of(archive, ("a/b", b"1"), mode=mode)) == {"a/b": b"1"}


def test_archive_made_of_the_current_folder_is_unpacked(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_bytes(b"1")
    with tarfile.open(archive, "w:gz") as tar:  # as `tar czf archive .` writes it
        tar.add(tmp_path / "data", ".")
    assert unpacked(archive) == {"a": b"1"}


def test_archive_of_windows_with_backslashes_is_unpacked(archive: Path) -> None:
    assert unpacked(zip_of(archive, ("train\\imgs\\a", b"1"))) == {"train/imgs/a": b"1"}


@pytest.mark.parametrize("make", [zip_of, tar_of], ids=["zip", "tar.gz"])
@pytest.mark.parametrize("name", HOSTILE, ids=IDS)
def test_member_that_leaves_the_folder_is_refused(
    archive: Path, tmp_path: Path, name: str, make: Callable[..., Path]
) -> None:
    make(archive, ("fine", b"1"), (name.format(outside=tmp_path), b"evil"))
    with pytest.raises(Rejected, match="evil"):
        unpacked(archive)
    assert list(files_in(tmp_path)) == ["archive"]


@pytest.mark.parametrize(
    "info",
    [
        special(tarfile.SYMTYPE, "/etc/passwd"),
        special(tarfile.SYMTYPE, "b.nii.gz"),
        special(tarfile.LNKTYPE, "fine"),
        special(tarfile.CHRTYPE),
        special(tarfile.BLKTYPE),
        special(tarfile.FIFOTYPE),
    ],
    ids=["symlink outside", "symlink inside", "hard link", "character device", "block device", "fifo"],
)
def test_links_and_devices_in_a_tar_are_refused(archive: Path, tmp_path: Path, info: tarfile.TarInfo) -> None:
    tar_of(archive, ("fine", b"1"), (info, b""))
    with pytest.raises(Rejected, match="files and folders only"):
        unpacked(archive)
    assert list(files_in(tmp_path)) == ["archive"]


def test_symlink_in_a_zip_is_refused(archive: Path) -> None:
    link = zipfile.ZipInfo("train")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(Rejected, match="files and folders only"):
        unpacked(zip_of(archive, (link, b"/etc"), ("train/passwd", b"evil")))


@pytest.mark.parametrize("make", [zip_of, tar_of], ids=["zip", "tar.gz"])
def test_bytes_that_come_out_are_counted_not_those_promised(
    archive: Path, monkeypatch: pytest.MonkeyPatch, work: Path, make: Callable[..., Path]
) -> None:
    monkeypatch.setattr(sources, "MAX_BYTES", 3 << 20)
    make(archive, ("a", bytes(2 << 20)), ("b", bytes(2 << 20)))
    assert archive.stat().st_size < 1 << 20
    with pytest.raises(Rejected, match="at most 0 GiB unpacked"):
        unpacked(archive)
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("make", [zip_of, tar_of], ids=["zip", "tar.gz"])
def test_too_many_members_are_refused(
    archive: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Path]
) -> None:
    monkeypatch.setattr(sources, "MAX_MEMBERS", 3)
    assert len(unpacked(make(archive, *((f"{i}", b"") for i in range(3))))) == 3
    with pytest.raises(Rejected, match="at most 3 members"):
        unpacked(make(archive, *((f"{i}", b"") for i in range(4))))


def test_full_disk_is_seen_before_it_is_full(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    assert unpacked(zip_of(archive, ("a", bytes(900)), ("b", bytes(900)))) != {}
    with pytest.raises(FemurError, match="Make room") as found:
        unpacked(zip_of(archive, ("a", bytes(1100))))
    assert not isinstance(found.value, Rejected), "the archive is not to blame"


@pytest.mark.parametrize(
    "make",
    [
        zip_of,
        lambda archive, *members: zip_of(archive, *members, compression=zipfile.ZIP_LZMA),
        tar_of,
        lambda archive, *members: tar_of(archive, *members, mode=""),
        lambda archive, *members: tar_of(archive, *members, mode="xz"),
    ],
    ids=["zip", "zip lzma", "tar.gz", "tar", "tar.xz"],
)
def test_archive_that_breaks_off_is_refused_wherever_it_does(
    archive: Path, work: Path, make: Callable[..., Path]
) -> None:
    noise = random.Random(1)
    whole = make(archive, *((f"train/imgs/{i}", noise.randbytes(700)) for i in range(4))).read_bytes()
    end_of_tar = whole.find(bytes(1024), 4 * (512 + 1024) - 512) if whole[257:262] == b"ustar" else len(whole)
    for length in range(0, min(len(whole), end_of_tar + 512), 256):
        archive.write_bytes(whole[:length])
        with pytest.raises(Rejected):
            unpacked(archive)
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    "make",
    [
        zip_of,
        lambda archive, *members: zip_of(archive, *members, compression=zipfile.ZIP_LZMA),
        lambda archive, *members: zip_of(archive, *members, compression=zipfile.ZIP_BZIP2),
        tar_of,
        lambda archive, *members: tar_of(archive, *members, mode="bz2"),
        lambda archive, *members: tar_of(archive, *members, mode="xz"),
    ],
    ids=["zip", "zip lzma", "zip bzip2", "tar.gz", "tar.bz2", "tar.xz"],
)
def test_flipped_byte_of_a_member_never_changes_what_is_unpacked(archive: Path, make: Callable[..., Path]) -> None:
    noise = random.Random(1)
    members = [(f"imgs/{i}", bytes(noise.choice(b"abcd") for _ in range(900))) for i in range(3)]
    whole = make(archive, *members).read_bytes()
    contents = sorted(data for _, data in members)  # a zip has no checksum over names, nor over its directory
    directory = whole.find(b"PK\x01\x02")
    for place in noise.sample(range(len(whole) if directory < 0 else directory), 80):
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            found = unpacked(archive)
        except Rejected:
            continue
        assert sorted(found.values()) == contents


def test_damaged_header_does_not_end_a_tar_early(archive: Path) -> None:
    whole = bytearray(tar_of(archive, ("a", b"1"), ("b", b"2"), mode="").read_bytes())
    whole[1024] ^= 0x55  # the name in the second header
    archive.write_bytes(whole)
    with pytest.raises(Rejected, match="broken"):
        unpacked(archive)


def test_second_tar_behind_the_end_of_the_first_is_refused(archive: Path) -> None:
    tar = tar_of(archive, ("a", b"1"), mode="").read_bytes()
    archive.write_bytes(tar + tar_of(archive, ("b", b"2"), mode="").read_bytes())
    with pytest.raises(Rejected, match="data after its end"):
        unpacked(archive)


def test_encrypted_zip_is_refused(archive: Path) -> None:
    data = bytearray(zip_of(archive, ("a", b"1")).read_bytes())
    data[6] |= 1  # the flag in the member's own header
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(Rejected, match="encrypted"):
        unpacked(archive)


def test_file_that_is_also_a_folder_is_refused(archive: Path) -> None:
    with pytest.raises(Rejected):
        unpacked(zip_of(archive, ("a", b"1"), ("a/b", b"2")))


@pytest.mark.parametrize("data", [b"", b"text", b"\x1f\x8b broken gzip", b"PK\x03\x04"])
def test_file_that_is_no_archive_is_refused(archive: Path, data: bytes) -> None:
    archive.write_bytes(data)
    with pytest.raises(Rejected):
        unpacked(archive)


def test_missing_source_is_not_found(archive: Path) -> None:
    with pytest.raises(NotFound), opened(archive):
        pass


def test_error_while_reading_is_not_taken_for_a_broken_archive(archive: Path, work: Path) -> None:
    with pytest.raises(OSError, match="mine"), opened(zip_of(archive, ("a", b"1"))):
        raise OSError("mine")
    assert list(work.iterdir()) == []
