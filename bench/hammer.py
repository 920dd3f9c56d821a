"""Call as often as a rate allows, and say how many calls passed: a process of its own.

    python -m bench.hammer STORE_URL LANES SECONDS

STORE_URL is that of a Redis, asked for every call, or of a database, from which units are leased. It begins with the
first line of its standard input and ends so many seconds later.
"""

import asyncio
import sys
import time

from authwright.app import system_clock
from authwright.domain.allowance import Rate
from authwright.domain.secrets import Subject
from authwright.services import rates as rates_
from authwright.services.rates import Rates, Shared
from authwright.storage.port import Allowances
from authwright.storage.redis import RedisAllowances
from authwright.storage.redis import allowances as redis
from authwright.storage.sql import postgres_store


async def main(url: str, lanes: int, seconds: float) -> None:
    # Whoever went elsewhere because the machine was busy would count by itself.
    for module, name in ((redis, "ANSWER_SECONDS"), (rates_, "WAIT_SECONDS")):
        setattr(module, name, 30.0)
    store = None
    if url.startswith("redis:"):
        allowances: Allowances = RedisAllowances(url, name="tests")
    else:
        store = postgres_store(url)
        await store.open()
        allowances = store.allowances
    rates = Rates(system_clock, Shared(allowances, system_clock, exact=store is None))
    rate, ada = Rate(600, 60, 600), Subject("usr_ada")
    await allowances.read(ada)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    until = time.monotonic() + seconds
    tidying = asyncio.create_task(rates.tidy_regularly())

    async def lane() -> int:
        passed = 0
        while time.monotonic() < until:
            passed += (await rates.take(ada, rate, 1)).granted
            # Where the answer is known at once, others are to have their turn, too.
            await asyncio.sleep(0.001)
        return passed

    passed = sum(await asyncio.gather(*(lane() for _ in range(lanes))))
    tidying.cancel()
    print(passed, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
