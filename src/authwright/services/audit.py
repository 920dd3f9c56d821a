"""Keep the security events: seal them in a chain, verify it, read them in order, forget the old ones."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, NamedTuple

import structlog

from authwright.domain.event import Event, EventKind, Origin, event
from authwright.domain.instant import Instant, after
from authwright.domain.seal import (
    FORGOTTEN,
    NOTHING,
    SEALED,
    Seal,
    forgotten_text,
    is_whole,
    read_forgotten,
    read_seal,
    seal,
    text_of,
)
from authwright.services.keys import Keyring
from authwright.storage.port import EventFilter, Store, StoreUnavailable

SEAL_SECONDS: Final = 60.0
GAP_SECONDS: Final = 30.0
"""How long an event may be missing between two others before it never comes: longer than any statement may take."""
_AT_ONCE: Final = 1000
_CLAIM: Final = "seal"
_CLAIM_SECONDS: Final = 300
_DAY: Final = 86_400
_BATCH: Final = 200
_SYSTEM: Final = Origin(actor="system")

log = structlog.get_logger("authwright.audit")


class Settled:
    """Tells events after which nothing can come any more from those between which one may still be on its way.

    Numbers are given before a transaction ends: a later one may be seen first. *time* is in seconds, never going back.
    """

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._gaps: dict[int, float] = {}

    def leading(self, events: Sequence[Event], *, after: int) -> Sequence[Event]:
        """Those of *events*, which follow the number *after* in order, before which none is missing or will come."""
        now, expected = self._time(), after + 1
        for place, each in enumerate(events):
            if each.number != expected and now < self._gaps.setdefault(expected, now) + GAP_SECONDS:
                return events[:place]
            expected = each.number + 1
        self._gaps = {number: seen for number, seen in self._gaps.items() if number > after}
        return events


class Verdict(NamedTuple):
    """How many events there are, how many of them are sealed, and what is wrong with them: nothing, if all is well."""

    events: int
    sealed: int
    problems: Sequence[str]


class Audit:
    """Seals and verifies. Events older than *days* are forgotten; 0: none. *time* as that of `Settled`."""

    def __init__(self, store: Store, keyring: Keyring, *, days: int, time: Callable[[], float]) -> None:
        self._store = store
        self._keyring = keyring
        self._days = days
        self._settled = Settled(time)
        self._holder = secrets.token_hex(8)

    async def follow(self, *, after: int) -> AsyncIterator[Event]:
        """All events with a number above *after*, oldest first."""
        while batch := await self._store.events.after(after, most=_AT_ONCE):
            for each in batch:
                yield each
            after = batch[-1].number

    async def seal(self, now: Instant) -> int:
        """Seal what is not sealed yet, unless another process is at it; how many events. Raises StoreUnavailable."""
        if not await self._store.facts.claim(_CLAIM, self._holder, now=now, until=after(now, _CLAIM_SECONDS)):
            return 0
        sealed, (last, digest) = 0, await self._end()
        while True:
            batch = self._settled.leading(await self._store.events.after(last, most=_AT_ONCE), after=last)
            # A seal alone needs none: there would be no end of them.
            if all(each.kind == SEALED for each in batch):
                return sealed
            made = seal(self._keyring.seal_key, batch, first=last + 1, previous=digest)
            await self._store.events.append(event("events_sealed", _SYSTEM, now=now, detail=text_of(made)))
            sealed, last, digest = sealed + made.size, made.last, made.digest

    async def verify(self) -> Verdict:
        """Look at every event and every seal. Raises StoreUnavailable."""
        chain, problems = await self._chain()
        waiting = iter(chain)
        made = next(waiting, None)
        events, sealed = 0, 0
        held: list[Event] = []

        def judge(made: Seal) -> None:
            nonlocal sealed
            within = [each for each in held if made.first <= each.number <= made.last]
            if is_whole(self._keyring.seal_key, made, within):
                sealed += made.size
            else:
                problems.append(f"events {made.first} to {made.last} are not those that were sealed")
            held[:] = [each for each in held if each.number > made.last]

        async for each in self.follow(after=0):
            events += 1
            while made is not None and each.number > made.last:
                judge(made)
                made = next(waiting, None)
            if made is not None:
                held.append(each)
        while made is not None:
            judge(made)
            made = next(waiting, None)
        return Verdict(events, sealed, problems)

    async def forget(self, now: Instant) -> int:
        """Delete events that are too old, up to the end of a seal; how many. Raises StoreUnavailable."""
        oldest = await self._store.events.after(0, most=1)
        # A day's worth at a time, for it is a search through all the others.
        if not self._days or not oldest or oldest[0].at >= after(now, -(self._days + 1) * _DAY):
            return 0
        which = EventFilter(kind=SEALED, until=after(now, -self._days * _DAY))
        found = await self._store.events.list(which, before=None, most=1)
        made = read_seal(found[0].detail) if found else None
        if made is None or made.last < oldest[0].number:
            return 0
        detail = forgotten_text(self._keyring.seal_key, made.last)
        done = await self._store.events.list(EventFilter(kind=FORGOTTEN), before=None, most=1)
        if not done or done[0].detail != detail:
            await self._store.events.append(event("events_forgotten", _SYSTEM, now=now, detail=detail))
        forgotten = 0
        while some := await self._store.events.forget(through=made.last, most=_BATCH):
            forgotten += some
            await asyncio.sleep(0)
        return forgotten

    async def run_regularly(self, clock: Callable[[], Instant]) -> None:
        """Seal once a minute, until cancelled."""
        while True:
            await asyncio.sleep(SEAL_SECONDS)
            try:
                await self.seal(clock())
                await self.forget(clock())
            except StoreUnavailable as error:
                log.error("events_not_sealed", detail=str(error))
            except Exception:
                log.exception("events_not_sealed")

    async def _end(self) -> tuple[int, str]:
        """The last number that is sealed, and the digest of its seal."""
        newest = await self._store.events.list(EventFilter(kind=SEALED), before=None, most=1)
        made = read_seal(newest[0].detail) if newest else None
        return (0, NOTHING) if made is None else (made.last, made.digest)

    async def _chain(self) -> tuple[list[Seal], list[str]]:
        """The seals whose events were not forgotten, oldest first; and what is wrong with them."""
        problems: list[str] = []
        forgotten, seals = 0, list[Seal]()
        async for each in self._all(FORGOTTEN):
            through = read_forgotten(self._keyring.seal_key, each.detail)
            if through is None:
                problems.append(f"event {each.number} says that events were forgotten, and was not made by this server")
            forgotten = max(forgotten, through or 0)
        async for each in self._all(SEALED):
            made = read_seal(each.detail)
            if made is None or made.last >= each.number:
                problems.append(f"event {each.number} is no seal")
            else:
                seals.append(made)
        seals.sort()
        position, digest = forgotten, None if forgotten else NOTHING
        chain = []
        for made in seals:
            if made.last <= forgotten:
                digest = made.digest
            elif made.first != position + 1 or digest not in (None, made.previous):
                problems.append(f"the seal of events {made.first} to {made.last} does not follow the one before it")
                position, digest = max(position, made.last), made.digest
            else:
                chain.append(made)
                position, digest = made.last, made.digest
        return chain, problems

    async def _all(self, kind: EventKind) -> AsyncIterator[Event]:
        before = None
        while batch := await self._store.events.list(EventFilter(kind=kind), before=before, most=_BATCH):
            for each in batch:
                yield each
            before = batch[-1].number
