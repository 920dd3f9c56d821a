"""One SQL database as a `storage.port.Store`."""

from pathlib import Path

from sqlalchemy import update
from sqlalchemy.schema import CreateIndex, CreateTable

from authwright.storage.port import IncompatibleStore, StoreUnavailable
from authwright.storage.sql.api_keys import SqlApiKeys
from authwright.storage.sql.clients import SqlClients
from authwright.storage.sql.engine import Database, Statement, compiled
from authwright.storage.sql.events import SqlEvents
from authwright.storage.sql.facts import SqlFacts
from authwright.storage.sql.keys import SqlKeys
from authwright.storage.sql.ledger import SqlLedger
from authwright.storage.sql.sessions import SqlSessions
from authwright.storage.sql.tables import SCHEMA_VERSION, SESSION_OPENED, facts, metadata
from authwright.storage.sql.throttles import SqlThrottles
from authwright.storage.sql.usage import SqlUsage
from authwright.storage.sql.users import SqlUsers

_TO_VERSION_2 = compiled(
    update(facts)
    .where(facts.c.name == "schema_version", facts.c.value == "1")
    .values(value="2")
    .returning(facts.c.name)
)
# An index that also tells clients apart stands in its place.
_DROP_SESSIONS_LIVE = Statement("DROP INDEX IF EXISTS sessions_live")
_ADD_REQUEST_ID = Statement("ALTER TABLE sessions ADD COLUMN request_id TEXT NOT NULL DEFAULT ''")


class SqlStore:
    """SQLite in the file *path*, or in memory (None) for this object alone."""

    def __init__(self, path: Path | None) -> None:
        self._database = Database(path)
        self.users = SqlUsers(self._database)
        self.api_keys = SqlApiKeys(self._database)
        self.clients = SqlClients(self._database)
        self.sessions = SqlSessions(self._database)
        self.ledger = SqlLedger(self._database)
        self.events = SqlEvents(self._database)
        self.throttles = SqlThrottles(self._database)
        self.usage = SqlUsage(self._database)
        self.keys = SqlKeys(self._database)
        self.facts = SqlFacts(self._database)

    async def open(self) -> None:
        await self._database.open()
        try:
            await self._upgrade()
        except (StoreUnavailable, IncompatibleStore):
            await self._database.close()
            raise

    async def ping(self) -> None:
        await self.facts.read("schema_version")

    async def close(self) -> None:
        await self._database.close()

    async def _upgrade(self) -> None:
        await self._create_tables()
        version: str | None = await self.facts.establish("schema_version", str(SCHEMA_VERSION))
        if version == "1":
            # Two processes may come here at once: whoever finds the old version in its transaction adds the column.
            steps = (_ADD_REQUEST_ID, _DROP_SESSIONS_LIVE)
            await self._database.write_together((_TO_VERSION_2, {}), *((step, {}) for step in steps), guards=1)
            version = await self.facts.read("schema_version")
        if version == str(SCHEMA_VERSION):
            await self._database.write(Statement(SESSION_OPENED), {})
        else:
            raise IncompatibleStore(
                f"the store has schema version {version}, this is Authwright for version {SCHEMA_VERSION}"
            )

    async def _create_tables(self) -> None:
        steps: list[tuple[Statement, dict[str, object]]] = []
        for table in metadata.sorted_tables:
            steps.append((compiled(CreateTable(table, if_not_exists=True)), {}))
            steps += [(compiled(CreateIndex(index, if_not_exists=True)), {}) for index in table.indexes]
        await self._database.write_together(*steps)
