"""storage.sql.sqlite: while another process holds the write lock the event loop goes on, also after giving up once."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from authwright.storage.port import StoreUnavailable
from authwright.storage.sql import sqlite as engine
from authwright.storage.sql import sqlite_store
from authwright.storage.sql.statements import GATHER_TURNS
from records import name, session, user


async def longest_pause(until: "asyncio.Future[object]") -> float:
    """The longest time in seconds for which the event loop did not turn."""
    loop = asyncio.get_running_loop()
    longest, last = 0.0, loop.time()
    while not until.done():
        await asyncio.sleep(0)
        longest, last = max(longest, loop.time() - last), loop.time()
    return longest


async def test_a_lock_that_is_held_costs_nobody_else_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUSY_SECONDS", 1.0)
    store = sqlite_store(tmp_path / "store.db")
    await store.open()
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    # The second time, too: giving up must not leave the connection waiting on the loop from then on.
    for _ in range(2):
        refused = asyncio.ensure_future(store.users.add(user(), [name("ada")]))
        assert await longest_pause(refused) < 0.5
        with pytest.raises(StoreUnavailable):
            await refused
    waiting = asyncio.ensure_future(store.users.add(user(), [name("ada")]))
    await asyncio.sleep(0)
    other.execute("ROLLBACK")
    await waiting
    assert await store.users.find_by_name(name("ada")) is not None
    other.close()
    await store.close()


async def test_a_write_in_no_hurry_is_stored_with_the_next_or_after_a_moment(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path / "store.db")
    await store.open()
    ada = user()
    await store.users.add(ada, [])
    statements: list[str] = []
    store._database._opened().writer._connection.set_trace_callback(statements.append)
    patient = asyncio.ensure_future(store.sessions.open(session(ada.id), hurry=False))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not statements
    urgent = asyncio.ensure_future(store.sessions.open(session(ada.id)))
    await asyncio.gather(patient, urgent)
    assert statements.count("COMMIT") == 1
    # Nobody else comes: it is stored all the same.
    assert await store.sessions.open(session(ada.id), hurry=False) is not None
    assert statements.count("COMMIT") == 2
    # Also where it came while another was being stored.
    urgent = asyncio.ensure_future(store.sessions.open(session(ada.id)))
    for _ in range(GATHER_TURNS):
        await asyncio.sleep(0)
    assert statements.count("BEGIN IMMEDIATE") == 3
    assert await store.sessions.open(session(ada.id), hurry=False) is not None
    assert (await urgent) is not None
    assert statements.count("COMMIT") == 4
    await store.close()
