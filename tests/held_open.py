"""Somebody else who writes into the ledger, and does not commit."""

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing

import asyncpg

End = Callable[[str], Awaitable[None]]


@asynccontextmanager
async def held_open(url: str, session: str) -> AsyncIterator[End]:
    """A transaction that has stored the ending of *session* as next entry; what ends it, by COMMIT or ROLLBACK."""
    number = "(SELECT coalesce(max(number), 0) + 1 FROM revocations)"
    entry = f"INSERT INTO revocations VALUES ({number}, 'session', '{session}', 0, 'logout', 5, {2**62})"
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(entry)

            async def end(how: str) -> None:
                connection.execute(how)

            yield end
        return
    other = await asyncpg.connect(url)
    await other.execute("BEGIN")
    await other.execute(entry)

    async def end_there(how: str) -> None:
        await other.execute(how)

    yield end_there
    await other.close()
