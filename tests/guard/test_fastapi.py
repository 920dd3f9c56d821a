"""A FastAPI app protected by the guard: as a dependency, with requirements, as middleware, in its document."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI, Security, WebSocket
from fastapi.responses import StreamingResponse

from authwright.domain.event import COMMAND_LINE
from authwright.domain.secrets import CLIENT_KEY_PREFIX, ClientId, new_key
from authwright.guard import asgi
from authwright.guard.asgi import GuardMiddleware, Rule
from authwright.guard.fastapi import Guard, Principal
from guarded import API, Issuer, issuing, listening, until
from harness import bearer


@pytest.fixture
async def issuer(tmp_path: Path):  # type: ignore[no-untyped-def]
    async with issuing(tmp_path) as made:
        yield made


def protected(guard: Guard) -> FastAPI:
    app = FastAPI()
    Caller = Annotated[Principal, Security(guard, scopes=["predict"])]

    @app.get("/predict")
    async def predict(caller: Caller) -> dict[str, Any]:
        return {"caller": caller.username}

    @app.get("/sync")
    def sync(caller: Caller) -> dict[str, Any]:
        return {"caller": caller.username}

    @app.get("/any")
    async def anybody(caller: Annotated[Principal, Depends(guard)]) -> str | None:
        return caller.plan

    @app.get("/premium")
    async def premium(caller: Annotated[Principal, Depends(guard.requires(plan="premium,admin"))]) -> str:
        return caller.subject

    @app.get("/admin")
    async def admin(caller: Annotated[Principal, Depends(guard.requires(role="admin"))]) -> str:
        return caller.subject

    @app.get("/analytics", dependencies=[Depends(guard.requires(scope="predict analytics", on_stale="refuse"))])
    async def analytics() -> str:
        return "report"

    return app


@pytest.fixture
async def guard(issuer: Issuer) -> AsyncIterator[Guard]:
    async with Guard(**issuer.options()) as made:
        yield made


def client(app: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=API)


async def test_r69_routes_are_closed_and_say_how_to_open_them(issuer: Issuer, guard: Guard) -> None:
    async with client(protected(guard)) as http:
        token = await issuer.token()
        for path in ("/predict", "/sync", "/any", "/premium", "/admin", "/analytics"):
            refused = await http.get(path)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, f'Bearer realm="{API}"')
            wrong = await http.get(path, headers=bearer(token[:-3]))
            assert wrong.status_code == 401
            assert 'error="invalid_token"' in wrong.headers["www-authenticate"]
            assert token not in wrong.text
        for path in ("/predict", "/sync"):
            assert (await http.get(path, headers=bearer(token))).json() == {"caller": "bholay"}
        # R70: the scheme is matched without case; a token in the query is not looked at.
        assert (await http.get("/any", headers={"authorization": f"bEaReR {token}"})).json() == "free"
        assert (await http.get("/any", params={"access_token": token})).status_code == 401
        assert (await http.get("/any", headers={"authorization": f"Basic {token}"})).status_code == 401
        two = [("authorization", f"Bearer {token}"), ("authorization", f"Bearer {token}")]
        assert (await http.get("/any", headers=two)).status_code == 400
        # The sets of plans, roles and scopes.
        for path, what in (("/premium", "plan"), ("/admin", "role"), ("/analytics", "scope")):
            refused = await http.get(path, headers=bearer(token))
            assert refused.status_code == 403
            if what != "scope":
                assert what in refused.json()["detail"]
        narrow = await issuer.token(scope="account")
        refused = await http.get("/predict", headers=bearer(narrow))
        assert (refused.status_code, 'scope="predict"' in refused.headers["www-authenticate"]) == (403, True)
        await _give_plan(issuer, "premium")
        better = await issuer.token()
        for path in ("/premium", "/analytics"):
            assert (await http.get(path, headers=bearer(better))).status_code == 200


async def _give_plan(issuer: Issuer, plan: str) -> None:
    made = await issuer.service.server.register.create(
        username="root-ada",
        email=None,
        password="a long and unusual passphrase",
        plan=None,
        role="admin",
        origin=COMMAND_LINE,
        now=issuer.service.clock(),
    )
    assert made
    admin = await issuer.token("root-ada", resource=issuer.base)
    answer = await issuer.service.http.patch("/users/bholay", headers=bearer(admin), json={"plan": plan})
    assert answer.status_code == 200


async def test_keys_are_credentials_when_told_so(issuer: Issuer) -> None:
    service = issuer.service
    client_id, key = await service.new_client("scoring")
    async with Guard(**issuer.options()) as strict, client(protected(strict)) as http:
        assert (await http.get("/predict", headers=bearer(key))).status_code == 401
        assert (await http.get("/predict", headers={"x-api-key": key})).status_code == 401
    async with Guard(**issuer.options(accept_keys=True)) as guard, client(protected(guard)) as http:
        for headers in (bearer(key), {"x-api-key": key}):
            assert (await http.get("/predict", headers=headers)).json() == {"caller": "scoring"}
        # Asked about once, then known.
        for _ in range(20):
            await http.get("/predict", headers=bearer(key))
        assert guard.status.introspections == 1
        assert (await http.get("/predict", headers={**bearer(key), "x-api-key": key})).status_code == 400
        unknown = new_key(CLIENT_KEY_PREFIX)
        for _ in range(5):
            assert (await http.get("/predict", headers=bearer(unknown))).status_code == 401
        assert guard.status.introspections == 2
        assert (
            await http.get("/predict", headers=bearer(key[:-1] + ("1" if key.endswith("0") else "0")))
        ).status_code == 401
        assert guard.status.introspections == 2
        # The feed ends a key that was replaced; the new one is good at once.
        made = await service.server.clients.rotate_key(ClientId(client_id), origin=COMMAND_LINE, now=service.clock())

        async def is_refused() -> bool:
            return (await http.get("/predict", headers=bearer(key))).status_code == 401

        await until(is_refused, seconds=1)
        assert (await http.get("/predict", headers=bearer(made.client_key))).status_code == 200
        # A key that is not for this API.
        _, other = await service.new_client("elsewhere", audiences=(issuer.base,))
        assert (await http.get("/predict", headers=bearer(other))).status_code == 401


def test_the_document_of_the_app_has_a_working_authorize(tmp_path: Path) -> None:
    guard = Guard(issuer="https://auth.example.com/base", audience=API)
    document = protected(guard).openapi()
    flow = document["components"]["securitySchemes"]["Authwright"]["flows"]["password"]
    assert flow["tokenUrl"] == "https://auth.example.com/base/token?resource=https%3A%2F%2Fapi.example.com"
    assert document["paths"]["/predict"]["get"]["security"] == [{"Authwright": ["predict"]}]
    assert document["paths"]["/premium"]["get"]["security"] == [{"Authwright": []}]
    pasted = protected(Guard(issuer="https://auth.example.com", audience=API, password_form=False)).openapi()
    assert pasted["components"]["securitySchemes"]["Authwright"]["scheme"] == "bearer"


async def test_the_token_endpoint_takes_the_resource_from_its_url(issuer: Issuer, guard: Guard) -> None:
    form = {"username": "bholay", "password": "a long and unusual passphrase"}
    http = issuer.service.http
    answer = await http.post("/token", params={"resource": API}, data=form)
    assert (await guard.verify(answer.json()["access_token"])).username == "bholay"
    assert (await http.post("/token", params={"resource": API}, data={**form, "resource": API})).status_code == 200
    other = {**form, "resource": issuer.base}
    assert (await http.post("/token", params={"resource": API}, data=other)).json()["error"] == "invalid_request"
    unknown = await http.post("/token", params={"resource": "https://x.example"}, data=form)
    assert unknown.json()["error"] == "invalid_target"


def behind_middleware(guard: Guard) -> FastAPI:
    app = FastAPI()
    app.state.released = asyncio.Event()
    app.state.ended = []

    @app.get("/health")
    @app.get("/health/deep")
    async def health() -> str:
        return "ok"

    @app.get("/admin")
    @app.get("/admin/users")
    @app.get("/administration")
    async def admin() -> str:
        return "admin"

    @app.get("/twice")
    async def twice(caller: Annotated[Principal, Security(guard, scopes=["predict"])]) -> str | None:
        return caller.username

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"token "
                    await asyncio.sleep(0.05)
            finally:
                app.state.ended.append("stream")

        return StreamingResponse(chunks())

    @app.get("/slow")
    async def slow() -> str:
        await asyncio.sleep(30)
        return "done"

    @app.websocket("/socket")
    async def socket(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(str(asgi.caller(socket.scope).username))  # type: ignore[union-attr]
        try:
            while True:
                await socket.send_text(await socket.receive_text())
        finally:
            app.state.ended.append("socket")

    rules = [Rule("/admin", roles={"admin"}), Rule("/slow", scopes={"predict"})]
    app.add_middleware(GuardMiddleware, guard=guard, rules=rules, open_paths=["/health"])
    return app


async def test_the_middleware_closes_every_path_but_those_named(issuer: Issuer, guard: Guard) -> None:
    app = behind_middleware(guard)
    token = await issuer.token()
    async with listening(app) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        assert (await http.get("/health")).text == '"ok"'
        for path in ("/health/deep", "/health/", "/%68ealth", "/nowhere", "/docs", "/openapi.json", "/HEALTH"):
            refused = await http.get(path)
            assert (refused.status_code, refused.headers["content-type"]) == (401, "application/problem+json")
            assert refused.json()["error"] == "invalid_token"
        assert (await http.get("/nowhere", headers=bearer(token))).status_code == 404
        assert (await http.get("/twice", headers=bearer(token))).json() == "bholay"
        for path in ("/admin", "/admin/users", "/admin/"):
            assert (await http.get(path, headers=bearer(token))).status_code == 403
        assert (await http.get("/administration", headers=bearer(token))).status_code == 200


async def test_cve_2026_33494_ambiguous_paths_are_refused(issuer: Issuer, guard: Guard) -> None:
    token = await issuer.token()
    async with listening(behind_middleware(guard)) as port:
        for path in (
            "/administration/../admin",
            "/%2e%2e/admin",
            "/x/%2e%2e/admin",
            "//admin",
            "/.//admin",
            "/x/..%2fadmin",
            "/x\\..\\admin",
            "/x%5cadmin",
            "/admin%00",
        ):
            answer = await raw(port, path, token)
            assert answer.startswith(b"HTTP/1.1 400"), (path, answer[:40])
        assert (await raw(port, "/%61dmin", token)).startswith(b"HTTP/1.1 403")


async def raw(port: int, path: str, token: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    answer = await reader.read()
    writer.close()
    return answer


async def test_streams_end_when_their_caller_is_revoked(issuer: Issuer, guard: Guard) -> None:
    app = behind_middleware(guard)
    login, other = await issuer.login(), await issuer.token()
    headers = bearer(login["access_token"])
    async with listening(app) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
        async with http.stream("GET", "/stream", headers=bearer(other)) as kept:
            goes_on = kept.aiter_raw()
            await anext(goes_on)
            slow = asyncio.create_task(http.get("/slow", headers=headers))
            async with http.stream("GET", "/stream", headers=headers) as answer:
                assert answer.status_code == 200
                chunks = answer.aiter_raw()
                await anext(chunks)
                await until(lambda: len(guard._watch.watched) == 3)
                await issuer.service.http.post("/logout", json={"refresh_token": login["refresh_token"]})
                # Cut off, and not ended as if that were all of it.
                with pytest.raises(httpx2.RemoteProtocolError):
                    await asyncio.wait_for(read_on(chunks), 1.5)
            assert app.state.ended == ["stream"]
            # What had not begun to answer is refused.
            refused = await slow
            assert (refused.status_code, refused.json()["detail"]) == (401, "The token was revoked.")
            await anext(goes_on)
    assert not guard._watch.watched


async def read_on(chunks: AsyncIterator[bytes]) -> None:
    async for _ in chunks:
        pass


class Peer:
    """A WebSocket of an app that is called without a server in between."""

    def __init__(self, app: Any, token: str | None) -> None:
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self.received: asyncio.Queue[Any] = asyncio.Queue()
        self.received.put_nowait({"type": "websocket.connect"})
        headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
        scope = {
            "type": "websocket",
            "path": "/socket",
            "raw_path": b"/socket",
            "headers": headers,
            "query_string": b"",
            "subprotocols": [],
        }
        self.task = asyncio.create_task(app(scope, self.received.get, self.sent.put))

    async def next(self) -> Any:
        async with asyncio.timeout(2):
            return await self.sent.get()


async def test_websockets_are_guarded_and_closed(issuer: Issuer, guard: Guard) -> None:
    app = behind_middleware(guard)
    closed = Peer(app, None)
    assert await closed.next() == {"type": "websocket.close", "code": 1008}
    await closed.task
    login = await issuer.login()
    peer = Peer(app, login["access_token"])
    assert (await peer.next())["type"] == "websocket.accept"
    assert (await peer.next())["text"] == "bholay"
    peer.received.put_nowait({"type": "websocket.receive", "text": "hello"})
    assert (await peer.next())["text"] == "hello"
    await issuer.service.http.post("/logout", json={"refresh_token": login["refresh_token"]})
    assert (await peer.next())["code"] == 1008
    await peer.task
    assert app.state.ended == ["socket"]


async def test_unknown_kinds_of_connections_are_refused(guard: Guard) -> None:
    async def never(*_: Any) -> None:
        raise AssertionError("reached")

    with pytest.raises(RuntimeError, match="unknown kind"):
        await GuardMiddleware(never, guard=guard)({"type": "quic"}, never, never)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"rules": [Rule("admin")]},
        {"rules": [Rule("/a/../b")]},
        {"rules": [Rule("/a", scopes="predict")]},
        {"rules": [Rule("/a", on_stale="pass")]},  # type: ignore[arg-type]
        {"open_paths": "/health"},
    ],
)
def test_rules_that_would_not_mean_what_they_say_are_refused(wrong: Any) -> None:
    guard = Guard(issuer="https://auth.example.com", audience=API)
    with pytest.raises(ValueError):
        GuardMiddleware(FastAPI(), guard=guard, **wrong)
