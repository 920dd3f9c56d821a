"""The middleware around apps that do not make it easy: prefixes, deaf apps, streams while nothing is heard."""

import asyncio
import contextlib
import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI, Request, Security, WebSocket
from fastapi.responses import StreamingResponse
from starlette.middleware.cors import CORSMiddleware
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from authwright.domain.errors import Unauthenticated, Unavailable
from authwright.domain.instant import Instant
from authwright.domain.secrets import API_KEY_PREFIX, new_key
from authwright.guard import questions
from authwright.guard.asgi import GuardMiddleware, Rule, StreamEnded
from authwright.guard.fastapi import Guard, Principal
from authwright.guard.guard import system_clock
from authwright.jose.encoding import b64url_decode
from guarded import listening, until
from harness import bearer
from scripted import API, Answer, Scripted, Stream, begun, heard, scripted, session


@pytest.fixture
async def issuer() -> AsyncIterator[Scripted]:
    async with scripted() as made:
        yield made


def protecting(issuer: Scripted, **options: Any) -> Guard:
    return Guard(issuer=issuer.base, audience=API, **options)


def client(app: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://api.example.com")


class Call:
    """A request to an ASGI app without a server in between."""

    def __init__(self, app: Any, token: str, path: str = "/", *, receive: Any = None, **scope: Any) -> None:
        self.sent: list[Any] = []
        whole = {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"authorization", f"Bearer {token}".encode())],
            **scope,
        }
        self.task = asyncio.create_task(app(whole, receive or self._receive, self._send))

    async def _receive(self) -> Any:
        await asyncio.Event().wait()

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])


async def answer(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"reached"})


async def test_cve_2026_33494_a_prefix_that_the_app_takes_off_opens_no_rule(issuer: Scripted) -> None:
    app, inside = FastAPI(), FastAPI()
    app.root_path = inside.root_path = "/api"

    @app.get("/admin")
    async def admin() -> str:
        return "reached"

    async with protecting(issuer) as guard:
        await begun(issuer, guard)
        headers = bearer(issuer.token(roles=["user"]))
        rules = [Rule("/admin", roles={"admin"})]
        inside.router = app.router
        inside.add_middleware(GuardMiddleware, guard=guard, rules=rules)
        behind = CORSMiddleware(CORSMiddleware(app, allow_origins=["https://a.example"]))
        nested = GuardMiddleware(app, guard=guard)
        around = [GuardMiddleware(each, guard=guard, rules=rules) for each in (app, behind, nested)]
        for protected in (*around, inside):
            async with client(protected) as http:
                for path in ("/admin", "/api/admin"):
                    assert (await http.get(path, headers=headers)).status_code == 403, path


@pytest.mark.parametrize("path", ["*", "", "admin", "/x/..;/admin", "/.;/admin", "http://x/admin"])
async def test_what_is_no_plain_path_is_refused_where_there_are_rules(issuer: Scripted, path: str) -> None:
    async with protecting(issuer) as guard:
        await begun(issuer, guard)
        app = GuardMiddleware(answer, guard=guard, rules=[Rule("/", scopes={"nobody has this"})])
        call = Call(app, issuer.token(), path)
        await call.task
        assert call.status == 400


