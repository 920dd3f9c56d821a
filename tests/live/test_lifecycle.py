"""Starting, stopping, starting again; and `kill -9` at any moment."""

import json
import random
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from endurance import bearer, endure
from processes import free_port, production_environment, run, serving, start, wait_until_ready

FORM = {"username": "ada", "password": "a long and unusual passphrase"}


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


@pytest.mark.parametrize(("kind", "kills"), [("sqlite", 10), ("postgresql", 4), ("mongodb", 4)])
def test_r57_kills_under_load_lose_nothing_that_was_acknowledged(tmp_path: Path, kind: str, kills: int) -> None:
    seed = random.randrange(10_000) * 10
    print(f"seed {seed}")  # shown if the test fails, to run the same again
    # `make endurance` goes on for an hour.
    acknowledged = endure(kind, tmp_path, kills=kills, seed=seed)
    assert min(acknowledged[what] for what in ("registrations", "rotations", "logouts", "key rotations")) > 0


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
