"""Spend what rates allow: in this process alone, or together with others by way of a store that all of them share.

A shared store is exact if it is asked for every call. Where that would cost too much, a busy caller's process takes a
lease: units ahead, counted down in memory and returned within seconds. Leases never let more through than the rate; but
for a moment one process may refuse a call for which another one still holds a unit. While no shared store answers,
every process goes by itself.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import structlog

from authwright.domain.allowance import (
    NEW,
    Allowance,
    Rate,
    charged,
    lease,
    opens_at,
    returned,
    room,
    settled,
    share,
    take,
)
from authwright.domain.errors import Unavailable
from authwright.domain.instant import Instant, after
from authwright.domain.secrets import Subject
from authwright.storage.port import Allowances, StoreUnavailable

SPEND_SECONDS: Final = 1.0
"""How long a process spends from a lease of its own before it returns what is left."""
LEASE_SECONDS: Final = 5.0
"""After so long a lease has ended: what was not returned by then is lost to the caller."""
MOST_LEASED: Final = 100
WAIT_SECONDS: Final = 2.0
"""How long a call waits for a shared store before the process goes by itself."""
AWAY_SECONDS: Final = 1.0
"""For how long a store that did not answer is not asked."""
# A refusal is good for so long at most: units may come back from another process.
_REFUSED_SECONDS: Final = 0.2
# Less than WAIT_SECONDS: that would say that the store is away.
_GIVE_UP_SECONDS: Final = 1.6
# Who changed one allowance so often in a row stands back for so many times as long as a change takes; for a store that
# takes long, no longer than nobody notices.
_MOST_IN_A_ROW: Final = 4
_STANDS_BACK: Final = 4
_MOST_REST: Final = 0.2
_LOOKED_AT_ONCE: Final = 10_000

T = TypeVar("T")
Decide = Callable[[Allowance, Instant], tuple[Allowance, T]]

log = structlog.get_logger("authwright.rates")


class Taken(NamedTuple):
    """Whether units were *granted*; units *left*; *full_at*: when the bucket is full again; *opens_at*: when those
    that were not granted will be there (None: never)."""

    granted: bool
    left: int
    full_at: Instant
    opens_at: Instant | None = None


def _spend(allowance: Allowance, rate: Rate, units: int, now: Instant) -> tuple[Allowance, Taken]:
    taken = take(allowance, rate, units, now)
    if taken is None:
        opens = opens_at(allowance, rate, units)
        return allowance, Taken(False, room(allowance, rate, now), allowance.full_at, opens)
    return taken, Taken(True, room(taken, rate, now), taken.full_at)


class Alone:
    """The buckets of one process, in memory."""

    def __init__(self) -> None:
        self._allowances: dict[Subject, Allowance] = {}
        self._to_look_at: list[Subject] = []

    def __len__(self) -> int:
        return len(self._allowances)

    def change(self, caller: Subject, rate: Rate, now: Instant, decide: Decide[T]) -> T:
        allowance, answer = decide(settled(self._allowances.get(caller, NEW), rate, now), now)
        self._allowances[caller] = allowance
        return answer

    def take(self, caller: Subject, rate: Rate, units: int, now: Instant) -> Taken:
        known = self._allowances.get(caller, NEW)
        if not known.leased:
            # The usual way, without a call: nothing is out on lease, and the units fit.
            interval = rate.interval
            full_at, full = max(known.full_at, now) + units * interval, now + rate.burst * interval
            if full_at <= full:
                self._allowances[caller] = Allowance(Instant(full_at))
                return Taken(True, (full - full_at) // interval, Instant(full_at))
        allowance, taken = _spend(settled(known, rate, now), rate, units, now)
        self._allowances[caller] = allowance
        return taken

    def tidy(self, now: Instant) -> None:
        """Forget buckets that are full again: one after the other, some at a time, so that nobody waits for it."""
        if not self._to_look_at:
            self._to_look_at = list(self._allowances)
        for caller in self._to_look_at[-_LOOKED_AT_ONCE:]:
            allowance = self._allowances.get(caller)
            if allowance is not None and allowance.full_at <= now and allowance.leased_until <= now:
                del self._allowances[caller]
        del self._to_look_at[-_LOOKED_AT_ONCE:]


class _Call(NamedTuple):
    """*since*: when it was asked for, on the loop's clock."""

    units: int
    answer: asyncio.Future[Taken]
    since: float


class _Change(NamedTuple):
    rate: Rate
    decide: Decide[Any]
    answer: asyncio.Future[Any]
    since: float


