"""storage.sql.engine: while another process holds the write lock the event loop goes on, also after giving up once."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from authwright.storage.port import StoreUnavailable
from authwright.storage.sql import SqlStore, engine
from records import name, user


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
    store = SqlStore(tmp_path / "store.db")
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
