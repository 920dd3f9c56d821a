"""Credential stuffing: strangers try ten thousand accounts, while a user logs in and another refreshes."""

import json
import statistics
import threading
import time
from collections import Counter
from typing import NamedTuple
from urllib.parse import urlencode

from bench.servers import Server
from bench.wire import Connection

ACCOUNTS = 10_000
ATTACKERS = 32
USER, PASSWORD = "victim", "a long and unusual passphrase"
HOME = "192.0.2.1"


class Calm(NamedTuple):
    """Milliseconds: the slowest login of the user, the median of a refresh; and what the strangers were answered."""

    login: float
    refresh: float
    statuses: Counter[int]


class Client(Connection):
    """A connection that a trusted proxy makes for *address*."""

    def __init__(self, base: str, address: str) -> None:
        super().__init__(base)
        self.address = address

    def post(self, path: str, form: dict[str, str] | None = None, body: object = None) -> tuple[int, dict[str, str]]:
        raw = json.dumps(body).encode() if form is None else urlencode(form).encode()
        kind = "application/json" if form is None else "application/x-www-form-urlencoded"
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {self._host}\r\nx-forwarded-for: {self.address}\r\n"
            f"content-type: {kind}\r\ncontent-length: {len(raw)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + raw)
        return self._answer()


def prepare(server: Server) -> str:
    """The account of the user, logged in from home; its refresh token."""
    client = Client(server.base, HOME)
    status, answer = client.post("/register", body={"username": USER, "password": PASSWORD})
    assert status == 201, answer
    status, answer = client.post("/login", {"username": USER, "password": PASSWORD})
    assert status == 200, answer
    client.close()
    return answer["refresh_token"]


def observe(server: Server, refresh_token: str, seconds: float) -> tuple[float, float, str]:
    """The slowest login and the median refresh in milliseconds over some time, and the refresh token at its end."""
    logins, refreshes = [], []
    client = Client(server.base, HOME)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        begun = time.perf_counter()
        status, answer = client.post("/login", {"username": USER, "password": PASSWORD})
        assert status == 200, answer
        logins.append((time.perf_counter() - begun) * 1000)
        for _ in range(10):
            begun = time.perf_counter()
            status, answer = client.post("/refresh-token", body={"refresh_token": refresh_token})
            assert status == 200, answer
            refreshes.append((time.perf_counter() - begun) * 1000)
            refresh_token = answer["refresh_token"]
            time.sleep(0.02)
    client.close()
    return max(logins), statistics.median(refreshes), refresh_token


def under_attack(server: Server, refresh_token: str, *, networks: int, seconds: float) -> tuple[Calm, str]:
    """What the user meets while strangers from so many *networks* try accounts as fast as they can."""
    statuses: Counter[int] = Counter()
    stop = threading.Event()

    def attack(number: int) -> None:
        client = Client(server.base, "")
        tried = number
        while not stop.is_set():
            network = tried % networks
            client.address = f"10.{network >> 16}.{network >> 8 & 255}.{network & 255}"
            name = USER if tried % 10 == 0 else f"user{tried % ACCOUNTS}"
            status, _ = client.post("/login", {"username": name, "password": f"guess {tried}"})
            statuses[status] += 1
            tried += ATTACKERS
        client.close()

    threads = [threading.Thread(target=attack, args=(number,)) for number in range(ATTACKERS)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    login, refresh, refresh_token = observe(server, refresh_token, seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return Calm(login, refresh, statuses), refresh_token
