"""authwright migrate --to: the command, from one kind of database to the next, and logins go on."""

import json
from pathlib import Path

import pytest

from databases import drop_mongo_database, drop_postgres_database, new_mongo_database, new_postgres_database
from processes import free_port, production_environment, run, serving

FORM = {"username": "ada", "password": "a long and unusual passphrase"}


async def database(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    if kind == "postgresql":
        return await new_postgres_database(request.getfixturevalue("postgres_server"))
    if kind == "mongodb":
        return new_mongo_database(request.getfixturevalue("mongo_server"))
    folder.mkdir()
    return f"sqlite:///{folder}/store.db"


async def drop(url: str, request: pytest.FixtureRequest) -> None:
    if url.startswith("postgresql"):
        await drop_postgres_database(request.getfixturevalue("postgres_server"), url)
    elif url.startswith("mongodb"):
        await drop_mongo_database(url)


def told(output: str) -> dict[str, int]:
    return {line.split()[0]: int(line.split()[1]) for line in output.splitlines()[:-1]}


@pytest.mark.parametrize(("start", "end"), [("sqlite", "mongodb")])
async def test_everything_moves_and_sessions_go_on(
    tmp_path: Path, request: pytest.FixtureRequest, start: str, end: str
) -> None:
    port = free_port()
    here, there = [await database(kind, request, tmp_path / where) for kind, where in ((start, "a"), (end, "b"))]
    env = production_environment(port, AUTHWRIGHT_MODE="serve")
    with serving(tmp_path, "serve", port=port, DATABASE_URL=here, **env) as server, server.http() as http:
        assert http.post("/register", json={**FORM, "email": "ada@example.com"}).status_code == 201
        login = http.post("/login", data=FORM).json()
        bearer = {"Authorization": f"Bearer {login['access_token']}"}
        key = http.post("/me/keys", headers=bearer, json={"name": "mine"}).json()["key"]
        # A name that stays reserved, a user who is gone, a session that ended, a failure that is remembered.
        for name in ("eve", "mal"):
            assert http.post("/register", json={**FORM, "username": name}).status_code == 201
        gone = http.post("/login", data={**FORM, "username": "eve"}).json()["access_token"]
        deletion = {"current_password": FORM["password"]}
        gone_bearer = {"Authorization": f"Bearer {gone}"}
        assert http.request("DELETE", "/users/eve", headers=gone_bearer, json=deletion).status_code == 200
        other = http.post("/login", data={**FORM, "username": "mal"}).json()["access_token"]
        body = {"username": "malory", "current_password": FORM["password"]}
        assert http.patch("/me", headers={"Authorization": f"Bearer {other}"}, json=body).status_code == 200
        http.post("/login", data={**FORM, "password": "wrong"})
    made = json.loads(run(tmp_path, "clients", "create", "scoring", "--json", DATABASE_URL=here, **env).stdout)
    moved = run(tmp_path, "migrate", "--to", there, DATABASE_URL=here, **env)
    assert moved.returncode == 0, moved.stderr
    counts = told(moved.stdout)
    assert (counts["users"], counts["api_keys"], counts["clients"], counts["keys"] >= 3) == (2, 1, 1, True)
    assert counts["names"] >= 5
    assert counts["events"] > counts["sessions"] > 2
    # A second time: the target is not empty any more.
    again = run(tmp_path, "migrate", "--to", there, DATABASE_URL=here, **env)
    assert (again.returncode, "not empty" in again.stderr) == (1, True)
    with serving(tmp_path, "serve", port=port, DATABASE_URL=there, **env) as server, server.http() as http:
        refreshed = http.post("/refresh-token", json={"refresh_token": login["refresh_token"]})
        assert refreshed.status_code == 200, refreshed.text
        assert http.get("/me", headers={"Authorization": f"Bearer {key}"}).json()["email"] == "ada@example.com"
        assert http.post("/login", data=FORM).status_code == 200
        assert http.post("/login", json={"client_key": made["client_key"]}).status_code == 200
        for taken in ("eve", "mal", "ada@example.com"):
            wanted = {"email" if "@" in taken else "username": taken, "password": FORM["password"]}
            assert http.post("/register", json=wanted).status_code == 409
        assert http.post("/register", json={**FORM, "username": "new"}).status_code == 201
    await drop(here, request)
    await drop(there, request)


async def test_what_cannot_be_moved_to_is_an_error_with_a_name(tmp_path: Path) -> None:
    env = production_environment(free_port(), AUTHWRIGHT_MODE="serve", DATABASE_URL=f"sqlite:///{tmp_path}/a.db")
    assert run(tmp_path, "clients", "create", "scoring", **env).returncode == 0
    for url, expected in (
        ("mysql://ada:wonderland@x/y", "sqlite:///"),
        (env["DATABASE_URL"], "already"),
        ("mongodb://ada:wonderland@127.0.0.1:1/x", "MongoDB"),
    ):
        ended = run(tmp_path, "migrate", MIGRATE_TO_URL=url, **env)
        assert ended.returncode != 0
        assert expected in ended.stderr
        assert "wonderland" not in ended.stderr + ended.stdout
        assert "Traceback" not in ended.stderr
