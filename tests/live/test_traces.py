"""Traces as a collector gets them, by OTLP over HTTP: what they tell, and what they must not."""

import json
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from databases import drop_postgres_database, new_mongo_database, new_postgres_database, own_postgres
from issued import ISSUED
from processes import free_port, production_environment, run, serving
from receivers import collecting

PASSWORD = "a long and unusual passphrase"
FORM = {"username": "ada", "password": PASSWORD}


@pytest.fixture
async def database_url(postgres_server: str) -> Any:
    url = await new_postgres_database(postgres_server)
    yield url
    await drop_postgres_database(postgres_server, url)


async def test_a_request_is_a_trace_with_what_the_database_and_redis_did(
    tmp_path: Path, database_url: str, redis_server: str
) -> None:
    port = free_port()
    with collecting() as collector:
        env = production_environment(
            port, DATABASE_URL=database_url, REDIS_URL=redis_server, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url
        )
        (tmp_path / "plans.toml").write_text('[free]\npermissions = []\nrate = "600/minute"\n')
        env["AUTHWRIGHT_PLANS"] = str(tmp_path / "plans.toml")
        assert run(tmp_path, "migrate", **env).returncode == 0
        with serving(tmp_path, "serve", port=port, **env) as server, server.http() as http:
            http.post("/register", json=FORM)
            login = http.post("/login", data=FORM).json()
            ours = "4bf92f3577b34da6a3ce929d0e0e4736"
            headers = {"authorization": f"Bearer {login['access_token']}"}
            told = http.get("/me", headers={**headers, "traceparent": f"00-{ours}-00f067aa0ba902b7-01"})
            assert told.status_code == 200
            refreshed = http.post("/refresh-token", json={"refresh_token": login["refresh_token"]})
            assert refreshed.status_code == 200
            refused = http.get("/users/usr_nobody?password=of-nobody", headers=headers)
            http.get("/health")
            assert server.stop() in (0, -15)
        log = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    assert collector.service["service.name"] == "authwright"
    # A request that somebody else began to trace goes on in that trace.
    (request,) = [span for span in collector.named("GET /me") if span.trace_id == ours]
    assert (request.kind, request.parent_id, request.failed) == (2, "00f067aa0ba902b7", False)
    assert request.attributes["http.response.status_code"] == 200
    spent = [span for span in collector.spans if span.parent_id == request.span_id]
    assert {(span.name, span.attributes["db.system.name"]) for span in spent} >= {
        ("allowances.replace", "redis"),
        ("users.find", "postgresql"),
    }
    (rotated,) = collector.named("sessions.rotate")
    assert rotated.parent_id == collector.named("POST /refresh-token")[0].span_id
    assert rotated.attributes["db.operation.name"] == "rotate"
    # What goes on by itself, and what others ask all the time, makes no traces.
    begun = {span.trace_id for span in collector.spans if span.kind == 2}
    assert {span.trace_id for span in collector.spans} == begun
    assert not collector.named("GET /health")
    # The trace's id stands in the log and in an error.
    (line,) = [line for line in log if line["event"] == "request" and line["path"] == "/me"]
    assert line["trace_id"] == ours
    assert refused.json()["trace_id"] in {span.trace_id for span in collector.named("GET /users/{username}")}


