"""storage.port.Usage: sums by day that lose nothing."""

import asyncio

from authwright.domain.usage import Counted
from authwright.storage.port import Store


def counted(day: int, times: int = 1) -> Counted:
    made = Counted()
    made.calls[day, "/predict", "usr_1", "free", 200] = times
    made.latencies[day, "/predict", 42] = times
    made.predictions[day, "setosa"] = times
    return made


async def test_counts_are_added_to_what_is_there(store: Store) -> None:
    await asyncio.gather(*(store.usage.add(counted(1, 2)) for _ in range(50)))
    await store.usage.add(counted(2))
    await store.usage.add(Counted())
    assert sorted(await store.usage.calls(since_day=0)) == [
        (1, "/predict", "usr_1", "free", 200, 100),
        (2, "/predict", "usr_1", "free", 200, 1),
    ]
    assert await store.usage.latencies(since_day=0) == [("/predict", 42, 101)]
    assert await store.usage.latencies(since_day=2) == [("/predict", 42, 1)]
    assert sorted(await store.usage.predictions(since_day=0)) == [(1, "setosa", 100), (2, "setosa", 1)]


async def test_old_days_are_forgotten_in_batches(store: Store) -> None:
    for day in range(6):
        await store.usage.add(counted(day))
    assert [await store.usage.forget(before_day=5, most=3) for _ in range(3)] == [9, 6, 0]
    assert [row[0] for row in await store.usage.calls(since_day=0)] == [5]
