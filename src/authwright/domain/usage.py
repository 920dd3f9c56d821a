"""What was called: sums by UTC day, and a histogram of latencies from which quantiles are read."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from authwright.domain.instant import MICROSECONDS, Instant

DAY: Final = 86_400 * MICROSECONDS
_FINE_BITS: Final = 3


class UsageRow(NamedTuple):
    """What *subject* called and spent on a UTC day."""

    day: int
    subject: str
    route: str
    calls: int
    units: int


UsageKey = tuple[int, str, str]
"""Where a list of such rows goes on: day, subject and route of the last one."""


@dataclass(slots=True)
class Counted:
    """Counts that were not stored yet. Keys are those of the rows that they are added to."""

    calls: Counter[tuple[int, str, str, str, int]] = field(default_factory=Counter)
    """By day, route, subject (empty for a stranger), plan and status."""
    latencies: Counter[tuple[int, str, int]] = field(default_factory=Counter)
    """By day, route and bucket."""
    predictions: Counter[tuple[int, str]] = field(default_factory=Counter)
    """By day and predicted class."""
    charges: Counter[tuple[str, int, str]] = field(default_factory=Counter)
    """Units by subject, day and route; below zero where some came back."""

    def __bool__(self) -> bool:
        return bool(self.calls or self.predictions or self.charges)

    def parts(self, most: int) -> Iterator["Counted"]:
        """What was counted in parts of at most *most* rows of each kind."""
        counters: tuple[Counter[Any], ...] = (self.calls, self.latencies, self.predictions, self.charges)
        rows = [list(each.items()) for each in counters]
        for start in range(0, max(map(len, rows)), most):
            some: list[Counter[Any]] = [Counter(dict(each[start : start + most])) for each in rows]
            yield Counted(*some)

    def add(self, other: "Counted") -> None:
        """Add what *other* counted."""
        self.calls.update(other.calls)
        self.latencies.update(other.latencies)
        self.predictions.update(other.predictions)
        self.charges.update(other.charges)


def day_of(instant: Instant) -> int:
    """The UTC day of *instant*, counted from 1970-01-01."""
    return instant // DAY


def first_of_month(day: int) -> int:
    """The first day of the month that *day* (counted from 1970-01-01) belongs to."""
    return day - datetime.fromtimestamp(day * 86_400, UTC).day + 1


def latency_bucket(microseconds: int) -> int:
    """The bucket of a latency: eight to each power of two, so that a bound is off by an eighth at most."""
    if microseconds < 1 << _FINE_BITS:
        return max(microseconds, 0)
    power = microseconds.bit_length() - 1
    fine = (microseconds >> (power - _FINE_BITS)) & ((1 << _FINE_BITS) - 1)
    return (power - _FINE_BITS + 1 << _FINE_BITS) + fine


def bucket_bound(bucket: int) -> int:
    """The first latency in microseconds beyond *bucket*."""
    if bucket < 1 << _FINE_BITS:
        return bucket + 1
    power, fine = (bucket >> _FINE_BITS) - 1, bucket & ((1 << _FINE_BITS) - 1)
    return ((1 << _FINE_BITS) + fine + 1) << power


def quantile(histogram: Iterable[tuple[int, int]], share: float) -> int | None:
    """The latency in microseconds that *share* of the calls in *histogram* (bucket, calls) did not exceed."""
    rows = sorted(histogram)
    wanted = share * sum(calls for _, calls in rows)
    seen = 0
    for bucket, calls in rows:
        seen += calls
        if seen >= wanted and seen:
            return bucket_bound(bucket)
    return None
