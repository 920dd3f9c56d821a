"""GET /revocations: guards learn of a logout at once, from a stream or by asking, and go on where they were."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from processes import Running, free_port, production_environment, run, serving

FORM = {"username": "ada", "password": "a long and unusual passphrase"}
Event = tuple[str, str, Any]


def follower(server: Running, **headers: str) -> httpx2.Client:
    """A client whose answers are not read to their end: a stream has none."""
    return httpx2.Client(base_url=server.base, timeout=10, headers=headers)


@contextmanager
def events(http: httpx2.Client, **headers: str) -> Iterator[Iterator[Event]]:
    """Name, id and data of each event of a stream."""

    def read(lines: Iterator[str]) -> Iterator[Event]:
        fields: dict[str, str] = {}
        for line in lines:
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "event" in fields:
                yield fields["event"], fields.get("id", ""), json.loads(fields["data"])
                fields = {}
            else:
                fields = {}

    with http.stream("GET", "/revocations", headers={"accept": "text/event-stream", **headers}) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"] == "text/event-stream"
        yield read(answer.iter_lines())


def next_entries(stream: Iterator[Event]) -> Event:
    return next(event for event in stream if event[0] != "heartbeat")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    port = free_port()
    env = production_environment(port, AUTHWRIGHT_MODE="serve")
    with serving(tmp_path, "serve", "--workers", "2", port=port, **env) as running:
        running.environment = env  # type: ignore[attr-defined]
        with running.http() as http:
            assert http.post("/register", json=FORM).status_code == 201
        yield running


def new_client(server: Running, *scope: str) -> tuple[str, str]:
    made = run(server.folder, "clients", "create", "guard", "--json", *scope, **server.environment)  # type: ignore[attr-defined]
    shown = json.loads(made.stdout)
    return shown["client_id"], shown["client_key"]


def test_r102_a_logout_is_told_at_once_and_a_stream_goes_on_where_it_was(server: Running) -> None:
    client, key = new_client(server, "--scope", "revocations")
    with follower(server, Authorization=f"Bearer {key}") as guard, server.http() as http:
        with events(guard) as stream:
            name, cursor, data = next(stream)
            assert (name, data["snapshot"]) == ("snapshot", True)
            waits = []
            for _ in range(10):
                login = http.post("/login", data=FORM).json()
                begun = time.monotonic()
                http.post("/logout", headers={"Authorization": f"Bearer {login['access_token']}"})
                name, cursor, data = next_entries(stream)
                waits.append(time.monotonic() - begun)
                assert (name, len(data["entries"]), data["cursor"]) == ("entries", 1, cursor)
                assert data["entries"][0]["kind"] == "session"
            assert max(waits) < 1
            beat = next(event for event in stream if event[0] == "heartbeat")
            assert beat[2]["cursor"] == cursor
            assert 0 <= beat[2]["age_ms"] < 1000
        for _ in range(3):
            login = http.post("/login", data=FORM).json()
            http.post("/logout", headers={"Authorization": f"Bearer {login['access_token']}"})
        with events(guard, **{"last-event-id": cursor}) as stream:
            seen: list[int] = []
            while len(seen) < 3:
                name, _, data = next_entries(stream)
                assert name == "entries"
                seen += [entry["number"] for entry in data["entries"]]
            first = int(cursor.split(".")[1])
            assert seen == [first + 1, first + 2, first + 3]
        # By asking: what is missing at once, and nothing is waited for.
        asked = guard.get("/revocations", params={"cursor": cursor}).json()
        assert [entry["number"] for entry in asked["entries"]] == seen
        begun = time.monotonic()
        nothing = guard.get("/revocations", params={"cursor": asked["cursor"], "wait": "1"}).json()
        assert nothing["entries"] == []
        assert 0.9 < time.monotonic() - begun < 3
        assert guard.get("/revocations", params={"wait": "99"}).status_code == 422
        # A cursor that this store never reached: a snapshot would take back what its owner knows.
        ahead = f"{cursor.partition('.')[0]}.999.0"
        assert guard.get("/revocations", params={"cursor": ahead}).status_code == 503
        # Whoever may follow no more is told no more.
        with events(guard) as stream:
            next(stream)
            run(server.folder, "clients", "disable", client, **server.environment)  # type: ignore[attr-defined]
            begun = time.monotonic()
            for _ in stream:
                assert time.monotonic() - begun < 3
        assert guard.get("/revocations").status_code == 401


def test_only_who_was_given_the_scope_by_name_may_follow(server: Running) -> None:
    _, key = new_client(server)
    with server.http() as http:
        assert http.get("/revocations").status_code == 401
        refused = http.get("/revocations", headers={"Authorization": f"Bearer {key}"})
        assert (refused.status_code, "revocations" in refused.headers["www-authenticate"]) == (403, True)
        token = http.post("/login", data=FORM).json()["access_token"]
        assert http.get("/revocations", headers={"Authorization": f"Bearer {token}"}).status_code == 403


def test_streams_do_not_hold_up_the_end_of_the_server(tmp_path: Path) -> None:
    with serving(tmp_path, "dev") as server, follower(server) as http:
        with events(http) as stream:
            assert next(stream)[0] == "snapshot"
            begun = time.monotonic()
            server.process.terminate()
            for _ in stream:
                assert time.monotonic() - begun < 3
            server.process.wait(5)
            assert time.monotonic() - begun < 5
