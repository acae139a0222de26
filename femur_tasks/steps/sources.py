"""Sources: a folder, an archive, objects of the store or a link become a folder to read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from femur_tasks.dataset.archives import is_archive, unpack
from femur_tasks.dataset.downloads import download
from femur_tasks.dataset.problems import Faulty
from femur_tasks.dataset.work import Work
from femur_tasks.errors import FemurError, NotFound
from femur_tasks.storage import ObjectStore

_LINKS = ("https://", "http://")
_EXPECTED = "a folder, .zip, .tar, .tar.gz, .tar.bz2, .tar.xz or .tar.zst"

Store = Callable[[], tuple[ObjectStore, str]]
"""Opens the object store when it is needed, and names its bucket."""


def shown(path: str) -> str:
    """A source as people may see it: a link without what it carries behind its path."""
    if not path.startswith(_LINKS):
        return path
    parts = urlsplit(path)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


def check_there(path: str) -> None:
    """Fail on a local source that is not there, before anything is started for it.

    Raises:
        NotFound: it is not there.
    """
    if not path.startswith((*_LINKS, "s3://")) and not Path(path).expanduser().exists():
        raise NotFound(f"Expected a folder or an archive. Received: {path}, which is not there.")


def fetched(
    path: str, sha256: str | None, work: Work, store: Store, on_bytes: Callable[[int, int | None], None]
) -> Path:
    """The folder with a source's files, fetched and unpacked into the work folder where it does not lie open already.

    Args:
        path: folder, archive, `s3://bucket/prefix` or link.
        sha256: what an archive must have, None for anything.
        on_bytes: told how much is fetched or unpacked, and how much it is in all, None where nobody knows.

    Raises:
        NotFound: nothing is there.
        Faulty: it is no archive of ours, is broken or hostile, or has another digest.
        FemurError: the disk is full.
    """
    if path.startswith(_LINKS):
        local = download(path, work.folder, sha256, on_bytes=on_bytes)
    elif path.startswith("s3://"):
        local = _from_store(path, work, *store(), on_bytes)
    else:
        check_there(path)
        local = Path(path).expanduser().absolute()
    if local.is_dir():
        if sha256:
            raise FemurError("Expected an archive to compare --sha256 with. Received: a folder.")
        return local
    if sha256 and not path.startswith(_LINKS):
        _check_digest(local, sha256)
    if not is_archive(local):
        raise Faulty("broken_archive", "a file that is no archive of ours", _EXPECTED)
    folder = work.empty_folder("source")
    unpack(local, folder, lambda done: on_bytes(done, None))
    return folder


def _check_digest(archive: Path, sha256: str) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256.lower():
        raise Faulty("wrong_digest", f"sha256 {found}", f"sha256 {sha256.lower()}")


def _from_store(
    path: str, work: Work, store: ObjectStore, own_bucket: str, on_bytes: Callable[[int, int | None], None]
) -> Path:
    """An object, or all objects of a folder, downloaded."""
    bucket, _, key = path.removeprefix("s3://").partition("/")
    if bucket != own_bucket:
        raise NotFound(f"Expected an object of bucket {own_bucket}. Received: {path}.")
    folder = work.empty_folder("objects")
    if key and not key.endswith("/") and store.stat(key):
        archive = folder / "archive"
        store.download(key, archive)
        return archive
    prefix = key and f"{key.rstrip('/')}/"
    objects = list(store.list(prefix))
    if not objects:
        raise NotFound(f"Expected objects under {path}. Received: none.")
    total, done = sum(stored.size for stored in objects), 0
    for number, stored in enumerate(objects, 1):
        parts = PurePosixPath(stored.key.removeprefix(prefix)).parts
        if not parts or ".." in parts or parts[0] == "/" or not stored.key.isprintable():
            found = f"object {number} under the prefix, whose name leads elsewhere"
            raise Faulty("hostile_archive", found, "names below the prefix")
        target = folder.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        store.download(stored.key, target)
        done += stored.size
        on_bytes(done, total)
    return folder