async def test_an_app_that_takes_no_notice_says_nothing_more(issuer: Scripted) -> None:
    async def deaf(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(200):
            try:
                await send({"type": "http.response.body", "body": b"%d " % number, "more_body": True})
                await asyncio.sleep(0.02)
            except (asyncio.CancelledError, StreamEnded):
                continue
        await send({"type": "http.response.body", "body": b""})

    async with protecting(issuer) as guard:
        stream = await begun(issuer, guard)
        call = Call(GuardMiddleware(deaf, guard=guard), issuer.token())
        await until(lambda: len(call.sent) > 2)
        stream.entries(6, session(6))
        stream.heartbeat(6)
        with pytest.raises(StreamEnded):
            await asyncio.wait_for(call.task, 6)
        assert len(call.sent) < 30
        assert call.sent[-1]["more_body"]


async def test_an_app_that_only_listens_hears_nothing_more(issuer: Scripted) -> None:
    heard_by_app = 0

    async def deaf(_scope: Any, receive: Any, _send: Any) -> None:
        nonlocal heard_by_app
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await receive()
                heard_by_app += 1

    async with protecting(issuer) as guard:
        stream = await begun(issuer, guard)
        messages: asyncio.Queue[Any] = asyncio.Queue()
        call = Call(GuardMiddleware(deaf, guard=guard), issuer.token(), receive=messages.get)
        messages.put_nowait({"type": "http.request"})
        await until(lambda: heard_by_app == 1)
        stream.entries(6, session(6))
        stream.heartbeat(6)
        await until(lambda: next(iter(guard._watch.watched)).revoked)
        for _ in range(3):
            messages.put_nowait({"type": "http.request"})
        await asyncio.wait_for(call.task, 3)
        assert (heard_by_app, call.status) == (1, 401)


async def test_clean_up_is_not_cut_off_by_the_next_revocation(issuer: Scripted) -> None:
    go, cleaned = asyncio.Event(), asyncio.Event()

    async def careful(_scope: Any, _receive: Any, _send: Any) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await go.wait()
            cleaned.set()

    async with protecting(issuer) as guard:
        stream = await begun(issuer, guard)
        call = Call(GuardMiddleware(careful, guard=guard), issuer.token())
        await until(lambda: guard._watch.watched)
        for number in range(6, 10):
            stream.entries(number, session(number, "s" if number == 6 else f"other {number}"))
            stream.heartbeat(number)
            await until(lambda number=number: guard.status.revocations == number - 5)
            await until(lambda: guard._watch._looked_for == guard._revocations.version)
        go.set()
        await asyncio.wait_for(call.task, 3)
        assert cleaned.is_set()
        assert call.status == 401
        assert not guard._watch.watched


async def test_a_server_that_gives_up_a_request_is_not_taken_for_a_revocation(issuer: Scripted) -> None:
    async def long(*_: Any) -> None:
        await asyncio.sleep(30)

    async with protecting(issuer) as guard:
        await begun(issuer, guard)
        call = Call(GuardMiddleware(long, guard=guard), issuer.token())
        await until(lambda: guard._watch.watched)
        call.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call.task
        assert (call.sent, guard._watch.watched) == ([], set())


async def streaming(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(("policy", "goes_on"), [("refuse", False), ("allow", True), ("introspect", False)])
async def test_streams_are_looked_at_again_while_nothing_is_heard(issuer: Scripted, policy: Any, goes_on: bool) -> None:
    async def on_introspect(_: str) -> Answer:
        return 200, {"active": False}

    issuer.on_introspect = on_introspect
    async with protecting(issuer, max_staleness=0.5) as guard:
        await begun(issuer, guard)
        # The rule's own word counts, not the guard's.
        app = GuardMiddleware(streaming, guard=guard, rules=[Rule("/", on_stale=policy)])
        call = Call(app, issuer.token())
        await until(lambda: call.sent)
        assert call.status == 200
        done, _ = await asyncio.wait((call.task,), timeout=2.5)
        assert bool(done) is not goes_on
        call.task.cancel()
        with pytest.raises((StreamEnded, asyncio.CancelledError)):
            await call.task


async def test_a_busy_guard_ends_no_stream_that_the_issuer_calls_good_and_every_one_that_it_does_not(
    issuer: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever finds no place at once is told that there is much to ask.
    monkeypatch.setattr(questions, "WAIT_SECONDS", 0)
    monkeypatch.setattr("authwright.guard.watch.MOST_QUESTIONS", 8)
    asked: set[str] = set()
    answer_them = asyncio.Event()

    async def on_introspect(token: str) -> Answer:
        asked.add(token)
        await answer_them.wait()
        jti = json.loads(b64url_decode(token.split(".")[1]))["jti"]
        return issuer.introspection(jti=jti, active=jti not in ("3", "17"))

    issuer.on_introspect = on_introspect
    async with protecting(issuer, max_staleness=60) as guard:
        stream = await begun(issuer, guard)
        tokens = [issuer.token(jti=str(number)) for number in range(40)]
        calls = [Call(GuardMiddleware(streaming, guard=guard), token) for token in tokens]
        await until(lambda: len(guard._watch.watched) == len(calls))
        stream.close()
        await until(lambda: not guard.status.following)
        # A minute later.
        guard._calm_until = float("-inf")
        await until(lambda: len(asked) >= 4)
        answer_them.set()
        await until(lambda: len(asked) == len(calls) and len(guard._watch.watched) == len(calls) - 2)
        assert [number for number, call in enumerate(calls) if call.task.done()] == [3, 17]
        # Others ask so much that there is no place for the looks: that ends nothing either.
        life = guard._life
        assert life
        for _ in range(questions.MOST_QUESTIONS):
            await life.questions._places.acquire()
        looks, look_at = [], guard._watch._look_at

        async def noted(watched: Any, places: Any) -> None:
            await look_at(watched, places)
            looks.append(watched)

        monkeypatch.setattr(guard._watch, "_look_at", noted)
        await until(lambda: len(looks) > len(calls), 10)
        assert len(guard._watch.watched) == len(calls) - 2
        for call in calls:
            call.task.cancel()
        await asyncio.gather(*(call.task for call in calls), return_exceptions=True)


@pytest.mark.parametrize(("status", "goes_on"), [(503, False), (200, True), ("busy", False), ("allow", False)])
async def test_a_stream_outlives_its_token_only_while_somebody_vouches_for_it(
    issuer: Scripted, status: Any, goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(*_: Any) -> None:
        raise questions.TooManyQuestions

    async def on_introspect(_: str) -> Answer:
        return status, issuer.introspection()[1]

    issuer.on_introspect = on_introspect
    now = [system_clock()]
    policy = "allow" if status == "allow" else "introspect"
    async with protecting(issuer, max_staleness=60, leeway=0, on_stale=policy, clock=lambda: now[0]) as guard:
        stream = await begun(issuer, guard)
        issued = now[0] // 1_000_000
        call = Call(GuardMiddleware(streaming, guard=guard), issuer.token(iat=issued, exp=issued + 300))
        await until(lambda: call.sent)
        assert call.status == 200
        now[0] = Instant(now[0] + 301 * 1_000_000)
        await heard(guard, lambda: stream.heartbeat(5))
        await guard._watch.look()
        assert not call.task.done()
        assert guard._life
        if status == "busy":
            monkeypatch.setattr(guard._life.questions, "ask", busy)
        stream.close()
        await until(lambda: not guard.status.following)
        # A minute later.
        guard._calm_until = float("-inf")
        await guard._watch.look()
        if goes_on:
            assert [watched.revoked for watched in guard._watch.watched] == [False]
        else:
            await until(call.task.done)
        call.task.cancel()
        await asyncio.gather(call.task, return_exceptions=True)


async def test_a_stream_of_a_key_goes_on_unvouched_for_as_long_as_that_of_a_token(issuer: Scripted) -> None:
    now = [system_clock()]
    issued = now[0] // 1_000_000

    async def on_introspect(_: str) -> Answer:
        # A key is good for years, and its stream is not, if nobody can be asked.
        return issuer.introspection(iat=issued, exp=issued + 10**8)

    issuer.on_introspect = on_introspect
    options = {"max_staleness": 60, "leeway": 0, "max_lifetime": 300, "accept_keys": True, "clock": lambda: now[0]}
    async with protecting(issuer, **options) as guard:
        stream = await begun(issuer, guard)
        call = Call(GuardMiddleware(streaming, guard=guard), new_key(API_KEY_PREFIX))
        await until(lambda: call.sent)
        assert call.status == 200
        issuer.on_introspect = issuer._nothing
        stream.close()
        await until(lambda: not guard.status.following)
        assert guard._life
        guard._life.questions._good.clear()
        # A minute later, and nobody vouches for the key.
        now[0] = Instant(now[0] + 299 * 1_000_000)
        guard._calm_until = float("-inf")
        await guard._watch.look()
        assert [watched.revoked for watched in guard._watch.watched] == [False]
        now[0] = Instant(now[0] + 2 * 1_000_000)
        await guard._watch.look()
        await until(call.task.done)
        await asyncio.gather(call.task, return_exceptions=True)


async def test_a_route_may_say_what_happens_when_nothing_is_heard(issuer: Scripted) -> None:
    app = FastAPI()
    async with protecting(issuer, max_staleness=0.5, on_stale="allow") as guard:

        @app.get("/strict")
        async def strict(caller: Annotated[Principal, Depends(guard.requires(on_stale="refuse"))]) -> str:
            return caller.subject

        @app.get("/usual")
        async def usual(caller: Annotated[Principal, Security(guard)]) -> str:
            return caller.subject

        await begun(issuer, guard)
        headers = bearer(issuer.token())
        for protected in (app, GuardMiddleware(app, guard=guard)):
            async with client(protected) as http:
                if guard.status.staleness < 0.4:
                    assert (await http.get("/strict", headers=headers)).status_code == 200
                await until(lambda: guard.status.staleness > 0.6)
                refused = await http.get("/strict", headers=headers)
                assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
                assert (await http.get("/usual", headers=headers)).status_code == 200
        rules = [Rule("/usual", on_stale="refuse")]
        async with client(GuardMiddleware(app, guard=guard, rules=rules)) as http:
            assert (await http.get("/usual", headers=headers)).status_code == 503


async def test_what_another_guard_let_in_is_not_let_in_here(issuer: Scripted) -> None:
    app = FastAPI()
    outer, inner = protecting(issuer), Guard(issuer=issuer.base, audience="https://other.example.com")

    @app.get("/")
    async def other(caller: Annotated[Principal, Security(inner)]) -> str:
        return caller.subject

    async with outer, inner:
        await begun(issuer, outer)
        await begun(issuer, inner)
        async with client(GuardMiddleware(app, guard=outer)) as http:
            assert (await http.get("/", headers=bearer(issuer.token()))).status_code == 401


def ends(stream: Stream) -> None:
    """The issuer tells that the session has ended; a heartbeat follows on all that it tells."""
    stream.entries(6, session(6))
    stream.heartbeat(6)


async def test_what_goes_on_ends_with_its_caller_whatever_it_waits_for(issuer: Scripted) -> None:
    async with protecting(issuer) as guard:
        stream = await begun(issuer, guard)
        token = issuer.token()
        principal = await guard.verify(token)
        cleaned = asyncio.Event()

        async def waits() -> None:
            async with guard.while_good(principal, token):
                try:
                    await asyncio.sleep(30)
                finally:
                    # What cleans up is not cut off.
                    await asyncio.sleep(0.05)
                    cleaned.set()

        task = asyncio.create_task(waits())
        await until(lambda: guard._watch.watched)
        ends(stream)
        with pytest.raises(Unauthenticated, match="revoked"):
            await asyncio.wait_for(task, 1)
        assert cleaned.is_set()
        assert not guard._watch.watched
        # Who was revoked before begins nothing.
        with pytest.raises(Unauthenticated):
            async with guard.while_good(principal, token):
                raise AssertionError("reached")


async def test_what_ends_by_itself_or_is_given_up_is_not_taken_for_revoked(issuer: Scripted) -> None:
    async with protecting(issuer) as guard:
        await begun(issuer, guard)
        token = issuer.token()
        principal = await guard.verify(token)
        async with guard.while_good(principal, token):
            pass
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), guard.while_good(principal, token):
                await asyncio.sleep(30)
        # A cancellation that comes when all is done arrives inside, and not later.
        with pytest.raises(Unauthenticated):
            async with guard.while_good(principal, token):
                next(iter(guard._watch.watched)).end()
        await asyncio.sleep(0)
        assert not guard._watch.watched


def cancelling() -> int:
    task = asyncio.current_task()
    assert task
    return task.cancelling()


async def test_the_cancellation_of_what_was_revoked_is_seen_by_nobody_else(issuer: Scripted) -> None:
    async with protecting(issuer) as guard:
        await begun(issuer, guard)
        token = issuer.token()
        principal = await guard.verify(token)

        def revoke() -> None:
            for watched in guard._watch.watched:
                watched.end()

        async def fails() -> None:
            raise LookupError

        async def keeps_it() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(30)

        async def has_another() -> None:
            async with guard.while_good(principal, token):
                revoke()
                await asyncio.sleep(30)

        async def held(body: Callable[[], Awaitable[None]]) -> None:
            async with guard.while_good(principal, token):
                revoke()
                await body()

        async def holding(body: Callable[[], Awaitable[None]]) -> None:
            async with guard.while_good(principal, token):
                await body()

        # What fails by itself in the same moment tells that; what keeps the cancellation to itself ends all the same;
        # of two, one within the other, both do.
        for way, body, told in ((held, fails, LookupError), (held, keeps_it, Unauthenticated)):
            with pytest.raises(told):
                await way(body)
            await asyncio.sleep(0)
            assert cancelling() == 0
        with pytest.raises(Unauthenticated):
            await holding(has_another)
        assert cancelling() == 0

        # What had been asked of the task before is not taken for a part of it.
        async def asked_before() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(30)
            await held(keeps_it)

        task = asyncio.create_task(asked_before())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(Unauthenticated):
            await task

        # Somebody else gives it up as well: then it is given up.
        async def given_up() -> None:
            async with guard.while_good(principal, token):
                await asyncio.sleep(30)

        task = asyncio.create_task(given_up())
        await until(lambda: guard._watch.watched)
        revoke()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not guard._watch.watched


async def test_what_keeps_the_cancellation_to_itself_is_cancelled_again(
    issuer: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authwright.guard.watch.CLEAN_UP_SECONDS", 0.3)
    async with protecting(issuer) as guard:
        stream = await begun(issuer, guard)
        token = issuer.token()
        principal = await guard.verify(token)

        async def work() -> None:
            async with asyncio.timeout(8), guard.while_good(principal, token):
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(30)
                await asyncio.sleep(30)

        async def twice() -> int:
            with pytest.raises(Unauthenticated):
                await work()
            return cancelling()

        task = asyncio.create_task(twice())
        await until(lambda: guard._watch.watched)
        ends(stream)
        # At the look after the time for cleaning up.
        assert await asyncio.wait_for(task, 4) == 0
        assert not guard._watch.watched


@pytest.mark.parametrize("way", ["fails", "keeps it", "is done"])
async def test_an_app_that_ends_as_it_is_revoked_leaves_no_cancellation_behind(issuer: Scripted, way: str) -> None:
    left: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if way == "is done":
            await answer(scope, receive, send)
        next(iter(guard._watch.watched)).end()
        if way == "fails":
            raise LookupError
        if way == "keeps it":
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(30)

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await GuardMiddleware(app, guard=guard)(scope, receive, send)
        await asyncio.sleep(0)
        left.append(cancelling())

    async with protecting(issuer) as guard:
        await begun(issuer, guard)
        call = Call(outer, issuer.token())
        await asyncio.wait_for(call.task, 3)
        assert left == [0]
        assert call.status == (200 if way == "is done" else 401)
        assert not guard._watch.watched


async def test_what_goes_on_ends_when_nothing_is_heard_and_the_route_minds(issuer: Scripted) -> None:
    async with protecting(issuer, max_staleness=0.5, on_stale="allow") as guard:
        await begun(issuer, guard)
        token = issuer.token()
        principal = await guard.verify(token)
        with pytest.raises(Unavailable):
            async with asyncio.timeout(5), guard.while_good(principal, token, on_stale="refuse"):
                await asyncio.sleep(30)


def behind_a_dependency(guard: Guard, ended: list[str]) -> FastAPI:
    app = FastAPI()
    Caller = Annotated[Principal, Security(guard, scopes=["predict"])]

    @app.get("/stream")
    async def stream_(request: Request, caller: Caller) -> StreamingResponse:
        async def answer() -> AsyncIterator[str]:
            try:
                async with guard.during(request):
                    yield f"hello {caller.subject}"
                    # As a model that thinks.
                    await asyncio.sleep(30)
            finally:
                ended.append("stream")

        return StreamingResponse(answer())

    @app.get("/flood")
    async def flood(request: Request, caller: Caller) -> StreamingResponse:
        async def answer() -> AsyncIterator[bytes]:
            try:
                async with guard.during(request):
                    while True:
                        yield bytes(1 << 20)
                        await asyncio.sleep(0)
            finally:
                ended.append("flood")

        return StreamingResponse(answer())

    @app.websocket("/socket")
    async def socket(websocket: WebSocket, caller: Caller) -> None:
        await websocket.accept()
        try:
            async with guard.during(websocket) as same:
                assert same == caller
                async for text in websocket.iter_text():
                    await websocket.send_text(text)
        finally:
            ended.append("socket")

    return app


async def test_streams_behind_a_dependency_are_cut_off_though_nothing_comes(issuer: Scripted) -> None:
    ended: list[str] = []
    async with protecting(issuer) as guard:
        stream = await begun(issuer, guard)
        app = behind_a_dependency(guard, ended)
        async with (
            listening(app) as port,
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as http,
            http.stream("GET", "/stream", headers=bearer(issuer.token())) as answer,
        ):
            chunks = answer.aiter_raw()
            assert await anext(chunks) == b"hello usr_1"
            ends(stream)
            with pytest.raises(httpx2.RemoteProtocolError):
                await asyncio.wait_for(anext(chunks), 1)
            await until(lambda: ended == ["stream"])
            assert not guard._watch.watched


async def test_streams_behind_a_dependency_are_cut_off_though_nobody_reads(issuer: Scripted) -> None:
    ended: list[str] = []
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    async with protecting(issuer) as guard:
        stream = await begun(issuer, guard)
        async with listening(behind_a_dependency(guard, ended)) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
            writer.write(f"GET /flood HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {issuer.token()}\r\n\r\n".encode())
            await until(lambda: guard._watch.watched)
            await reader.readexactly(100)
            ends(stream)
            # The generator is dropped where it stands: what it holds goes when it is collected.
            await until(lambda: not guard._watch.watched, seconds=3)
            rest = await asyncio.wait_for(reader.read(), 3)
            assert not rest.endswith(b"\r\n0\r\n\r\n")
            writer.close()
        gc.collect()
        await until(lambda: ended == ["flood"])
    assert complaints == []


async def test_websockets_behind_a_dependency_are_closed_though_nobody_speaks(issuer: Scripted) -> None:
    ended: list[str] = []
    async with protecting(issuer) as guard:
        stream = await begun(issuer, guard)
        app = behind_a_dependency(guard, ended)
        async with listening(app) as port:
            url, headers = f"ws://127.0.0.1:{port}/socket", bearer(issuer.token())
            async with connect(url, additional_headers=headers) as socket:
                await socket.send("hello")
                assert await socket.recv() == "hello"
                ends(stream)
                with pytest.raises(ConnectionClosed) as closed:
                    await asyncio.wait_for(socket.recv(), 1)
                assert closed.value.rcvd
                assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "The token was revoked.")
            with pytest.raises(InvalidStatus):
                await connect(url, additional_headers=headers)
        assert ended == ["socket"]
