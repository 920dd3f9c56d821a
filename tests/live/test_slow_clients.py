"""Slow clients are cut off; others are answered meanwhile. The patience is a second here, ten by default."""

import errno
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from processes import Running, free_port, production_environment, serving


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with serving(tmp_path, "dev", AUTHWRIGHT_PATIENCE_SECONDS="1") as running:
        yield running


def connect(server: Running) -> socket.socket:
    host, port = server.base.removeprefix("http://").split(":")
    made = socket.create_connection((host, int(port)), timeout=5)
    made.settimeout(0.2)
    return made


def trickle(connection: socket.socket, start: bytes, each: bytes, seconds: float) -> tuple[bytes, float]:
    """Send *start*, then *each* now and then; what was answered until the end, and after how many seconds it came."""
    begun, answer = time.monotonic(), b""
    connection.sendall(start)
    while time.monotonic() - begun < seconds:
        try:
            connection.sendall(each)
            got = connection.recv(1000)
            if not got:
                break
            answer += got
        except TimeoutError:
            continue
        except OSError:
            break
    return answer, time.monotonic() - begun


HEAD = b"POST /register HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
SLOW: dict[str, tuple[bytes, bytes]] = {
    "nothing": (b"", b""),
    "head": (b"GET /health HTTP/1.1\r\nhost: x\r\n", b"a: b\r\n"),
    "body": (HEAD + b"content-length: 1000\r\n\r\n", b"{"),
    "chunked body": (HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n{\r\n"),
}


@pytest.mark.parametrize("name", SLOW)
def test_r_3_5_a_slow_client_is_cut_off_in_time(server: Running, name: str) -> None:
    start, each = SLOW[name]
    with connect(server) as slow, server.http() as http:
        if name.endswith("body"):
            host = server.base.removeprefix("http://").encode()
            start = start.replace(b"127.0.0.1", host)
        answer, seconds = trickle(slow, start, each, 6)
        assert seconds < 3, name
        assert answer.startswith(b"HTTP/1.1 408 "), answer
        assert http.get("/health").status_code == 200


def test_who_stops_reading_is_cut_off(server: Running) -> None:
    request = b"GET /openapi.json HTTP/1.1\r\nhost: %s\r\n\r\n" % server.base.removeprefix("http://").encode()
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = server.base.removeprefix("http://").split(":")
        deaf.connect((host, int(port)))
        deaf.settimeout(5)
        # More than the buffers of the system hold, few enough at once to be taken.
        deaf.sendall(request * 50)
        for _ in range(5):
            time.sleep(0.1)
            deaf.sendall(request * 50)
        deadline = time.monotonic() + 15
        while deaf.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != errno.ECONNRESET:
            assert time.monotonic() < deadline, "it was not cut off"
            time.sleep(0.05)


def test_a_client_that_is_only_slow_to_ask_again_is_not_told_off(server: Running) -> None:
    request = b"GET /health HTTP/1.1\r\nhost: %s\r\n\r\n" % server.base.removeprefix("http://").encode()
    with connect(server) as client:
        for _ in range(3):
            client.sendall(request)
            # Longer than the patience, which is what this is about; another process keeps that time.
            time.sleep(1.5)
            assert json.loads(client.recv(4000).partition(b"\r\n\r\n")[2]) == {"status": "ok"}


@pytest.fixture
def behind_a_proxy(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    with ExitStack() as stack:

        def begin(**more: str) -> Running:
            port = free_port()
            environment = production_environment(port, AUTHWRIGHT_PASSWORD_MIN_LENGTH="8", **more)
            return stack.enter_context(serving(tmp_path, "serve", port=port, **environment))

        yield begin


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        ("", "203.0.113.9", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.9", "203.0.113.9"),
        # What the client sent stands on the left of what the proxy added.
        ("127.0.0.1", "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", "2001:db8::9", "2001:db8::9"),
        ("10.0.0.0/8", "203.0.113.9", "127.0.0.1"),
    ],
)
def test_r176_forwarded_addresses_count_from_configured_proxies_alone(
    behind_a_proxy: Callable[..., Running], proxies: str, forwarded: str, expected: str
) -> None:
    more = {"FORWARDED_ALLOW_IPS": proxies} if proxies else {}
    with behind_a_proxy(**more).http() as http:
        account = {"username": "ada", "password": "correct horse"}
        http.post("/register", json=account)
        login = http.post("/login", data=account, headers={"x-forwarded-for": forwarded}).json()
        sessions = http.get("/me/sessions", headers={"authorization": f"Bearer {login['access_token']}"}).json()
        assert [session["address"] for session in sessions["sessions"]] == [expected]
