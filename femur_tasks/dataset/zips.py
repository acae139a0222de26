"""Zip read by its directory, which must account for every byte of the file: nothing hidden, nothing counted twice.

The standard library's reader believes the directory: a damaged one loses members without a word, and members may lie
over one another.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO, NamedTuple

from isal import isal_zlib

from femur_tasks.dataset.inflating import BLOCK_BYTES, INFLATERS, Inflater, inflated, raw_lzma
from femur_tasks.dataset.problems import Faulty
from femur_tasks.dataset.tars import Member

_LOCAL = struct.Struct("<4s5HL2L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_LOCATOR64 = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF  # the value stands in a zip64 field instead
_MAX_COMMENT_BYTES = 0xFFFF
_MAX_GAP_BYTES = _LOCAL.size  # a data descriptor has 24 at most; a hidden member needs one byte more than its header
_ENCRYPTED, _PATCHED, _MASKED = 0x0041, 0x0020, 0x2000
_STORED, _DEFLATED, _BZIP2, _LZMA, _AES = 0, 8, 12, 14, 99


class _Entry(NamedTuple):
    """A line of the directory."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed_bytes: int
    size: int
    at: int
    mode: int


def members(file: BinaryIO, max_members: int) -> Iterator[Member]:
    """The members of a zip in the order of its directory.

    Raises:
        Faulty: `broken_archive`, `hostile_archive` or `too_large`.
        Whatever `inflating.BROKEN` names: it is damaged.
    """
    entries, directory_at = _directory(file, max_members)
    starts = [_data_start(file, entry, number) for number, entry in enumerate(entries, 1)]
    _check_cover(file, entries, starts, directory_at)
    for number, (entry, start) in enumerate(zip(entries, starts, strict=True), 1):
        if entry.flags & (_ENCRYPTED | _MASKED) or entry.method == _AES:
            raise _broken("an encrypted archive", "one without a password")
        name = _decoded(entry.name)
        is_folder = name.endswith(("/", "\\")) or stat.S_ISDIR(entry.mode)
        if is_folder and entry.size:
            raise _broken(f"a folder with content as member {number}")
        is_file = stat.S_IFMT(entry.mode) in (0, stat.S_IFREG) and not is_folder
        allowed = is_folder and stat.S_IFMT(entry.mode) in (0, stat.S_IFREG, stat.S_IFDIR)
        yield Member(name, is_file, allowed, _content(file, entry, start, number) if is_file else iter(()))


def has_end(file: BinaryIO) -> bool:
    """Whether a zip ends here, whatever the file begins with."""
    return _end(file) is not None


def _end(file: BinaryIO) -> tuple[int, tuple[int, ...]] | None:
    """Where the record of the end is, and its numbers; it may have a comment, and that may look like another end."""
    size = file.seek(0, 2)
    tail_at = max(0, size - _END.size - _MAX_COMMENT_BYTES)
    file.seek(tail_at)
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    while at >= 0:
        if at + _END.size <= len(tail):
            _, *fields = _END.unpack_from(tail, at)
            if at + _END.size + fields[-1] == len(tail):
                return tail_at + at, tuple(fields)
        at = tail.rfind(b"PK\5\6", 0, at)
    return None


def _directory(file: BinaryIO, max_members: int) -> tuple[list[_Entry], int]:
    """Its entries, as many as the end says, and where it begins."""
    found = _end(file)
    if found is None:
        raise _broken("a zip without its end")
    end_at, (disk, first_disk, here, count, size, at, _) = found
    wide = False
    if end_at >= _LOCATOR64.size:
        file.seek(end_at - _LOCATOR64.size)
        mark, _, wide_at, _ = _LOCATOR64.unpack(file.read(_LOCATOR64.size))
        if mark == b"PK\6\7":
            wide = True
            if wide_at + _END64.size > end_at - _LOCATOR64.size:
                raise _broken("a zip whose end is damaged")
            file.seek(wide_at)
            record = _END64.unpack(file.read(_END64.size))
            narrow, broad = (disk, first_disk, here, count, size, at), record[4:]
            full = (_FULL16,) * 4 + (_FULL32,) * 2
            agree = all(n in (b, f) for n, b, f in zip(narrow, broad, full, strict=True))
            ends = wide_at + 12 + record[1] == end_at - _LOCATOR64.size
            if record[0] != b"PK\6\6" or not agree or not ends:
                raise _broken("a zip whose end is damaged")
            (disk, first_disk, here, count, size, at), end_at = broad, wide_at
    if disk or first_disk or here != count:
        raise _broken("one of several parts of a zip", "all in one file")
    if count > max_members:
        raise Faulty("too_large", f"{count} members", f"at most {max_members} members in an archive")
    if at + size > end_at:
        raise _broken("a zip that lacks a piece")
    if at + size < end_at:
        if _mark(file, at) != b"PK\1\2" and _mark(file, end_at - size) == b"PK\1\2":
            raise Faulty("hostile_archive", "data in front of a zip", "a zip from its first byte on")
        raise _broken("a zip whose end is damaged")
    file.seek(at)
    entries: list[_Entry] = []
    while file.tell() < end_at:
        if len(entries) >= max_members:
            raise Faulty("too_large", "more members", f"at most {max_members} members in an archive")
        entries.append(_entry(file, len(entries) + 1))
    # writers of old, without zip64, count up to 65,535 and go on from 0
    if file.tell() != end_at or (len(entries) != count if wide else len(entries) & _FULL16 != count):
        raise _broken("a zip whose directory is damaged")
    return entries, at


