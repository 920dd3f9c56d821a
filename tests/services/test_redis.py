"""Rates in Redis: exact over processes; and what happens when it is lost, hangs, or forgets everything."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from authwright.app.server import system_clock
from authwright.config import new_secret_key
from authwright.domain.allowance import Allowance, Rate
from authwright.domain.instant import Instant
from authwright.domain.secrets import Subject
from authwright.services.rates import Rates, Shared
from authwright.storage.port import StoreUnavailable
from authwright.storage.redis import RedisAllowances
from databases import RedisServer, a_database, own_redis
from hammer import by_two_processes
from harness import Clock, development, open_service

ADA = Subject("usr_ada")
PREMIUM = Rate(600, 60, 600)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with own_redis() as running:
        yield running


@pytest.fixture
async def allowances(server: RedisServer) -> AsyncIterator[RedisAllowances]:
    opened = RedisAllowances(server.url, name="tests")
    yield opened
    await opened.close()


async def spend(rates: Rates, times: int) -> int:
    return sum([(await rates.take(ADA, PREMIUM, 1)).granted for _ in range(times)])


def test_two_processes_pass_exactly_the_rate(server: RedisServer) -> None:
    """600 + 10 t, one more or less, with 64 calls at a time."""
    passed = by_two_processes(server.url, 3)
    assert passed.least <= passed.count <= passed.most
    assert passed.least > 600 + 10 * 3 - 2


async def test_what_one_process_spends_another_one_knows_at_once(allowances: RedisAllowances, clock: Clock) -> None:
    first, second = (Rates(clock, Shared(allowances, clock, exact=True)) for _ in range(2))
    assert await spend(first, 400) == 400
    assert await spend(second, 400) == 200
    assert await spend(first, 1) == 0


async def test_a_redis_that_was_started_anew_is_used_on(
    allowances: RedisAllowances, server: RedisServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authwright.services.rates.AWAY_SECONDS", 0.0)
    rates = Rates(clock, Shared(allowances, clock, exact=True))
    assert await spend(rates, 100) == 100
    server.kill()
    server.start()
    # It forgot everything: one more burst, and not more. A connection that was lost is noticed once.
    await spend(rates, 1)
    assert await spend(rates, 700) == 600
    assert await allowances.read(ADA) is not None


async def test_a_redis_that_forgets_everything_allows_a_burst_more(allowances: RedisAllowances, clock: Clock) -> None:
    rates = Rates(clock, Shared(allowances, clock, exact=True))
    assert await spend(rates, 100) == 100
    await allowances._redis.flushall()
    await allowances._redis.script_flush()
    assert await spend(rates, 700) == 600


async def test_a_redis_that_hangs_is_given_up_soon(
    allowances: RedisAllowances, server: RedisServer, clock: Clock
) -> None:
    rates = Rates(clock, Shared(allowances, clock, exact=True))
    assert await spend(rates, 1) == 1
    server.hang()
    try:
        begun = time.monotonic()
        answers = await asyncio.gather(*(rates.take(ADA, PREMIUM, 1) for _ in range(700)))
        # Once for all of them, and not once for each.
        assert time.monotonic() - begun < 2
        assert sum(answer.granted for answer in answers) == 600
    finally:
        server.go_on()


async def test_what_somebody_else_wrote_there_is_no_allowance(allowances: RedisAllowances) -> None:
    for text in ("1", "a b c", "-1 0 0", "1 2 3 4", "1 2 ³"):
        await allowances._redis.set("authwright:tests:allowance:usr_ada", text)
        with pytest.raises(StoreUnavailable):
            await allowances.read(ADA)
        with pytest.raises(StoreUnavailable):
            await allowances.replace(ADA, None, Allowance(Instant(1)))


async def test_what_is_kept_is_gone_when_it_is_of_no_use(allowances: RedisAllowances) -> None:
    soon = Instant(system_clock() + 10_000_000)
    assert (await allowances.replace(ADA, None, Allowance(soon))).done
    kept = await allowances._redis.pttl("authwright:tests:allowance:usr_ada")
    assert 60_000 < kept <= 70_001


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    async with a_database(request, tmp_path) as made:
        yield made


async def test_a_server_falls_back_to_the_database_and_never_to_unlimited(
    server: RedisServer, clock: Clock, url: str
) -> None:
    settings = development(redis_url=server.url, database_url=url, secret_key=new_secret_key())
    async with open_service(clock=clock, settings=settings) as service:
        token = (await service.registered_login())["access_token"]
        served = [(await service.get("/me", token)).status_code for _ in range(61)]
        assert served == [200] * 60 + [429]
        server.kill()
        clock.advance(1)
        served = [(await service.get("/me", token)).status_code for _ in range(70)]
        # Another bucket, as full as any: a burst more, and then it is the rate again.
        assert served == [200] * 60 + [429] * 10
        assert (await service.http.get("/readyz")).status_code == 200


async def test_a_server_starts_without_redis(clock: Clock) -> None:
    settings = development(redis_url="redis://127.0.0.1:1/0")
    async with open_service(clock=clock, settings=settings) as service:
        token = (await service.registered_login())["access_token"]
        assert (await service.get("/me", token)).headers["ratelimit"].startswith('"rate";r=59;')
