"""Object store: content-addressed objects over S3 (the minio client), and the same in memory."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from femur_tasks.errors import DigestMismatch, NotFound, Unreachable

if TYPE_CHECKING:
    from minio import Minio

    from femur_tasks.settings import Settings

_ADDRESSED = re.compile(r"^[a-z_]+/([0-9a-f]{64})$")
_MISSING = frozenset({"NoSuchKey", "NoSuchObject", "NoSuchBucket"})
_FRESH = timedelta(hours=1)
_BLOCK = 1 << 20
_PART = 64 * _BLOCK  # one huge body stalls the server's disk until the client gives up


@dataclass(frozen=True)
class StoredObject:
    """One object: `key` is its name, `size` its bytes, `etag` what the store calls this content, and since when."""

    key: str
    size: int
    etag: str
    modified_at: datetime


class ObjectStore(Protocol):
    """Objects named `kind/<sha256 of the bytes>`, beside `incoming/` and `incoming-images/`, whose names belong to the
    people who drop there.

    Every method raises `Unreachable` when the store does not answer.
    """

    def put(self, data: bytes | Path, kind: str) -> str:
        """Store bytes or a file under `kind/<sha256>` and return that key.

        The upload is checked by digest before this returns. Bytes that are there already are not sent again,
        and damaged ones are replaced. Either way the object counts as new from here: garbage collection leaves
        its caller the grace time for the row that names it.

        Raises:
            DigestMismatch: the store holds something other than what was sent.
        """

    def put_named(self, data: bytes | Path, key: str) -> None:
        """Store under a name that is not a digest (`incoming/...`), replacing what was there."""

    def get(self, key: str) -> bytes:
        """The object's bytes, checked against the digest in its key where the key has one.

        Raises:
            NotFound: there is no such object.
            DigestMismatch: the bytes are not those that the key names.
        """

    def download(self, key: str, path: Path) -> None:
        """Write the object to `path`, checked as in `get`; on failure no file is left."""

    def stat(self, key: str) -> StoredObject | None:
        """Size and etag, or None where there is no such object."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key starts with `prefix`, in the order of the keys."""

    def delete(self, key: str) -> None:
        """Remove the object; one that is not there is no error."""

    def presign(self, key: str, expires: timedelta) -> str:
        """A link by which anyone can read the object until it expires."""


def digest_in(key: str) -> str | None:
    """The sha256 that a key promises, None for a key that is not content-addressed."""
    match = _ADDRESSED.match(key)
    return match.group(1) if match else None


def digests(data: bytes | Path) -> tuple[str, str, int]:
    """sha256, etag and size of bytes or of a file, read once in blocks.

    The etag is the one that S3 gives: the MD5 of what came in one body; of what came in N parts, the MD5 of their
    MD5s, then `-N`.
    """
    sha256, parts, size = hashlib.sha256(), [hashlib.md5(usedforsecurity=False)], 0
    with io.BytesIO(data) if isinstance(data, bytes) else data.open("rb") as stream:
        while block := stream.read(_BLOCK):
            if size == len(parts) * _PART:
                parts.append(hashlib.md5(usedforsecurity=False))
            sha256.update(block)
            parts[-1].update(block)
            size += len(block)
    if len(parts) == 1:
        return sha256.hexdigest(), parts[0].hexdigest(), size
    of_parts = hashlib.md5(b"".join(part.digest() for part in parts), usedforsecurity=False)
    return sha256.hexdigest(), f"{of_parts.hexdigest()}-{len(parts)}", size


def check_digest(key: str, found: str) -> None:
    expected = digest_in(key)
    if expected is not None and expected != found:
        raise DigestMismatch(
            f"Expected an object with sha256 {expected}. Received: {found} for {key}.",
            "The store returned damaged bytes: restore this object from a backup.",
        )


