"""Several workers on one machine: a logout is refused by each of them from the response on."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from processes import Running, assert_logouts_are_refused_everywhere, free_port, production_environment, run, serving
from under_load import race_refreshes

FORM = {"username": "ada", "password": "a long and unusual passphrase"}


@pytest.fixture
def workers(tmp_path: Path):  # type: ignore[no-untyped-def]
    port = free_port()
    env = production_environment(port, AUTHWRIGHT_MODE="serve")
    with serving(tmp_path, "serve", "--workers", "2", port=port, **env) as server:
        with server.http() as http:
            assert http.post("/register", json=FORM).status_code == 201
        yield server


def children(server: Running) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def connections(server: Running, count: int) -> list[httpx2.Client]:
    """Connections of their own: the kernel spreads them over the workers, and each stays with its worker."""
    made = [server.http() for _ in range(count)]
    for each in made:
        assert each.get("/livez").status_code == 200
    return made


def test_a_logout_is_refused_on_every_worker_from_the_response_on(workers: Running) -> None:
    assert_logouts_are_refused_everywhere(workers, FORM, 20)


def test_r56_refreshes_that_race_over_workers_have_one_successor(workers: Running) -> None:
    spread = connections(workers, 8)
    with workers.http() as http, ThreadPoolExecutor(8) as pool:
        token = http.post("/login", data=FORM).json()["refresh_token"]
        for _ in range(10):
            body = {"refresh_token": token}
            answers = list(pool.map(lambda each, body=body: each.post("/refresh-token", json=body), spread))
            assert {answer.status_code for answer in answers} == {200}
            successors = {answer.json()["refresh_token"] for answer in answers}
            assert len(successors) == 1
            token = successors.pop()
    for each in spread:
        each.close()


def test_a_key_withdrawn_by_a_command_is_refused_on_every_worker_when_it_returns(workers: Running) -> None:
    env = workers.env
    spread = connections(workers, 12)
    with workers.http() as http:
        login = http.post("/login", data=FORM).json()
        bearer = {"Authorization": f"Bearer {login['access_token']}"}
        assert {each.get("/me", headers=bearer).status_code for each in spread} == {200}
        (key,) = json.loads(run(workers.folder, "keys", "list", "--json", **env).stdout)
        assert run(workers.folder, "keys", "withdraw", key["kid"], **env).returncode == 0
        assert {each.get("/me", headers=bearer).status_code for each in spread} == {401}
        fresh = http.post("/refresh-token", json={"refresh_token": login["refresh_token"]}).json()
        bearer = {"Authorization": f"Bearer {fresh['access_token']}"}
        assert {each.get("/me", headers=bearer).status_code for each in spread} == {200}
    for each in spread:
        each.close()


def test_a_worker_that_is_killed_is_replaced_and_nobody_notices_for_long(workers: Running) -> None:
    before = children(workers)
    victims = [pid for pid in before if b"spawn" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(victims) == 2
    with workers.http() as http:
        login = http.post("/login", data=FORM).json()
    os.kill(victims[0], signal.SIGKILL)
    deadline = time.monotonic() + 15
    while True:
        alive = [pid for pid in children(workers) if pid not in before]
        if alive or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert alive
    bearer = {"Authorization": f"Bearer {login['access_token']}"}
    with workers.http() as http:
        assert http.get("/me", headers=bearer).status_code == 200


def test_r55_disabling_is_honoured_by_every_worker_from_the_commands_end_on(workers: Running) -> None:
    spread = connections(workers, 8)
    with workers.http() as http:
        login = http.post("/login", data=FORM).json()
        bearer = {"Authorization": f"Bearer {login['access_token']}"}
        assert {each.get("/me", headers=bearer).status_code for each in spread} == {200}
        port = workers.base.rpartition(":")[2]
        done = run(workers.folder, "users", "disable", "ada", PORT=port, **workers.env)
        assert done.returncode == 0, done.stderr
        assert {each.get("/me", headers=bearer).status_code for each in spread} == {401}
        body = {"refresh_token": login["refresh_token"]}
        assert {each.post("/refresh-token", json=body).status_code for each in spread} == {400}
        assert http.post("/login", data=FORM).status_code == 401
    for each in spread:
        each.close()


def test_failures_are_counted_over_all_workers(workers: Running) -> None:
    wrong = {**FORM, "username": "nobody", "password": "x"}
    statuses = []
    for _ in range(8):
        with workers.http() as http:
            statuses.append(http.post("/login", data=wrong).status_code)
    assert statuses[:5] == [401] * 5
    assert 429 in statuses[5:]


def stored(folder: Path) -> int:
    """How many predictions the database has counted."""
    with closing(sqlite3.connect(folder / "authwright-data/authwright.db")) as connection:
        return int(connection.execute("SELECT coalesce(sum(count), 0) FROM predictions").fetchone()[0])


def test_metrics_and_reports_add_up_over_workers_and_a_crash(workers: Running) -> None:
    spread = connections(workers, 8)
    port = workers.base.rpartition(":")[2]
    env = {**workers.env, "PORT": port}
    made = run(workers.folder, "users", "create", "--username", "root-ada", "--admin", stdin=FORM["password"], **env)
    assert made.returncode == 0, made.stderr
    with workers.http() as http:
        login = http.post("/login", data={**FORM, "username": "root-ada"}).json()
        bearer = {"Authorization": f"Bearer {login['access_token']}"}
        for each in spread:
            for _ in range(5):
                assert each.get("/predict", headers=bearer).status_code == 200
        text = http.get("/metrics", headers=bearer).text
        (line,) = [line for line in text.splitlines() if 'route="/predict"' in line and "requests_total" in line]
        assert line.endswith(" 40.0")
        # Stored once a second by each worker; after that a crash loses nothing.
        deadline = time.monotonic() + 10
        while stored(workers.folder) != 40:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    for each in spread:
        each.close()
    workers.kill()
    with serving(workers.folder, "serve", port=int(port), **workers.env) as server, server.http() as http:
        login = http.post("/login", data={**FORM, "username": "root-ada"}).json()
        bearer = {"Authorization": f"Bearer {login['access_token']}"}
        report = http.get("/analytics/full", headers=bearer).json()
        assert report["calls"]["by_route"]["/predict"] == 40
        assert report["predictions"]["total"] == 40


def test_r56_a_hundred_refreshes_of_one_token_over_two_processes_have_one_successor(workers: Running) -> None:
    with workers.http() as http:
        login = http.post("/login", data=FORM).json()
    port = int(workers.base.rpartition(":")[2])
    counted = asyncio.run(race_refreshes(port, login, rounds=15, at_once=100))
    assert counted["refreshes"] == 1500
