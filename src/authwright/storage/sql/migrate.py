"""Brings an older schema up to date with Alembic. Loaded only where that is asked for.

Everything of one call is one transaction, and of several processes one does it while the others wait: then they find
nothing left to do. A migration expands: it adds what the next version needs and leaves what the last one uses; what
nothing uses any more goes with a later version. On a table that grows with users it takes no lock for longer than a
moment: an index there is built in an `autocommit_block`, concurrently.
"""

import os
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, StaticPool

from authwright.storage.port import IncompatibleStore, StoreUnavailable

SCRIPTS: Final = Path(__file__).with_name("migrations")
WAIT_SECONDS: Final = 60.0
# A migration that waits for a lock makes everybody else wait behind it: rather not.
LOCK_SECONDS: Final = 3.0


def migrate_sqlite(path: Path, *, check: bool = False) -> list[str]:
    """Migrate the file *path*, as `storage.port.Store.migrate` says."""
    try:
        if not check and not path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        file = path if path.exists() else ":memory:"
        with closing(sqlite3.connect(file, isolation_level=None, timeout=WAIT_SECONDS)) as opened:
            engine = create_engine("sqlite://", creator=lambda: opened, poolclass=StaticPool)
            with engine.connect() as connection:
                # The driver's own transactions do not hold definitions of tables.
                opened.execute("BEGIN IMMEDIATE")
                try:
                    done = upgrade(connection, check=check)
                except BaseException:
                    opened.execute("ROLLBACK")
                    raise
                opened.execute("COMMIT")
                return done
    except (sqlite3.Error, SQLAlchemyError, OSError) as error:
        raise StoreUnavailable(f"cannot migrate {path}: {_told(error)}") from error


async def migrate_postgres(connect: Callable[[], Awaitable[Any]], *, check: bool = False) -> list[str]:
    """Migrate the database that *connect* connects the driver to, as `storage.port.Store.migrate` says."""
    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(4711)"))
            await connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_SECONDS * 1000:.0f}"))
            return await connection.run_sync(upgrade, check=check)
    except (SQLAlchemyError, OSError) as error:
        raise StoreUnavailable(f"cannot migrate the database: {_told(error)}") from error
    finally:
        await engine.dispose()


def upgrade(connection: Connection, *, check: bool = False, to: str = "head") -> list[str]:
    """Run what is missing up to version *to*, in the transaction that is open on *connection*."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    known = {each.revision: each.doc for each in scripts.walk_revisions()}
    at = MigrationContext.configure(connection).get_current_revision()
    if at is None and inspect(connection).has_table("facts"):
        # Made before Alembic kept the version.
        at = connection.execute(text("SELECT value FROM facts WHERE name = 'schema_version'")).scalar()
        if at in known and not check:
            command.stamp(config, at)
    if at is not None and at not in known:
        raise IncompatibleStore(f"the store has schema version {at}, which this Authwright does not know")
    missing = sorted(int(each) for each in known if at is None or int(each) > int(at))
    if not check:
        command.upgrade(config, to)
    return [f"{each}: {known[str(each)]}" for each in missing]


def _told(error: Exception) -> str:
    """What the database says: of definitions of tables, so there is no secret in it."""
    return str(getattr(error, "orig", None) or error)
