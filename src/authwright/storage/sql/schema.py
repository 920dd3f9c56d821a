"""Makes the tables of an empty store, and tells whether those of another one are of this version."""

from collections.abc import Iterator

from sqlalchemy import text
from sqlalchemy.schema import CreateIndex, CreateTable

from authwright.storage.port import IncompatibleStore, OutdatedStore
from authwright.storage.sql.statements import Database, Step, compiled
from authwright.storage.sql.tables import SCHEMA_VERSION, SESSION_OPENED, USABLE_SINCE, metadata

_NOTHING = text("SELECT 1")
# Which of the tables that hold a version are there: Alembic's; before there was one, the facts did.
_LOOK = compiled(
    text("SELECT name FROM sqlite_master WHERE type = 'table' AND name IN ('alembic_version', 'facts')"),
    postgres=text(
        "SELECT table_name FROM information_schema.tables"
        " WHERE table_schema = current_schema() AND table_name IN ('alembic_version', 'facts')"
    ),
)
_VERSION = compiled(text("SELECT version_num FROM alembic_version"))
_OLD_VERSION = compiled(text("SELECT value FROM facts WHERE name = 'schema_version'"))
# Of several processes that start at once one makes the tables, and the others wait for it. SQLite has one writer.
_ONE_AT_A_TIME = compiled(_NOTHING, postgres=text("SELECT pg_advisory_xact_lock(4711)"))
_VERSION_TABLE = compiled(
    text(
        "CREATE TABLE IF NOT EXISTS alembic_version"
        " (version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
    )
)
_SET_VERSION = compiled(
    text(
        f"INSERT INTO alembic_version (version_num) SELECT '{SCHEMA_VERSION}'"  # noqa: S608 - a constant of ours
        " WHERE NOT EXISTS (SELECT 1 FROM alembic_version)"
    )
)
# The earliest version whose code can use what is there: so that servers of the version before may go on, and start
# again, while and after it is migrated.
_USABLE_SINCE = compiled(text("SELECT value FROM facts WHERE name = 'usable_since'"))
_SET_USABLE_SINCE = compiled(
    text(f"INSERT INTO facts (name, value) VALUES ('usable_since', '{USABLE_SINCE}') ON CONFLICT DO NOTHING")  # noqa: S608 - ours
)
# On PostgreSQL the statement that opens a session records it.
_SESSION_OPENED = compiled(text(SESSION_OPENED), postgres=_NOTHING)


async def prepare(database: Database) -> None:
    """Make the tables of an empty store. Raises OutdatedStore, IncompatibleStore, StoreUnavailable."""
    there = {row[0] for row in await database.find(_LOOK, {})}
    if not there:
        last: list[Step] = [(each, {}) for each in (_SESSION_OPENED, _VERSION_TABLE, _SET_VERSION, _SET_USABLE_SINCE)]
        await database.write_together((_ONE_AT_A_TIME, {}), *_tables(), *last)
    rows = await database.find(_OLD_VERSION, {}) if there == {"facts"} else []
    # Somebody may have migrated it since the look.
    rows = rows or await database.find(_VERSION, {})
    version = rows[0][0] if rows else "?"
    if version == str(SCHEMA_VERSION):
        return
    if version.isdigit() and int(version) < SCHEMA_VERSION:
        raise OutdatedStore(version, SCHEMA_VERSION)
    since = await database.find(_USABLE_SINCE, {})
    if not since or not since[0][0].isdigit() or int(since[0][0]) > SCHEMA_VERSION:
        raise IncompatibleStore(
            f"the store has schema version {version}, this is Authwright for version {SCHEMA_VERSION}"
        )


def _tables() -> Iterator[Step]:
    for table in metadata.sorted_tables:
        yield compiled(CreateTable(table, if_not_exists=True)), {}
        for index in table.indexes:
            make, only = CreateIndex(index, if_not_exists=True), index.info.get("only")
            in_sqlite, in_postgres = (_NOTHING if only == other else make for other in ("postgresql", "sqlite"))
            yield compiled(in_sqlite, postgres=in_postgres), {}
