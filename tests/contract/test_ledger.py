"""storage.port.Ledger: append-only and gapless."""

import asyncio
from dataclasses import replace

from authwright.domain.instant import after
from authwright.domain.revocation import FOREVER
from authwright.storage.port import Store
from records import NOW, revocation


async def test_entries_are_numbered_from_one_and_read_in_order(store: Store) -> None:
    made = [revocation("a"), revocation("usr_1", kind="subject", epoch=2**40), revocation("k", kind="key")]
    assert [await store.ledger.append(each) for each in made] == [1, 2, 3]
    assert list(await store.ledger.since(0)) == [replace(each, number=n + 1) for n, each in enumerate(made)]
    assert [each.number for each in await store.ledger.since(1, most=1)] == [2]
    assert list(await store.ledger.since(3)) == []


async def test_a_hundred_writers_leave_no_gap_and_no_reader_ever_sees_one(store: Store) -> None:
    seen = 0
    done = False

    async def follow() -> None:
        nonlocal seen
        while not (done and seen == 100):
            for entry in await store.ledger.since(seen):
                assert entry.number == seen + 1
                seen = entry.number
            await asyncio.sleep(0)

    following = asyncio.create_task(follow())
    numbers = await asyncio.gather(*(store.ledger.append(revocation(str(n))) for n in range(100)))
    done = True
    await asyncio.wait_for(following, 10)
    assert sorted(numbers) == list(range(1, 101))


async def test_a_snapshot_holds_all_that_was_not_forgotten_whatever_a_clock_says(store: Store) -> None:
    assert list(await store.ledger.snapshot()) == []
    made = [revocation("long ago", until=-7200), revocation("k", kind="key"), revocation("late", until=7200)]
    for each in made:
        await store.ledger.append(each)
    assert list(await store.ledger.snapshot()) == [replace(each, number=n + 1) for n, each in enumerate(made)]


async def test_what_no_longer_matters_is_forgotten_but_never_the_newest(store: Store) -> None:
    for number in range(6):
        await store.ledger.append(revocation(str(number), until=10))
    await store.ledger.append(replace(revocation("k", kind="key"), until=FOREVER))
    await store.ledger.append(revocation("newest", until=1))
    assert await store.ledger.forget(now=after(NOW, 5), most=10) == 0
    assert await store.ledger.forget(now=after(NOW, 20), most=4, through=0) == 0
    assert await store.ledger.forget(now=after(NOW, 20), most=4, through=3) == 3
    assert await store.ledger.forget(now=after(NOW, 20), most=1) == 1
    assert await store.ledger.forget(now=after(NOW, 20), most=4) == 2
    assert await store.ledger.forget(now=after(NOW, 20), most=4) == 0
    assert [each.number for each in await store.ledger.snapshot()] == [7, 8]
    assert await store.ledger.append(revocation("next")) == 9
