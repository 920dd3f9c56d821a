"""authwright.client against the server itself: it logs in, refreshes once for all, and sends tokens nowhere else."""

import asyncio
import inspect
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from authwright.client import AsyncClient, AuthwrightError, Client, LoggedOut, TokenAuth, Tokens
from harness import ORIGIN, Clock, Service, open_service
from processes import Running, serving

API = "https://api.example.com/models"


class Counted(httpx2.ASGITransport):
    """The server in this process, and which paths were asked."""

    def __init__(self, service: Service) -> None:
        super().__init__(app=service.app, client=("127.0.0.1", 50_000))
        self.paths: list[str] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.paths.append(request.url.path)
        return await super().handle_async_request(request)


@pytest.fixture
async def service(clock: Clock) -> AsyncIterator[Service]:
    async with open_service(clock=clock, audiences=(API,)) as opened:
        await opened.register()
        yield opened


@pytest.fixture
def transport(service: Service) -> Counted:
    return Counted(service)


def client_of(service: Service, transport: Any, **given: Any) -> AsyncClient:
    """A client whose seconds are those of the server's clock."""
    who = given or {"username": "bholay", "password": "test123"}
    return AsyncClient(ORIGIN, transport=transport, clock=lambda: service.clock() / 1e6, **who)


async def test_it_logs_in_when_it_is_first_asked(service: Service, transport: Counted) -> None:
    async with client_of(service, transport) as auth:
        assert transport.paths == []
        me = await auth.me()
        assert (me.username, me.kind, me.role, me.plan, me.is_active) == ("bholay", "user", "user", "free", True)
        assert (await auth.get("/predict")).json()["class"]
        assert (await auth.usage()).total == 2
        assert transport.paths == ["/login", "/me", "/predict", "/me/usage"]


async def test_a_program_logs_in_with_its_key(service: Service, transport: Counted) -> None:
    _, key = await service.new_client()
    async with client_of(service, transport, client_key=key) as auth:
        assert ((await auth.me()).kind, (await auth.me()).username) == ("client", "scoring")
        assert key not in repr(auth.auth) + repr(auth.auth.tokens)


async def test_a_token_is_refreshed_before_it_expires_and_once_for_all(service: Service, transport: Counted) -> None:
    async with client_of(service, transport) as auth:
        await auth.me()
        before = auth.auth.tokens
        service.clock.advance(281)
        answers = await asyncio.gather(*(auth.get("/secure-data") for _ in range(20)))
        assert [answer.status_code for answer in answers] == [200] * 20
        assert transport.paths.count("/refresh-token") == 1
        assert auth.auth.tokens != before


async def test_a_token_that_is_refused_is_replaced_once_for_all(service: Service, transport: Counted) -> None:
    admin = await service.new_admin()
    async with client_of(service, transport) as auth:
        await auth.me()
        changed = await service.http.patch(
            "/users/bholay", json={"plan": "premium"}, headers={"authorization": f"Bearer {admin}"}
        )
        assert changed.status_code == 200
        plans = {(await auth.me()).plan for _ in range(3)}
        assert plans == {"premium"}
        await service.http.patch("/users/bholay", json={"plan": "free"}, headers={"authorization": f"Bearer {admin}"})
        before = transport.paths.count("/refresh-token")
        answers = await asyncio.gather(*(auth.post("/predict", json={"rows": [dict(ROW)]}) for _ in range(10)))
        assert [answer.status_code for answer in answers] == [200] * 10
        assert transport.paths.count("/refresh-token") == before + 1


ROW = {"sepal_length": 6.3, "sepal_width": 3.3, "petal_length": 6.0, "petal_width": 2.5}


async def test_a_session_that_was_ended_is_begun_anew_if_it_can_be(service: Service, transport: Counted) -> None:
    kept: list[Tokens] = []
    async with client_of(service, transport, username="bholay", password="test123", on_tokens=kept.append) as auth:
        await auth.me()
        other = client_of(service, transport, refresh_token=kept[-1].refresh_token)
        await service.logout(kept[-1].access_token, params={"everywhere": "true"})
        assert (await auth.me()).username == "bholay"
        assert len(kept) == 2
        async with other:
            with pytest.raises(LoggedOut) as ended:
                await other.me()
            assert (ended.value.code, ended.value.status) == ("invalid_grant", 400)
            assert ended.value.request_id
            # And the next time, too: nobody is asked to log in without anything to log in with.
            with pytest.raises(LoggedOut):
                await other.me()


