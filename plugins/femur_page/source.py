"""Where the page reads: the registry, and the store by keys found in it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from fastapi import Depends
from fastapi.responses import FileResponse
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask

from femur_tasks.registry.database import Registry
from femur_tasks.settings import settings
from femur_tasks.storage import open_store


@lru_cache
def registry() -> Registry:
    """The registry of this process's settings; its connections are shared by all requests."""
    return Registry(settings().database_url)


def reading() -> Iterator[Session]:
    """A session that reads, for the time of a request."""
    with registry().reading() as session:
        yield session


Reading = Annotated[Session, Depends(reading)]


def sent(key: str, media_type: str, name: str | None = None) -> FileResponse:
    """A stored object, sent only once its bytes have the digest that its key promises.

    Args:
        key: as a row of the registry names it, never as a caller does.
        name: of the file that a browser saves; None shows it in the page.

    Raises:
        NotFound, DigestMismatch, Unreachable: as the store says.
    """
    with tempfile.NamedTemporaryFile(prefix="femur-page-", delete=False) as file:
        path = Path(file.name)
    try:
        open_store(settings()).download(key, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    digest = key.rpartition("/")[2]
    return FileResponse(
        path,
        media_type=media_type,
        filename=name,
        # what a report or a card holds is ours, but it needs no script and no other site
        headers={"Content-Security-Policy": "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'",
                 "ETag": f'"{digest}"', "Cache-Control": "private, max-age=86400, immutable"},
        background=BackgroundTask(path.unlink, missing_ok=True),
    )  # fmt: skip
