"""Sources: a folder, a .zip or a .tar.gz becomes a folder to read, unpacked with limits."""

from __future__ import annotations

import errno
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, Self

from femur_tasks.errors import FemurError, NotFound, Rejected

MAX_MEMBERS = 400_000
MAX_BYTES = 64 << 30
_BLOCK = 1 << 20
_OURS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE}  # no fault of the archive's
_MAKE_ROOM = "Make room where TMPDIR points, then try again."
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """The folder with the source's files: the source itself, or a temporary folder that is removed afterwards.

    Raises:
        NotFound: nothing is at `path`.
        FemurError: the disk is full or broken.
        Rejected: it is no folder and no archive, or an archive that would write outside its folder, holds links
            or devices, or expands past the limits.
    """
    if path.is_dir():
        yield path
        return
    if not path.is_file():
        raise NotFound(f"Expected a folder or an archive. Received: {path}, which is not there.")
    with TemporaryDirectory(prefix="femur-ingest-") as folder:
        target = Path(folder)
        try:
            if zipfile.is_zipfile(path):
                _unpack_zip(path, target)
            elif tarfile.is_tarfile(path):
                _unpack_tar(path, target)
            else:
                raise Rejected(f"Expected a folder, .zip or .tar.gz. Received: {path.name}.")
        except _BROKEN as err:
            if isinstance(err, OSError) and err.errno in _OURS:
                raise FemurError(f"Expected to unpack {path.name}. Received: {err.strerror}.", _MAKE_ROOM) from err
            raise Rejected(f"Expected a whole archive. Received: {path.name}, which is broken: {err}.") from err
        yield target


class _Budget:
    """Counts members and bytes of one archive against the limits."""

    def __init__(self, archive: str) -> None:
        self._archive = archive
        self._members = 0
        self._bytes = 0

    def target(self, folder: Path, name: str) -> Path:
        """Where a member goes: below `folder`, whatever its name says."""
        self._members += 1
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if self._members > MAX_MEMBERS:
            raise Rejected(f"Expected at most {MAX_MEMBERS} members. Received: more in {self._archive}.")
        hostile = parts and (parts[0] == "/" or ".." in parts or ":" in parts[0])
        if hostile or not name.isprintable():
            raise Rejected(f"Expected members inside the archive's folder. Received: {name!r} in {self._archive}.")
        path = folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def copy(self, member: IO[bytes], path: Path) -> None:
        """Write a member, counting what really comes out instead of what its header promises."""
        with path.open("wb") as file:
            while block := member.read(_BLOCK):
                self._bytes += len(block)
                if self._bytes > MAX_BYTES:
                    raise Rejected(
                        f"Expected at most {MAX_BYTES >> 30} GiB unpacked. Received: more in {self._archive}."
                    )
                if len(block) > shutil.disk_usage(path.parent).free:
                    raise FemurError(f"Expected room on the disk for {self._archive}. Received: none left.", _MAKE_ROOM)
                file.write(block)


def _unpack_zip(path: Path, folder: Path) -> None:
    budget = _Budget(path.name)
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            target = budget.target(folder, info.filename)
            if (info.external_attr >> 16) & 0o170000 not in (0, 0o100000, 0o040000):
                raise Rejected(f"Expected files and folders only. Received: {info.filename!r} in {path.name}.")
            if not info.is_dir():
                with archive.open(info) as member:
                    budget.copy(member, target)


def _unpack_tar(path: Path, folder: Path) -> None:
    budget = _Budget(path.name)
    with tarfile.open(path, tarinfo=_StrictHeader) as archive:
        for info in archive:
            target = budget.target(folder, info.name)
            if info.isdir():
                continue
            member = archive.extractfile(info) if info.isreg() else None
            if member is None:
                raise Rejected(f"Expected files and folders only. Received: {info.name!r} in {path.name}.")
            budget.copy(member, target)
        # read to the end: a compressed stream has its checksum there
        while archive.fileobj and (rest := archive.fileobj.read(_BLOCK)):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("data after its end")


class _StrictHeader(tarfile.TarInfo):
    """A header that must be whole: the standard one takes a damaged or missing header for the archive's end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as err:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):  # the regular mark of the end
                raise
            raise tarfile.ReadError(f"{err}") from err
