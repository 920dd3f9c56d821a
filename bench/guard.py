"""What the guard adds: to a signature's check, to a token seen before, to an endpoint; and what revocations cost it."""

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, HTTPException, Security
from fastapi.security import OAuth2PasswordBearer

from authwright.guard.asgi import GuardMiddleware
from authwright.guard.fastapi import Guard, Principal
from authwright.jose.sign import PrivateKey
from bench.figures import Figure, below, beside, shown, there
from bench.seen_before import IN_USE, SEEN
from bench.servers import Server, authwright
from bench.service import client_keys, once
from bench.yardstick import API, ISSUER, PROCESSES, SAID, SHORT_TRIED, calmly, in_processes, middle, minted

CALLS = 2_000
REVOKED = 100_000

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


async def endpoint(server: Server, token: str, key: str) -> list[Figure]:
    """One endpoint of FastAPI without protection, and what each way to protect it adds."""
    guard = Guard(issuer=server.base, audience=API, key=key)
    signing = PrivateKey.generate("ES256")
    (tutorial_token,) = minted(signing, 1, int(time.time()))

    def app_with(route: Callable[[FastAPI], None]) -> FastAPI:
        app = FastAPI()
        route(app)
        return app

    def bare(app: FastAPI) -> None:
        @app.get("/")
        async def answer() -> dict[str, str]:
            return {"answer": "yes"}

    def dependency(app: FastAPI) -> None:
        @app.get("/")
        async def answer(caller: Annotated[Principal, Security(guard, scopes=["predict"])]) -> dict[str, str]:
            return {"answer": "yes"}

    scheme = OAuth2PasswordBearer(tokenUrl="token")

    async def current_user(presented: Annotated[str, Depends(scheme)]) -> dict[str, Any]:
        try:
            public: Any = signing.public._key
            return dict(jwt.decode(presented, public, algorithms=["ES256"], audience=API, issuer=ISSUER))
        except jwt.InvalidTokenError:
            raise HTTPException(401) from None

    async def active_user(user: Annotated[dict[str, Any], Depends(current_user)]) -> dict[str, Any]:
        return user

    def tutorial(app: FastAPI) -> None:
        @app.get("/")
        async def answer(user: Annotated[dict[str, Any], Depends(active_user)]) -> dict[str, str]:
            return {"answer": "yes"}

    apps: dict[str, tuple[Any, str]] = {
        "bare": (app_with(bare), token),
        "middleware": (GuardMiddleware(app_with(bare), guard=guard), token),
        "dependency": (app_with(dependency), token),
        "tutorial": (app_with(tutorial), tutorial_token),
    }

    async def each() -> dict[str, float]:
        return {name: await _calls(app, presented) for name, (app, presented) in apps.items()}

    async with guard:
        await guard.verify(token)
        median, slow = await calmly(each)
    return [
        beside("an endpoint of FastAPI without protection", median["bare"], "us"),
        there("added to it as middleware", (median["middleware"] - median["bare"], slow), 10),
        there("added to it as a dependency", (median["dependency"] - median["bare"], slow), 16),
        beside("added by the shape of FastAPI's tutorial, with PyJWT", median["tutorial"] - median["bare"], "us"),
    ]


async def _calls(app: App, token: str) -> float:
    headers = [
        (b"host", b"api.example.com"),
        (b"user-agent", b"bench"),
        (b"accept", b"*/*"),
        (b"authorization", b"Bearer " + token.encode("ascii")),
    ]
    statuses = set()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        statuses.add(message.get("status", 200))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    before = time.thread_time()
    for _ in range(CALLS):
        await app(dict(scope), receive, send)
    spent = (time.thread_time() - before) / CALLS * 1e6
    if statuses != {200}:
        raise RuntimeError(f"answered {statuses}")
    return spent


# A guard in a process of its own, so that its memory is told apart.
_FOLLOWER = """
import asyncio, json, resource, sys, time
from authwright.guard import Guard

def resident():
    for line in open("/proc/self/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024

async def main(issuer, key, token):
    empty = resident()
    longest = 0.0
    async def watch():
        nonlocal longest
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - before - 0.001)
    async with Guard(issuer=issuer, audience="https://api.example.com", key=key) as guard:
        watching = asyncio.create_task(watch())
        begun = time.perf_counter()
        while True:
            try:
                await guard.verify(token)
                break
            except Exception as error:
                if time.perf_counter() - begun > 20:
                    raise
        took = time.perf_counter() - begun
        watching.cancel()
        begun = time.thread_time()
        for _ in range(100_000):
            guard.recall(token)
        seen = (time.thread_time() - begun) * 10
        print(json.dumps([resident() - empty, guard.status.revocations, longest * 1000, took, seen]))

asyncio.run(main(*sys.argv[1:]))
"""


