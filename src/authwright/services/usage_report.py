"""What callers used, by UTC day and route: for themselves, and for whoever sells the plans."""

from collections.abc import AsyncIterator, Sequence
from datetime import date, timedelta
from typing import Final, NamedTuple

from authwright.domain.instant import Instant
from authwright.domain.plan import Plan
from authwright.domain.secrets import Subject
from authwright.domain.usage import UsageKey, UsageRow, day_of, first_of_month
from authwright.services.usage import Usage
from authwright.storage.port import Store

_AT_ONCE: Final = 1000
_EPOCH: Final = date(1970, 1, 1)
FIRST: Final[UsageKey] = (-1, "", "")


class OwnUsage(NamedTuple):
    """Units that a caller spent since *since*, by day and route; and what is left of its quotas (None: no quota)."""

    since: date
    until: date
    by_day: dict[str, dict[str, int]]
    total: int
    day_left: int | None
    month_left: int | None


class UsageReport:
    """Reads what was counted; what this process counted and did not store yet belongs to it."""

    def __init__(self, store: Store, usage: Usage) -> None:
        self._store = store
        self._usage = usage

    async def own(self, caller: Subject, plan: Plan, *, days: int, now: Instant) -> OwnUsage:
        """The usage of *caller* in the last *days*, today included. Raises StoreUnavailable."""
        await self._usage.flush()
        today = day_of(now)
        since = today - days + 1
        by_day: dict[str, dict[str, int]] = {}
        for day, route, units in await self._store.usage.charges(caller, since_day=since):
            if units:
                by_day.setdefault(date_of(day).isoformat(), {})[route] = units
        spent_today, month = await self._store.usage.charged(caller, day=today, since_day=first_of_month(today))
        return OwnUsage(
            date_of(since),
            date_of(today),
            by_day,
            sum(sum(routes.values()) for routes in by_day.values()),
            None if plan.daily is None else max(0, plan.daily - spent_today),
            None if plan.monthly is None else max(0, plan.monthly - month),
        )

    async def page(
        self, *, since: date, until: date, subject: str | None, after: UsageKey, most: int
    ) -> Sequence[UsageRow]:
        """Calls and units of callers by day, subject and route, that follow *after*. Raises StoreUnavailable."""
        if after == FIRST:
            await self._usage.flush()
        return await self._store.usage.by_caller(
            since_day=number_of(since), until_day=number_of(until), subject=subject, after=after, most=most
        )

    async def all(self, *, since: date, until: date, subject: str | None) -> AsyncIterator[Sequence[UsageRow]]:
        """As `page`, all of them, some at a time."""
        after = FIRST
        while rows := await self.page(since=since, until=until, subject=subject, after=after, most=_AT_ONCE):
            yield rows
            after = (rows[-1].day, rows[-1].subject, rows[-1].route)


def date_of(day: int) -> date:
    """The date of a UTC day, counted from 1970-01-01."""
    return _EPOCH + timedelta(days=day)


def number_of(when: date) -> int:
    """The UTC day *when*, counted from 1970-01-01."""
    return (when - _EPOCH).days