async def test_a_kept_refresh_token_goes_on_with_its_session(service: Service, transport: Counted) -> None:
    login = await service.login()
    kept: list[Tokens] = []
    async with client_of(service, transport, refresh_token=login["refresh_token"], on_tokens=kept.append) as auth:
        assert (await auth.me()).username == "bholay"
    assert [each.refresh_token == login["refresh_token"] for each in kept] == [False]
    assert kept[0].refresh_token not in repr(kept)


@pytest.mark.parametrize("everywhere", [False, True])
async def test_logging_out_ends_the_session(service: Service, transport: Counted, everywhere: bool) -> None:
    other = await service.login()
    async with client_of(service, transport) as auth:
        await auth.logout()
        await auth.me()
        tokens = auth.auth.tokens
        assert tokens is not None
        # The access token need not be good any more.
        service.clock.advance(301)
        await auth.logout(everywhere=everywhere)
        assert auth.auth.tokens is None
    assert (await service.refresh(tokens.refresh_token)).status_code == 400
    assert (await service.refresh(other["refresh_token"])).status_code == (400 if everywhere else 200)


async def test_refusals_are_errors_with_what_the_server_said(service: Service, transport: Counted) -> None:
    async with client_of(service, transport, username="bholay", password="wrong") as auth:
        with pytest.raises(AuthwrightError) as refused:
            await auth.me()
        assert (refused.value.status, refused.value.code) == (401, "invalid_credentials")
    async with client_of(service, transport) as auth:
        with pytest.raises(AuthwrightError) as refused:
            await auth.get("/analytics/full")
        assert (refused.value.status, refused.value.code) == (403, "insufficient_scope")
        while await spent(auth) < 60:
            pass
        with pytest.raises(AuthwrightError) as refused:
            await auth.get("/secure-data")
        assert (refused.value.status, refused.value.code, refused.value.retry_after) == (429, "limit_exceeded", 1.0)
    assert "test123" not in repr(vars(refused.value))


async def spent(auth: AsyncClient) -> int:
    """Ask once more; how much of the minute's 60 that leaves spent."""
    answer = await auth.get("/secure-data")
    return 60 - int(answer.headers["ratelimit"].partition("r=")[2].partition(";")[0])


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/me",
        "https://127.0.0.1:8000/me",
        "http://127.0.0.1:8001/me",
        "http://127.0.0.1:8000@evil.example/me",
        "http://127.0.0.1.evil.example:8000/me",
        "http://localhost:8000/me",
    ],
)
async def test_a_token_is_sent_nowhere_else(service: Service, transport: Counted, url: str) -> None:
    async with client_of(service, transport) as auth:
        with pytest.raises(ValueError, match="is not sent to"):
            await auth.get(url)
    assert transport.paths == []


async def test_a_token_for_an_api_is_sent_to_that_api_alone(service: Service) -> None:
    seen: list[tuple[str, str]] = []

    class Both(Counted):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            seen.append((str(request.url), request.headers.get("authorization", "")))
            if request.url.host == "api.example.com":
                return httpx2.Response(200, json={})
            return await super().handle_async_request(request)

    async with client_of(service, Both(service), username="bholay", password="test123", resource=API) as auth:
        for url in ("/predict", API, f"{API}/x?y=1"):
            await auth.get(url)
        for url in (
            "https://api.example.com/",
            "https://api.example.com/models2",
            f"{API}/../admin",
            f"{API}/%2e%2e/admin",
            f"{API}%2f..",
            f"{ORIGIN}/me",
        ):
            with pytest.raises(ValueError, match="is not sent to"):
                await auth.get(url)
        await auth.logout()
    assert [url for url, _ in seen] == [f"{ORIGIN}/login", f"{API}/predict", API, f"{API}/x?y=1", f"{ORIGIN}/logout"]
    assert [bool(token) for _, token in seen] == [False, True, True, True, False]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"client_key": "awk_x", "username": "a", "password": "b"},
        {"username": "a"},
        {"client_key": "x", "refresh_token": "y"},
    ],
)
def test_there_is_one_way_to_log_in(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="or a refresh_token"):
        TokenAuth(ORIGIN, **given)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("client"), "dev", AUTHWRIGHT_ACCESS_TOKEN_SECONDS="60") as server:
        with server.http() as http:
            http.post("/register", json={"username": "bholay", "password": "test123"})
        yield server


