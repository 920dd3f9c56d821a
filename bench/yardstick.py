"""What is measured in calm rounds, and how fast the machine is in the same rounds.

That is told by what PyJWT adds to the check of a signature; bounds in microseconds are held beside it:
docs/decisions/0026-bounds-are-held-beside-a-peer.md.
"""

import asyncio
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from authwright.jose.encoding import b64url_decode
from authwright.jose.sign import PrivateKey, Signer

ROUNDS: Final = 5
TRIED: Final = 20
"""Rounds of a server under load, which take seconds."""
SHORT_TRIED: Final = 60
"""Rounds of work in this process, which take a third of one."""
PROCESSES: Final = 5
PYJWT_ADDS: Final = 30.5
"""Microseconds that PyJWT added to the check of a signature, 26 to 35, where the bounds in microseconds were set."""
API: Final = "https://api.example.com"
ISSUER: Final = "https://auth.example.com"
FIRST: Final = 400
SAID: Final = (
    f"Bounds in microseconds count for a machine on which PyJWT {version('pyjwt')} adds {PYJWT_ADDS} us to the bare "
    "check of a signature, and are multiplied by what it adds here in the same rounds "
    "([decision 0026](decisions/0026-bounds-are-held-beside-a-peer.md))."
)

Work = Callable[[], None]


def minted(key: PrivateKey, count: int, now: int, issuer: str = ISSUER) -> list[str]:
    """*count* tokens with all claims that the server puts into one, in its order, and as long as it makes them."""
    signer = Signer(key, typ="at+jwt")
    return [
        signer.sign(
            {
                "iss": issuer,
                "sub": f"usr_{number:022d}",
                "aud": API,
                "exp": now + 3000,
                "iat": now,
                "jti": f"{number:022d}",
                "client_id": "cli_first_party",
                "sid": f"{number:030d}",
                "scope": "account analytics predict",
                "roles": ["user"],
                "plan": "premium",
                "auth_epoch": 3,
                "preferred_username": f"user{number}",
            }
        )
        for number in range(count)
    ]


def timed(work: Work, times: int) -> float:
    """CPU microseconds of *work*, each of *times*."""
    before = time.thread_time()
    work()
    return (time.thread_time() - before) / times * 1e6


def checks(key: PrivateKey, tokens: list[str]) -> tuple[Work, Work]:
    """The bare check of the signatures of *tokens* by cryptography, and all that PyJWT does to decode them."""
    public: Any = key.public._key
    signing = ec.ECDSA(hashes.SHA256())
    signed = []
    for token in tokens:
        message, _, encoded = token.rpartition(".")
        raw = b64url_decode(encoded)
        der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        signed.append((der, message.encode()))

    def bare() -> None:
        for signature, message in signed:
            public.verify(signature, message, signing)

    def pyjwt() -> None:
        for token in tokens:
            jwt.decode(token, public, algorithms=["ES256"], audience=API, issuer=ISSUER)

    return bare, pyjwt


@cache
def _yardstick() -> tuple[Work, Work]:
    key = PrivateKey.generate("ES256")
    return checks(key, minted(key, FIRST, int(time.time())))


def slower() -> float:
    """How much slower the machine is just now than that for which the bounds in microseconds were set."""
    bare, pyjwt = _yardstick()
    without = timed(bare, FIRST)
    return (timed(pyjwt, FIRST) - without) / PYJWT_ADDS


def same_work() -> float:
    """CPU seconds of some work in plain Python."""
    before = time.thread_time()
    sum(len(str(number)) for number in range(100_000))
    return time.thread_time() - before


def calm_rounds(round_: Callable[[], dict[str, float]], *, tried: int) -> tuple[dict[str, float], float]:
    """Of each cost of a round the median, and that of how much `slower` the machine was in the very same rounds.

    Of the *tried* ones that quarter counts in which the machine was fastest. Others use the same processors. How fast
    they leave them to us is told by work of our own that is always the same.
    """
    round_()
    rounds = []
    for _ in range(tried):
        gc.collect()
        work, slow = same_work(), slower()
        costs = round_()
        slow = (slow + slower()) / 2
        rounds.append((max(work, same_work()), slow, costs))
    rounds.sort(key=lambda each: each[0])
    calm = rounds[: tried // 4]
    medians = {name: statistics.median(costs[name] for *_, costs in calm) for name in calm[0][2]}
    return medians, statistics.median(slow for _, slow, _ in calm)


def in_turns(works: dict[str, Work], times: int) -> tuple[dict[str, float], float]:
    """`calm_rounds` of each of *works*; they take turns, so that all meet the same machine."""
    return calm_rounds(lambda: {name: timed(work, times) for name, work in works.items()}, tried=SHORT_TRIED)


def in_processes(measure: str) -> list[Any]:
    """What the function *measure*, named with its module, answers in each of PROCESSES new processes.

    Where things come to lie in the memory of a process makes it some percent faster or slower than the next one, for
    as long as it lives.
    """
    module, _, name = measure.rpartition(".")
    command = [sys.executable, "-c", f"import json, {module}; print(json.dumps({module}.{name}()))"]
    return [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(PROCESSES)
    ]


def middle(runs: Sequence[tuple[dict[str, float], float]], name: str) -> tuple[dict[str, float], float]:
    """That one of *runs* whose cost *name* is the median of all, measured by how slow its machine was."""
    return sorted(runs, key=lambda run: run[0][name] / run[1])[len(runs) // 2]


async def calmly(round_: Callable[[], Coroutine[Any, Any, dict[str, float]]]) -> tuple[dict[str, float], float]:
    """`calm_rounds` of a coroutine on this event loop."""
    loop = asyncio.get_running_loop()
    return await asyncio.to_thread(
        calm_rounds,
        lambda: asyncio.run_coroutine_threadsafe(round_(), loop).result(),
        tried=SHORT_TRIED,
    )


def calmest(round_: Callable[[], float]) -> tuple[float, float]:
    """`calm_rounds` of one cost of a server under load."""
    medians, slow = calm_rounds(lambda: {"": round_()}, tried=TRIED)
    return medians[""], slow