class _Purse:
    """What this process knows of a caller whose bucket is shared."""

    __slots__ = (
        "calls",
        "changed",
        "changes",
        "grown",
        "hand",
        "in_a_row",
        "known",
        "lease_rate",
        "leased",
        "rate",
        "refused",
        "refused_units",
        "refused_until",
        "returning",
        "room",
        "took",
        "until",
        "used",
        "working",
    )

    def __init__(self, rate: Rate) -> None:
        self.rate = self.lease_rate = rate
        self.known: Allowance | None = None
        # Of a lease of `leased` units so many are in hand, to be spent before `until`; the next one is larger.
        self.leased = self.hand = self.grown = 0
        self.until = Instant(0)
        self.room = 0
        self.used = Instant(0)
        self.refused: Taken | None = None
        self.refused_units = 0
        self.refused_until = Instant(0)
        self.calls: list[_Call] = []
        self.changes: list[_Change] = []
        self.returning = False
        self.working: asyncio.Task[None] | None = None
        # How often in a row this process changed what is stored; when it last did (on the loop's clock), and how long
        # that took.
        self.in_a_row = 0
        self.changed = self.took = 0.0


def _until(now: Instant, end: Instant, seconds: float) -> bool:
    """Whether *now* is in the *seconds* before *end*; a clock that was set back does not make them longer."""
    return after(end, -seconds) <= now < end


def _tell(answered: Sequence[tuple[_Call | _Change, Any]]) -> None:
    for each, answer in answered:
        if not each.answer.done():
            each.answer.set_result(answer)


