"""An issuer on a socket that says what the test wants: for what a right one never says, or not when it is wanted."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from authwright.guard import Guard
from authwright.jose.sign import Signer
from guarded import until
from tokens import key, key_pair

API = "https://api.example.com"
Answer = tuple[int, Any]


class Stream:
    """One follower's connection. *cursor*: from where it wants to go on."""

    def __init__(self, writer: asyncio.StreamWriter, cursor: str | None) -> None:
        self._writer = writer
        self.cursor = cursor

    def snapshot(self, number: int, *entries: dict[str, Any], epoch: str = "e", more: bool = False) -> None:
        content = {"cursor": f"{epoch}.{number}.0", "snapshot": True, "more": more, "entries": list(entries)}
        self.say("snapshot", content)

    def entries(self, number: int, *entries: dict[str, Any], epoch: str = "e") -> None:
        content = {"cursor": f"{epoch}.{number}.0", "snapshot": False, "more": False, "entries": list(entries)}
        self.say("entries", content)

    def heartbeat(
        self, number: int, *, epoch: str = "e", age_ms: int = 0, at: float | None = None, forgotten: int = 0
    ) -> None:
        at_ms = int((time.monotonic() if at is None else at) * 1000)
        content = {"cursor": f"{epoch}.{number}.0", "age_ms": age_ms, "at_ms": at_ms, "forgotten_up_to": forgotten}
        self.say("heartbeat", content)

    def say(self, name: str, content: dict[str, Any]) -> None:
        self.write(f"event: {name}\ndata: {json.dumps(content)}\n\n".encode())

    def comment(self) -> None:
        self.write(b": still here\n\n")

    def close(self) -> None:
        if not self._writer.is_closing():
            self._writer.write(b"0\r\n\r\n")
            self._writer.close()

    def write(self, data: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(b"%x\r\n%b\r\n" % (len(data), data))


class Scripted:
    """The issuer. *streams*: connections in the order they came; *on_follow* may answer one by itself."""

    def __init__(self) -> None:
        self.base = ""
        self.paths: list[str] = []
        self.serving: set[asyncio.Task[Any]] = set()
        self.streams: asyncio.Queue[Stream] = asyncio.Queue()
        self.on_follow: Callable[[Stream], None] = lambda stream: None
        self.on_ask: Callable[[dict[str, list[str]]], Awaitable[Answer]] = self._nothing
        self.on_introspect: Callable[[str], Awaitable[Answer]] = self._nothing
        self.on_keys: Callable[[], Awaitable[Answer]] = self._keys

    async def _nothing(self, _: Any) -> Answer:
        return 503, {}

    async def _keys(self) -> Answer:
        return 200, {"keys": [key_pair("ES256").public.jwk()]}

    def token(self, **claims: Any) -> str:
        now = int(time.time())
        usual = {
            "iss": self.base,
            "aud": API,
            "sub": "usr_1",
            "client_id": "cli_1",
            "jti": "j",
            "sid": "s",
            "iat": now,
            "exp": now + 300,
            "scope": "predict",
            "auth_epoch": 1,
        }
        return Signer(key("ES256"), typ="at+jwt").sign({**usual, **claims})

    def introspection(self, **claims: Any) -> Answer:
        now = int(time.time())
        usual = {"active": True, "iss": self.base, "aud": API, "sub": "usr_1", "client_id": "cli_1", "jti": "j"}
        return 200, {**usual, "iat": now, "exp": now + 300, "scope": "predict", "auth_epoch": 1, **claims}

    def guard(self, **options: Any) -> Guard:
        return Guard(**{"issuer": self.base, "audience": API, **options})

    def answered(self, path: str) -> int:
        return self.paths.count(path)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self.serving.add(task)
        try:
            await self._serve(reader, writer)
        finally:
            self.serving.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, _, rest = head.partition("\r\n")
                headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in rest.splitlines())}
                body = (await reader.readexactly(int(headers.get("content-length", 0)))).decode()
                path, _, query = first.split(" ")[1].partition("?")
                self.paths.append(path)
                if path == "/revocations" and "event-stream" in headers.get("accept", ""):
                    writer.write(
                        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                    )
                    stream = Stream(writer, headers.get("last-event-id"))
                    self.on_follow(stream)
                    self.streams.put_nowait(stream)
                    await reader.read()
                    return
                if path == "/revocations":
                    status, content = await self.on_ask(parse_qs(query))
                elif path == "/introspect":
                    status, content = await self.on_introspect(parse_qs(body)["token"][0])
                elif path == "/.well-known/jwks.json":
                    status, content = await self.on_keys()
                else:
                    status, content = 404, {}
                data = json.dumps(content).encode()
                more = f"Location: {self.base}/elsewhere\r\n" if status in (301, 302, 307, 308) else ""
                writer.write(f"HTTP/1.1 {status} X\r\n{more}Content-Length: {len(data)}\r\n\r\n".encode() + data)


@contextlib.asynccontextmanager
async def scripted() -> AsyncIterator[Scripted]:
    issuer = Scripted()
    server = await asyncio.start_server(issuer.serve, "127.0.0.1", 0)
    issuer.base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield issuer
    finally:
        server.close()
        for task in issuer.serving:
            task.cancel()
        if issuer.serving:
            await asyncio.wait(issuer.serving)


async def begun(issuer: Scripted, guard: Guard, *entries: dict[str, Any], number: int = 5) -> Stream:
    """The stream of *guard*, which has taken in a snapshot of *entries* and heard one heartbeat."""
    stream = await asyncio.wait_for(issuer.streams.get(), 5)
    stream.snapshot(number, *entries)
    stream.heartbeat(number)
    await until(lambda: guard.status.cursor is not None and guard.status.keys_age < 9)
    return stream


async def heard(guard: Guard, say: Callable[[], None]) -> None:
    """Let the issuer *say* something, and wait until *guard* has heard it."""
    assert guard._life
    follower = guard._life.follower
    progress, calls = follower._on_progress, [0]

    def noted() -> None:
        progress()
        calls[0] += 1

    follower._on_progress = noted
    try:
        say()
        await until(lambda: calls[0] > 0)
    finally:
        follower._on_progress = progress


def session(number: int, target: str = "s", **more: Any) -> dict[str, Any]:
    """An entry that ends a session."""
    return {"number": number, "kind": "session", "target": target, "until": 2**33, **more}
