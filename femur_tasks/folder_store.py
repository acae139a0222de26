"""The object store as a folder of files: what a backup is kept in."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

from femur_tasks.errors import FemurError, NotFound
from femur_tasks.storage import StoredObject, check_digest, digest_in, digests

_PART = ".part"


class FolderStore:
    """The contract of `ObjectStore` with every object in a file of its key's name, its owner's alone.

    Every method raises `FemurError` for a key that would lie outside the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.bytes_sent = 0

    def put(self, data: bytes | Path, kind: str) -> str:
        sha256 = digests(data)[0]
        key = f"{kind}/{sha256}"
        path = self._path(key)
        if path.is_file() and digests(path)[0] == sha256:
            os.utime(path)
        else:
            self.put_named(data, key)
        return key

    def put_named(self, data: bytes | Path, key: str) -> None:
        path, part = self._path(key), self._folder / _PART
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            if isinstance(data, bytes):
                file.write(data)
            else:
                with data.open("rb") as source:
                    shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        self.bytes_sent += path.stat().st_size

    def get(self, key: str) -> bytes:
        path = self._path(key)
        if not path.is_file():
            raise NotFound(f"Expected an object named {key}. Received: nothing.")
        data = path.read_bytes()
        check_digest(key, hashlib.sha256(data).hexdigest())
        return data

    def download(self, key: str, path: Path) -> None:
        source, part = self._path(key), path.with_name(path.name + _PART)
        if not source.is_file():
            raise NotFound(f"Expected an object named {key}. Received: nothing.")
        try:
            shutil.copyfile(source, part)
            check_digest(key, digests(part)[0])
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def stat(self, key: str) -> StoredObject | None:
        path = self._path(key)
        if not path.is_file():
            return None
        told = path.stat()
        etag = digest_in(key) or digests(path)[1]
        return StoredObject(key, told.st_size, etag, datetime.fromtimestamp(told.st_mtime, UTC))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        found = (path.relative_to(self._folder).as_posix() for path in self._folder.rglob("*") if path.is_file())
        for key in sorted(key for key in found if key.startswith(prefix) and key != _PART):
            if told := self.stat(key):
                yield told

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def presign(self, key: str, expires: timedelta) -> str:
        return self._path(key).absolute().as_uri()

    def _path(self, key: str) -> Path:
        parts = PurePosixPath(key)
        if parts.is_absolute() or ".." in parts.parts or not parts.parts:
            raise FemurError(f"Expected a key that can be a file's name. Received: {key}.", "Rename or remove it.")
        return self._folder / parts
