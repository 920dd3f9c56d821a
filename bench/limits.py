"""What plans cost, and how exactly they are kept: in memory, through Redis, by leases from the database."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from authwright.app.server import system_clock
from authwright.domain.allowance import Rate
from authwright.domain.instant import Instant
from authwright.domain.plan import Plan, Plans
from authwright.domain.secrets import Subject
from authwright.services.limits import Limits
from authwright.services.metrics import Metrics
from authwright.services.quotas import Quotas
from authwright.services.rates import Rates, Shared
from authwright.services.usage import Usage
from authwright.storage.redis import RedisAllowances
from authwright.storage.sql import sqlite_store
from bench.figures import Figure, below, beside
from bench.yardstick import calmly

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from databases import new_postgres_database, own_postgres, own_redis  # noqa: E402 - the servers that tests use
from hammer import RATE, by_two_processes  # noqa: E402 - found by the path that was put there

BUSY = Rate(10_000, 1, 10**9)
CALLS = 20_000
CALLERS = 1_000_000
SECONDS = 10.0


async def checks(plan: Plan) -> float:
    """CPU microseconds of one check of *plan* in memory, by a thousand callers in turn."""
    store = sqlite_store(None)
    await store.open()
    metrics = Metrics()
    usage = Usage(store, metrics, system_clock)
    quotas = Quotas(store, usage, system_clock, alone=True)
    limits = Limits(Plans([plan]), Rates(system_clock), quotas, usage, metrics)
    callers = [Subject(f"usr_{number:022}") for number in range(1000)]

    async def once() -> dict[str, float]:
        before = time.thread_time()
        for turn in range(CALLS):
            now = system_clock()
            standing = await limits.spend(callers[turn % 1000], plan, 1, route="/predict", now=now)
            assert standing.refused is None
        return {"check": (time.thread_time() - before) / CALLS * 1e6}

    costs, _ = await calmly(once)
    await store.close()
    return costs["check"]


async def through_redis(url: str) -> float:
    """CPU microseconds of this process for one check through Redis: 64 callers at a time."""
    allowances = RedisAllowances(url, name="bench")
    rates = Rates(system_clock, Shared(allowances, system_clock, exact=True))

    async def lane(caller: Subject) -> None:
        for _ in range(50):
            assert (await rates.take(caller, BUSY, 1)).granted

    async def once() -> float:
        before = time.process_time()
        await asyncio.gather(*(lane(Subject(f"usr_{number}")) for number in range(64)))
        return (time.process_time() - before) / (64 * 50) * 1e6

    await once()
    cost = sorted([await once() for _ in range(9)])[4]
    await allowances.close()
    return cost


async def at_once() -> int:
    """How many of 700 calls pass while time stands still."""
    now = Instant(1_795_000_000_000_000)
    rates = Rates(lambda: now)
    return sum([(await rates.take(Subject("usr_ada"), RATE, 1)).granted for _ in range(700)])


_TRACKED = """
import resource, sys
from authwright.domain.allowance import Rate
from authwright.domain.secrets import Subject
from authwright.services.rates import Alone

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() / 2**20

alone, rate, now, count = Alone(), Rate(600, 60, 600), 1_795_000_000_000_000, int(sys.argv[1])
before = resident()
for number in range(count):
    alone.take(Subject(f"usr_{number:022}"), rate, 1, now)
print(len(alone), resident() - before)
# A minute later all buckets are full again; some are looked at every second.
for _ in range(count // 10_000 + 1):
    alone.tidy(now + 60_000_000)
print(len(alone))
"""


def tracked() -> tuple[float, int]:
    """MiB that a million callers take, and how many are still remembered once their buckets are full."""
    done = subprocess.run(
        [sys.executable, "-c", _TRACKED, str(CALLERS)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    first, last = done.stdout.splitlines()
    count, mebibytes = first.split()
    assert int(count) == CALLERS
    return float(mebibytes), int(last)


def section() -> tuple[str, list[Figure]]:
    """The figures of plans."""
    rate = asyncio.run(checks(Plan("busy", frozenset(), rate=BUSY)))
    quota = asyncio.run(checks(Plan("busy", frozenset(), rate=BUSY, daily=10**12)))
    with own_redis() as server:
        redis = asyncio.run(through_redis(server.url))
        exact = by_two_processes(server.url, SECONDS)
    with own_postgres() as postgres:
        leased = by_two_processes(asyncio.run(new_postgres_database(postgres.url)), SECONDS)
    mebibytes, remembered = tracked()
    frozen = asyncio.run(at_once())
    figures = [
        below("check of a rate in memory, CPU", rate, 3, "µs"),
        beside("check of a rate and a daily quota in memory, CPU", quota, "µs"),
        below("check through Redis, 64 callers at a time, CPU of the server", redis, 150, "µs"),
        Figure("calls of 700 that a 600/minute plan passes while time stands still", str(frozen), "600", frozen == 600),
        Figure(
            f"calls passed in {SECONDS:.0f} s through Redis, 2 processes, 64 at a time",
            str(exact.count),
            f"{exact.least:.1f} to {exact.most:.1f}",
            exact.least <= exact.count <= exact.most,
        ),
        Figure(
            f"calls passed in {SECONDS:.0f} s by leases from PostgreSQL, the same load",
            str(leased.count),
            f"at most {leased.most:.1f}",
            leased.count <= leased.most,
        ),
        below(f"memory of {CALLERS:,} callers", mebibytes, 286, "MiB"),
        Figure(
            "of them remembered when their buckets are full again",
            str(remembered),
            "none of them",
            remembered == 0,
        ),
    ]
    return "A plan of 600/minute, which is its burst, too.", figures
