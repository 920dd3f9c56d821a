"""The smallest HTTP client that keeps a connection: it must not cost more than what it measures."""

import json
import socket
from typing import Any
from urllib.parse import urlencode, urlsplit


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
        return int(head[9:12]), json.loads(body)

    def _receive(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("the server went away")
        self._buffer += data

    def close(self) -> None:
        self._socket.close()
