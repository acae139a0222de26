"""The way to the store gone wrong: a proxy between the client and the real store, which does what it is told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_NO_ROOM = b"<Error><Code>InsufficientStorage</Code><Message>no room is left</Message></Error>"


class Proxy(ThreadingHTTPServer):
    """Listens on a port of its own and hands everything on, but for its faults.

    Attributes:
        down: hangs up on whoever asks.
        cuts: how many more uploads are cut off in their middle.
        delay_s: waits so long before each request is handed on.
        full: answers every upload that there is no room.
        damages: whether a byte is changed in the answer to a request for this path.
        uploads: how many were begun.
    """

    daemon_threads = True

    def __init__(self, store: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store = store
        self.endpoint = f"127.0.0.1:{self.server_port}"
        self.down, self.cuts, self.delay_s, self.full = False, 0, 0.0, False
        self.damages: Callable[[str], bool] = lambda path: False
        self.uploads = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, format: str, *args: Any) -> None: ...

    def _relay(self) -> None:
        proxy, length = self.server, int(self.headers.get("Content-Length") or 0)
        is_upload = self.command == "PUT" and length > 0
        proxy.uploads += is_upload
        if proxy.down or (is_upload and proxy.cuts):
            proxy.cuts -= bool(proxy.cuts)
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        body = self.rfile.read(length)
        if is_upload and proxy.full:
            self._answer(507, {"Content-Type": "application/xml"}, _NO_ROOM)
            return
        time.sleep(proxy.delay_s)
        store = HTTPConnection(proxy.store, timeout=60)
        store.request(self.command, self.path, body, dict(self.headers))  # with the host that was signed
        found = store.getresponse()
        data = found.read()
        if data and self.command == "GET" and proxy.damages(self.path.partition("?")[0]):
            data = bytes([data[0] ^ 1]) + data[1:]
        self._answer(found.status, dict(found.getheaders()), data)
        store.close()

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _relay  # noqa: N815 - as http.server looks for them

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        length = next((value for name, value in headers.items() if name.lower() == "content-length"), str(len(data)))
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(data)))
        self.end_headers()
        self.wfile.write(data)