class MemoryStore:
    """The contract in a dictionary, for tests and dry runs."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._times: dict[str, datetime] = {}
        self.bytes_sent = 0

    def put(self, data: bytes | Path, kind: str) -> str:
        sha256 = digests(data)[0]
        key = f"{kind}/{sha256}"
        if key not in self._objects or digests(self._objects[key])[0] != sha256:
            self.put_named(data, key)
        self._times[key] = datetime.now(UTC)
        return key

    def put_named(self, data: bytes | Path, key: str) -> None:
        self._objects[key] = data if isinstance(data, bytes) else data.read_bytes()
        self._times[key] = datetime.now(UTC)
        self.bytes_sent += len(self._objects[key])

    def get(self, key: str) -> bytes:
        if key not in self._objects:
            raise NotFound(f"Expected an object named {key}. Received: nothing.")
        check_digest(key, hashlib.sha256(self._objects[key]).hexdigest())
        return self._objects[key]

    def download(self, key: str, path: Path) -> None:
        path.write_bytes(self.get(key))

    def stat(self, key: str) -> StoredObject | None:
        data = self._objects.get(key)
        return None if data is None else StoredObject(key, len(data), digests(data)[1], self._times[key])

    def list(self, prefix: str) -> Iterator[StoredObject]:
        for key in sorted(self._objects):
            if key.startswith(prefix) and (found := self.stat(key)):
                yield found

    def delete(self, key: str) -> None:
        self._objects.pop(key, None)

    def presign(self, key: str, expires: timedelta) -> str:
        return f"memory:///{key}?expires={int(expires.total_seconds())}"


def _stored(key: str, found: Any) -> StoredObject:
    modified_at = found.last_modified or datetime.now(UTC)
    return StoredObject(key, found.size or 0, (found.etag or "").strip('"'), modified_at.astimezone(UTC))


class S3Store:
    """The contract over any S3 service, through the minio client."""

    def __init__(self, client: Minio, bucket: str) -> None:
        self._client = client
        self._bucket = bucket
        self.bytes_sent = 0

    def put(self, data: bytes | Path, kind: str) -> str:
        sha256, etag, size = digests(data)
        key = f"{kind}/{sha256}"
        there = self.stat(key)
        if there is not None and datetime.now(UTC) - there.modified_at > _FRESH:
            there = self._renewed(there)
        if there is None or (there.etag != etag and not self._is_whole(key)):
            self._send(data, key, etag, size)
        return key

    def _renewed(self, there: StoredObject) -> StoredObject | None:
        """The object copied onto itself, which makes it new; None where it is gone."""
        from minio.commonconfig import REPLACE, CopySource
        from minio.error import S3Error

        source = CopySource(self._bucket, there.key)
        with _translated():
            try:
                self._client.copy_object(self._bucket, there.key, source, metadata_directive=REPLACE)
            except S3Error as err:
                if err.code in _MISSING:
                    return None
                raise
        return self.stat(there.key)

    def _is_whole(self, key: str) -> bool:
        try:
            self._read(key, lambda _: None)
        except DigestMismatch:
            return False
        return True

    def put_named(self, data: bytes | Path, key: str) -> None:
        _, etag, size = digests(data)
        self._send(data, key, etag, size)

    def _send(self, data: bytes | Path, key: str, etag: str, size: int) -> None:
        with _translated(), io.BytesIO(data) if isinstance(data, bytes) else data.open("rb") as stream:
            sent = self._client.put_object(self._bucket, key, stream, size, part_size=_PART)
        self.bytes_sent += size
        if (sent.etag or "").strip('"') != etag:  # a store with etags of its own: read it back
            self._read(key, lambda _: None)

    def get(self, key: str) -> bytes:
        blocks: list[bytes] = []
        self._read(key, blocks.append)
        return b"".join(blocks)

    def download(self, key: str, path: Path) -> None:
        part = path.with_name(path.name + ".part")
        try:
            with part.open("wb") as file:
                self._read(key, file.write)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _read(self, key: str, sink: Callable[[bytes], object]) -> None:
        from minio.error import S3Error

        sha256 = hashlib.sha256()
        with _translated():
            try:
                response = self._client.get_object(self._bucket, key)
            except S3Error as err:
                if err.code in _MISSING:
                    raise NotFound(f"Expected an object named {key}. Received: nothing.") from err
                raise
            try:
                for block in response.stream(_BLOCK):
                    sha256.update(block)
                    sink(block)
            finally:
                response.close()
                response.release_conn()
        check_digest(key, sha256.hexdigest())

    def stat(self, key: str) -> StoredObject | None:
        from minio.error import S3Error

        with _translated():
            try:
                found = self._client.stat_object(self._bucket, key)
            except S3Error as err:
                if err.code in _MISSING:
                    return None
                raise
        return _stored(key, found)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        with _translated():
            listed = [
                _stored(found.object_name, found)
                for found in self._client.list_objects(self._bucket, prefix=prefix, recursive=True)
                if found.object_name and not found.is_dir
            ]
        yield from sorted(listed, key=lambda found: found.key)  # SeaweedFS walks folders: "a/1" before "a-1"

    def delete(self, key: str) -> None:
        with _translated():
            self._client.remove_object(self._bucket, key)

    def presign(self, key: str, expires: timedelta) -> str:
        with _translated():
            return str(self._client.presigned_get_object(self._bucket, key, expires=expires))


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the client's and the network's errors into the library's."""
    from minio.error import MinioException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (HTTPError, ConnectionError, TimeoutError) as err:
        raise Unreachable(
            f"Expected the object store to answer. Received: {err}.",
            "Start the embedded stack with `femur up`, or correct FEMUR_S3_ENDPOINT.",
        ) from err
    except MinioException as err:
        raise Unreachable(
            f"Expected the object store to serve this request. Received: {err}.",
            "Check FEMUR_S3_ACCESS_KEY, FEMUR_S3_SECRET_KEY and FEMUR_S3_BUCKET with `femur config`.",
        ) from err


def open_store(settings: Settings) -> S3Store:
    """The store that the settings name; the bucket is made where it is missing.

    Raises:
        Unreachable: no endpoint is set, or nothing answers there with these credentials.
    """
    import urllib3
    from minio import Minio

    if not settings.s3_endpoint:
        raise Unreachable(
            "Expected an object store. Received: no FEMUR_S3_ENDPOINT and no running embedded stack.",
            "Start one with `femur up`.",
        )
    # a store that was just started answers 500 until its parts know one another
    again = urllib3.Retry(6, connect=4, backoff_factor=0.3, status_forcelist=(500, 502, 503, 504))
    http = urllib3.PoolManager(maxsize=16, timeout=urllib3.Timeout(connect=30, read=300), retries=again)
    try:
        client = Minio(
            settings.s3_endpoint,
            access_key=settings.s3_access_key,
            secret_key=settings.s3_secret_key.get_secret_value(),
            secure=settings.s3_secure,
            http_client=http,
        )
    except ValueError as err:
        raise Unreachable(
            f"Expected an endpoint host:port and its credentials. Received: {err}.",
            "Correct FEMUR_S3_ENDPOINT, FEMUR_S3_ACCESS_KEY and FEMUR_S3_SECRET_KEY, see `femur config`.",
        ) from err
    with _translated():
        if not client.bucket_exists(settings.s3_bucket):
            client.make_bucket(settings.s3_bucket)
    return S3Store(client, settings.s3_bucket)
