"""One MongoDB database as a `storage.port.Store`."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

import structlog

from authwright.storage.mongo.allowances import MongoAllowanceLeases, MongoAllowances
from authwright.storage.mongo.api_keys import MongoApiKeys
from authwright.storage.mongo.clients import MongoClients
from authwright.storage.mongo.database import MongoDatabase
from authwright.storage.mongo.events import MongoEvents
from authwright.storage.mongo.facts import MongoFacts
from authwright.storage.mongo.keys import MongoKeys
from authwright.storage.mongo.ledger import MongoLedger
from authwright.storage.mongo.notices import MongoNotices
from authwright.storage.mongo.outbox import HOLDERS, Outbox
from authwright.storage.mongo.records import MongoRecords
from authwright.storage.mongo.schema import migrate, prepare
from authwright.storage.mongo.sessions import MongoSessions
from authwright.storage.mongo.throttles import MongoThrottles
from authwright.storage.mongo.usage import MongoUsage
from authwright.storage.mongo.users import MongoUsers
from authwright.storage.port import StoreUnavailable

SETTLE_SECONDS: Final = 5.0
"""How often every process looks for what another one began and did not finish."""

log = structlog.get_logger("authwright.mongo")


class MongoStore:
    """The collections of one *database*."""

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database
        self._settling: asyncio.Task[None] | None = None
        self.facts = MongoFacts(database)
        self.ledger = MongoLedger(database)
        self.notices = MongoNotices(database)
        self.events = MongoEvents(database, self.notices)
        self._outbox = Outbox(database, self.ledger, self.events, self.notices)
        self._holders = [database.collection(name) for name in HOLDERS]
        self.users = MongoUsers(database, self._outbox, self.events)
        self.api_keys = MongoApiKeys(database, self._outbox)
        self.clients = MongoClients(database, self._outbox)
        self.throttles = MongoThrottles(database)
        self.sessions = MongoSessions(database, self._outbox, self.throttles)
        self.usage = MongoUsage(database)
        self.allowances = MongoAllowances(database)
        self.allowance_leases = MongoAllowanceLeases(database)
        self.keys = MongoKeys(database, self._outbox)
        self.records = MongoRecords(database)

    async def open(self) -> None:
        await self._database.open()
        try:
            await prepare(self._database, self.facts)
            await self.settle()
        except BaseException:
            await self._database.close()
            raise
        self._settling = asyncio.create_task(self._settle_regularly())

    async def migrate(self, *, check: bool = False) -> Sequence[str]:
        await self._database.open()
        try:
            return await migrate(self._database, self.facts, check=check)
        finally:
            await self._database.close()

    async def ping(self) -> None:
        await self._database.ping()

    async def close(self) -> None:
        if self._settling is not None:
            self._settling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._settling
        await self._database.close()

    async def settle(self) -> None:
        """Carry out what processes began that ended before they had finished. Raises StoreUnavailable."""
        for holder in self._holders:
            await self._outbox.settle_all(holder)
        await self.sessions.settle()
        await self.usage.settle()

    async def _settle_regularly(self) -> None:
        while True:
            await asyncio.sleep(SETTLE_SECONDS)
            try:
                await self.settle()
            except StoreUnavailable as error:
                log.warning("not_settled", detail=str(error))
            except Exception:
                log.exception("not_settled")


def mongo_store(url: str, *, connections: int = 10) -> MongoStore:
    """The MongoDB database that *url* names, over at most so many *connections*."""
    return MongoStore(MongoDatabase(url, connections=connections))
