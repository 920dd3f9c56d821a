"""What callers may spend in a day and in a month of UTC.

Spent units are counted in memory, stored once a second with all other usage, and read back as long as other processes
may count, too: so a quota is exact in one process, and over several it is passed by what was spent within a second or
two. A process that is killed forgets the last second of what was spent.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, NamedTuple

import structlog

from authwright.domain.instant import MICROSECONDS, Instant
from authwright.domain.plan import Plan
from authwright.domain.secrets import Subject
from authwright.domain.usage import DAY, day_of, first_of_month
from authwright.services.usage import FLUSH_SECONDS, Usage
from authwright.storage.port import Store, StoreUnavailable

_FORGET_SECONDS: Final = 60
_AGAIN_SECONDS: Final = 1

log = structlog.get_logger("authwright.quotas")


class Spent(NamedTuple):
    """Whether units were *granted*; what is left of the day and of the month (None: no such quota); which of them
    refused, and when it begins anew."""

    granted: bool
    day_left: int | None
    month_left: int | None
    limit: str = ""
    opens_at: Instant = Instant(0)


class _Counted:
    """Units of one caller on one day: those in the store without ours, ours, and how many of ours are stored.

    *held* are those of calls of which it is not known yet whether they may pass.
    """

    __slots__ = ("again_at", "day", "held", "month", "own", "stored", "today", "used")

    def __init__(self, day: int, today: int, month: int) -> None:
        self.day = day
        self.today = today
        self.month = month
        self.own = self.stored = self.held = 0
        self.used = self.again_at = Instant(0)


class Quotas:
    """Spends quotas. *alone*: no other process counts in this store."""

    def __init__(self, store: Store, usage: Usage, clock: Callable[[], Instant], *, alone: bool) -> None:
        self._store = store
        self._usage = usage
        self._clock = clock
        self._alone = alone
        self._counted: dict[Subject, _Counted] = {}
        self._changed: dict[Subject, _Counted] = {}
        self._reading: dict[Subject, asyncio.Task[_Counted]] = {}
        usage.on_flush = self._flushing

    def __len__(self) -> int:
        return len(self._counted)

    def take_now(self, caller: Subject, plan: Plan, units: int) -> Spent | None:
        """As `take`, if what was spent is known; None if it has to be read."""
        now = self._clock()
        counted = self._counted.get(caller)
        if counted is None or counted.day != day_of(now) or _is_due(counted.again_at, now):
            return None
        return self._take(caller, counted, plan, units, now)

    async def take(self, caller: Subject, plan: Plan, units: int) -> Spent:
        """Hold *units* of *caller*'s quotas in *plan*, if they are there, until `release`; `put` then spends them."""
        now = self._clock()
        return self._take(caller, await self._known(caller, now), plan, units, now)

    async def left(self, caller: Subject, plan: Plan) -> int | None:
        """Units that are left of all of *caller*'s quotas in *plan*; None if it has none."""
        if plan.daily is None and plan.monthly is None:
            return None
        spent = self.take_now(caller, plan, 0) or await self.take(caller, plan, 0)
        return min(left for left in (spent.day_left, spent.month_left) if left is not None)

    def release(self, caller: Subject, units: int) -> None:
        """*units* that were granted are held no more."""
        counted = self._counted.get(caller)
        if counted is not None:
            counted.held = max(0, counted.held - units)

    def put(self, caller: Subject, units: int, *, day: int) -> None:
        """Count *units* of *day* that were spent, or below zero: that came back. With it belongs `Usage.charged`."""
        counted = self._counted.get(caller)
        if counted is not None:
            if counted.day == day:
                self._add(caller, counted, units)
            elif day >= first_of_month(counted.day):
                counted.month += units

    def _take(self, caller: Subject, counted: _Counted, plan: Plan, units: int, now: Instant) -> Spent:
        own = counted.own + counted.held
        day_left = None if plan.daily is None else plan.daily - counted.today - own
        month_left = None if plan.monthly is None else plan.monthly - counted.month - own
        counted.used = now
        if month_left is not None and units > month_left:
            return Spent(False, day_left, month_left, "month", _next_month(now))
        if day_left is not None and units > day_left:
            return Spent(False, day_left, month_left, "day", Instant((counted.day + 1) * DAY))
        counted.held += units
        return Spent(
            True, None if day_left is None else day_left - units, None if month_left is None else month_left - units
        )

    def _add(self, caller: Subject, counted: _Counted, units: int) -> None:
        counted.own += units
        self._changed[caller] = counted

    async def _known(self, caller: Subject, now: Instant) -> _Counted:
        counted = self._counted.get(caller)
        if counted is not None and counted.day == day_of(now) and not _is_due(counted.again_at, now):
            return counted
        reading = self._reading.get(caller)
        if reading is None:
            reading = self._reading[caller] = asyncio.create_task(self._read(caller, counted, now))
            reading.add_done_callback(lambda _: self._reading.pop(caller))
        counted = await asyncio.shield(reading)
        # It may have been forgotten as unused before those that waited for it came on.
        return self._counted.setdefault(caller, counted)

    async def _read(self, caller: Subject, before: _Counted | None, now: Instant) -> _Counted:
        day = day_of(now)
        if before is not None and before.own != before.stored:
            # Ours of the day that ended may still be on the way.
            await self._flush()
        same = before is not None and before.day == day
        try:
            # What is ours is told from what is others' only while none of ours is on the way.
            async with self._usage.flushing if same else contextlib.nullcontext():
                today, month = await self._store.usage.charged(caller, day=day, since_day=first_of_month(day))
        except StoreUnavailable as error:
            log.error("quota_unreadable", detail=str(error))
            counted = before if before is not None and same else _Counted(day, 0, 0)
            # Nobody is stopped because the store is away: rates go on being kept, and this is read when it is back.
            counted.again_at = Instant(now + _AGAIN_SECONDS * MICROSECONDS)
        else:
            if before is not None and same:
                counted = before
                counted.today, counted.month = today - before.stored, month - before.stored
            else:
                counted = _Counted(day, today, month)
            counted.again_at = Instant(0)
        self._counted[caller] = counted
        return counted

    async def _flush(self) -> None:
        try:
            await self._usage.flush()
        except StoreUnavailable as error:
            log.error("usage_not_stored", detail=str(error))

    def _flushing(self) -> Callable[[], None]:
        own = [(caller, counted, counted.own) for caller, counted in self._changed.items()]

        def stored() -> None:
            for caller, counted, units in own:
                counted.stored = units
                if counted.own == units and self._changed.get(caller) is counted:
                    del self._changed[caller]

        return stored

    def read_again(self) -> None:
        """Forget what is in the store as well, so that it is read again, with what others counted."""
        for caller, counted in list(self._counted.items()):
            if counted.own == counted.stored and not counted.held:
                del self._counted[caller]

    async def follow(self) -> None:
        """Read every FLUSH_SECONDS what other processes counted, and forget who does not call; until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self._look()
            except StoreUnavailable as error:
                log.error("quota_unreadable", detail=str(error))
            except Exception:
                log.exception("quota_unreadable")

    async def _look(self) -> None:
        now = self._clock()
        recent, idle = now - int(2 * FLUSH_SECONDS * MICROSECONDS), now - _FORGET_SECONDS * MICROSECONDS
        for caller, counted in list(self._counted.items()):
            if counted.used >= recent:
                if not self._alone and counted.day == day_of(now):
                    since = first_of_month(counted.day)
                    async with self._usage.flushing:
                        today, month = await self._store.usage.charged(caller, day=counted.day, since_day=since)
                        counted.today, counted.month = today - counted.stored, month - counted.stored
            elif not idle <= counted.used <= now and counted.own == counted.stored and not counted.held:
                del self._counted[caller]


def _is_due(again_at: Instant, now: Instant) -> bool:
    """Whether it is time to try again; a clock that was set back does not put it off."""
    return again_at != 0 and not now < again_at <= now + _AGAIN_SECONDS * MICROSECONDS


def _next_month(now: Instant) -> Instant:
    first = first_of_month(first_of_month(day_of(now)) + 31)
    return Instant(first * DAY)
