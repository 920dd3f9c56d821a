"""A whole server in this process: real routes, real services, a real SQLite, and a clock that the test moves."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

import authwright
from authwright.app.routes import app_of
from authwright.app.server import Server
from authwright.config import Settings, new_secret_key
from authwright.domain.event import COMMAND_LINE
from authwright.domain.instant import Instant, after
from authwright.storage.port import StoreUnavailable
from issued import ISSUED

ORIGIN = "http://127.0.0.1:8000"
# Hashes cost nothing here; what the default ones cost is measured by bench/.
CHEAP_HASHES = {"argon2_memory_kib": 32, "argon2_passes": 1}


@dataclass
class Clock:
    """Time that stands still until it is moved."""

    now: Instant = Instant(1_795_000_000_000_000)

    def __call__(self) -> Instant:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now = after(self.now, seconds)


@dataclass
class Service:
    """A running server and an HTTP client of it."""

    server: Server
    app: FastAPI
    http: httpx2.AsyncClient
    clock: Clock
    passwords: dict[str, str] = field(default_factory=dict)

    async def register(self, username: str = "bholay", password: str = "test123", **more: Any) -> dict[str, Any]:
        answer = await self.http.post("/register", json={"username": username, "password": password, **more})
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def login(self, username: str = "bholay", password: str = "test123", **more: str) -> dict[str, Any]:
        answer = await self.http.post("/login", data={"username": username, "password": password, **more})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def registered_login(self, username: str = "bholay", **more: Any) -> dict[str, Any]:
        await self.register(username, **more)
        return await self.login(username)

    async def new_client(self, name: str = "scoring", **more: Any) -> tuple[str, str]:
        """A client's id and key."""
        made = await self.server.clients.create(name=name, origin=COMMAND_LINE, now=self.clock(), **more)
        return made.client.id, made.client_key

    async def new_admin(self, username: str = "root-ada", password: str = "test123") -> str:
        """The access token of an administrator made on the command line."""
        now = self.clock()
        await self.server.register.create(
            username=username, email=None, password=password, plan=None, role="admin", origin=COMMAND_LINE, now=now
        )
        return str((await self.login(username, password))["access_token"])

    async def events(self, admin: str, **which: str) -> list[dict[str, Any]]:
        """Security events, newest first."""
        answer = await self.http.get("/admin/events", headers=bearer(admin), params={"limit": "200", **which})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["events"])

    async def get(self, path: str, token: str | None = None, **more: Any) -> httpx2.Response:
        return await self.http.get(path, headers=bearer(token), **more)

    async def refresh(self, refresh_token: str, **more: Any) -> httpx2.Response:
        return await self.http.post("/refresh-token", json={"refresh_token": refresh_token, **more})

    async def logout(self, token: str | None = None, **more: Any) -> httpx2.Response:
        return await self.http.post("/logout", headers=bearer(token), **more)


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def development(**settings: Any) -> Settings:
    """Settings for a development server in memory."""
    return Settings.dev(**{"database_url": "sqlite://", "refusal_delay_ms": 0, **CHEAP_HASHES, **settings})


def production(folder: Path, **settings: Any) -> Settings:
    """Settings for a production server with its database in *folder*."""
    values = {
        "refusal_delay_ms": 0,
        "database_url": f"sqlite:///{folder}/authwright.db",
        "secret_key": new_secret_key(),
        **settings,
    }
    return Settings(**values)


@contextlib.asynccontextmanager
async def open_service(
    *, clock: Clock | None = None, settings: Settings | None = None, peer: str = "127.0.0.1", **values: Any
) -> AsyncIterator[Service]:
    """A server with *settings*, or a development server with *values*; called from the address *peer*."""
    clock = clock or Clock()
    server = Server(settings or development(**values), clock=clock)
    app = app_of(server)
    async with authwright.lifespan(app):
        transport = httpx2.ASGITransport(app=app, client=(peer, 50000))
        hooks = {"response": [_note]}
        async with httpx2.AsyncClient(transport=transport, base_url=server.settings.issuer, event_hooks=hooks) as http:
            yield Service(server, app, http, clock)
        if server.settings.is_sqlite and server.settings.database_path is None:
            # Files are searched at the end of the run; this database ends here.
            connection = server.store._database._opened().writer._connection
            ISSUED.search(connection.serialize(), "a database in memory")


def failing_once(monkeypatch: pytest.MonkeyPatch, where: object, name: str) -> None:
    """Let the next call of a verb fail as a store does that does not answer."""
    real = getattr(where, name)
    failed = False

    async def verb(*args: Any, **options: Any) -> Any:
        nonlocal failed
        if not failed:
            failed = True
            raise StoreUnavailable("no answer")
        return await real(*args, **options)

    monkeypatch.setattr(where, name, verb)


async def _note(response: httpx2.Response) -> None:
    ISSUED.note_text((await response.aread()).decode("utf-8", "replace"))
