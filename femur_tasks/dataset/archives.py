"""Archives: .zip, and .tar plain or compressed, unpacked into a folder with limits.

No message names a member: file names may hold patients' names. Members are told by their number, counted from 1.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import BinaryIO
from unicodedata import category

from femur_tasks.dataset import tars, zips
from femur_tasks.dataset.inflating import BLOCK_BYTES, BROKEN, INFLATERS, NAMELESS, inflated
from femur_tasks.dataset.problems import Faulty
from femur_tasks.errors import FemurError

MAX_BYTES = 64 << 30
MAX_MEMBERS = 400_000
FREE_BYTES = 512 << 20
"""What any archive may unpack to: masks alone deflate 1000 to 1, so a small archive says little of what is in it."""
MAX_RATIO = 100
"""And as many times its own size on top: a whole dataset, radiographs and all, deflates 2 to 1."""
FREE_MEMBERS = 10_000
BYTES_A_MEMBER = 100
"""And a member for so many bytes of the archive on top: even an empty file's name takes that, unless it is made up."""
_MAX_PART_BYTES = 255
_MAX_NAME_BYTES = 1024
_MAX_DEPTH = 64
_MARKS = {
    "zip": rb"PK(\x03\x04|\x05\x06|\x07\x08)",  # also an empty one, and one of several parts
    "bz2": rb"BZh[1-9]1AY&SY",
    "xz": rb"\xfd7zXZ\0",
    "zst": rb"\x28\xb5\x2f\xfd",
    "7z": rb"7z\xbc\xaf\x27\x1c",
    "rar": rb"Rar!\x1a\x07",
}
_BATCH = 64  # members that are written side by side
_HEAD_BYTES = 4096
_EXPECTED = "a .zip, or a .tar, plain or as .gz, .bz2, .xz or .zst"
_INSIDE = "plain names of files inside the archive's folder"


