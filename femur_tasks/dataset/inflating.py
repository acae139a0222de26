"""Compressed streams, inflated block by block in bounded memory, whatever they hold."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import zstandard
from isal import igzip_lib

MAX_WINDOW_BYTES = 1 << 27
"""How far back a stream may refer, which is the memory it takes: what `zstd --long` and `xz -9` need."""
BLOCK_BYTES = 1 << 18
INPUT_BYTES = 1 << 14  # small: each of many tiny streams in a row copies what is left of the input
_ZSTD_INPUT_BYTES = 1 << 10  # zstandard inflates all it is given at once, up to 32,768 times of it
NAMELESS: tuple[type[Exception], ...] = (igzip_lib.IsalError, lzma.LZMAError, zstandard.ZstdError)  # type: ignore[assignment]  # its stub is wrong
BROKEN: tuple[type[Exception], ...] = (*NAMELESS, EOFError, OSError, ValueError)
"""What a damaged stream raises; the texts of the first tell of the stream only."""


class Inflater(Protocol):
    """One stream, as `bz2`, `lzma` and `igzip_lib` have it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Zstd:
    """Bounds what comes out of a call by what goes in, for want of a `max_length`."""

    def __init__(self) -> None:
        self._stream = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj()
        self._waiting = b""

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._waiting

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data + self._waiting

    def decompress(self, data: bytes, max_length: int) -> bytes:
        waiting = self._waiting + data
        self._waiting = waiting[_ZSTD_INPUT_BYTES:]
        return self._stream.decompress(waiting[:_ZSTD_INPUT_BYTES])


def raw_lzma(properties: bytes) -> Inflater:
    """Of a zip's member, whose stream begins with these five bytes."""
    packed, window = properties[0], int.from_bytes(properties[1:], "little")
    if window > MAX_WINDOW_BYTES:
        raise lzma.LZMAError("Memory usage limit exceeded")
    bits = {"lc": packed % 9, "lp": packed // 9 % 5, "pb": packed // 45, "dict_size": window}
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, **bits}])


INFLATERS: Mapping[str, Callable[[], Inflater]] = {
    "deflate": lambda: igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_DEFLATE),
    "gz": lambda: igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP),
    "bz2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_WINDOW_BYTES + (1 << 24)),
    "zst": _Zstd,
}


def inflated(
    read: Callable[[int], bytes], fresh: Callable[[], Inflater], input_bytes: int = INPUT_BYTES, alone: bool = False
) -> Iterator[bytes]:
    """What one stream, or several in a row, inflate to, in blocks.

    Args:
        read: gives at most so many bytes, none at the end.
        fresh: begins a stream.
        input_bytes: to ask for at a time.
        alone: there is one stream, and nothing behind it is looked at.

    Raises:
        EOFError: the last stream breaks off.
        igzip_lib.IsalError, lzma.LZMAError, zstandard.ZstdError, OSError, ValueError: a stream is damaged.
    """
    inflater = fresh()
    while True:
        if not inflater.eof:
            data = read(input_bytes) if inflater.needs_input else b""
            starved = inflater.needs_input and not data
            block = inflater.decompress(data, BLOCK_BYTES)
            if block:
                yield block
            elif starved and not inflater.eof:
                raise EOFError("it breaks off")
            continue
        if alone:
            return
        rest = inflater.unused_data.lstrip(b"\0")  # streams may be padded
        while not rest:
            data = read(INPUT_BYTES)
            if not data:
                return
            rest = data.lstrip(b"\0")
        inflater = fresh()
        block = inflater.decompress(rest, BLOCK_BYTES)
        if block:
            yield block
