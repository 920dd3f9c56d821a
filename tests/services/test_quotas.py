"""Quotas while others count, too: what is on the way is neither forgotten nor counted twice."""

import asyncio

import pytest

from authwright.domain.plan import Plan
from authwright.domain.secrets import Subject
from authwright.domain.usage import Counted, day_of
from authwright.services.metrics import Metrics
from authwright.services.quotas import Quotas
from authwright.services.usage import Usage
from authwright.storage.port import StoreUnavailable
from authwright.storage.sql import sqlite_store
from harness import Clock

ADA = Subject("usr_ada")
TEN = Plan("ten", frozenset(), daily=10, monthly=1000)


async def test_what_is_held_while_all_is_stored_and_read_again_stays_held(clock: Clock) -> None:
    store = sqlite_store(None)
    await store.open()
    usage = Usage(store, Metrics(), clock)
    quotas = Quotas(store, usage, clock, alone=False)
    day = day_of(clock.now)
    assert (await quotas.take(ADA, TEN, 5)).granted
    # The call waits for something; meanwhile a second passes.
    await usage.flush()
    await quotas._look()
    assert not (await quotas.take(ADA, TEN, 6)).granted
    quotas.release(ADA, 5)
    quotas.put(ADA, 5, day=day)
    usage.charged("/me", ADA, 5, day=day)
    for _ in range(2):
        assert await quotas.left(ADA, TEN) == 5
        await usage.flush()
        await quotas._look()
    # Somebody else's count.
    other = Counted()
    other.charges[ADA, day, "/me"] = 3
    await store.usage.add(other)
    await quotas._look()
    assert await quotas.left(ADA, TEN) == 2
    assert (await quotas.take(ADA, TEN, 0)).month_left == 992
    await store.close()


async def test_what_cannot_be_stored_yet_is_counted_all_the_same(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    store = sqlite_store(None)
    await store.open()
    usage = Usage(store, Metrics(), clock)
    quotas = Quotas(store, usage, clock, alone=False)
    day = day_of(clock.now)

    async def away(_: Counted) -> None:
        raise StoreUnavailable("away")

    assert await quotas.left(ADA, TEN) == 10
    monkeypatch.setattr(store.usage, "add", away)
    for _ in range(3):
        quotas.put(ADA, 2, day=day)
        usage.charged("/me", ADA, 2, day=day)
        try:
            await usage.flush()
        except StoreUnavailable:
            await quotas._look()
    assert await quotas.left(ADA, TEN) == 4
    monkeypatch.undo()
    await usage.flush()
    await quotas._look()
    assert await quotas.left(ADA, TEN) == 4
    assert await store.usage.charged(ADA, day=day, since_day=day) == (6, 6)
    await store.close()


@pytest.mark.parametrize("forget", ["_look", "read_again"])
async def test_what_was_just_read_is_not_forgotten_before_it_is_used(clock: Clock, forget: str) -> None:
    """What forgets the unused comes between the answer of the store and those that waited for it."""
    store = sqlite_store(None)
    await store.open()
    quotas = Quotas(store, Usage(store, Metrics(), clock), clock, alone=False)
    waiting = asyncio.create_task(quotas.left(ADA, TEN))
    while not len(quotas):  # noqa: ASYNC110 - it is about the very turn of the loop
        await asyncio.sleep(0)
    assert not waiting.done()
    clock.advance(61)
    if (forgetting := getattr(quotas, forget)()) is not None:
        await forgetting
    assert not len(quotas)
    assert await waiting == 10
    quotas.put(ADA, 7, day=day_of(clock.now))
    assert await quotas.left(ADA, TEN) == 3
    await store.close()
