"""storage.port.Throttles: counters of failures that no race can cheat."""

import asyncio

from authwright.domain.instant import MICROSECONDS, Instant, after
from authwright.domain.throttle import Backoff, Bucket
from authwright.storage.port import Passed, Store
from records import NOW

ADA, EVE, NET = Bucket(b"ada"), Bucket(b"eve"), Bucket(b"net")


async def test_a_bucket_is_closed_for_as_long_as_the_backoff_says(store: Store) -> None:
    backoff, now = Backoff(free=3, memory=86_400), NOW
    for failures in range(1, 30):
        assert await store.throttles.admit([(ADA, backoff)], now=now) is None
        seconds = backoff.closed_for(failures)
        if seconds:
            for early in (now, Instant(after(now, seconds) - 1)):
                assert await store.throttles.admit([(ADA, backoff)], now=early) == after(now, seconds)
        now = after(now, seconds)


async def test_an_attempt_is_counted_in_every_bucket_or_in_none(store: Store) -> None:
    once, often = Backoff(free=1, memory=86_400), Backoff(free=3, memory=86_400)
    assert await store.throttles.admit([(ADA, once)], now=NOW) is None
    for _ in range(5):
        assert await store.throttles.admit([(NET, often), (ADA, once)], now=NOW) == after(NOW, 1)
    assert [await store.throttles.admit([(NET, often)], now=NOW) is None for _ in range(4)] == [True, True, True, False]


async def test_of_two_hundred_at_once_exactly_the_free_ones_are_let_in(store: Store) -> None:
    backoff = Backoff(free=7, memory=86_400)
    answers = await asyncio.gather(*(store.throttles.admit([(ADA, backoff)], now=NOW) for _ in range(200)))
    assert answers.count(None) == 7


async def test_two_hundred_at_once_count_as_two_hundred(store: Store) -> None:
    backoff = Backoff(free=1000, memory=86_400)
    await asyncio.gather(*(store.throttles.admit([(ADA, backoff)], now=NOW) for _ in range(200)))
    # The next one is the 201st: with so many free it closes the bucket.
    assert await store.throttles.admit([(ADA, Backoff(free=202, memory=86_400))], now=NOW) is None
    assert await store.throttles.admit([(ADA, Backoff(free=202, memory=86_400))], now=NOW) is None
    assert await store.throttles.admit([(ADA, backoff)], now=NOW) == after(NOW, 1)


async def test_success_clears_takes_back_and_marks(store: Store) -> None:
    backoff = Backoff(free=2, memory=86_400)
    await store.throttles.admit([(ADA, backoff), (NET, backoff)], now=NOW)
    await store.throttles.succeed(Passed(cleared=[ADA], returned=[NET], familiar=[EVE], until=after(NOW, 10)))
    assert await store.throttles.familiar_until(EVE, now=NOW) == after(NOW, 10)
    assert await store.throttles.familiar_until(EVE, now=after(NOW, 10)) is None
    assert await store.throttles.familiar_until(ADA, now=NOW) is None
    for bucket in (ADA, NET):
        assert [await store.throttles.admit([(bucket, backoff)], now=NOW) is None for _ in range(3)] == [
            True,
            True,
            False,
        ]


async def test_failures_are_forgotten_after_the_memory_of_the_backoff(store: Store) -> None:
    backoff = Backoff(free=2, memory=100)
    await store.throttles.admit([(ADA, backoff)], now=NOW)
    later = after(NOW, 101)
    assert await store.throttles.admit([(ADA, backoff)], now=later) is None
    assert await store.throttles.admit([(ADA, backoff)], now=later) is None
    assert await store.throttles.admit([(ADA, backoff)], now=later) == Instant(later + MICROSECONDS)


async def test_old_counters_and_marks_are_forgotten_in_batches(store: Store) -> None:
    backoff = Backoff(free=1, memory=100)
    for number in range(7):
        await store.throttles.admit([(Bucket(b"%d" % number), backoff)], now=NOW)
    await store.throttles.admit([(ADA, backoff)], now=after(NOW, 50))
    await store.throttles.succeed(Passed(cleared=(), returned=(), familiar=[EVE], until=after(NOW, 10)))
    later = after(NOW, 60)
    forgotten = [await store.throttles.forget(before=after(NOW, 40), now=later, most=5) for _ in range(3)]
    assert forgotten == [6, 2, 0]
    # The one that was used since is still there.
    assert await store.throttles.admit([(ADA, Backoff(free=2, memory=100))], now=after(NOW, 55)) is None
    assert await store.throttles.admit([(ADA, Backoff(free=2, memory=100))], now=after(NOW, 55)) is not None