class Shared:
    """The buckets in *store*. *exact*: it is asked for every call; otherwise for leases."""

    def __init__(self, store: Allowances, clock: Callable[[], Instant], *, exact: bool) -> None:
        self._store = store
        self._clock = clock
        self._exact = exact
        self._purses: dict[Subject, _Purse] = {}
        self._ending = False
        self.away_until = float("-inf")

    def __len__(self) -> int:
        return len(self._purses)

    def take_now(self, caller: Subject, rate: Rate, units: int, now: Instant) -> Taken | None:
        """As `take`, where nobody has to be asked; None if somebody must be."""
        purse = self._purses.get(caller)
        if purse is None or purse.rate is not rate:
            return None
        if purse.hand >= units and _until(now, purse.until, SPEND_SECONDS):
            purse.hand -= units
            assert purse.known is not None
            return Taken(True, purse.room + purse.hand, purse.known.full_at)
        if (
            purse.refused is not None
            and units == purse.refused_units
            and _until(now, purse.refused_until, _REFUSED_SECONDS)
        ):
            return purse.refused
        return None

    async def take(self, caller: Subject, rate: Rate, units: int) -> Taken:
        """Spend *units*, if they are there. Calls of one caller are answered together.

        Raises StoreUnavailable, Unavailable.
        """
        purse = self._purse(caller, rate)
        purse.rate = rate
        loop = asyncio.get_running_loop()
        call = _Call(units, loop.create_future(), loop.time())
        purse.calls.append(call)
        self._work(caller, purse)
        return await call.answer

    async def change(self, caller: Subject, rate: Rate, decide: Decide[T]) -> T:
        """Change what is stored of *caller* as *decide* says, who may be asked several times and is given what is
        settled. Changes of one caller are stored together.

        Raises StoreUnavailable, Unavailable.
        """
        purse = self._purse(caller, rate)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        purse.changes.append(_Change(rate, decide, answer, loop.time()))
        self._work(caller, purse)
        return await answer

    def _purse(self, caller: Subject, rate: Rate) -> _Purse:
        purse = self._purses.get(caller)
        if purse is None:
            purse = self._purses[caller] = _Purse(rate)
        return purse

    async def _change(self, caller: Subject, purse: _Purse, since: float, decide: Decide[T]) -> T:
        """Store what *decide* makes of what is stored; one at a time for a caller in this process. *since*: as of
        whoever has waited longest."""
        time = asyncio.get_running_loop().time
        known, purse.known = purse.known, None
        # Who won knows what is stored now, and who lost has to ask: one that has much to do would win for ever. So it
        # lets the others have as long as it takes to ask and to store.
        rest = purse.changed + min(_STANDS_BACK * purse.took, _MOST_REST) - time()
        if rest <= 0:
            purse.in_a_row = 0
        elif purse.in_a_row >= _MOST_IN_A_ROW:
            purse.in_a_row = 0
            await asyncio.sleep(rest)
        if known is None:
            known = await self._store.read(caller)
        while True:
            asked = time()
            allowance, answer = decide(known or NEW, self._clock())
            done, known = await self._store.replace(caller, known, allowance)
            if done:
                purse.known = allowance
                purse.in_a_row += 1
                purse.changed = time()
                purse.took = purse.changed - asked
                return answer
            if time() + (time() - asked) > since + _GIVE_UP_SECONDS:
                # The store is there: it is this caller whom too many serve at once.
                raise Unavailable(detail="too many processes change one allowance at once")

    def _work(self, caller: Subject, purse: _Purse) -> None:
        if purse.working is None:
            purse.working = asyncio.create_task(self._serve(caller, purse))

    async def _serve(self, caller: Subject, purse: _Purse) -> None:
        calls: list[_Call] = []
        changes: list[_Change] = []
        try:
            while purse.calls or purse.changes or purse.returning:
                # Who gave up meanwhile went elsewhere.
                calls, purse.calls = [call for call in purse.calls if not call.answer.done()], []
                changes, purse.changes = [change for change in purse.changes if not change.answer.done()], []
                if changes:
                    _tell(await self._decided(caller, purse, changes))
                if calls or purse.returning:
                    purse.returning = False
                    _tell(await self._answer(caller, purse, calls))
        except BaseException as error:
            # Whatever it is, it is about this caller, unless the store says that it is away.
            told = error if isinstance(error, Exception) else StoreUnavailable("stopped")
            asked: Sequence[_Call | _Change] = [*calls, *changes, *purse.calls, *purse.changes]
            for each in asked:
                if not each.answer.done():
                    each.answer.set_exception(told)
            purse.calls, purse.changes, purse.returning = [], [], False
            if not isinstance(error, Exception):
                raise
            if not isinstance(error, StoreUnavailable | Unavailable):
                log.exception("rate_failed")
        finally:
            purse.working = None

    async def _decided(
        self, caller: Subject, purse: _Purse, changes: Sequence[_Change]
    ) -> list[tuple[_Call | _Change, Any]]:
        def decide_all(allowance: Allowance, now: Instant) -> tuple[Allowance, list[tuple[_Call | _Change, Any]]]:
            answered: list[tuple[_Call | _Change, Any]] = []
            for change in changes:
                # Asked again, for who gave up while it was read or waited for went elsewhere.
                if not change.answer.done():
                    allowance, answer = change.decide(settled(allowance, change.rate, now), now)
                    answered.append((change, answer))
            return allowance, answered

        return await self._change(caller, purse, min(change.since for change in changes), decide_all)

    async def _answer(
        self, caller: Subject, purse: _Purse, calls: Sequence[_Call]
    ) -> list[tuple[_Call | _Change, Taken]]:
        rate = purse.rate
        # Nothing may be spent of what is being returned.
        back, purse.hand, leased, purse.leased = purse.hand, 0, purse.leased, 0
        lease_rate, purse.lease_rate = purse.lease_rate, rate
        now = self._clock()
        busy = not (self._exact or self._ending) and _until(now, after(purse.used, SPEND_SECONDS), SPEND_SECONDS)
        if calls:
            purse.grown = min(MOST_LEASED, max(1, 2 * purse.grown)) if busy else 0
            purse.used = now
        took = 0

        def decide(allowance: Allowance, now: Instant) -> tuple[Allowance, list[tuple[_Call, Taken]]]:
            nonlocal took
            took = 0
            allowance = settled(allowance, rate, now)
            if leased:
                # Units of another rate are worth something else.
                allowance = returned(allowance, rate, leased=leased, unspent=back if lease_rate is rate else 0)
            answered = []
            for call in calls:
                if not call.answer.done():
                    allowance, answer = _spend(allowance, rate, call.units, now)
                    answered.append((call, answer))
            if busy and answered and all(answer.granted for _, answer in answered):
                ahead = min(purse.grown, share(room(allowance, rate, now), 0))
                further = lease(allowance, rate, ahead, now, after(now, LEASE_SECONDS)) if ahead else None
                if further is not None:
                    allowance, took = further, ahead
            return allowance, answered

        since = min((call.since for call in calls), default=asyncio.get_running_loop().time())
        answered = await self._change(caller, purse, since, decide)
        stored = purse.known
        assert stored is not None
        purse.hand = purse.leased = took
        purse.room = room(stored, rate, now)
        purse.until = after(now, SPEND_SECONDS)
        refused = [(call.units, answer) for call, answer in answered if not answer.granted]
        purse.refused = None
        if refused:
            purse.refused_units, purse.refused = min(refused, key=lambda each: each[0])
            opens = purse.refused.opens_at
            soon = after(now, _REFUSED_SECONDS)
            purse.refused_until = soon if opens is None else Instant(min(soon, opens))
        return list(answered)

    async def tidy(self, *, everything: bool = False) -> None:
        """Return what is left of leases, and forget callers who do not call."""
        now, working = self._clock(), []
        self._ending = self._ending or everything
        for caller, purse in list(self._purses.items()):
            idle = purse.working is None
            if everything or (idle and purse.leased and not _until(now, purse.until, SPEND_SECONDS)):
                purse.returning = purse.leased > 0 or not idle
                if purse.returning:
                    self._work(caller, purse)
            if purse.working is not None:
                working.append(purse.working)
            elif not _until(now, after(purse.used, LEASE_SECONDS), LEASE_SECONDS):
                del self._purses[caller]
        if working:
            _, hanging = await asyncio.wait(working, timeout=WAIT_SECONDS)
            if everything:
                for task in hanging:
                    task.cancel()