def test_what_mongodb_did_stands_in_the_trace(tmp_path: Path, mongo_server: str) -> None:
    port = free_port()
    with collecting() as collector:
        url = new_mongo_database(mongo_server)
        env = production_environment(port, DATABASE_URL=url, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        assert run(tmp_path, "migrate", **env).returncode == 0
        with serving(tmp_path, "serve", port=port, **env) as server, server.http() as http:
            assert http.post("/register", json=FORM).status_code == 201
            login = http.post("/login", data=FORM).json()
            assert http.post("/refresh-token", json={"refresh_token": login["refresh_token"]}).status_code == 200
            assert server.stop() in (0, -15)
    (request,) = collector.named("POST /refresh-token")
    (rotated,) = collector.named("sessions.rotate")
    assert (rotated.trace_id, rotated.parent_id, rotated.failed) == (request.trace_id, request.span_id, False)
    assert rotated.attributes["db.system.name"] == "mongodb"


def test_r35_r178_what_a_store_failed_at_stands_in_the_trace_without_what_it_said(tmp_path: Path) -> None:
    port = free_port()
    with collecting() as collector, own_postgres() as database:
        env = production_environment(port, DATABASE_URL=database.url, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        assert run(tmp_path, "migrate", **env).returncode == 0
        with serving(tmp_path, "serve", port=port, **env) as server, server.http() as http:
            http.post("/register", json=FORM)
            login = http.post("/login", data=FORM).json()
            database.kill()
            answer = http.post("/refresh-token", json={"refresh_token": login["refresh_token"]})
            assert answer.status_code == 503
            assert server.stop() in (0, -15)
    (request,) = collector.named("POST /refresh-token")
    assert (request.failed, request.attributes["http.response.status_code"]) == (True, 503)
    (failed,) = [span for span in collector.spans if span.parent_id == request.span_id and span.failed]
    assert failed.attributes["error.type"] == "StoreUnavailable"
    assert set(failed.attributes) == {"db.system.name", "db.collection.name", "db.operation.name", "error.type"}
    # Neither its address nor what the driver says of it.
    assert b"asyncpg" not in collector.received
    assert str(urlsplit(database.url).port).encode() not in collector.received


def test_r35_r178_spans_hold_nothing_of_what_was_sent_or_answered(tmp_path: Path) -> None:
    port = free_port()
    with collecting() as collector:
        env = production_environment(port, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        made = run(tmp_path, "users", "create", "--username", "boss-ada", "--admin", stdin=PASSWORD + "\n", **env)
        assert made.returncode == 0
        with serving(tmp_path, "serve", port=port, **env) as server, server.http() as http:
            http.post("/register", json=FORM)
            http.post("/login", data={**FORM, "password": "a wrong passphrase of mine"})
            login = http.post("/login", json={"username": "boss-ada", "password": PASSWORD}).json()
            headers = {"authorization": f"Bearer {login['access_token']}"}
            key = http.post("/me/keys", json={"name": "notebook"}, headers=headers).json()["key"]
            http.get("/me", headers={"authorization": f"Bearer {key}"})
            created = http.post("/users", json={"username": "grace"}, headers=headers).json()
            link = created["reset_link"]["url"] if isinstance(created["reset_link"], dict) else created["reset_link"]
            assert http.get(link).status_code == 200
            http.post("/token", data={**FORM, "grant_type": "password"})
            http.post("/refresh-token", json={"refresh_token": login["refresh_token"]})
            http.post("/introspect", data={"token": key}, headers=headers)
            http.get("/admin/usage?user=ada", headers=headers)
            assert server.stop() in (0, -15)
    text = collector.received
    assert collector.named("GET /reset-password")[0].attributes["url.query"] == "REDACTED"
    token = link.partition("token=")[2]
    for secret in (PASSWORD, "a wrong passphrase of mine", token, key, login["access_token"], login["refresh_token"]):
        assert secret.encode() not in text
    ISSUED.search(text, "spans")
    known = {
        "client.address",
        "db.collection.name",
        "db.operation.name",
        "db.system.name",
        "error.type",
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "network.protocol.version",
        "server.address",
        "server.port",
        "url.path",
        "url.query",
        "url.scheme",
    }
    assert {name for span in collector.spans for name in span.attributes} <= known
    for name in ("url.query", "url.path"):
        assert {span.attributes.get(name, "REDACTED") for span in collector.spans} == {"REDACTED"}


@pytest.mark.parametrize("collector", ["away", "hangs"])
def test_a_collector_that_does_not_answer_holds_nobody_up(tmp_path: Path, collector: str) -> None:
    """Neither a request nor the end of the server, although a guard reads its stream."""
    port = free_port()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if collector == "hangs":
            listening.listen()
        endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}"
        env = production_environment(port, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
        made = run(tmp_path, "clients", "create", "guard", "--scope", "revocations", "--json", **env)
        headers = {"authorization": f"Bearer {json.loads(made.stdout)['client_key']}", "accept": "text/event-stream"}
        with serving(tmp_path, "serve", port=port, **env) as server, server.http() as http:
            assert http.post("/register", json=FORM).status_code == 201
            assert http.post("/login", data=FORM).status_code == 200
            with httpx2.stream("GET", f"{server.base}/revocations", headers=headers) as feed:
                lines = feed.iter_lines()
                assert next(lines)
                begun = time.monotonic()
                server.process.terminate()
                for _ in lines:
                    pass
                assert server.stop() in (0, -15)
                assert time.monotonic() - begun < 8
        log = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    # What it took until it began, and not how long somebody read.
    (line,) = [line for line in log if line["event"] == "request" and line["path"] == "/revocations"]
    assert line["ms"] < 1000
