"""Downloads: what a server, a line or a link may do on the way, tried on a real server of this machine."""

from __future__ import annotations

import hashlib
import logging
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from tenacity import wait_none

from femur_tasks.dataset import downloads
from femur_tasks.dataset.downloads import download
from femur_tasks.dataset.problems import Faulty
from femur_tasks.errors import FemurError, NotFound, Unreachable
from femur_tasks.settings import CHECKOUT

DATA = random.Random(1).randbytes(300_000)
DIGEST = hashlib.sha256(DATA).hexdigest()
SECRET = "s3cr3t"  # noqa: S105


class Server(ThreadingHTTPServer):
    """Serves `data` and does the wrong that it is told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.data = DATA
        self.etag: str | None = '"one"'
        self.statuses: list[int] = []  # answered first, one a request
        self.cuts = 0  # so many more answers break off after `cut_at` bytes
        self.cut_at = 70_000
        self.with_ranges = True
        self.shifted_ranges = False
        self.heeds_if_range = True
        self.length: int | None = None  # what Content-Length says
        self.piece = 1 << 40  # most bytes of an answer to a range
        self.pause_s = 0.0
        self.redirects: dict[str, str] = {}
        self.ranges: list[str | None] = []  # of every request, as asked

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.ranges.append(asked)
        path = self.path.partition("?")[0]
        if path in server.redirects:
            self._head(302, {"Location": server.redirects[path], "Content-Length": "0"})
            return
        if server.statuses:
            self._head(server.statuses.pop(0), {"Content-Length": "0"})
            return
        headers = {"ETag": server.etag} if server.etag else {}
        start, end, status = 0, len(server.data), 200
        same = self.headers.get("If-Range") == server.etag or not server.heeds_if_range
        if asked and server.with_ranges and same:
            start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
            if start >= len(server.data):
                self._head(416, {"Content-Range": f"bytes */{len(server.data)}", "Content-Length": "0"})
                return
            start += 5 if server.shifted_ranges else 0
            end = min(end, start + server.piece)
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(server.data)}"
        self._head(status, headers | {"Content-Length": str(server.length or end - start)})
        if server.cuts:
            server.cuts -= 1
            end = min(end, start + server.cut_at)
        data = server.data
        for at in range(start, end, 10_000):
            self.wfile.write(data[at : min(at + 10_000, end)])
            time.sleep(server.pause_s)
        self.close_connection = True

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as serving:
        threading.Thread(target=serving.serve_forever, args=(0.01,), daemon=True).start()
        yield serving
        serving.shutdown()


@pytest.fixture
def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}/export.zip?key={SECRET}"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_WAIT", wait_none())


def test_file_comes_whole_under_a_neutral_name(server: Server, url: str, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    done = download(url, tmp_path, DIGEST.upper(), on_bytes=lambda done, total: told.append((done, total)))
    assert done == tmp_path / "download"
    assert done.read_bytes() == DATA
    assert list(tmp_path.iterdir()) == [done]
    assert done.stat().st_mode & 0o777 == 0o600
    assert told[-1] == (300_000, 300_000)
    assert sorted(told) == told


def test_line_that_is_cut_is_resumed_where_it_was(server: Server, url: str, tmp_path: Path) -> None:
    server.cuts = 3
    assert download(url, tmp_path, DIGEST).read_bytes() == DATA
    assert server.ranges == [None, "bytes=70000-", "bytes=140000-", "bytes=210000-"]


def test_headway_is_enough_to_go_on(server: Server, url: str, tmp_path: Path) -> None:
    server.cuts, server.cut_at = 14, 20_000  # more often than tries without headway are allowed
    assert download(url, tmp_path).read_bytes() == DATA
    assert len(server.ranges) == 15


def test_server_without_ranges_is_asked_from_zero(server: Server, url: str, tmp_path: Path) -> None:
    server.cuts, server.with_ranges = 2, False
    assert download(url, tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("etag", [None, 'W/"one"'], ids=["no etag", "weak etag"])
def test_file_without_a_version_is_never_put_together(
    server: Server, url: str, tmp_path: Path, etag: str | None
) -> None:
    server.etag, server.cuts = etag, 2
    assert download(url, tmp_path).read_bytes() == DATA
    assert server.ranges == [None, None, None]


@pytest.mark.parametrize("heeded", [True, False], ids=["If-Range heeded", "If-Range ignored"])
def test_file_that_changed_meanwhile_is_begun_again(server: Server, url: str, tmp_path: Path, heeded: bool) -> None:
    server.cuts, server.heeds_if_range = 1, heeded

    def changing(done: int, total: int | None) -> None:
        server.data, server.etag = DATA[::-1], '"two"'

    assert download(url, tmp_path, on_bytes=changing).read_bytes() == DATA[::-1]
    assert server.ranges[1] == "bytes=70000-"


def test_wrong_range_is_not_appended(server: Server, url: str, tmp_path: Path) -> None:
    server.cuts, server.shifted_ranges = 1, True
    assert download(url, tmp_path).read_bytes() == DATA
    assert server.ranges == [None, "bytes=70000-", None]


def test_range_that_is_given_in_pieces_is_completed(server: Server, url: str, tmp_path: Path) -> None:
    server.cuts, server.piece = 1, 100_000
    assert download(url, tmp_path).read_bytes() == DATA
    assert server.ranges[1:] == ["bytes=70000-", "bytes=170000-", "bytes=270000-"]


def test_killed_process_is_gone_on_with(server: Server, url: str, tmp_path: Path) -> None:
    server.pause_s = 0.05  # 1.5 s in all
    code = "import sys; from pathlib import Path; from femur_tasks.dataset.downloads import download;"
    code += "download(sys.argv[1], Path(sys.argv[2]))"
    part = tmp_path / "download.part"
    with subprocess.Popen([sys.executable, "-c", code, url, str(tmp_path)], cwd=CHECKOUT) as process:  # noqa: S603
        while not part.exists() or part.stat().st_size < 50_000:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert all(SECRET not in path.read_text("latin-1") for path in tmp_path.iterdir())
    reached = part.stat().st_size
    server.pause_s = 0
    assert download(url, tmp_path, DIGEST).read_bytes() == DATA
    assert server.ranges == [None, f"bytes={reached}-"]


def test_part_of_another_address_is_not_gone_on_with(server: Server, url: str, tmp_path: Path) -> None:
    server.cuts, server.cut_at = 100, 0
    (tmp_path / "download.part").write_bytes(b"other")
    (tmp_path / "download.json").write_text('{"url_digest": "other", "version": "\\"one\\""}')
    with pytest.raises(Unreachable):
        download(url, tmp_path)
    assert set(server.ranges) == {None}


@pytest.mark.parametrize("origin", ["", "[]", "{", '{"url_digest": 1}'])
def test_damaged_note_beside_a_part_is_as_none(server: Server, url: str, tmp_path: Path, origin: str) -> None:
    (tmp_path / "download.part").write_bytes(b"other")
    (tmp_path / "download.json").write_text(origin)
    assert download(url, tmp_path).read_bytes() == DATA


def test_part_longer_than_the_file_is_dropped(server: Server, url: str, tmp_path: Path) -> None:
    server.cuts = 100
    server.cut_at = 0
    with pytest.raises(Unreachable):
        download(url, tmp_path)
    (tmp_path / "download.part").write_bytes(bytes(300_000))
    server.cuts = 0
    assert download(url, tmp_path, DIGEST).read_bytes() == DATA
    assert server.ranges[-2:] == ["bytes=300000-", None]


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_passing_trouble_is_waited_out(server: Server, url: str, tmp_path: Path, status: int) -> None:
    server.statuses = [status, status]
    assert download(url, tmp_path).read_bytes() == DATA


def test_server_that_never_gets_well_is_given_up(server: Server, url: str, tmp_path: Path) -> None:
    server.statuses = [503] * 100
    with pytest.raises(Unreachable, match="status 503"):
        download(url, tmp_path)
    assert len(server.ranges) == 5


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_dead_link_says_what_to_do(server: Server, url: str, tmp_path: Path, status: int) -> None:
    server.statuses = [status]
    with pytest.raises(NotFound, match="copy a new one"):
        download(url, tmp_path)
    assert len(server.ranges) == 1


def test_server_that_promises_more_than_it_sends_is_given_up(server: Server, url: str, tmp_path: Path) -> None:
    server.length = 400_000
    with pytest.raises(Unreachable, match="go"):
        download(url, tmp_path)
    assert not (tmp_path / "download").exists()


def test_server_that_promises_less_than_it_sends_is_found_by_the_digest(
    server: Server, url: str, tmp_path: Path
) -> None:
    server.length = 200_000
    with pytest.raises(Faulty) as found:
        download(url, tmp_path, DIGEST)
    assert found.value.code == "wrong_digest"
    assert list(tmp_path.iterdir()) == []


def test_announced_size_is_checked_before_anything_is_stored(server: Server, url: str, tmp_path: Path) -> None:
    told: list[int] = []
    with pytest.raises(Faulty) as found:
        download(url, tmp_path, max_bytes=299_999, on_bytes=lambda done, total: told.append(done))
    assert found.value.code == "too_large"
    assert (told, list(tmp_path.iterdir())) == ([], [])
    assert download(url, tmp_path, max_bytes=300_000).read_bytes() == DATA


def test_size_is_counted_where_none_is_announced(tmp_path: Path) -> None:
    """A server of HTTP/1.0 that just goes on sending."""
    listening = socket.create_server(("127.0.0.1", 0))

    def endless() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
            try:
                while True:
                    connection.sendall(bytes(10_000))
            except OSError:
                return

    threading.Thread(target=endless, daemon=True).start()
    with listening, pytest.raises(Faulty) as found:
        download(f"http://127.0.0.1:{listening.getsockname()[1]}/", tmp_path, max_bytes=1_000_000)
    assert found.value.code == "too_large"
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_seen_before_it_is_full(
    server: Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(FemurError, match="Make room"):
        download(url, tmp_path)


def test_no_server_is_unreachable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(Unreachable, match="Look at the network"):
        download(f"http://127.0.0.1:{port}/", tmp_path)


# ---- addresses


@pytest.mark.parametrize(
    "address",
    [
        "http://example.org/a",
        "ftp://example.org/a",
        "file:///etc/passwd",
        "http://127.0.0.2/a",
        "http://localhost.example.org/a",
        "http://127.0.0.1.nip.io/a",
        "/etc/passwd",
        "https:///a",
        "",
        "https://example.org:port/a",
    ],
)
def test_address_that_is_not_https_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(FemurError, match="Expected an https address"):
        download(address, tmp_path)


def test_digest_that_is_none_is_refused_before_the_download(server: Server, url: str, tmp_path: Path) -> None:
    with pytest.raises(FemurError, match="64 hexadecimal digits"):
        download(url, tmp_path, sha256=DIGEST[1:])
    assert server.ranges == []


def test_redirects_are_followed_and_resumed_behind(server: Server, url: str, tmp_path: Path) -> None:
    server.redirects = {"/export.zip": "/1", "/1": "/2", "/2": "/3", "/3": "/4", "/4": "/real"}
    server.cuts = 1
    assert download(url, tmp_path).read_bytes() == DATA
    server.redirects["/real"] = "/6"
    with pytest.raises(FemurError, match="at most 5 redirects"):
        download(url, tmp_path)


@pytest.mark.parametrize("target", ["http://example.org/x", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_redirect_away_from_https_is_refused(server: Server, url: str, tmp_path: Path, target: str) -> None:
    server.redirects = {"/export.zip": f"{target}?key={SECRET}"}
    with pytest.raises(FemurError, match="Expected") as found:
        download(url, tmp_path)
    assert not isinstance(found.value, Unreachable | NotFound)
    assert SECRET not in str(found.value)


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("https://169.254.169.254/latest/meta-data", False),
        ("https://10.1.2.3/", False),
        ("https://192.168.0.1/", False),
        ("https://127.0.0.1/", False),
        ("http://127.0.0.1/", False),
        ("https://localhost/", False),
        ("https://2130706433/", False),
        ("https://[::1]/", False),
        ("https://[::ffff:10.0.0.1]/", False),
        ("https://[fd00::1]/", False),
        ("https://100.64.0.1/", False),
        ("https://1.1.1.1/", True),
        ("/elsewhere", True),
    ],
)
def test_redirect_from_outside_must_not_lead_inside(target: str, allowed: bool) -> None:
    first = httpx.URL("https://1.0.0.1/export")
    if allowed:
        assert downloads._next(first, first, target).scheme == "https"
    else:
        with pytest.raises(FemurError, match="public address"):
            downloads._next(first, first, target)


def test_key_of_a_link_is_never_told(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    caplog.set_level(logging.DEBUG)
    server.statuses = [404]
    with pytest.raises(NotFound) as found:
        download(url.replace("//", f"//user:{SECRET}@").replace("?", "?a=1&"), tmp_path)
    assert f"http://127.0.0.1:{server.server_port}/export.zip." in str(found.value)
    server.redirects = {"/export.zip": f"/there?key={SECRET}"}
    server.statuses = [503] * 9
    with pytest.raises(Unreachable) as stuck:
        download(url, tmp_path)
    assert SECRET not in f"{found.value} {stuck.value} {caplog.text}"


# ---- certificates


@pytest.fixture
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of a server at 127.0.0.1, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + made.public_bytes(pem))
    return path


@pytest.fixture
def https_url(server: Server, certificate: Path) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return f"https://127.0.0.1:{server.server_port}/export.zip?key={SECRET}"


def test_https_with_a_trusted_certificate_is_read(
    https_url: str, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert download(https_url, tmp_path, DIGEST).read_bytes() == DATA


def test_certificate_of_nobody_known_is_refused_at_once(server: Server, https_url: str, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"certificate.*SSL_CERT_FILE") as found:
        download(https_url, tmp_path)
    assert SECRET not in str(found.value)
    assert server.ranges == []


def test_missing_file_of_certificates_is_told(https_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(FemurError, match="SSL_CERT_FILE"):
        download(https_url, tmp_path)
