"""Pages of other origins, and a prefix in front of all paths."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness import Clock, Service, open_service, production

APP = "https://app.example.com"


@pytest.fixture
async def served(clock: Clock, tmp_path: Path) -> AsyncIterator[Service]:
    settings = production(tmp_path, issuer="https://example.com/auth", cors_origins=(APP,), registration="open")
    async with open_service(clock=clock, settings=settings) as opened:
        yield opened


PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}


@pytest.mark.parametrize("path", ["/token", "/revoke"])
async def test_a_listed_origin_may_read_the_answers_of_token_and_revoke(served: Service, path: str) -> None:
    asked = await served.http.options(path, headers={"origin": APP, **PREFLIGHT})
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == APP
    assert asked.headers["access-control-allow-methods"] == "POST"
    assert asked.headers["vary"] == "origin"
    answer = await served.http.post(path, headers={"origin": APP}, data={"grant_type": "refresh_token"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (400, APP)
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://app.example.com.evil.com",
        "https://evil-app.example.com",
        "https://app.example.co",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://APP.example.com/",
        "*",
    ],
)
async def test_3_6_no_other_origin_may(served: Service, origin: str) -> None:
    for answer in (
        await served.http.options("/token", headers={"origin": origin, **PREFLIGHT}),
        await served.http.post("/token", headers={"origin": origin}, data={}),
    ):
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["vary"] == "origin"


@pytest.mark.parametrize(
    "path", ["/login", "/register", "/me", "/users/", "/admin/events", "/reset-password", "/refresh-token", "/metrics"]
)
async def test_r9_nothing_else_is_open_to_pages_of_other_origins(served: Service, path: str) -> None:
    for method in ("OPTIONS", "GET", "POST"):
        answer = await served.http.request(method, path, headers={"origin": APP, **PREFLIGHT})
        assert not [name for name in answer.headers if name.startswith("access-control-")], (method, path)


async def test_the_key_set_is_open_to_everybody(served: Service) -> None:
    answer = await served.http.get("/.well-known/jwks.json", headers={"origin": "https://anybody.example"})
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_dev_admits_a_listed_origin_for_token_alone(clock: Clock) -> None:
    async with open_service(clock=clock, cors_origins=("http://localhost:5173",)) as service:
        origin = {"origin": "http://localhost:5173", "sec-fetch-site": "cross-site"}
        await service.register()
        form = {"username": "bholay", "password": "test123"}
        assert (await service.http.post("/token", data=form, headers=origin)).status_code == 200
        for path in ("/login", "/register"):
            assert (await service.http.post(path, data=form, headers=origin)).status_code == 403


async def test_paths_are_answered_with_the_issuers_prefix_and_without(served: Service) -> None:
    password = "a long and unusual passphrase"
    # httpx puts the prefix of the base URL in front of each path.
    assert str(served.http.base_url) == "https://example.com/auth/"
    await served.http.post("/register", json={"username": "ada", "password": password})
    for path in ("https://example.com/login", "https://example.com/auth/login", "https://example.com/auth/login/"):
        answer = await served.http.post(path, data={"username": "ada", "password": password})
        assert answer.status_code == 200
    bearer = {"authorization": f"Bearer {answer.json()['access_token']}"}
    assert (await served.http.get("https://example.com/auth/users/ada", headers=bearer)).status_code == 200
    for path in ("/authlogin", "/auth/auth/login", "//auth/login"):
        answer = await served.http.post(f"https://example.com{path}", data={"username": "ada", "password": password})
        assert answer.status_code == 404
    assert served.server.settings.base_path == "/auth"
