"""storage.port.Allowances and AllowanceLeases: what several processes know of the rates of callers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from authwright.domain.allowance import Allowance, AllowanceLease
from authwright.domain.instant import Instant, after
from authwright.domain.secrets import ClientId, Subject
from authwright.storage.port import Allowances, Replaced, Store
from authwright.storage.redis import RedisAllowances
from databases import a_database, store_at
from records import NOW

ADA, GUARD = Subject("usr_ada"), ClientId("cli_guard")


def allowance(full_at: int, leased: int = 0, leased_until: int = 0) -> Allowance:
    return Allowance(Instant(full_at), leased, Instant(leased_until))


def lease(name: str = "one") -> AllowanceLease:
    return AllowanceLease(name, GUARD, ADA, "(scoring)", 20_000, 15, "free", after(NOW, 5))


@pytest.fixture(params=["sqlite-file", "postgresql", "mongodb", "redis"])
async def allowances(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Allowances]:
    if request.param == "redis":
        redis = RedisAllowances(request.getfixturevalue("redis_server"), name=tmp_path.name)
        yield redis
        await redis.close()
        return
    async with a_database(request, tmp_path) as url:
        opened = store_at(url)
        await opened.open()
        yield opened.allowances
        await opened.close()


async def test_only_what_is_stored_can_be_replaced(allowances: Allowances) -> None:
    assert await allowances.read(ADA) is None
    first, second = allowance(NOW, 3, after(NOW, 5)), allowance(after(NOW, 1))
    assert await allowances.replace(ADA, first, second) == Replaced(False, None)
    assert await allowances.replace(ADA, None, first) == Replaced(True, first)
    assert await allowances.replace(ADA, None, second) == Replaced(False, first)
    assert await allowances.replace(ADA, second, first) == Replaced(False, first)
    assert await allowances.replace(ADA, first, second) == Replaced(True, second)
    assert await allowances.read(ADA) == second
    # Every part counts.
    for other in (allowance(after(NOW, 1), 1), allowance(after(NOW, 1), 0, 7), allowance(NOW)):
        assert await allowances.replace(ADA, other, first) == Replaced(False, second)


async def test_a_hundred_at_once_and_none_is_lost(allowances: Allowances) -> None:
    async def add_one() -> None:
        known: Allowance | None = None
        while True:
            made = allowance((known.full_at if known else 0) + 1)
            done, known = await allowances.replace(ADA, known, made)
            if done:
                return

    await asyncio.gather(*(add_one() for _ in range(100)))
    assert await allowances.read(ADA) == allowance(100)


async def test_full_buckets_are_forgotten_and_leased_ones_are_not(store: Store) -> None:
    for number in range(5):
        assert (await store.allowances.replace(Subject(f"usr_{number}"), None, allowance(number))).done
    assert (await store.allowances.replace(ADA, None, allowance(0, 1, 100))).done
    assert [await store.allowances.forget(before=Instant(4), most=3) for _ in range(3)] == [3, 1, 0]
    assert await store.allowances.read(ADA) == allowance(0, 1, 100)
    assert await store.allowances.read(Subject("usr_4")) == allowance(4)


async def test_a_lease_is_consumed_once_and_by_its_own_guard(store: Store) -> None:
    await store.allowance_leases.add(lease())
    assert await store.allowance_leases.consume("one", guard=ClientId("cli_other")) is None
    answers = await asyncio.gather(*(store.allowance_leases.consume("one", guard=GUARD) for _ in range(50)))
    assert [answer for answer in answers if answer] == [lease()]
    assert await store.allowance_leases.consume("none", guard=GUARD) is None


async def test_leases_that_ended_are_forgotten(store: Store) -> None:
    for name in ("one", "two", "three"):
        await store.allowance_leases.add(lease(name))
    assert await store.allowance_leases.forget(before=after(NOW, 5), most=9) == 0
    assert [await store.allowance_leases.forget(before=after(NOW, 6), most=2) for _ in range(3)] == [2, 1, 0]
