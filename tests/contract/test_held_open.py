"""The ledger while another writer has an entry that is not committed: nobody steps over it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from databases import a_database, store_at
from held_open import held_open
from records import revocation


@pytest.fixture(params=["sqlite-file", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """MongoDB is left out: without transactions no writer can hold one open."""
    async with a_database(request, tmp_path) as made:
        yield made


@pytest.mark.parametrize("how", ["COMMIT", "ROLLBACK"])
async def test_an_entry_comes_after_one_that_is_held_open_and_no_reader_sees_a_gap(url: str, how: str) -> None:
    store = store_at(url)
    await store.open()
    async with held_open(url, "held open") as end:
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
