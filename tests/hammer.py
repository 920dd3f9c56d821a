"""Call as often as a rate allows, and count how many calls passed: in processes of their own.

    python tests/hammer.py STORE_URL LANES SECONDS

STORE_URL is that of a Redis, asked for every call, or of a database, from which units are leased. A process begins with
the first line of its standard input. Each lane goes on for so many seconds, and then until it is refused: in the end
the bucket is empty, so that what passed is what the rate allows, neither more nor less.
"""

import asyncio
import subprocess
import sys
from typing import Final, NamedTuple

from authwright.app.server import system_clock
from authwright.domain.allowance import Rate
from authwright.domain.secrets import Subject
from authwright.services import rates as rates_
from authwright.services.rates import Rates, Shared
from authwright.storage.port import Allowances
from authwright.storage.redis import RedisAllowances
from authwright.storage.redis import allowances as redis
from authwright.storage.sql import postgres_store

RATE: Final = Rate(600, 60, 600)
_A_SECOND: Final = 10.0
_LANES: Final = 32


class Passed(NamedTuple):
    """How many calls passed, and how many do by the rate: at *least* and at *most*, for no instant is known exactly."""

    count: int
    least: float
    most: float


class _Report(NamedTuple):
    """Calls that passed; when the first was made and answered; when the last refused one was made and answered."""

    passed: int
    begun: int
    first: int
    last: int
    ended: int


def by_two_processes(url: str, seconds: float) -> Passed:
    """Two processes of 32 lanes each, for so many seconds."""
    command = [sys.executable, __file__, url, str(_LANES), str(seconds)]

    def process() -> subprocess.Popen[str]:
        return subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    with process() as one, process() as other:
        for each in (one, other):
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        for each in (one, other):
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        said = [each.communicate(timeout=seconds + 60)[0] for each in (one, other)]
    reports = [_Report(*map(int, line.split())) for line in said]
    shortest = max(each.last for each in reports) - min(each.first for each in reports)
    longest = max(each.ended for each in reports) - min(each.begun for each in reports)
    return Passed(
        sum(each.passed for each in reports),
        RATE.burst + _A_SECOND * shortest / 1e6 - 1,
        RATE.burst + _A_SECOND * longest / 1e6 + 1,
    )


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
    ada = Subject("usr_ada")
    await allowances.read(ada)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    tidying = asyncio.create_task(rates.tidy_regularly())
    begun = int(system_clock())
    until = begun + int(seconds * 1e6)

    async def lane() -> _Report:
        passed, first = 0, 0
        while True:
            made = int(system_clock())
            granted = (await rates.take(ada, RATE, 1)).granted
            answered = int(system_clock())
            passed += granted
            first = first or answered
            if not granted and made >= until:
                return _Report(passed, begun, first, made, answered)
            # Where the answer is known at once, others are to have their turn, too.
            await asyncio.sleep(0.001)

    reports = await asyncio.gather(*(lane() for _ in range(lanes)))
    tidying.cancel()
    whole = _Report(
        sum(each.passed for each in reports),
        begun,
        min(each.first for each in reports),
        max(each.last for each in reports),
        max(each.ended for each in reports),
    )
    print(*whole, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
