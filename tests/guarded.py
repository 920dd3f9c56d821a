"""An issuer that listens on a real socket of this process, with a clock that the test moves, and guards of it."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from authwright.domain.errors import Unauthenticated
from authwright.domain.instant import Instant
from authwright.guard import Guard
from authwright.web.protocol import Protocol
from harness import Clock, Service, open_service, production
from processes import free_port

API = "https://api.example.com"
PASSWORD = "a long and unusual passphrase"


@dataclass
class Issuer:
    """A running issuer, its guard's key, and where it listens."""

    service: Service
    base: str
    key: str
    port: int

    def options(self, **more: Any) -> dict[str, Any]:
        """What a guard of this issuer is made with."""
        return {"issuer": self.base, "audience": API, "key": self.key, "clock": self.service.clock, **more}

    def guard(self, **more: Any) -> Guard:
        return Guard(**self.options(**more))

    async def register(self, username: str = "bholay") -> None:
        await self.service.register(username, PASSWORD)

    async def login(self, username: str = "bholay", **more: str) -> dict[str, Any]:
        """An access token for the API, and what comes with it."""
        return await self.service.login(username, PASSWORD, **{"resource": API, **more})

    async def token(self, username: str = "bholay", **more: str) -> str:
        return str((await self.login(username, **more))["access_token"])


@contextlib.asynccontextmanager
async def listening(app: Any, port: int = 0) -> AsyncIterator[int]:
    """*app* on a loopback port (0: a free one) until the end; its own lifespan does not run."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        config = uvicorn.Config(app, http=Protocol, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listener]))
        await until(lambda: server.started)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


@contextlib.asynccontextmanager
async def issuing(folder: Path, *, named_by: int | None = None, **settings: Any) -> AsyncIterator[Issuer]:
    """An issuer of tokens for API, with the user bholay. *named_by*: the port of a proxy that its name leads to."""
    port = free_port()
    base = f"http://127.0.0.1:{named_by or port}"
    values = {"issuer": base, "port": port, "audiences": (API,), "registration": "open", **settings}
    clock = Clock(Instant(time.time_ns() // 1000))
    async with open_service(clock=clock, settings=production(folder, **values)) as service:
        async with listening(service.app, port):
            issuer = Issuer(service, base, "", port)
            await issuer.register()
            _, issuer.key = await service.new_client("guard", scope=frozenset({"revocations"}))
            yield issuer


async def refused(guard: Guard, token: str) -> bool:
    """Whether *guard* takes *token* for no good one."""
    try:
        await guard.verify(token)
    except Unauthenticated:
        return True
    return False


async def until(reached: Callable[[], Any], seconds: float = 5) -> None:
    """Return when *reached* says so; it must within *seconds*."""
    deadline = time.monotonic() + seconds
    while True:
        answer = reached()
        if isinstance(answer, Awaitable):
            answer = await answer
        if answer:
            return
        assert time.monotonic() < deadline, "did not happen"
        await asyncio.sleep(0.01)
