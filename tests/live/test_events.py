"""authwright events: exported with what happened while a server runs, verified, and what doctor says of it."""

import asyncio
import json
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from authwright.app.server import Server
from authwright.config import load_settings
from processes import free_port, production_environment, run, serving

FORM = {"username": "ada", "password": "a long and unusual passphrase"}


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """The environment of a store in which something happened, all of it sealed."""
    port = free_port()
    env = production_environment(port, AUTHWRIGHT_DATA=str(tmp_path / "data"))
    with serving(tmp_path, "serve", port=port, **env) as server, server.http() as http:
        http.post("/register", json=FORM)
        token = http.post("/login", data=FORM).json()["access_token"]
        http.post("/login", data={**FORM, "password": "wrong"})
        http.post("/logout", headers={"Authorization": f"Bearer {token}"})

    async def seal() -> int:
        server = Server(load_settings("serve", environ=env, dotenv=None))
        await server.open()
        sealed = await server.audit.seal(server.clock)
        await server.close()
        return sealed

    assert asyncio.run(seal()) == 4
    return env


def test_an_export_has_every_event_and_goes_on_later(tmp_path: Path, env: dict[str, str]) -> None:
    out = tmp_path / "events.jsonl"
    done = run(tmp_path, "events", "export", "--output", str(out), **env)
    assert (done.returncode, done.stdout) == (0, f"Wrote 5 events to {out}.\n")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    events = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(each["number"], each["kind"], each["outcome"]) for each in events] == [
        (1, "registered", "success"),
        (2, "login", "success"),
        (3, "login", "failure"),
        (4, "logout", "success"),
        (5, "events_sealed", "success"),
    ]
    again = run(tmp_path, "events", "export", "--output", str(out), **env)
    assert (again.returncode, len(out.read_text().splitlines())) == (1, 5)

    def numbers(*arguments: str) -> list[int]:
        done = run(tmp_path, "events", "export", *arguments, **env)
        assert done.returncode == 0, done.stderr
        return [json.loads(line)["number"] for line in done.stdout.splitlines()]

    assert numbers("--after", "2") == [3, 4, 5]
    assert numbers("--kind", "login", "--kind", "logout") == [2, 3, 4]
    assert numbers("--since", events[2]["at"], "--until", events[4]["at"]) == [3, 4]
    assert numbers("--until", "2026-01-01") == []
    for arguments in (("--kind", "coffee"), ("--since", "yesterday")):
        assert run(tmp_path, "events", "export", *arguments, **env).returncode == 2


def test_what_was_done_to_the_database_is_found(tmp_path: Path, env: dict[str, str]) -> None:
    done = run(tmp_path, "events", "verify", **env)
    assert (done.returncode, done.stdout) == (0, "5 events, 4 of them sealed and as they were.\n")
    with closing(sqlite3.connect(tmp_path / "data/authwright.db")) as store:
        store.execute("DELETE FROM events WHERE outcome = 'failure'")
        store.commit()
    done = run(tmp_path, "events", "verify", "--json", **env)
    assert done.returncode == 1
    assert json.loads(done.stdout)["problems"] == ["events 1 to 4 are not those that were sealed"]
    found = run(tmp_path, "doctor", "--offline", **env)
    assert (found.returncode, "events 1 to 4 are not those that were sealed" in found.stdout) == (1, True)


def test_a_changed_secret_key_unseals_nothing(tmp_path: Path, env: dict[str, str]) -> None:
    renewed = production_environment(1)["SECRET_KEY"]
    env |= {"SECRET_KEY": renewed, "SECRET_KEY_PREVIOUS": env["SECRET_KEY"]}
    assert run(tmp_path, "keys", "rewrap", **env).returncode == 0
    del env["SECRET_KEY_PREVIOUS"]
    assert run(tmp_path, "events", "verify", **env).returncode == 0