class Rates:
    """Spends from the first of the *shared* stores that answers; if none does, alone."""

    def __init__(self, clock: Callable[[], Instant], *shared: Shared) -> None:
        self._clock = clock
        self._shared = shared
        self._alone = Alone()

    def __len__(self) -> int:
        return len(self._alone) + sum(map(len, self._shared))

    def take_now(self, caller: Subject, rate: Rate, units: int) -> Taken | None:
        """As `take`, where nobody has to be asked; None if somebody must be."""
        now = self._clock()
        if not self._shared:
            return self._alone.take(caller, rate, units, now)
        return self._shared[0].take_now(caller, rate, units, now)

    async def take(self, caller: Subject, rate: Rate, units: int) -> Taken:
        """Spend *units* of *caller*'s *rate*, if they are there."""
        for shared in self._there():
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    return shared.take_now(caller, rate, units, self._clock()) or await shared.take(caller, rate, units)
            except (StoreUnavailable, TimeoutError) as error:
                self._gone(shared, error)
        return self._alone.take(caller, rate, units, self._clock())

    async def lease(self, caller: Subject, rate: Rate, least: int, until: Instant, *, most: int) -> tuple[int, Taken]:
        """Units for somebody who spends them elsewhere before *until*.

        A quarter of what is left and no more than *most*, but *least*.
        """

        def decide(allowance: Allowance, now: Instant) -> tuple[Allowance, tuple[int, Taken]]:
            units = min(share(room(allowance, rate, now), least), most)
            leased = lease(allowance, rate, units, now, until)
            if leased is None:
                return allowance, (0, _spend(allowance, rate, units, now)[1])
            return leased, (units, Taken(True, room(leased, rate, now), leased.full_at))

        return await self._change(caller, rate, decide)

    async def give_back(self, caller: Subject, rate: Rate, *, leased: int, unspent: int) -> None:
        """End a lease of *leased* units, *unspent* of which were not needed."""
        await self._change(
            caller, rate, lambda allowance, _: (returned(allowance, rate, leased=leased, unspent=unspent), None)
        )

    async def charge(self, caller: Subject, rate: Rate, units: int) -> None:
        """Count *units* that were spent already."""
        await self._change(caller, rate, lambda allowance, now: (charged(allowance, rate, units, now), None))

    async def tidy_regularly(self) -> None:
        """Return what is left of leases once a second, until cancelled."""
        while True:
            await asyncio.sleep(SPEND_SECONDS)
            try:
                await self._tidy()
            except Exception:
                log.exception("leases_not_returned")

    async def close(self) -> None:
        """Return all leases."""
        await self._tidy(everything=True)

    async def _tidy(self, *, everything: bool = False) -> None:
        self._alone.tidy(self._clock())
        for shared in self._shared:
            await shared.tidy(everything=everything)

    async def _change(self, caller: Subject, rate: Rate, decide: Decide[T]) -> T:
        for shared in self._there():
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    return await shared.change(caller, rate, decide)
            except (StoreUnavailable, TimeoutError) as error:
                self._gone(shared, error)
        return self._alone.change(caller, rate, self._clock(), decide)

    def _there(self) -> list[Shared]:
        time = asyncio.get_running_loop().time()
        return [shared for shared in self._shared if shared.away_until <= time]

    def _gone(self, shared: Shared, error: Exception) -> None:
        shared.away_until = asyncio.get_running_loop().time() + AWAY_SECONDS
        log.error("rates_not_shared", detail=str(error) or type(error).__name__)