def is_archive(path: Path) -> bool:
    """Whether its content is that of an archive, also of a kind that can't be unpacked; a .nii.gz is none.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        return _kind(file.read(_HEAD_BYTES)) is not None


def unpack(archive: Path, folder: Path, on_bytes: Callable[[int], None] = lambda _done: None) -> None:
    """Unpack into an existing empty folder; when it raises, what came out before that is still there.

    Args:
        on_bytes: told how many bytes have come out.

    Raises:
        Faulty: `broken_archive`; `hostile_archive`: it would write outside the folder, holds links or devices, hides
            something or is a bomb; `nested_archive`; `too_large`.
        FemurError: a fault of this machine, such as a full disk.
    """
    number = 0
    try:
        budget = _Budget(archive.stat().st_size, folder, on_bytes)
        with archive.open("rb") as file:
            kind = _kind(file.read(_HEAD_BYTES))
            members = enumerate(_members(file, kind, budget), 1)
            # a zip's members are apart from one another; a tar's come out of one stream
            cores, batch = (os.cpu_count() or 1, _BATCH) if kind == "zip" else (1, 1)
            with ThreadPoolExecutor(cores) as pool:
                while some := [(n, pool.submit(budget.take(member, n))) for n, member in islice(members, batch)]:
                    for number, written in some:  # noqa: B007 - which one it was is told below
                        written.result()
    except BROKEN as err:  # from None: their texts, and what they were raised from, name members
        if isinstance(err, OSError) and err.errno is not None:
            room = (
                "Make room where FEMUR_WORK or FEMUR_HOME points"
                if err.errno in (errno.ENOSPC, errno.EDQUOT)
                else "Look at the disk and its permissions"
            )
            todo = f"{room}, then try again."
            raise FemurError(f"Expected to unpack an archive. Received: {err.strerror}.", todo) from None
        why = f": {err}" if isinstance(err, NAMELESS) else ""
        found = f"one that is damaged or breaks off near member {number or 1}{why}"
        raise Faulty("broken_archive", found, "a whole archive") from None


def _kind(head: bytes) -> str | None:
    """What kind of archive begins so, `gz` only where a tar is in it."""
    for kind, mark in _MARKS.items():
        if re.match(mark, head):
            return kind
    if head.startswith(b"\x1f\x8b"):
        try:
            start = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(head, tars.BLOCKSIZE)
        except zlib.error:
            return None
        return "gz" if _kind(start) == "tar" else None
    return "tar" if tars.parsed(head[: tars.BLOCKSIZE]) else None


def _members(file: BinaryIO, kind: str | None, budget: _Budget) -> Iterator[tars.Member]:
    if kind == "zip":
        for member in zips.members(file, budget.max_members):
            yield replace(member, blocks=budget.counted(member.blocks))
        return
    file.seek(0)
    if kind == "tar":
        blocks = iter(partial(file.read, BLOCK_BYTES), b"")
    elif kind and kind in INFLATERS:
        blocks = inflated(file.read, INFLATERS[kind])
    elif kind is None and zips.has_end(file):
        raise Faulty("hostile_archive", "data in front of a zip", "a zip from its first byte on")
    else:
        raise Faulty("broken_archive", f"a .{kind}" if kind else "something else", _EXPECTED)
    yield from tars.members(budget.counted(blocks))


class _Budget:
    """Writes members below a folder, and counts what really comes out, whatever headers promise."""

    def __init__(self, archive_bytes: int, folder: Path, on_bytes: Callable[[int], None]) -> None:
        self._on_bytes = on_bytes
        self.max_members = min(MAX_MEMBERS, FREE_MEMBERS + archive_bytes // BYTES_A_MEMBER)
        self._max_bytes = FREE_BYTES + MAX_RATIO * archive_bytes
        self._folder = folder
        self._folders = {PurePosixPath()}
        self._members = 0
        self._bytes = 0
        self._lock = Lock()

    def counted(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """The blocks, until they are too many."""
        for block in blocks:
            with self._lock:
                self._bytes += len(block)
            if self._bytes > MAX_BYTES:
                raise Faulty("too_large", "more", f"at most {MAX_BYTES >> 30} GiB when unpacked")
            if self._bytes > self._max_bytes:
                raise Faulty("hostile_archive", "a bomb", f"at most {MAX_RATIO} times its size when unpacked")
            self._on_bytes(self._bytes)
            yield block

    def take(self, member: tars.Member, number: int) -> Callable[[], None]:
        """Make room for a member where its name says, if that is below the folder; calling the result writes it."""
        name = member.name.replace("\\", "/")  # as Windows writes it
        path = PurePosixPath(name)
        sizes = [len(part.encode(errors="surrogatepass")) for part in path.parts]
        escapes = path.is_absolute() or ".." in path.parts or (name[1:2] == ":" and name[0].isalpha())
        huge = max(sizes, default=0) > _MAX_PART_BYTES or sum(sizes) > _MAX_NAME_BYTES or len(sizes) > _MAX_DEPTH
        if escapes or huge or not all(map(_is_plain, name)):
            raise Faulty("hostile_archive", f"another name of member {number} of the archive", _INSIDE)
        if not (member.is_file or member.is_folder):
            found = f"a link, a device or the like as member {number} of the archive"
            raise Faulty("hostile_archive", found, "files and folders only")
        for parent in [*reversed(path.parents), *([path] if member.is_folder else [])]:
            if parent not in self._folders:
                self._count()
                self._make(parent, number)
        if not member.is_file:
            return lambda: None
        self._count()
        return partial(self._write, member.blocks, path, number)

    def _count(self) -> None:
        self._members += 1
        if self._members > self.max_members:
            raise Faulty("too_large", "more", f"at most {self.max_members} members in an archive of this size")

    def _make(self, path: PurePosixPath, number: int) -> None:
        try:
            (self._folder / path).mkdir(0o700)
        except FileExistsError:
            raise _twice(number) from None
        self._folders.add(path)

    def _write(self, blocks: Iterator[bytes], path: PurePosixPath, number: int) -> None:
        target = self._folder / path
        try:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except (FileExistsError, IsADirectoryError):
            raise _twice(number) from None
        with os.fdopen(descriptor, "wb") as file:
            for block in blocks:
                if len(block) > shutil.disk_usage(self._folder).free:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                file.write(block)
        if is_archive(target):
            raise Faulty("nested_archive", f"an archive as member {number} of the archive", "plain files and folders")


def _twice(number: int) -> Faulty:
    return Faulty("hostile_archive", f"the path of another member as member {number} of the archive", "one path each")


def _is_plain(character: str) -> bool:
    """Printable, or a blank of another width, as macOS writes into the names of screenshots."""
    return character.isprintable() or category(character) == "Zs"
