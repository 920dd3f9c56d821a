"""The ledger while another writer has an entry that is not committed: nobody steps over it."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import asyncpg
import pytest

from databases import a_database, store_at
from records import revocation

ENTRY = "INSERT INTO revocations VALUES (1, 'session', 'held open', 0, 'logout', 5, 99)"
End = Callable[[str], Awaitable[None]]


@pytest.fixture(params=["sqlite-file", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """MongoDB is left out: without transactions no writer can hold one open."""
    async with a_database(request, tmp_path) as made:
        yield made


@asynccontextmanager
async def held_open(url: str) -> AsyncIterator[End]:
    """A transaction that has stored entry 1; what ends it, by COMMIT or ROLLBACK."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(ENTRY)

            async def end(how: str) -> None:
                connection.execute(how)

            yield end
        return
    other = await asyncpg.connect(url)
    await other.execute("BEGIN")
    await other.execute(ENTRY)

    async def end_there(how: str) -> None:
        await other.execute(how)

    yield end_there
    await other.close()


@pytest.mark.parametrize("how", ["COMMIT", "ROLLBACK"])
async def test_an_entry_comes_after_one_that_is_held_open_and_no_reader_sees_a_gap(url: str, how: str) -> None:
    store = store_at(url)
    await store.open()
    async with held_open(url) as end:
        appended = asyncio.ensure_future(store.ledger.append(revocation("mine")))
        await asyncio.wait([appended], timeout=0.2)
        assert not appended.done()
        assert list(await store.ledger.since(0)) == []
        assert list(await store.ledger.snapshot()) == []
        await end(how)
        number = await appended
    seen = [(each.number, each.target) for each in await store.ledger.since(0)]
    assert seen == ([(1, "held open"), (2, "mine")] if how == "COMMIT" else [(1, "mine")])
    assert number == len(seen)
    await store.close()
