"""Downloads over https: resumed where they were cut, bounded, and told of without the keys that links carry."""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import json
import logging
import re
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from femur_tasks.dataset.problems import Faulty
from femur_tasks.errors import FemurError, NotFound, Unreachable

MAX_BYTES = 64 << 30
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_TIMEOUT = httpx.Timeout(30, connect=10)
_TRIES = 5
"""In a row without a single byte more."""
_MAX_TRIES = 200
_WAIT = wait_exponential_jitter(initial=1, max=30)
_MAX_REDIRECTS = 5
_PASSING = frozenset({408, 425, 429})
_COPY_LINK = "The export link may have expired: copy a new one."
_LOOK_AT_NETWORK = "Look at the network, then try again: it goes on where it was cut."
for _name in ("httpx", "httpcore"):  # below this they log each address with the key in it
    logging.getLogger(_name).setLevel(logging.WARNING)


def download(
    url: str,
    folder: Path,
    sha256: str | None = None,
    max_bytes: int = MAX_BYTES,
    on_bytes: Callable[[int, int | None], None] = lambda done, total: None,
) -> Path:
    """Fetch into `folder`, as `download`; what an earlier call for the same address left there is gone on with.

    Args:
        url: https; http on this machine only.
        folder: one download's own.
        sha256: what the file must have, as hexadecimal digits; None: whatever it has.
        max_bytes: more is refused.
        on_bytes: told of bytes done and bytes in all, None where the server does not say.

    Raises:
        Faulty: `too_large` or `wrong_digest`.
        NotFound: the link is dead.
        Unreachable: no network, no certificate to be trusted, or a server that fails again and again.
        FemurError: an address or a redirect that is not allowed, or a fault of this machine, such as a full disk.
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise FemurError("Expected a sha256 of 64 hexadecimal digits. Received: something else.")
    first = _parsed(url)
    if not _is_allowed(first):
        raise FemurError(f"Expected an https address. Received: {_shown(first)}.")
    part = _Part(folder, hashlib.sha256(url.encode()).hexdigest())
    tries = Retrying(retry=retry_if_exception_type(_Cut), stop=_Stuck(part), wait=_WAIT, reraise=True)
    try:
        verify, proxies = httpx.create_ssl_context(), first.host not in _LOOPBACK
        with httpx.Client(timeout=_TIMEOUT, verify=verify, trust_env=proxies) as client:
            for attempt in tries:
                with attempt, _answer(client, first, part.headers()) as answer:
                    _receive(answer, part, max_bytes, on_bytes)
        return _checked(part, sha256)
    except _Cut as err:
        raise Unreachable(f"Expected {_shown(first)} to answer. Received: {err}.", _LOOK_AT_NETWORK) from None
    except OSError as err:
        todo = "Make room" if err.errno in (errno.ENOSPC, errno.EDQUOT) else "Look at the folder and at SSL_CERT_FILE"
        found = f"Expected to store a download. Received: {err.strerror}."
        raise FemurError(found, f"{todo}, then try again.") from None


class _Cut(Exception):
    """Worth another try."""


@dataclass(frozen=True)
class _Part:
    """What has come so far, and beside it what it is a part of, without which it is of no use.

    Attributes:
        url_digest: in place of the address, which may hold a key.
    """

    folder: Path
    url_digest: str

    @property
    def path(self) -> Path:
        return self.folder / "download.part"

    @property
    def _origin(self) -> Path:
        return self.folder / "download.json"

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def headers(self) -> dict[str, str]:
        """Ask for the rest, if the file there is still the same one; a part of something else is dropped."""
        origin = {}
        with suppress(OSError, ValueError):
            origin = json.loads(self._origin.read_bytes())
        known = isinstance(origin, dict) and origin.get("url_digest") == self.url_digest and origin.get("version")
        if not self.size or not known:
            self.drop()
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": str(origin["version"])}

    def begin(self, version: str | None) -> None:
        """Start from zero; None: the server gives nothing to tell versions by."""
        self.drop()
        self.path.touch(0o600)
        self._origin.write_text(json.dumps({"url_digest": self.url_digest, "version": version}))

    def drop(self) -> None:
        for path in (self._origin, self.path):  # in this order: bytes never stand beside another version's name
            path.unlink(missing_ok=True)

    def finish(self) -> Path:
        done = self.path.rename(self.folder / "download")
        self._origin.unlink(missing_ok=True)
        return done


class _Stuck(stop_after_attempt):
    """Gives up after some tries without headway."""

    def __init__(self, part: _Part) -> None:
        super().__init__(_MAX_TRIES)
        self._part, self._reached, self._tries = part, part.size, 0

    def __call__(self, state: RetryCallState) -> bool:
        size = self._part.size
        self._tries = 1 if size > self._reached else self._tries + 1
        self._reached = max(size, self._reached)
        return self._tries >= _TRIES or super().__call__(state)


@contextmanager
def _answer(client: httpx.Client, url: httpx.URL, headers: dict[str, str]) -> Iterator[httpx.Response]:
    """The answer behind all redirects."""
    first = url
    for _ in range(_MAX_REDIRECTS + 1):
        try:
            # as it is: ranges and lengths are of the bytes that lie there
            with client.stream("GET", url, headers={"Accept-Encoding": "identity", **headers}) as answer:
                if not answer.has_redirect_location:
                    yield answer
                    return
                url = _next(first, url, answer.headers["Location"])
        except httpx.TransportError as err:
            raise _translated(err, url) from None
    raise FemurError(f"Expected at most {_MAX_REDIRECTS} redirects. Received: more from {_shown(first)}.", _COPY_LINK)


def _next(first: httpx.URL, url: httpx.URL, location: str) -> httpx.URL:
    """Where a redirect leads, if that is not into a network that whoever wrote it can't reach himself."""
    target = _parsed(location, url)
    if not _is_allowed(target):
        raise FemurError(f"Expected https all the way. Received: a redirect to {_shown(target)}.", _COPY_LINK)
    if first.host not in _LOOPBACK and target.host != first.host and _is_inside(target.raw_host.decode()):
        raise FemurError(
            f"Expected a redirect to a public address. Received: {_shown(target)}.",
            "Do not use this link, or download it by hand and ingest the file.",
        )
    return target


