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
    assert sorted(await store.usage.totals(since_day=0)) == [(1, "/predict", 200, 100), (2, "/predict", 200, 1)]
    assert await store.usage.latencies(since_day=0) == [("/predict", 42, 101)]
    assert await store.usage.latencies(since_day=2) == [("/predict", 42, 1)]
    assert sorted(await store.usage.predictions(since_day=0)) == [(1, "setosa", 100), (2, "setosa", 1)]


async def test_old_days_are_forgotten_in_batches(store: Store) -> None:
    for day in range(6):
        await store.usage.add(counted(day))
    assert [await store.usage.forget(before_day=5, most=3) for _ in range(3)] == [9, 6, 0]
    assert [row[0] for row in await store.usage.totals(since_day=0)] == [5]


async def test_callers_are_summed_and_the_busiest_listed(store: Store) -> None:
    made = Counted()
    for subject, plan, route, status, calls in (
        ("usr_1", "free", "/predict", 200, 5),
        ("usr_1", "free", "/predict", 403, 2),
        ("usr_1", "free", "/me", 200, 1),
        ("usr_2", "premium", "/me", 401, 9),
        ("usr_3", "free", "/me", 200, 1),
        ("", "", "/login", 200, 50),
    ):
        made.calls[1, route, subject, plan, status] = calls
    await store.usage.add(made)
    assert await store.usage.callers(since_day=0, most=2) == [
        ("usr_2", "premium", 9, 9, 0),
        ("usr_1", "free", 8, 2, 5),
    ]
    assert sorted(await store.usage.callers_by_plan(since_day=0)) == [("free", 2), ("premium", 1)]
    assert await store.usage.callers(since_day=2, most=2) == []
