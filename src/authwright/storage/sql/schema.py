"""Makes the tables, or brings those of an earlier version up to date."""

from collections.abc import Iterator

from sqlalchemy import func, literal_column, select, text, update
from sqlalchemy.schema import CreateIndex, CreateTable

from authwright.storage.port import IncompatibleStore
from authwright.storage.sql.facts import SqlFacts
from authwright.storage.sql.statements import Database, Step, compiled
from authwright.storage.sql.tables import SCHEMA_VERSION, SESSION_OPENED, facts, metadata

_TO_VERSION_2 = compiled(
    update(facts)
    .where(facts.c.name == "schema_version", facts.c.value == "1")
    .values(value="2")
    .returning(facts.c.name)
)
# An index that also tells clients apart stands in its place.
_DROP_SESSIONS_LIVE = compiled(text("DROP INDEX IF EXISTS sessions_live"))
_ADD_REQUEST_ID = compiled(text("ALTER TABLE sessions ADD COLUMN request_id TEXT NOT NULL DEFAULT ''"))
_ONE_AT_A_TIME = compiled(select(func.pg_advisory_xact_lock(literal_column("4711"))))
_SESSION_OPENED = compiled(text(SESSION_OPENED))


async def prepare_sqlite(database: Database, known: SqlFacts) -> None:
    """Make or upgrade the schema. Raises IncompatibleStore, StoreUnavailable."""
    await database.write_together(*_tables())
    version: str | None = await known.establish("schema_version", str(SCHEMA_VERSION))
    if version == "1":
        # Two processes may come here at once: whoever finds the old version in its transaction adds the column.
        steps = (_ADD_REQUEST_ID, _DROP_SESSIONS_LIVE)
        await database.write_together((_TO_VERSION_2, {}), *((step, {}) for step in steps), guards=1)
        version = await known.read("schema_version")
    _require_known(version)
    await database.write(_SESSION_OPENED, {})


async def prepare_postgres(database: Database, known: SqlFacts) -> None:
    """Make the schema. Raises IncompatibleStore, StoreUnavailable."""
    # Of several processes that start at once one makes the tables, and the others wait for it.
    await database.write_together((_ONE_AT_A_TIME, {}), *_tables())
    _require_known(await known.establish("schema_version", str(SCHEMA_VERSION)))


def _require_known(version: str | None) -> None:
    if version != str(SCHEMA_VERSION):
        raise IncompatibleStore(
            f"the store has schema version {version}, this is Authwright for version {SCHEMA_VERSION}"
        )


def _tables() -> Iterator[Step]:
    for table in metadata.sorted_tables:
        yield compiled(CreateTable(table, if_not_exists=True)), {}
        for index in table.indexes:
            yield compiled(CreateIndex(index, if_not_exists=True)), {}
