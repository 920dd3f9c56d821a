"""Call as often as a rate allows, and say how many calls passed: a process of its own.

    python tests/hammer.py REDIS_URL LANES SECONDS

It begins with the first line of its standard input, and ends so many seconds later.
"""

import asyncio
import sys
import time

from authwright.app import system_clock
from authwright.domain.allowance import Rate
from authwright.domain.secrets import Subject
from authwright.services.rates import Rates, Shared
from authwright.storage.redis import RedisAllowances


async def hammer(url: str, lanes: int, seconds: float) -> int:
    allowances = RedisAllowances(url, name="tests")
    rates, rate = Rates(system_clock, Shared(allowances, system_clock, exact=True)), Rate(600, 60, 600)
    await allowances.read(Subject("usr_somebody"))
    print("ready", flush=True)
    sys.stdin.readline()
    until = time.monotonic() + seconds

    async def lane() -> int:
        passed = 0
        while time.monotonic() < until:
            passed += (await rates.take(Subject("usr_ada"), rate, 1)).granted
            # Where the answer is known at once, others are to have their turn, too.
            await asyncio.sleep(0.001)
        return passed

    passed = sum(await asyncio.gather(*(lane() for _ in range(lanes))))
    await allowances.close()
    return passed


if __name__ == "__main__":
    print(asyncio.run(hammer(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
