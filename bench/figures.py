"""Figures and how they are shown; and telling a busy machine from a slow program."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

ROUNDS = 5
TRIED = 20
PYJWT_ADDS = 30.5
"""Microseconds that PyJWT added to the check of a signature, 26 to 35, where the bounds in microseconds were set."""
CORES = len(os.sched_getaffinity(0))


class Figure(NamedTuple):
    """One line of a table. *met*: whether the measured figure keeps its bound; None: shown for comparison."""

    what: str
    measured: str
    bound: str
    met: bool | None


def below(what: str, measured: float, bound: float, unit: str) -> Figure:
    """A figure that has to be at most *bound*."""
    return Figure(what, shown(measured, unit), f"under {bound:,} {unit}", measured <= bound)


class There(NamedTuple):
    """Microseconds that have to be at most *bound* on the machine for which bounds were set (decision 0026)."""

    what: str
    measured: float
    bound: float

    def here(self, slower: float) -> Figure:
        """The line of the table of a machine that is so much *slower*."""
        most = self.bound * slower
        bound = f"under {self.bound:,} us there, {shown(most, 'us')} here"
        return Figure(self.what, shown(self.measured, "us"), bound, self.measured <= most)


def held(figures: Iterable[Figure | There], slower: float) -> list[Figure]:
    """All lines of a table, those that are held beside the peer on a machine that is so much *slower*."""
    return [each.here(slower) if isinstance(each, There) else each for each in figures]


def as_there(slower: float) -> str:
    """What is said of *slower*."""
    return (
        f"PyJWT {version('pyjwt')} added {PYJWT_ADDS * slower:.0f} us to the bare check of a signature in the fastest "
        f"moments before and after, {slower:.2f} times as much as where the bounds in microseconds were set: as much "
        "more they are here ([decision 0026](decisions/0026-bounds-are-held-beside-a-peer.md))."
    )


def beside(what: str, measured: float, unit: str) -> Figure:
    """A figure that others are compared with."""
    return Figure(what, shown(measured, unit), "", None)


def shown(measured: float, unit: str) -> str:
    return f"{measured:.2f} {unit}" if abs(measured) < 10 else f"{measured:,.0f} {unit}"


def table(figures: list[Figure]) -> str:
    """*figures* as Markdown."""
    verdicts = {True: "yes", False: "**no**", None: ""}
    rows = [f"| {each.what} | {each.measured} | {each.bound} | {verdicts[each.met]} |" for each in figures]
    return "\n".join(["| what | measured | bound | met |", "|---|---|---|---|", *rows])


def machine() -> str:
    """What the figures were measured on."""
    return f"{CORES} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def calmest(round_: Callable[[], float]) -> float:
    """The median of ROUNDS rounds: of TRIED, those in which the machine itself was fastest.

    Others use the same processors. How fast they leave them to us is told by work of our own that is always the same.
    """
    round_()
    rounds = []
    for _ in range(TRIED):
        before = same_work()
        cost = round_()
        rounds.append((max(before, same_work()), cost))
    return statistics.median(cost for _, cost in sorted(rounds)[:ROUNDS])


def same_work() -> float:
    """CPU seconds of some work in plain Python."""
    before = time.thread_time()
    sum(len(str(number)) for number in range(100_000))
    return time.thread_time() - before


def bare_signature() -> float:
    """CPU microseconds of one ES256 signature without anything around it."""
    key, signing = ec.generate_private_key(ec.SECP256R1()), ec.ECDSA(hashes.SHA256())

    def once() -> float:
        before = time.thread_time()
        for _ in range(500):
            key.sign(bytes(200), signing)
        return (time.thread_time() - before) / 500 * 1e6

    return calmest(once)
