"""What every request passes first and last: who may ask, and the headers of every answer."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog

from authwright.domain.event import COMMAND_LINE
from authwright.log import configure_logs
from authwright.web import edge
from harness import Clock, Service, bearer, open_service, production


@pytest.fixture
async def served(clock: Clock, tmp_path: Path) -> AsyncIterator[Service]:
    settings = production(tmp_path, issuer="https://auth.example.com", registration="open")
    async with open_service(clock=clock, settings=settings, peer="192.0.2.7") as opened:
        yield opened


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:8000"])
async def test_dev_answers_its_own_names(service: Service, host: str) -> None:
    assert (await service.http.get("/health", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1",
        "localhost",
        "localhost:9000",
        "localhost.evil.example:8000",
        "",
    ],
)
async def test_cve_2025_66416_dev_refuses_other_hosts(service: Service, host: str) -> None:
    answer = await service.http.get("/health", headers={"host": host})
    assert (answer.status_code, answer.json()["error"]) == (421, "misdirected_request")


FOREIGN = [
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "https://localhost:8000"},
    {"origin": "http://localhost:3000"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"x-forwarded-for": "127.0.0.1"},
    {"x-forwarded-host": "localhost:8000"},
    {"x-forwarded-proto": "https"},
    {"forwarded": "for=127.0.0.1"},
    {"x-real-ip": "127.0.0.1"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_dev_refuses_pages_of_others_and_forwarded_requests(service: Service, headers: dict[str, str]) -> None:
    body = {"username": "eve", "password": "test123", "plan": "admin"}
    answer = await service.http.post("/register", json=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")
    assert (await service.http.post("/login", data=body)).status_code == 401


async def test_dev_takes_its_own_pages(service: Service) -> None:
    for headers in (
        {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"},
        {"origin": "http://localhost:8000"},
        {"sec-fetch-site": "none"},
    ):
        assert (await service.http.get("/health", headers=headers)).status_code == 200


@pytest.mark.parametrize("peer", ["192.0.2.7", "10.0.0.1", "::ffff:192.0.2.7", "fe80::1"])
async def test_dev_answers_this_machine_only(clock: Clock, peer: str) -> None:
    async with open_service(clock=clock, peer=peer) as service:
        assert (await service.http.get("/health")).status_code == 403


async def test_r105_serve_answers_its_hosts_and_probes_by_address(served: Service) -> None:
    assert (await served.http.get("/.well-known/jwks.json")).status_code == 200
    for host in ("evil.example", "auth.example.com.evil.example", "auth.example.com:81", "192.0.2.1:8000"):
        answer = await served.http.get("/.well-known/jwks.json", headers={"host": host})
        assert (answer.status_code, answer.json()["error"]) == (421, "misdirected_request")
        for probe in ("/health", "/livez", "/readyz"):
            assert (await served.http.get(probe, headers={"host": host})).status_code == 200


async def test_mission_holes_stay_closed_in_production(served: Service) -> None:
    good = {"username": "ada", "password": "a long and unusual passphrase"}
    for plan in ("premium", "admin"):
        answer = await served.http.post("/register", json={**good, "plan": plan})
        assert (answer.status_code, answer.json()["error"]) == (403, "plan_not_self_service")
    answer = await served.http.post("/register", json={**good, "password": "test123"})
    assert (answer.status_code, answer.json()["error"]) == (422, "weak_password")
    assert "15" in answer.json()["detail"]
    answer = await served.http.post("/register", json={**good, "password": "qwertyuiopasdfghjkl"})
    assert answer.status_code == 422
    answer = await served.http.post("/register", json={**good, "plan": "free"})
    assert (answer.status_code, answer.json()["plan"]) == (201, "free")


async def test_registration_is_closed_in_production_unless_opened(clock: Clock, tmp_path: Path) -> None:
    async with open_service(clock=clock, settings=production(tmp_path, issuer="https://auth.example.com")) as served:
        body = {"username": "ada", "password": "a long and unusual passphrase"}
        answer = await served.http.post("/register", json=body)
        assert (answer.status_code, answer.json()["error"]) == (403, "registration_closed")
        # The command line is an administrator.
        await served.server.register.create(**body, email=None, plan="premium", origin=COMMAND_LINE, now=clock())  # type: ignore[arg-type]
        assert (await served.login("ada", body["password"]))["token_type"] == "bearer"


async def test_docs_are_off_in_production_unless_switched_on(served: Service, clock: Clock, tmp_path: Path) -> None:
    for path in ("/docs", "/openapi.json", "/docs/swagger-ui.css", "/redoc"):
        assert (await served.http.get(path)).status_code == 404
    other = tmp_path / "other"
    other.mkdir()
    async with open_service(clock=clock, settings=production(other, issuer="https://a.example", docs=True)) as opened:
        assert (await opened.http.get("/docs")).status_code == 200


async def test_r32_r11_r12_every_answer_has_the_headers_of_an_auth_server(served: Service) -> None:
    body = {"username": "ada", "password": "a long and unusual passphrase"}
    answers = [
        await served.http.post("/register", json=body),
        await served.http.post("/login", data=body),
        await served.http.post("/token", data=body),
        await served.http.post("/token", data={}),
        await served.http.get("/me"),
        await served.http.get("/nowhere"),
        await served.http.put("/me"),
        await served.http.get("/health"),
        await served.http.get("/x", headers={"host": "evil.example"}),
    ]
    for answer in answers:
        headers = answer.headers
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["strict-transport-security"].startswith("max-age=")
        assert len(headers["x-request-id"]) == 16
        assert len(headers.get_list("content-type")) == 1
        assert "server" not in headers
        assert "set-cookie" not in headers


async def test_r112_the_key_set_may_be_cached_for_as_long_as_rotation_assumes(served: Service) -> None:
    answer = await served.http.get("/.well-known/jwks.json")
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_r9_no_other_route_has_cors_headers(service: Service) -> None:
    for path in ("/me", "/login", "/docs"):
        answer = await service.http.options(path, headers={"origin": "http://127.0.0.1:8000"})
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_a_request_id_of_the_caller_is_not_taken_over(service: Service) -> None:
    answer = await service.http.get("/health", headers={"x-request-id": "mine"})
    assert answer.headers["x-request-id"] != "mine"


async def test_r178_log_lines_hold_the_request_id_and_start_no_second_line(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(level="info", readable=False)
    # Loggers made earlier keep the configuration they met first; this one is asked anew.
    fresh = structlog.get_logger("authwright.requests")
    real, edge.log = edge.log, fresh
    try:
        answer = await service.http.get("/%0A%1b[31mforged", headers={"user-agent": "x\x1b[2J"})
    finally:
        edge.log = real
        structlog.reset_defaults()
        logging.getLogger().handlers.clear()
    line = next(line for line in capsys.readouterr().err.splitlines() if '"event": "request"' in line)
    assert answer.json()["request_id"] in line
    assert "\x1b" not in line
    assert "forged" in line


async def test_an_error_inside_is_500_with_an_id_and_nothing_else(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    login = await service.registered_login()

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(service.server.store.users, "find", broken)
    answer = await service.http.get("/me", headers=bearer(login["access_token"]))
    assert (answer.status_code, answer.json()["error"]) == (500, "server_error")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert "RuntimeError: secret detail" in capsys.readouterr().out


async def test_secrets_stand_in_no_log_line_even_of_an_error_inside(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await service.register(password="unmistakable-passphrase")
    configure_logs(level="debug", readable=False)
    real, edge.log = edge.log, structlog.get_logger("authwright.requests")

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("away")

    monkeypatch.setattr(service.server.store.sessions, "open", broken)
    try:
        form = {"username": "bholay", "password": "unmistakable-passphrase"}
        assert (await service.http.post("/login", data=form)).status_code == 500
    finally:
        edge.log = real
        structlog.reset_defaults()
        logging.getLogger().handlers.clear()
    logged = capsys.readouterr()
    assert "RuntimeError" in logged.err
    assert "unmistakable" not in logged.err + logged.out


async def test_before_opening_and_after_closing_the_answer_is_503(clock: Clock) -> None:
    async with open_service(clock=clock) as service:
        app = service.app
    transport = httpx2.ASGITransport(app=app, client=("127.0.0.1", 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
        answer = await http.get("/me")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_ready_means_that_the_store_answers_and_alive_does_not(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    from authwright.storage.port import StoreUnavailable

    async def away(*_: object) -> None:
        raise StoreUnavailable("gone")

    assert (await service.get("/readyz")).json() == {"status": "ok"}
    monkeypatch.setattr(service.server.store, "ping", away)
    assert (await service.get("/readyz")).status_code == 503
    for path in ("/health", "/livez"):
        assert (await service.get(path)).json() == {"status": "ok"}


async def test_two_origins_are_refused_and_a_page_without_one_is_our_own_only_if_the_browser_says_so(
    opened_service: Callable[..., Any],
) -> None:
    async with opened_service(cors_origins=("https://app.example",)) as service:
        two = [("origin", "https://app.example"), ("origin", "https://evil.example")]
        assert (await service.http.post("/token", headers=two)).status_code == 403
        own = {"origin": "null", "sec-fetch-site": "same-origin"}
        form = {"token": "x", "new_password": "y"}
        assert (await service.http.post("/reset-password", data=form, headers=own)).status_code != 403
        for foreign in ({"origin": "null"}, {"origin": "null", "sec-fetch-site": "cross-site"}):
            assert (await service.http.post("/reset-password", data=form, headers=foreign)).status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/me/keys", {"name": "later"}),
        ("PATCH", "/me", {"username": "later", "current_password": "test123"}),
        ("POST", "/admin/clients", {"name": "later"}),
        ("POST", "/users/", {"username": "later"}),
        ("DELETE", "/users/bholay", {}),
        ("POST", "/predict", {"rows": []}),
    ],
)
async def test_r55_who_is_logged_out_before_the_body_is_here_is_logged_out(
    service: Service, method: str, path: str, body: dict[str, object]
) -> None:
    await service.register()
    token = await service.new_admin()
    asked = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        asked.set()
        await service.logout(token, params={"everywhere": "true"})
        yield json.dumps(body).encode()

    headers = {**bearer(token), "content-type": "application/json"}
    answer = await service.http.request(method, path, content=slowly(), headers=headers)
    assert asked.is_set()
    assert answer.status_code == 401
