"""Fuzzes `unpack`: only `Faulty` may come out, and nothing may be written outside the folder.

    python tests/fuzz/fuzz_archives.py -max_total_time=60

The first byte of an input says how the rest is packed before it is unpacked, so that what is inside a compressed tar
is reached too; headers of tars are given their right checksum.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris  # type: ignore[import-untyped]
import zstandard

with atheris.instrument_imports(include=["femur_tasks.dataset"]):
    from femur_tasks.dataset.archives import unpack
    from femur_tasks.dataset.problems import Faulty

PACK: list[Callable[[bytes], bytes]] = [
    bytes,
    bytes,
    lambda data: gzip.compress(data, 1),
    lambda data: zstandard.compress(data, 1),
    lambda data: bz2.compress(data, 1),
    lambda data: lzma.compress(data, preset=0),
]
PLACE = Path(tempfile.mkdtemp(prefix="femur-fuzz-"))
FOLDER = PLACE / "a" / "b" / "folder"
ARCHIVE = PLACE / "a" / "b" / "archive"


def seeds() -> list[bytes]:
    """An honest archive of each kind."""
    found = []
    for compression in (0, 8, 12, 14):
        raw = io.BytesIO()
        with zipfile.ZipFile(raw, "w", compression) as file:
            for name in ("a/", "a/b", "c"):
                file.writestr(name, b"" if name == "a/" else name * 50)
        found.append(b"\0" + raw.getvalue())
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", format=form) as tar:
            for name in ("a/b", "x" * 120):
                info = tarfile.TarInfo(name)
                info.size = len(name) * 9
                tar.addfile(info, io.BytesIO(name.encode() * 9))
        found += [bytes([kind]) + raw.getvalue()[:4608] for kind in range(1, len(PACK))]
        found += [b"\0" + pack(raw.getvalue()) for pack in PACK[2:]]
    return found


def with_checksums(data: bytes) -> bytes:
    """The tar, with headers that pass."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    for i, block in enumerate(blocks):
        if block[257:262] == b"ustar" and len(block) == 512:
            total = 256 + sum(block[:148]) + sum(block[156:])
            blocks[i] = block[:148] + b"%06o\0 " % total + block[156:]
    return b"".join(blocks)


def one(data: bytes) -> None:
    """One input."""
    kind = data[0] % len(PACK) if data else 0
    FOLDER.mkdir(parents=True)
    ARCHIVE.write_bytes(PACK[kind](with_checksums(data[1:]) if kind else data[1:]))
    try:
        with suppress(Faulty):
            unpack(ARCHIVE, FOLDER)
        found = {path.relative_to(PLACE).as_posix() for path in PLACE.rglob("*") if FOLDER not in path.parents}
        if found != {"a", "a/b", "a/b/archive", "a/b/folder"} or any(path.is_symlink() for path in FOLDER.rglob("*")):
            raise RuntimeError(f"Expected nothing outside the folder. Received: {found}.")
    finally:
        shutil.rmtree(FOLDER)


def main() -> None:
    corpus = PLACE.with_name(f"{PLACE.name}-corpus")
    corpus.mkdir()
    for number, seed in enumerate(seeds()):
        (corpus / f"{number}").write_bytes(seed)
    atheris.Setup([*sys.argv, str(corpus), "-max_len=16384"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
