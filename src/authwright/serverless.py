"""The server as an ASGI app for hosts that start it with a request and freeze it afterwards: AWS Lambda, Vercel.

Nothing goes on beside a request there. So what `authwright serve` does all the time is done within requests: before
each, what was revoked meanwhile is read; after each, before it ends, what was counted is stored, and once a minute what
has to be done now and then is done.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

import structlog

from authwright.app.routes import app_of
from authwright.app.server import Server, system_clock
from authwright.config import Settings, SettingsError, load_settings
from authwright.domain.errors import Unavailable
from authwright.domain.instant import Instant
from authwright.log import configure_logs
from authwright.services.event_push import NotTaken
from authwright.services.keys import UnreadableKey
from authwright.services.notices import MailUnavailable
from authwright.storage.port import IncompatibleStore, StoreUnavailable
from authwright.web.endpoint import refusal_reply

CHORES_SECONDS: Final = 60.0
SETTLE_SECONDS: Final = 3.0
"""How long an answer may be held up by what has to be done after it; the rest is done after another one."""

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

log = structlog.get_logger("authwright.serverless")


class Serverless:
    """An ASGI app with *settings*, or those of the environment. Raises SettingsError.

    Lifespan events are answered and mean nothing: the store is opened with the first request, and stays open until the
    process is gone. A database server is needed, for files do not last on such a host.
    """

    def __init__(self, settings: Settings | None = None, *, clock: Callable[[], Instant] = system_clock) -> None:
        settings = settings or load_settings("serve")
        if settings.is_sqlite:
            raise SettingsError(["DATABASE_URL must be a database server's: a serverless host keeps no files."])
        configure_logs(level=settings.log_level, readable=False)
        self._server = Server(settings, clock=clock)
        self._app = app_of(self._server)
        self._turn = asyncio.Lock()
        self._chores_due = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _acknowledge(receive, send)
            return
        if await self._is_informed():
            last: list[Message] = []

            async def hold_the_end(message: Message) -> None:
                # With the end of the answer the process may be frozen.
                if message["type"] == "http.response.body" and not message.get("more_body", False):
                    last.append(message)
                else:
                    await send(message)

            try:
                await self._app(scope, receive, hold_the_end)
            finally:
                await self._settle(changes=scope.get("method") not in ("GET", "HEAD", "OPTIONS"))
                for message in last:
                    await send(message)
        else:
            # Whether a token was revoked cannot be told.
            realm = self._server.settings.issuer
            refusal = Unavailable("The store cannot be reached.")
            await refusal_reply(refusal, oauth=False, request_id="", realm=realm).send(send)

    async def _is_informed(self) -> bool:
        """Open the store, if need be, and read what others changed; whether that worked."""
        server = self._server
        async with self._turn:
            try:
                if not server.is_open:
                    await server.open()
                    await server.look_around()
                await server.revoke.catch_up()
                await server.verify.reload_keys(server.clock())
                server.quotas.read_again()
            except (IncompatibleStore, StoreUnavailable, UnreadableKey) as error:
                log.error("store_not_open", detail=str(error))
                return False
            return True

    async def _settle(self, *, changes: bool) -> None:
        """Leave nothing behind that only this process knows; mail follows a request that *changes* something."""
        server = self._server
        # Somebody waits for the answer.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                await self._settle_all(server, changes=changes)

    async def _settle_all(self, server: Server, *, changes: bool) -> None:
        await _try("usage_not_stored", server.usage.flush)
        await _try("leases_not_returned", server.rates.close)
        if changes and server.settings.smtp_url:
            await _try("notices_wait", lambda: server.notices.send(server.clock))
        if server.tracing is not None:
            await asyncio.to_thread(server.tracing.flush)
        loop = asyncio.get_running_loop()
        if loop.time() < self._chores_due:
            return
        self._chores_due = loop.time() + CHORES_SECONDS
        await _try("hashes_not_looked_at", server.look_around)
        # What could not be sent before.
        if server.settings.smtp_url:
            await _try("notices_wait", lambda: server.notices.send(server.clock))
        await _try("events_not_taken", lambda: server.event_push.push(server.clock))
        await _try("events_not_sealed", lambda: server.audit.seal(server.clock))
        await _try("events_not_forgotten", lambda: server.audit.forget(server.clock()))
        await _try("cleanup_failed", lambda: server.cleanup.run(server.clock()))
        server.revoke.forget(server.clock())


async def _try(failure: str, work: Callable[[], Awaitable[object]]) -> None:
    try:
        await work()
    except (StoreUnavailable, NotTaken, MailUnavailable) as error:
        log.error(failure, detail=str(error))
    except TimeoutError:
        raise
    except Exception:
        log.exception(failure)


async def _acknowledge(receive: Receive, send: Send) -> None:
    while True:
        message: Message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
