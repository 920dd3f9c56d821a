"""One SQL database as a `storage.port.Store`."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from authwright.storage.port import IncompatibleStore, StoreUnavailable
from authwright.storage.sql.api_keys import SqlApiKeys
from authwright.storage.sql.clients import SqlClients
from authwright.storage.sql.events import SqlEvents
from authwright.storage.sql.facts import SqlFacts
from authwright.storage.sql.keys import SqlKeys
from authwright.storage.sql.ledger import SqlLedger
from authwright.storage.sql.notices import SqlNotices
from authwright.storage.sql.schema import prepare_postgres, prepare_sqlite
from authwright.storage.sql.sessions import SqlSessions
from authwright.storage.sql.sqlite import SqliteDatabase
from authwright.storage.sql.statements import Database
from authwright.storage.sql.throttles import SqlThrottles
from authwright.storage.sql.usage import SqlUsage
from authwright.storage.sql.users import SqlUsers


class SqlStore:
    """The tables of one *database*, which *prepare* makes or brings up to date."""

    def __init__(self, database: Database, prepare: Callable[[Database, SqlFacts], Awaitable[None]]) -> None:
        self._database = database
        self._prepare = prepare
        self.users = SqlUsers(database)
        self.api_keys = SqlApiKeys(database)
        self.clients = SqlClients(database)
        self.sessions = SqlSessions(database)
        self.ledger = SqlLedger(database)
        self.events = SqlEvents(database)
        self.notices = SqlNotices(database)
        self.throttles = SqlThrottles(database)
        self.usage = SqlUsage(database)
        self.keys = SqlKeys(database)
        self.facts = SqlFacts(database)

    async def open(self) -> None:
        await self._database.open()
        try:
            await self._prepare(self._database, self.facts)
        except (StoreUnavailable, IncompatibleStore):
            await self._database.close()
            raise

    async def ping(self) -> None:
        await self.facts.read("schema_version")

    async def close(self) -> None:
        await self._database.close()


def sqlite_store(path: Path | None) -> SqlStore:
    """SQLite in the file *path*, or in memory (None) for this object alone."""
    return SqlStore(SqliteDatabase(path), prepare_sqlite)


def postgres_store(url: str, *, connections: int = 10) -> SqlStore:
    """The PostgreSQL database that *url* names, over at most so many *connections*."""
    # Loaded where it is used: the driver is an extra.
    from authwright.storage.sql.postgres import PostgresDatabase

    return SqlStore(PostgresDatabase(url, connections=connections), prepare_postgres)