def test_threads_share_one_session_and_one_refresh(running: Running) -> None:
    now = [0.0]
    with Client(running.base, username="bholay", password="test123", clock=lambda: now[0]) as auth:
        assert auth.me().username == "bholay"
        before = auth.auth.tokens
        now[0] = 45.0
        with ThreadPoolExecutor(8) as pool:
            names = {each.username for each in pool.map(lambda _: auth.me(), range(40))}
        assert names == {"bholay"}
        refreshed = auth.auth.tokens
        assert before is not None
        assert refreshed is not None
        # One generation on, and not forty.
        assert before.refresh_token != refreshed.refresh_token
        with running.http() as http:
            sessions = http.get("/me/sessions", headers={"authorization": f"Bearer {refreshed.access_token}"}).json()
        assert len(sessions["sessions"]) == 1
        assert auth.usage().left_today is None
        auth.logout()
        with running.http() as http:
            refused = http.get("/me", headers={"authorization": f"Bearer {refreshed.access_token}"})
        assert refused.status_code == 401


def test_it_needs_nothing_of_the_server() -> None:
    code = (
        "import sys; from authwright.client import Client; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"fastapi", "starlette", "sqlalchemy", "pydantic", "argon2", "cryptography"} & set(done.stdout.split())


def test_both_clients_can_do_the_same() -> None:
    def verbs(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(each).parameters)
            for name, each in vars(kind).items()
            if callable(each) and not name.startswith("_")
        }

    assert verbs(Client) == verbs(AsyncClient)


def test_the_example_in_its_docstring_is_one_that_runs(running: Running, tmp_path: Path) -> None:
    import authwright.client

    assert authwright.client.__doc__ is not None
    lines = authwright.client.__doc__.partition("    from")[2].partition("\n\n`AsyncClient`")[0]
    code = "from" + lines.replace("\n    ", "\n")
    code = code.replace(
        '"https://auth.example.com", client_key=KEY', f'"{running.base}", username="bholay", password="test123"'
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "bholay\n", done.stderr


async def test_what_an_api_streams_is_not_read_before_it_is_wanted(service: Service) -> None:
    class Endless(Counted):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            if request.url.path != "/stream":
                return await super().handle_async_request(request)

            async def tokens() -> AsyncIterator[bytes]:
                while True:
                    yield b"token "

            return httpx2.Response(200, content=tokens())

    auth = TokenAuth(ORIGIN, username="bholay", password="test123")
    async with httpx2.AsyncClient(auth=auth, transport=Endless(service)) as http:
        async with http.stream("GET", f"{ORIGIN}/stream") as answer:
            async for some in answer.aiter_bytes():
                assert some.startswith(b"token")
                break


@pytest.mark.parametrize(
    "body", [b"no json", b"[]", b"{}", b'{"access_token": 1, "refresh_token": 2, "expires_in": "x"}']
)
async def test_an_answer_that_is_none_is_an_error_of_ours(service: Service, body: bytes) -> None:
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, content=body))
    async with client_of(service, transport) as auth:
        with pytest.raises(AuthwrightError) as refused:
            await auth.me()
    assert refused.value.code == "no_tokens"


async def test_redirects_are_not_followed_with_a_token(service: Service, transport: Counted) -> None:
    async with client_of(service, transport) as auth:
        with pytest.raises(ValueError, match="redirect"):
            await auth.get("/me", follow_redirects=True)

    def elsewhere(request: httpx2.Request) -> httpx2.Response:
        if str(request.url) == f"{ORIGIN}/login":
            return httpx2.Response(307, headers={"location": "https://evil.example/login"})
        return httpx2.Response(200, json={"access_token": "x", "refresh_token": "y", "expires_in": 9})

    auth_of = TokenAuth(ORIGIN, username="bholay", password="test123")
    async with httpx2.AsyncClient(
        auth=auth_of, transport=httpx2.MockTransport(elsewhere), follow_redirects=True
    ) as http:
        with pytest.raises(AuthwrightError) as refused:
            await http.get(f"{ORIGIN}/me")
    assert refused.value.code == "redirected"