def _is_inside(host: str) -> bool:
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False  # nothing to connect to, unless through a proxy, which has rules of its own
    addresses = [ipaddress.ip_address(str(address).partition("%")[0]) for address in found]
    return any(not (getattr(address, "ipv4_mapped", None) or address).is_global for address in addresses)


def _receive(answer: httpx.Response, part: _Part, max_bytes: int, on_bytes: Callable[[int, int | None], None]) -> None:
    status, version = answer.status_code, _version(answer)
    done = part.size if status == httpx.codes.PARTIAL_CONTENT else 0
    extent = answer.headers.get("Content-Range", "")
    if status in (httpx.codes.PARTIAL_CONTENT, httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE):
        same = version in (None, answer.request.headers.get("If-Range"))
        if not same or not extent.startswith(f"bytes {done}-"):
            part.drop()
            raise _Cut("another part of the file than asked for")
    elif status in _PASSING or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise _Cut(f"status {status}")
    elif status != httpx.codes.OK:
        # stores answer 400, 401, 403, 404 or 410 to a link that is too old
        raise NotFound(f"Expected a file at {_shown(answer.url)}. Received: status {status}.", _COPY_LINK)
    else:
        part.begin(version)
    length, whole = answer.headers.get("Content-Length", ""), extent.rpartition("/")[2]
    total = int(whole) if whole.isdigit() else done + int(length) if length.isdigit() else None
    _check_size(part, total or 0, max_bytes)
    if total is not None and total - done > shutil.disk_usage(part.folder).free:
        raise OSError(errno.ENOSPC, f"{total >> 20} MiB to come, and less room")
    try:
        with part.path.open("ab") as file:
            for block in answer.iter_raw():
                done += len(block)
                _check_size(part, done, max_bytes)
                file.write(block)
                on_bytes(done, total)
    except httpx.TransportError as err:
        raise _translated(err, answer.url) from None
    if total is not None and done < total:  # some give a long range in pieces
        raise _Cut("a part of what was asked for")


def _version(answer: httpx.Response) -> str | None:
    """What tells the file from a later one at the same address."""
    etag: str = answer.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")


def _check_size(part: _Part, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        part.drop()
        raise Faulty("too_large", "a download of more", f"at most {max_bytes} bytes")


def _checked(part: _Part, sha256: str | None) -> Path:
    if sha256 is not None:
        with part.path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256.lower():
            part.drop()
            raise Faulty("wrong_digest", f"sha256 {found}", f"sha256 {sha256.lower()}")
    return part.finish()


def _translated(err: httpx.TransportError, url: httpx.URL) -> Exception:
    """Worth another try, unless it is the server's certificate."""
    cause: BaseException | None = err
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Unreachable(
                f"Expected a certificate to be trusted from {_shown(url)}. Received: {cause.verify_message}.",
                "Look at the address; where a proxy signs anew, name its certificate in SSL_CERT_FILE.",
            )
        cause = cause.__cause__ or cause.__context__
    return _Cut(type(err).__name__)


def _parsed(url: str, base: httpx.URL | None = None) -> httpx.URL:
    try:
        return base.join(url) if base else httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise FemurError("Expected an https address. Received: something else.") from None


def _is_allowed(url: httpx.URL) -> bool:
    return bool(url.host) and (url.scheme == "https" or (url.scheme == "http" and url.host in _LOOPBACK))


def _shown(url: httpx.URL) -> str:
    """Without the user, and without the query, where export links have their keys."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))
