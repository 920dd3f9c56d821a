"""A token that was seen before: what it costs, beside a bare look-up."""

import asyncio
import random
import time

from authwright.domain.instant import MICROSECONDS, Instant
from authwright.guard import Guard
from authwright.guard.principal import Principal
from authwright.guard.verifier import _instant
from authwright.jose.sign import PrivateKey
from bench.first_sight import verifier
from bench.yardstick import API, ISSUER, in_turns, minted

SEEN = 100_000
IN_USE = (1_000, SEEN)
MOST = 512 * 1024 * 1024


def seen_before() -> list[tuple[dict[str, float], float]]:
    """What a token among SEEN that were seen costs, each time as a new string, as a request brings it; and how much
    slower than elsewhere the machine was meanwhile.

    For each of IN_USE: so many of them are asked for again and again, in any order.
    """
    now = Instant(int(time.time()) * 1_000_000)
    key = PrivateKey.generate("ES256")
    judge = verifier(key, cache_bytes=MOST)
    some = minted(key, 500, now // 1_000_000)
    # Other tokens need other signatures: their place is taken by what a verified one leaves behind.
    for token in some:
        judge.verify(token, now=now)
    left = next(iter(judge._young.values()))
    head = some[0].partition(".")[0]
    chance = random.Random(1)
    others = [f"{head}.{chance.randbytes(330).hex()[:440]}.{chance.randbytes(43).hex()}" for _ in range(SEEN)]
    for other in others:
        # As they are made within a quarter of an hour.
        end = _instant(left[1] // MICROSECONDS - chance.randrange(900))
        judge._remember(other, (tuple.__new__(Principal, left[0]), end, left[2]))
    needed = frozenset({"predict"})
    used: list[bytes] = []

    def bring() -> None:
        for token in used:
            token.decode("ascii")

    def look() -> None:
        verify = judge.verify
        for token in used:
            # A new string each time, as a request brings it.
            if not needed <= verify(token.decode("ascii"), now=now).scopes:
                raise RuntimeError("a scope is missing")

    guard, loop = Guard(issuer=ISSUER, audience=API), asyncio.new_event_loop()
    # As it is while the feed is followed.
    guard._verifier, guard._calm_until, guard._loop = judge, float("inf"), loop

    def recall() -> None:
        loop.run_until_complete(recalled())

    async def recalled() -> None:
        ask = guard.recall
        for token in used:
            principal = ask(token.decode("ascii"))
            if principal is None or not needed <= principal.scopes:
                raise RuntimeError("a scope is missing")

    table = dict.fromkeys(others)

    def bare() -> None:
        for token in used:
            table[token.decode("ascii")]

    measured = []
    for count in IN_USE:
        used[:] = [token.encode("ascii") for token in others[:count]] * (20_000 // count or 1)
        chance.shuffle(used)
        costs, slow = in_turns({"bring": bring, "bare": bare, "look": look, "recall": recall}, len(used))
        measured.append(({name: costs[name] - costs["bring"] for name in ("bare", "look", "recall")}, slow))
    loop.close()
    return measured
