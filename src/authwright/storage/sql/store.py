"""One SQL database as a `storage.port.Store`."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from authwright.storage.port import IncompatibleStore, StoreUnavailable
from authwright.storage.sql.allowances import SqlAllowanceLeases, SqlAllowances
from authwright.storage.sql.api_keys import SqlApiKeys
from authwright.storage.sql.clients import SqlClients
from authwright.storage.sql.events import SqlEvents
from authwright.storage.sql.facts import SqlFacts
from authwright.storage.sql.keys import SqlKeys
from authwright.storage.sql.ledger import SqlLedger
from authwright.storage.sql.notices import SqlNotices
from authwright.storage.sql.records import SqlRecords
from authwright.storage.sql.schema import prepare
from authwright.storage.sql.sessions import SqlSessions
from authwright.storage.sql.sqlite import SqliteDatabase
from authwright.storage.sql.statements import Database
from authwright.storage.sql.throttles import SqlThrottles
from authwright.storage.sql.usage import SqlUsage
from authwright.storage.sql.users import SqlUsers


class SqlStore:
    """The tables of one *database*; *migrate* brings them up to date."""

    def __init__(self, database: Database, migrate: Callable[[bool], Awaitable[Sequence[str]]]) -> None:
        self._database = database
        self._migrate = migrate
        self.users = SqlUsers(database)
        self.api_keys = SqlApiKeys(database)
        self.clients = SqlClients(database)
        self.sessions = SqlSessions(database)
        self.ledger = SqlLedger(database)
        self.events = SqlEvents(database)
        self.notices = SqlNotices(database)
        self.throttles = SqlThrottles(database)
        self.usage = SqlUsage(database)
        self.allowances = SqlAllowances(database)
        self.allowance_leases = SqlAllowanceLeases(database)
        self.keys = SqlKeys(database)
        self.facts = SqlFacts(database)
        self.records = SqlRecords(database)

    async def open(self) -> None:
        await self._database.open()
        try:
            await prepare(self._database)
        except (StoreUnavailable, IncompatibleStore):
            await self._database.close()
            raise

    async def migrate(self, *, check: bool = False) -> Sequence[str]:
        return await self._migrate(check)

    async def ping(self) -> None:
        await self.facts.read("store_epoch")

    async def close(self) -> None:
        await self._database.close()


def sqlite_store(path: Path | None) -> SqlStore:
    """SQLite in the file *path*, or in memory (None) for this object alone."""

    async def migrate(check: bool) -> Sequence[str]:
        if path is None:
            return ()
        # Loaded where it is used: few need it, and it takes a while.
        from authwright.storage.sql.migrate import migrate_sqlite

        return await asyncio.to_thread(migrate_sqlite, path, check=check)

    return SqlStore(SqliteDatabase(path), migrate)


def postgres_store(url: str, *, connections: int = 10) -> SqlStore:
    """The PostgreSQL database that *url* names, over at most so many *connections*."""
    # Loaded where it is used: the driver is an extra.
    from authwright.storage.sql.postgres import PostgresDatabase

    database = PostgresDatabase(url, connections=connections)

    async def migrate(check: bool) -> Sequence[str]:
        from authwright.storage.sql.migrate import migrate_postgres

        return await migrate_postgres(database.connect, check=check)

    return SqlStore(database, migrate)
