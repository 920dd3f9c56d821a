"""Hostile connections: what one may make the server hold is bounded, and others are answered meanwhile."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from processes import Running, serving

MOST_GROWTH = 60  # MiB


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with serving(tmp_path, "dev") as running:
        yield running


def memory(server: Running) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def connect(server: Running) -> socket.socket:
    host, port = server.base.removeprefix("http://").split(":")
    made = socket.create_connection((host, int(port)), timeout=5)
    made.settimeout(2)
    return made


def flood(connection: socket.socket, start: bytes, again: bytes, most: int) -> int:
    """Send *again* until the server ends it, or *most* bytes were sent or nothing more is taken; how many were."""
    sent = 0
    try:
        connection.sendall(start)
        while sent < most:
            sent += connection.send(again)
    except OSError:
        pass
    return sent


ENDLESS = {
    "header fields": (b"GET /health HTTP/1.1\r\nhost: x\r\n", b"a: b\r\n" * 1000),
    "one header": (b"GET /health HTTP/1.1\r\nhost: x\r\na: ", b"b" * 10_000),
    "path": (b"GET /", b"b" * 10_000),
    "trailers": (b"GET /health HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"a:\r\n" * 2000),
    "one trailer": (b"GET /health HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: ", b"b" * 10_000),
    "pipelined requests": (b"", b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n" * 300),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_a_connection_makes_the_server_hold_is_bounded(server: Running, name: str) -> None:
    start, again = ENDLESS[name]
    before = memory(server)
    slowest = 0.0
    with server.http() as http, ExitStack() as opened:
        attackers = [opened.enter_context(connect(server)) for _ in range(4)]
        threads = [threading.Thread(target=flood, args=(each, start, again, 20_000_000)) for each in attackers]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            begun = time.monotonic()
            assert http.get("/health").status_code == 200
            slowest = max(slowest, time.monotonic() - begun)
        for thread in threads:
            thread.join()
        assert memory(server) - before < MOST_GROWTH
    assert slowest < 2


def test_trailers_are_no_headers(server: Running) -> None:
    with server.http() as http:
        body = {"username": "ada", "password": "test123"}
        http.post("/register", json=body)
        token = http.post("/login", data=body).json()["access_token"]
        host = server.base.removeprefix("http://")
        with connect(server) as connection:
            connection.sendall(
                f"POST /logout HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: chunked\r\n\r\n"
                f"0\r\nauthorization: Bearer {token}\r\n\r\n".encode()
            )
            assert connection.recv(4096).startswith(b"HTTP/1.1 401")
        assert http.get("/me", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_pipelined_requests_are_answered_in_their_order(server: Running) -> None:
    host = server.base.removeprefix("http://")
    paths = ["/health", "/nowhere", "/me", "/livez"] * 10
    with connect(server) as connection:
        connection.sendall(b"".join(f"GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode() for path in paths))
        received = b""
        while received.count(b"HTTP/1.1 ") < len(paths) or not received.endswith(b"}"):
            received += connection.recv(65536)
    statuses = [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [
        {"/health": b"200", "/livez": b"200", "/nowhere": b"404", "/me": b"401"}[path] for path in paths
    ]


def test_clients_that_reset_leave_no_traceback(server: Running) -> None:
    for _ in range(50):
        connection = connect(server)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        connection.close()
    with server.http() as http:
        assert http.get("/health").status_code == 200
    assert "Traceback" not in server.log.read_text()
