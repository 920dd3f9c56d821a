"""Figures and how they are shown."""

import os
import platform
from typing import NamedTuple

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


def there(what: str, measured: tuple[float, float], bound: float) -> Figure:
    """Microseconds that have to be at most *bound* on the machine for which bounds were set: *measured* are those here,
    and how much slower this machine was in the same rounds (`bench.yardstick`)."""
    cost, slow = measured
    most = bound * slow
    said = f"under {bound:,} us x {slow:.2f} = {shown(most, 'us')}"
    return Figure(what, shown(cost, "us"), said, cost <= most)


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
