"""Starting, stopping, starting again; and `kill -9` at any moment."""

import json
import random
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from processes import Running, free_port, production_environment, run, serving, start, wait_until_ready

FORM = {"username": "ada", "password": "a long and unusual passphrase"}


def bearer(login: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {login['access_token']}"}


def test_a_second_start_with_the_same_data_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    port = free_port()
    body = {"username": "ada", "password": "test123"}
    with serving(tmp_path, "dev", port=port) as first, first.http() as http:
        http.post("/register", json=body)
        kept, ended = http.post("/login", data=body).json(), http.post("/login", data=body).json()
        assert http.post("/logout", headers=bearer(ended)).status_code == 200
        assert first.stop() in (0, -signal.SIGTERM)
    with serving(tmp_path, "dev", port=port) as second, second.http() as http:
        assert http.get("/me", headers=bearer(kept)).status_code == 200
        assert http.get("/me", headers=bearer(ended)).status_code == 401
        assert http.post("/refresh-token", json={"refresh_token": kept["refresh_token"]}).status_code == 200
        assert http.post("/refresh-token", json={"refresh_token": ended["refresh_token"]}).status_code == 400
        assert http.post("/register", json=body).status_code == 409


def test_sigterm_lets_requests_finish(tmp_path: Path) -> None:
    port = free_port()
    # Hashes of about half a second, so that a request is certainly under way.
    env = production_environment(port, AUTHWRIGHT_ARGON2_MEMORY_KIB="262144", AUTHWRIGHT_ARGON2_PASSES="4")
    with serving(tmp_path, "serve", port=port, **env) as server, server.http() as http:
        answers: list[int] = []
        thread = threading.Thread(target=lambda: answers.append(http.post("/register", json=FORM).status_code))
        thread.start()
        with server.http() as probe:
            while probe.get("/livez").status_code != 200:
                pass
        time.sleep(0.1)
        server.process.send_signal(signal.SIGTERM)
        thread.join(30)
        assert answers == [201]
        assert server.process.wait(30) in (0, -signal.SIGTERM)
        with socket.socket() as probe_socket:
            assert probe_socket.connect_ex(("127.0.0.1", port)) != 0
    log = server.log.read_text()
    assert "Traceback" not in log
    assert FORM["password"] not in log


@dataclass
class Acknowledged:
    """What a client was told had happened: noted only after the whole response had arrived."""

    users: dict[str, str] = field(default_factory=dict)
    live: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)


def load(server: Running, until: threading.Event, worker: int, seed: int) -> Acknowledged:
    """Mixed registrations, logins, refreshes and logouts until the connection breaks."""
    chance = random.Random(seed * 100 + worker)
    noted = Acknowledged()
    name = f"user-{seed}-{worker}"
    number = 0
    with httpx2.Client(base_url=server.base, timeout=5) as http:
        while not until.is_set():
            number += 1
            user = f"{name}-{number}"
            try:
                if http.post("/register", json={"username": user, "password": "test123"}).status_code == 201:
                    noted.users[user] = "test123"
                login = http.post("/login", data={"username": user, "password": "test123"})
                if login.status_code != 200:
                    continue
                session = login.json()
                noted.live[user] = session
                for _ in range(chance.randrange(4)):
                    # While a refresh is under way nothing is known: either token may be the current one afterwards,
                    # and within the grace period both must work.
                    refreshed = http.post("/refresh-token", json={"refresh_token": session["refresh_token"]})
                    if refreshed.status_code == 200:
                        session = refreshed.json()
                        noted.live[user] = session
                if chance.random() < 0.5:
                    held = noted.live.pop(user)
                    if http.post("/logout", headers=bearer(held)).status_code == 200:
                        noted.ended.append(held)
            except httpx2.TransportError:
                return noted
    return noted


def check(server: Running, noted: Acknowledged) -> None:
    """Every acknowledged act is still true."""
    with server.http() as http:
        for user, password in noted.users.items():
            login = http.post("/login", data={"username": user, "password": password})
            assert login.status_code == 200, user
        for user, session in noted.live.items():
            answer = http.post("/refresh-token", json={"refresh_token": session["refresh_token"]})
            assert answer.status_code == 200, (user, answer.text)
        for session in noted.ended:
            assert http.get("/me", headers=bearer(session)).status_code == 401
            answer = http.post("/refresh-token", json={"refresh_token": session["refresh_token"]})
            assert answer.status_code == 400
        published = {key["kid"] for key in http.get("/.well-known/jwks.json").json()["keys"]}
        assert noted.keys <= published


# Cheap hashes, so that most of the time goes into writes, which is what the kills are to hit; and a grace period in
# which a refresh token whose answer was lost is still good when the server is back.
FAST = {
    "AUTHWRIGHT_ARGON2_MEMORY_KIB": "64",
    "AUTHWRIGHT_ARGON2_PASSES": "1",
    "AUTHWRIGHT_REFRESH_GRACE_SECONDS": "60",
}


def killed_under_load(server: Running, seed: int) -> Acknowledged:
    """Load *server*, rotate its key sometimes, kill it at some moment; what had been acknowledged by then."""
    chance = random.Random(seed)
    until = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load, server, until, worker, seed) for worker in range(4)]
        rotated = run(server.folder, "keys", "rotate", **FAST) if seed % 3 == 0 else None
        time.sleep(chance.uniform(0.05, 0.4))
        server.kill()
        until.set()
        noted = Acknowledged()
        for each in loads:
            part = each.result()
            noted.users |= part.users
            noted.live |= part.live
            noted.ended += part.ended
    if rotated is not None and rotated.returncode == 0:
        noted.keys.add(rotated.stdout.split()[1])
    return noted


def test_r57_ten_kills_under_load_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    seed = random.randrange(10_000) * 10
    print(f"seed {seed}")  # shown if the test fails, to run the same again
    port = free_port()
    everything = Acknowledged()
    for round_ in range(10):
        noted = killed_under_load(start(tmp_path, "dev", port=port, **FAST), seed + round_)
        with serving(tmp_path, "dev", port=port, **FAST) as again:
            check(again, noted)
            assert again.stop() in (0, -signal.SIGTERM)
        everything.users |= noted.users
        everything.ended += noted.ended
        everything.keys |= noted.keys
    assert min(len(everything.users), len(everything.ended), len(everything.keys)) > 0
    with serving(tmp_path, "dev", port=port, **FAST) as last:
        check(last, everything)


def test_the_first_answer_after_a_kill_comes_soon(tmp_path: Path) -> None:
    port = free_port()
    server = start(tmp_path, "dev", port=port)
    server.kill()
    again = start(tmp_path, "dev", port=port, ready=False)
    try:
        wait_until_ready(again, 15)
        assert json.loads(run(tmp_path, "keys", "list", "--json").stdout)
    finally:
        again.kill()
