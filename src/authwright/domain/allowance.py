"""The arithmetic of rates: the generic cell rate algorithm (ITU-T I.371), and leases that never let more through.

A caller's allowance is one instant, that at which its bucket will be full again, and what of the bucket is out on
lease: units taken ahead by somebody who spends them elsewhere. They do not grow back before they were returned or the
lease has ended, so what is in the bucket and what is out on lease are together never more than a burst.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from authwright.domain.instant import MICROSECONDS, Instant
from authwright.domain.secrets import ClientId, Subject

SPANS: Final = {1: "second", 60: "minute", 3600: "hour", 86_400: "day"}
"""What the seconds of a rate are called."""
FASTEST: Final = 10_000
"""Units a second: so that an interval of whole microseconds is off by 1 % at most, and never to the caller's gain."""


@dataclass(frozen=True, slots=True)
class Rate:
    """*count* units in *seconds*, of which *burst* may come at once."""

    count: int
    seconds: int
    burst: int
    interval: int = field(init=False, repr=False)
    """Microseconds in which one unit grows back."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "interval", -(-self.seconds * MICROSECONDS // self.count))

    @property
    def text(self) -> str:
        """As plans are written: `60/minute`."""
        return f"{self.count}/{SPANS[self.seconds]}"


# Of what a bucket holds: emptied, and as much again that was charged afterwards.
_DEEPEST: Final = 2


class Allowance(NamedTuple):
    """What is kept of a caller: all zero for one that was never seen."""

    full_at: Instant = Instant(0)
    leased: int = 0
    leased_until: Instant = Instant(0)


NEW: Final = Allowance()


class AllowanceLease(NamedTuple):
    """*units* that the *guard* took ahead for *caller* by its *plan*, to be spent before *until*.

    They stand on *day* as usage of *route*.
    """

    id: str
    guard: ClientId
    caller: Subject
    route: str
    day: int
    units: int
    plan: str
    until: Instant


def settled(allowance: Allowance, rate: Rate, now: Instant) -> Allowance:
    """*allowance* as it is at *now*: what ended has ended, and nothing is further away than the deepest debt.

    A clock that was set back, or a rate that was changed, costs a caller two bursts at most.
    """
    full_at, leased, leased_until = allowance
    if leased and leased_until <= now:
        leased = 0
    interval = rate.interval
    earliest = now + min(leased, rate.burst) * interval
    latest = now + _DEEPEST * rate.burst * interval
    return Allowance(Instant(min(max(full_at, earliest), latest)), leased, leased_until if leased else Instant(0))


def room(allowance: Allowance, rate: Rate, now: Instant) -> int:
    """Units in the bucket of a `settled` allowance; none, if it is in debt."""
    return max(0, rate.burst - -(-(allowance.full_at - now) // rate.interval))


def take(allowance: Allowance, rate: Rate, units: int, now: Instant) -> Allowance | None:
    """A `settled` allowance after *units* more; None if they do not fit."""
    full_at = allowance.full_at + units * rate.interval
    if full_at > now + rate.burst * rate.interval:
        return None
    return Allowance(Instant(full_at), allowance.leased, allowance.leased_until)


def opens_at(allowance: Allowance, rate: Rate, units: int) -> Instant | None:
    """When *units* will fit into a `settled` allowance; None for more than a burst: never."""
    if units > rate.burst:
        return None
    return Instant(allowance.full_at + (units - rate.burst) * rate.interval)


def lease(allowance: Allowance, rate: Rate, units: int, now: Instant, until: Instant) -> Allowance | None:
    """As `take`, for *units* that will be spent elsewhere before *until*, or returned."""
    taken = take(allowance, rate, units, now)
    if taken is None:
        return None
    return Allowance(taken.full_at, taken.leased + units, Instant(max(taken.leased_until, until)))


def returned(allowance: Allowance, rate: Rate, *, leased: int, unspent: int) -> Allowance:
    """A `settled` allowance after the end of a lease of *leased* units, *unspent* of which were not needed.

    One that nobody remembers any more changes nothing.
    """
    out = min(leased, allowance.leased)
    full_at = allowance.full_at - min(unspent, out) * rate.interval
    return Allowance(Instant(full_at), allowance.leased - out, allowance.leased_until)


def charged(allowance: Allowance, rate: Rate, units: int, now: Instant) -> Allowance:
    """A `settled` allowance after *units* that were spent already: at worst it is in debt for a burst.

    So who charges more than there was waits the longer, and over any time passes two bursts beyond the rate at most.
    """
    full_at = min(allowance.full_at + units * rate.interval, now + _DEEPEST * rate.burst * rate.interval)
    return Allowance(Instant(full_at), allowance.leased, allowance.leased_until)


def share(left: int, least: int) -> int:
    """How many units to lease of those *left*: a quarter, single ones when they are scarce, at least *least*."""
    return max(least, left // 4)
