"""The smallest HTTP client that keeps a connection: it must not cost more than what it measures."""

import json
import math
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

Request = Callable[[bytes | None], bytes]
"""The next request of a connection, given the body of the answer before."""


def post(path: str, body: object) -> bytes:
    raw = json.dumps(body).encode()
    kind = f"content-type: application/json\r\ncontent-length: {len(raw)}"
    return f"POST {path} HTTP/1.1\r\nhost: {{host}}\r\n{kind}\r\n\r\n".encode() + raw


def post_form(path: str, form: dict[str, str]) -> bytes:
    raw = urlencode(form).encode()
    kind = f"content-type: application/x-www-form-urlencoded\r\ncontent-length: {len(raw)}"
    return f"POST {path} HTTP/1.1\r\nhost: {{host}}\r\n{kind}\r\n\r\n".encode() + raw


def get(path: str, token: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: {{host}}\r\nauthorization: Bearer {token}\r\n\r\n".encode()


def drive_connections(
    base: str, requests: list[Request], times: int = 2**62, *, until: float = math.inf, strict: bool = True
) -> int:
    """Send *times* requests on a connection for each of *requests*, each after the answer to the one before, and none
    after *until*; how many were answered with 200. Others end it, if *strict*.

    One thread and no parser: what is measured must not wait for what measures.
    """
    good = 0
    parts = urlsplit(base)
    host = parts.netloc.encode()
    waiting = selectors.DefaultSelector()
    opened = []
    for request in requests:
        connection = socket.create_connection((parts.hostname, parts.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        waiting.register(connection, selectors.EVENT_READ, [request, b"", times])
        opened.append(connection)
        connection.sendall(request(None).replace(b"{host}", host, 1))
    while waiting.get_map():
        for key, _ in waiting.select():
            connection, state = cast("socket.socket", key.fileobj), key.data
            state[1] += connection.recv(65536)
            head, found, body = state[1].partition(b"\r\n\r\n")
            at = head.find(b"content-length: ") + 16
            if not found or len(body) < int(head[at : (head + b"\r").index(b"\r", at)]):
                continue
            if head.startswith(b"HTTP/1.1 200"):
                good += 1
            elif strict:
                raise RuntimeError(state[1].decode())
            state[1], state[2] = b"", state[2] - 1
            if state[2] and time.perf_counter() < until:
                connection.sendall(state[0](body).replace(b"{host}", host, 1))
            else:
                waiting.unregister(connection)
    for connection in opened:
        connection.close()
    return good


class Connection:
    """One keep-alive connection to *base*."""

    def __init__(self, base: str) -> None:
        parts = urlsplit(base)
        self._host = parts.netloc
        self._socket = socket.create_connection((parts.hostname, parts.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def request(
        self, method: str, path: str, *, token: str = "", body: Any = None, form: Any = None
    ) -> tuple[int, Any]:
        """Status and decoded JSON body."""
        raw, kind = b"", ""
        if body is not None:
            raw, kind = json.dumps(body).encode(), "application/json"
        elif form is not None:
            raw, kind = urlencode(form).encode(), "application/x-www-form-urlencoded"
        lines = [f"{method} {path} HTTP/1.1", f"host: {self._host}"]
        if token:
            lines.append(f"authorization: Bearer {token}")
        if kind:
            lines += [f"content-type: {kind}", f"content-length: {len(raw)}"]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode() + raw)
        return self._answer()

    def _answer(self) -> tuple[int, Any]:
        while b"\r\n\r\n" not in self._buffer:
            self._receive()
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        lowered = head.lower()
        at = lowered.index(b"content-length:") + 15
        length = int(lowered[at:].split(b"\r\n", 1)[0])
        self._buffer = rest
        while len(self._buffer) < length:
            self._receive()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        try:
            return int(head[9:12]), json.loads(body)
        except ValueError:
            raise RuntimeError(f"not JSON: {head!r} {body!r}") from None

    def _receive(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("the server went away")
        self._buffer += data

    def close(self) -> None:
        self._socket.close()
