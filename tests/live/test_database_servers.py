"""The installed command on a database server: workers, a database that goes away and comes back, what is left then."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from databases import MongoServer, PostgresServer, own_mongo, own_postgres
from processes import Running, assert_logouts_are_refused_everywhere, free_port, production_environment, run, serving

FORM = {"username": "ada", "password": "a long and unusual passphrase"}


DatabaseServer = PostgresServer | MongoServer


@pytest.fixture(params=["postgresql", "mongodb"])
def database(request: pytest.FixtureRequest) -> Iterator[DatabaseServer]:
    """A server of the test's own, which it may stop and start."""
    with own_postgres() if request.param == "postgresql" else own_mongo() as server:
        yield server


@pytest.fixture
def workers(tmp_path: Path, database: DatabaseServer) -> Iterator[Running]:
    port = free_port()
    env = production_environment(port, AUTHWRIGHT_MODE="serve", DATABASE_URL=database.url)
    with serving(tmp_path, "serve", "--workers", "2", port=port, **env) as server:
        with server.http() as http:
            assert http.post("/register", json=FORM).status_code == 201
        yield server


def test_r102_a_key_withdrawn_by_a_command_elsewhere_signs_nothing_when_it_has_returned(workers: Running) -> None:
    """A service of systemd has a /tmp of its own: a command in a shell is on another machine, to it."""
    elsewhere = workers.folder / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    env = {**workers.env, "XDG_RUNTIME_DIR": str(elsewhere)}
    spread = [workers.http() for _ in range(8)]
    with workers.http() as http:
        login = http.post("/login", data=FORM).json()
        kid = json.loads(run(workers.folder, "keys", "list", "--json", **env).stdout)[0]["kid"]
        assert run(workers.folder, "keys", "withdraw", kid, **env).returncode == 0
        bearer = {"authorization": f"Bearer {login['access_token']}"}
        assert {each.get("/me", headers=bearer).status_code for each in spread} == {401}
        for each in spread:
            login = each.post("/refresh-token", json={"refresh_token": login["refresh_token"]}).json()
            bearer = {"authorization": f"Bearer {login['access_token']}"}
            assert {each.get("/me", headers=bearer).status_code for each in spread} == {200}
    for each in spread:
        each.close()


def test_a_logout_is_refused_on_every_worker_from_the_response_on(workers: Running) -> None:
    assert_logouts_are_refused_everywhere(workers, FORM, 10)


def test_r102_a_logout_on_one_machine_is_honoured_on_another_within_a_second(
    tmp_path: Path, database: DatabaseServer
) -> None:
    ports = [free_port(), free_port()]
    shared = production_environment(
        ports[0],
        AUTHWRIGHT_MODE="serve",
        DATABASE_URL=database.url,
        AUTHWRIGHT_HOSTS=" ".join(f"127.0.0.1:{port}" for port in ports),
    )
    with ExitStack() as machines:
        servers = []
        for port in ports:
            # A machine is where processes share a folder for what runs.
            folder = tmp_path / str(port)
            folder.mkdir(mode=0o700)
            servers.append(
                machines.enter_context(serving(folder, "serve", port=port, XDG_RUNTIME_DIR=str(folder), **shared))
            )
        here, there = (machines.enter_context(server.http()) for server in servers)
        assert here.post("/register", json=FORM).status_code == 201
        for _ in range(10):
            login = here.post("/login", data=FORM).json()
            bearer = {"Authorization": f"Bearer {login['access_token']}"}
            assert there.get("/me", headers=bearer).status_code == 200
            assert here.post("/logout", headers=bearer).status_code == 200
            answered = time.monotonic()
            while there.get("/me", headers=bearer).status_code != 401:
                assert time.monotonic() - answered < 1
            body = {"refresh_token": login["refresh_token"]}
            assert there.post("/refresh-token", json=body).status_code == 400


def test_what_was_put_back_with_other_tools_begins_anew(tmp_path: Path, database: DatabaseServer) -> None:
    env = production_environment(free_port(), AUTHWRIGHT_MODE="serve", DATABASE_URL=database.url)
    port = int(env["AUTHWRIGHT_ISSUER"].rpartition(":")[2])
    with serving(tmp_path, "serve", port=port, **env) as server, server.http() as http:
        assert http.post("/register", json=FORM).status_code == 201
        login = http.post("/login", data=FORM).json()
    assert run(tmp_path, "backup", "x.db", **env).returncode == 1
    done = run(tmp_path, "restore", "--yes", **env)
    assert done.stdout == "Begun anew; 1 sessions ended.\n"
    with serving(tmp_path, "serve", port=port, **env) as server, server.http() as http:
        refused = http.post("/refresh-token", json={"refresh_token": login["refresh_token"]})
        assert refused.json()["error"] == "invalid_grant"
        bearer = {"Authorization": f"Bearer {login['access_token']}"}
        assert http.get("/secure-data", headers=bearer).status_code == 401
        assert http.post("/login", data=FORM).status_code == 200


def test_while_the_database_is_away_tokens_are_verified_and_the_rest_says_so_at_once(
    workers: Running, database: DatabaseServer
) -> None:
    with workers.http() as http:
        login = http.post("/login", data=FORM).json()
        bearer = {"Authorization": f"Bearer {login['access_token']}"}
        body = {"refresh_token": login["refresh_token"]}
        database.kill()
        for _ in range(10):
            begun = time.monotonic()
            answer = http.post("/refresh-token", json=body)
            assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
            assert int(answer.headers["retry-after"]) >= 1
            assert time.monotonic() - begun < 3
            assert http.get("/secure-data", headers=bearer).status_code == 200
            assert http.get("/livez").status_code == 200
            assert http.get("/readyz").status_code == 503
        database.start()
        deadline = time.monotonic() + 5
        while http.get("/readyz").status_code != 200 or http.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # What was asked for while the database was away spent nothing, and what was there before still is.
        assert http.post("/refresh-token", json=body).status_code == 200
        assert http.post("/login", data=FORM).status_code == 200


@pytest.mark.parametrize("url", ["postgresql://ada:wonderland@127.0.0.1:1/x", "mongodb://ada:wonderland@127.0.0.1:1/x"])
def test_a_server_that_cannot_be_reached_is_an_error_without_its_password(tmp_path: Path, url: str) -> None:
    env = production_environment(free_port(), AUTHWRIGHT_MODE="serve", DATABASE_URL=url)
    for command in (("users", "list"), ("serve", "--port", str(free_port()))):
        ended = run(tmp_path, *command, **env)
        assert ended.returncode != 0
        assert "wonderland" not in ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr
