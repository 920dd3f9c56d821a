"""storage.port.Usage: sums by day that lose nothing."""

import asyncio

from authwright.domain.usage import Counted, UsageRow
from authwright.storage.port import Store


def counted(day: int, times: int = 1) -> Counted:
    made = Counted()
    made.calls[day, "/predict", "usr_1", "free", 200] = times
    made.latencies[day, "/predict", 42] = times
    made.predictions[day, "setosa"] = times
    made.charges["usr_1", day, "/predict"] = 2 * times
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
    assert [await store.usage.forget(before_day=5, most=3) for _ in range(3)] == [12, 8, 0]
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


async def test_what_a_caller_spent_is_summed_by_day(store: Store) -> None:
    await asyncio.gather(*(store.usage.add(counted(day)) for day in (3, 4, 4, 5)))
    made = Counted()
    made.charges["usr_1", 4, "/me"] = 7
    made.charges["usr_2", 4, "/me"] = 100
    # What comes back from a lease.
    made.charges["usr_1", 5, "(scoring)"] = -1
    await store.usage.add(made)
    assert await store.usage.charged("usr_1", day=5, since_day=4) == (1, 12)
    assert await store.usage.charged("usr_1", day=6, since_day=6) == (0, 0)
    assert await store.usage.charged("usr_9", day=5, since_day=0) == (0, 0)
    assert await store.usage.units_by_day(since_day=4) == [(4, 111), (5, 1)]
    assert await store.usage.charges("usr_1", since_day=4) == [
        (4, "/me", 7),
        (4, "/predict", 4),
        (5, "(scoring)", -1),
        (5, "/predict", 2),
    ]


async def test_calls_and_units_are_listed_together_page_by_page(store: Store) -> None:
    await store.usage.add(counted(3))
    made = Counted()
    made.calls[3, "/predict", "usr_1", "premium", 403] = 5
    made.calls[3, "/me", "usr_2", "free", 200] = 1
    made.calls[3, "/login", "", "", 200] = 9
    made.calls[4, "/me", "usr_1", "free", 200] = 1
    made.charges["usr_1", 4, "(scoring)"] = 8
    await store.usage.add(made)
    every = [
        UsageRow(3, "usr_1", "/predict", 6, 2),
        UsageRow(3, "usr_2", "/me", 1, 0),
        UsageRow(4, "usr_1", "(scoring)", 0, 8),
        UsageRow(4, "usr_1", "/me", 1, 0),
    ]
    listed: list[UsageRow] = []
    start = (0, "", "")
    while page := await store.usage.by_caller(since_day=3, until_day=4, subject=None, after=start, most=1):
        listed += page
        start = page[-1][:3]
    assert listed == every
    both = {"since_day": 3, "until_day": 4, "after": (0, "", ""), "most": 99}
    assert await store.usage.by_caller(**both, subject="usr_1") == [every[0], every[2], every[3]]
    assert await store.usage.by_caller(**{**both, "until_day": 3}, subject=None) == every[:2]