def followed(server: Server, token: str, key: str) -> tuple[float, int, float, float, float]:
    """Of a new guard: MiB it grew by, revocations it knows, the longest its loop was held up (ms), seconds until it
    was ready, and microseconds of a token seen before."""
    command = [sys.executable, "-c", _FOLLOWER, server.base, key, token]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return tuple(told)


def revoke_many(server: Server) -> None:
    """Write REVOKED entries into the server's ledger, as if that many had logged out within the hour."""
    import sqlite3

    (file,) = server.folder.rglob("authwright.db")
    now = time.time_ns() // 1000
    connection = sqlite3.connect(file, timeout=30)
    with connection:
        (head,) = connection.execute("SELECT max(number) FROM revocations").fetchone()
        connection.executemany(
            "INSERT INTO revocations (number, kind, target, epoch, reason, at, until) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                ((head or 0) + 1 + number, "session", f"{number:022d}", 0, "logout", now, now + 3_600_000_000 + number)
                for number in range(REVOKED)
            ),
        )
    connection.close()


def wait_until_told(server: Server, key: str) -> None:
    """Return when the feed of *server* has all entries."""
    request = urllib.request.Request(f"{server.base}/revocations", headers={"authorization": f"Bearer {key}"})
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with urllib.request.urlopen(request) as answer:
            if len(json.load(answer)["entries"]) >= REVOKED:
                return
        time.sleep(0.2)
    raise TimeoutError("the feed does not tell of all entries")


def recalled(count: int, cost: float, slow: float) -> Figure:
    """The same as the middleware and the dependency ask, with a look at three clocks and at the event loop."""
    what = "the same by `Guard.recall`, which reads the clocks, too"
    # Where each of so many is asked for in turn the look-up is the row above, and this one only shown.
    return there(what, (cost, slow), 0.8) if count == IN_USE[0] else beside(what, cost, "us")


def section() -> tuple[str, list[Figure]]:
    """What is said above the table, and the table."""
    first, slow = middle(in_processes("bench.first_sight.first_sight"), "guard")
    figures = [
        beside("bare check of an ES256 signature by cryptography", first["bare"], "us"),
        there("first sight of a token: added to it by the guard", (first["guard"], slow), 6),
        beside("added by PyJWT", first["PyJWT"], "us"),
        beside("added by joserfc", first["joserfc"], "us"),
    ]
    for count, runs in zip(IN_USE, zip(*in_processes("bench.seen_before.seen_before"), strict=True), strict=True):
        seen, slow = middle(runs, "look")
        what = f"{SEEN:,} tokens cached, {count:,} of them in use"
        figures += [
            there(f"seen before, with expiry, revocation and scope: {what}", (seen["look"], slow), 0.8),
            recalled(count, seen["recall"], slow),
            beside("a bare look-up of the same in a dict", seen["bare"], "us"),
        ]
    with authwright(AUTHWRIGHT_AUDIENCES=API, AUTHWRIGHT_ACCESS_TOKEN_SECONDS="3600") as server:
        account = {"username": "bench", "password": "a long and unusual passphrase"}
        once(server, "POST", "/register", body=account)
        token = once(server, "POST", "/login", body={**account, "resource": API})["access_token"]
        (key,) = client_keys(server, 1, scope="revocations")
        figures += asyncio.run(endpoint(server, token, key))
        few = followed(server, token, key)
        revoke_many(server)
        wait_until_told(server, key)
        many = followed(server, token, key)
        if many[1] < REVOKED:
            raise RuntimeError(f"the guard knows {many[1]} revocations")
        figures += [
            below(f"memory of {REVOKED:,} live revocations in a guard", many[0] - few[0], 25, "MiB"),
            below("longest pause of its event loop while it takes them in", many[2], 50, "ms"),
            Figure("until it is ready", shown(many[3] * 1000, "ms"), "under 2,000 ms", many[3] < 2),
            Figure(
                "a token seen before, by then",
                shown(many[4], "us"),
                f"as without ({shown(few[4], 'us')}) + 20 %",
                many[4] <= few[4] * 1.2 + 0.05,
            ),
        ]
    said = (
        f"Microseconds of CPU of the calling thread, medians of that quarter of {SHORT_TRIED} rounds in which the "
        f"machine was least busy with others' work; what is compared took turns. Of a token by itself the middle of "
        f"{PROCESSES} processes: how their memory comes to lie makes one some percent slower than the next. {SAID}"
    )
    return said, figures