def _mark(file: BinaryIO, at: int) -> bytes:
    file.seek(at)
    return file.read(4)


def _entry(file: BinaryIO, number: int) -> _Entry:
    fixed = file.read(_CENTRAL.size)
    if len(fixed) < _CENTRAL.size or fixed[:4] != b"PK\1\2":
        raise _broken(f"a damaged directory entry of member {number}")
    _, _, _, flags, method, _, _, crc, packed, size, names, extras, comments, _, _, attributes, at = _CENTRAL.unpack(
        fixed
    )
    name, extra = file.read(names), file.read(extras)
    file.seek(comments, 1)
    widths = iter(_wide_fields(extra))
    try:
        size = next(widths) if size == _FULL32 else size
        packed = next(widths) if packed == _FULL32 else packed
        at = next(widths) if at == _FULL32 else at
    except StopIteration:
        raise _broken(f"a damaged directory entry of member {number}") from None
    return _Entry(name, flags, method, crc, packed, size, at, attributes >> 16)


def _wide_fields(extra: bytes) -> tuple[int, ...]:
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            field = extra[at + 4 : at + 4 + length]
            return struct.unpack_from(f"<{len(field) // 8}Q", field)
        at += 4 + length
    return ()


def _data_start(file: BinaryIO, entry: _Entry, number: int) -> int:
    """Where the member's data begin, behind a header of its own that must agree with the directory."""
    file.seek(min(entry.at, 1 << 62))
    fixed = file.read(_LOCAL.size)
    if len(fixed) < _LOCAL.size or fixed[:4] != b"PK\3\4":
        raise _broken(f"a damaged header of member {number}")
    _, _, flags, method, _, _, _, _, _, names, extras = _LOCAL.unpack(fixed)
    if file.read(names) != entry.name or method != entry.method or (flags ^ entry.flags) & _ENCRYPTED:
        raise _broken(f"a header of member {number} that differs from the directory")
    return entry.at + _LOCAL.size + int(names) + int(extras)


def _check_cover(file: BinaryIO, entries: list[_Entry], starts: list[int], directory_at: int) -> None:
    """Members follow one another from the first byte to the directory, without a gap that could hide one."""
    spans = sorted((entry.at, start + entry.packed_bytes) for entry, start in zip(entries, starts, strict=True))
    reached = 0
    for at, end in [*spans, (directory_at, directory_at)]:
        if at < reached and at == directory_at:
            raise _broken("a zip whose directory is damaged")
        if at < reached:
            raise Faulty("hostile_archive", "members that lie over one another", "members that follow one another")
        if at - reached > (_MAX_GAP_BYTES if reached else 0):
            if not reached and _mark(file, 0) != b"PK\3\4":
                raise Faulty("hostile_archive", "data in front of a zip", "a zip from its first byte on")
            raise _broken("a zip with data that its directory does not know")
        reached = end


def _content(file: BinaryIO, entry: _Entry, start: int, number: int) -> Iterator[bytes]:
    if entry.flags & _PATCHED:
        raise _broken(f"member {number} of the archive as a patch")
    at, end = start, start + entry.packed_bytes

    def read(most: int) -> bytes:
        nonlocal at
        data = os.pread(file.fileno(), min(most, end - at), at)  # members are read side by side
        at += len(data)
        return data

    size = crc = 0
    for block in _unpacked(read, entry, number) if entry.size else ():
        known = block[: entry.size - size] if entry.method == _LZMA else block  # it may go on without an end of its own
        size, crc = size + len(known), isal_zlib.crc32(known, crc)
        yield known
        if size >= entry.size:
            break
    if size != entry.size or crc != entry.crc:
        raise _broken(f"member {number} of the archive with a wrong checksum")


def _unpacked(read: Callable[[int], bytes], entry: _Entry, number: int) -> Iterator[bytes]:
    fresh: Callable[[], Inflater]
    if entry.method == _STORED:
        return iter(partial(read, BLOCK_BYTES), b"")
    if entry.method == _LZMA:
        head = read(9)
        if len(head) < 9 or head[2:4] != b"\5\0":
            raise _broken(f"member {number} of the archive with a damaged start")
        fresh = partial(raw_lzma, head[4:])
    elif entry.method in (_DEFLATED, _BZIP2):
        fresh = INFLATERS["deflate" if entry.method == _DEFLATED else "bz2"]
    else:
        raise _broken(f"member {number} packed by method {entry.method}", "Deflate, as every tool packs by default")
    return inflated(read, fresh, BLOCK_BYTES, alone=True)


def _decoded(name: bytes) -> str:
    try:
        return name.decode()  # without the flag that says so, as macOS writes it
    except UnicodeDecodeError:
        return name.decode("cp437")


def _broken(found: str, expected: str = "a whole archive") -> Faulty:
    return Faulty("broken_archive", found, expected)
