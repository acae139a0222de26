"""Tar read as a stream: each header is bounded before it is read, and nothing of a member is kept.

The standard library's reader takes an extended header into memory whole, however long it says it is, keeps every
member, and takes a damaged header for the end of the archive.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from tarfile import TarInfo

from femur_tasks.dataset.problems import Faulty

BLOCKSIZE = tarfile.BLOCKSIZE
_MAX_EXTENDED_BYTES = 1 << 20
_MAX_EXTENDED_RECORDS = 100  # a file with a dozen attributes has 30
_MAX_EXTENDED_IN_A_ROW = 4  # a global one, a long name, a long link and one of its own
_PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_GNU_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


@dataclass(frozen=True)
class Member:
    """A file or a folder of an archive, or something else that no archive of ours has.

    Attributes:
        name: as the archive has it, whatever that is.
        blocks: what is in the file, to be read before the next member is asked for.
    """

    name: str
    is_file: bool
    is_folder: bool
    blocks: Iterator[bytes]


def members(blocks: Iterator[bytes]) -> Iterator[Member]:
    """The members of a tar that comes in blocks.

    Raises:
        Faulty: `broken_archive` or `hostile_archive`.
        EOFError: it breaks off.
    """
    stream = _Stream(blocks)
    everywhere: dict[str, str] = {}
    here: dict[str, str] = {}
    number, extended = 1, 0
    while any(block := stream.exactly(BLOCKSIZE)):
        header = parsed(block)
        if header is None:
            raise _broken(f"a damaged header of member {number}")
        if header.type in _PAX + _GNU_LONG:
            extended += 1
            (everywhere if header.type == tarfile.XGLTYPE else here).update(_fields(header, stream, number, extended))
            continue
        fields = everywhere | here
        name, size = fields.get("path", header.name), int(fields.get("size", header.size))
        if size < 0:
            raise _broken(f"member {number} of the archive with a negative size")
        is_file, is_folder = header.isreg() and header.type != tarfile.GNUTYPE_SPARSE, header.isdir()
        content = stream.part(size if is_file else 0)
        yield Member(name, is_file and "sparse" not in fields, is_folder, content)
        for _ in content:
            pass
        stream.exactly(-size % BLOCKSIZE if is_file else 0)
        here, extended, number = {}, 0, number + 1
    if any(block.strip(b"\0") for block in stream.part(None)):
        raise _broken("data after the archive's end")


def parsed(block: bytes) -> TarInfo | None:
    """The header in the block, None where there is none with the right checksum."""
    for encoding in ("utf-8", "latin-1"):
        try:
            return TarInfo.frombuf(block, encoding, "strict")
        except UnicodeDecodeError:
            continue
        except (tarfile.HeaderError, ValueError):
            return None
    return None


def _fields(header: TarInfo, stream: _Stream, number: int, extended: int) -> dict[str, str]:
    """What an extended header says of the next member's path and size, and whether that is sparse."""
    if not 0 <= header.size <= _MAX_EXTENDED_BYTES or extended > _MAX_EXTENDED_IN_A_ROW:
        raise Faulty("hostile_archive", f"member {number} of the archive with a huge header", "headers of some bytes")
    data = stream.exactly(header.size)
    stream.exactly(-header.size % BLOCKSIZE)
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": _decoded(data.partition(b"\0")[0])}
    return {} if header.type == tarfile.GNUTYPE_LONGLINK else _pax_fields(data, number)


def _pax_fields(data: bytes, number: int) -> dict[str, str]:
    fields = {}
    at = records = 0
    while at < len(data) and data[at]:
        blank = data.find(b" ", at, at + 8)
        end = at + int(data[at:blank]) if blank > at and data[at:blank].isdigit() else 0
        key, equals, value = data[blank + 1 : end - 1].partition(b"=")
        if not (at < blank < end <= len(data) and data[end - 1] == ord("\n") and equals):
            raise _broken(f"a damaged header of member {number}")
        if key in (b"path", b"size"):
            fields[key.decode()] = _decoded(value)
        elif key.startswith(b"GNU.sparse."):
            fields["sparse"] = ""
        at, records = end, records + 1
        if records > _MAX_EXTENDED_RECORDS:
            raise Faulty(
                "hostile_archive", f"member {number} of the archive with a huge header", "headers of some bytes"
            )
    return fields


def _decoded(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")


def _broken(found: str) -> Faulty:
    return Faulty("broken_archive", found, "a whole archive")


class _Stream:
    """Bytes that come in blocks, read in parts."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._block = b""
        self._at = 0

    def part(self, size: int | None) -> Iterator[bytes]:
        """The next `size` bytes in blocks, None: all there are.

        Raises:
            EOFError: there are fewer.
        """
        while size is None or size > 0:
            if self._at == len(self._block):
                self._block, self._at = next(self._blocks, b""), 0
                if not self._block:
                    if size is None:
                        return
                    raise EOFError("it breaks off")
            end = len(self._block) if size is None else min(len(self._block), self._at + size)
            block = self._block[self._at : end]
            self._at = end
            if size is not None:
                size -= len(block)
            yield block

    def exactly(self, size: int) -> bytes:
        return b"".join(self.part(size))
