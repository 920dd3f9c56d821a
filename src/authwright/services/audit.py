"""Keep the security events: seal them in a chain, verify it, read them in order, forget the old ones."""

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, NamedTuple

import structlog

from authwright.domain.event import Event, EventKind, Origin, event
from authwright.domain.instant import MICROSECONDS, Instant, after, isoformat
from authwright.domain.seal import (
    FORGOTTEN,
    MAX_NUMBER,
    NOTHING,
    SEALED,
    Seal,
    digest_of,
    read_seal,
    read_signed,
    seal,
    signed,
    text_of,
)
from authwright.services.keys import Keyring
from authwright.storage.port import EventFilter, Store, StoreUnavailable

SEAL_SECONDS: Final = 60.0
GAP_SECONDS: Final = 120.0
"""How long an event may be missing between two others before it is taken to be none: a statement takes seconds."""
MAX_GAP: Final = 100_000
"""More numbers than this are not left out by what is rolled back: an event so far ahead was put in."""
LATE_SECONDS: Final = 300
"""Events that are sealed later than this after they happened could have been changed before."""
FORGET_SECONDS: Final = 3600.0
_AT_ONCE: Final = 1000
_CLAIM: Final = "seal"
_CLAIM_SECONDS: Final = 120
_HEAD: Final = "events_head"
_DAY: Final = 86_400
_BATCH: Final = 200
_NEVER: Final = Instant(0)
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
            if each.number - expected > MAX_GAP:
                log.error("events_far_ahead", number=each.number, expected=expected)
                return events[:place]
            if each.number != expected and now < self._gaps.setdefault(expected, now) + GAP_SECONDS:
                return events[:place]
            expected = each.number + 1
        self._gaps = {number: seen for number, seen in self._gaps.items() if number > after}
        return events


class Verdict(NamedTuple):
    """How many events there are, and how many of them are sealed and as they were; what is wrong with them, which only
    somebody with access to the database can have done; and what deserves a look."""

    events: int
    sealed: int
    problems: Sequence[str]
    remarks: Sequence[str]


class Audit:
    """Seals and verifies. Events older than *days* are forgotten; 0: none. *time* as that of `Settled`."""

    def __init__(self, store: Store, keyring: Keyring, *, days: int, time: Callable[[], float]) -> None:
        self._store = store
        self._keyring = keyring
        self._days = days
        self._time = time
        self._settled = Settled(time)
        self._holder = secrets.token_hex(8)
        self._forget_due = 0.0
        self._known = (0, NOTHING)
        """The last number that this process knows to be sealed, and the digest of that seal."""

    def restart(self) -> None:
        """A backup was put back: what this process knows of the time after it is not true any more."""
        self._known = (0, NOTHING)

    async def follow(self, *, after: int = -MAX_NUMBER) -> AsyncIterator[Event]:
        """All events with a number above *after*, oldest first."""
        while batch := await self._store.events.after(after, most=_AT_ONCE):
            for each in batch:
                yield each
            after = batch[-1].number

    async def export(self, now: Instant, *, after: int) -> AsyncIterator[Event]:
        """As `follow`, up to where an event may still be on its way: from there the next export goes on."""
        expected = after + 1
        async for each in self.follow(after=after):
            # Before the first event of all there is no gap: what is missing there has been forgotten for its age.
            if each.number != expected and after > 0 and _age(each, now) < GAP_SECONDS:
                return
            yield each
            expected, after = each.number + 1, each.number

    async def seal(self, clock: Callable[[], Instant]) -> int:
        """Seal what is not sealed yet, unless another process is at it; how many events. Raises StoreUnavailable."""
        sealed = 0
        while await self._claim(clock()):
            last, digest = await self._end()
            batch = self._settled.leading(await self._store.events.after(last, most=_AT_ONCE), after=last)
            # A seal alone needs none: there would be no end of them.
            if all(each.kind == SEALED for each in batch):
                break
            now, key = clock(), self._keyring.seal_key
            made = seal(((each.number, digest_of(each)) for each in batch), first=last + 1, at=now, previous=digest)
            await self._store.events.append(event("events_sealed", _SYSTEM, now=now, detail=text_of(key, made)))
            self._known = made.last, made.digest
            await self._store.facts.replace(_HEAD, signed(key, _HEAD, made.last, made.digest))
            sealed += made.size
        return sealed

    async def verify(self, now: Instant) -> Verdict:
        """Look at every event and every seal. Raises StoreUnavailable."""
        before, through = await self._forgotten()
        trail = _Trail(self._keyring.seal_key, forgotten=through)
        async for each in self.follow():
            trail.look(each, now)
        trail.end(now, head=await self._noted())
        # Meanwhile more may have been forgotten, properly.
        after_, later = await self._forgotten()
        problems = [text for number, text in trail.problems if not through < number <= later]
        return Verdict(trail.events, trail.sealed, sorted({*problems, *before, *after_}), trail.remarks)

    async def forget(self, now: Instant) -> int:
        """Delete events that are too old, up to the end of a seal, if they are as they were; how many.

        Nothing for an hour after the last time. Raises StoreUnavailable.
        """
        if not self._days or self._time() < self._forget_due or not await self._claim(now):
            return 0
        self._forget_due = self._time() + FORGET_SECONDS
        _, through = await self._forgotten()
        until = after(now, -self._days * _DAY)
        trail = _Trail(self._keyring.seal_key, forgotten=through, until=until)
        async for each in self.follow():
            trail.look(each, now)
            if trail.sealed_at >= until:
                break
        if trail.problems:
            log.error("events_not_forgotten", detail=trail.problems[0][1])
            return 0
        if trail.old_through > through:
            through = trail.old_through
            detail = signed(self._keyring.seal_key, FORGOTTEN, through, now)
            await self._store.events.append(event("events_forgotten", _SYSTEM, now=now, detail=detail))
        forgotten = 0
        while some := await self._store.events.forget(through=through, most=_BATCH):
            forgotten += some
            await asyncio.sleep(0)
        return forgotten

    async def run_regularly(self, clock: Callable[[], Instant]) -> None:
        """Seal once a minute, until cancelled."""
        while True:
            await asyncio.sleep(SEAL_SECONDS)
            try:
                await self.seal(clock)
                await self.forget(clock())
            except StoreUnavailable as error:
                log.error("events_not_sealed", detail=str(error))
            except Exception:
                log.exception("events_not_sealed")

    async def _claim(self, now: Instant) -> bool:
        return await self._store.facts.claim(_CLAIM, self._holder, now=now, until=after(now, _CLAIM_SECONDS))

    async def _end(self) -> tuple[int, str]:
        """The last number that is sealed, and the digest of its seal.

        What was sealed once is never sealed again, not even if its seals are gone: that is for `verify` to find.
        """
        found = [self._known, await self._head()]
        async for each in self._all(SEALED):
            if (made := read_seal(self._keyring.seal_key, each)) is not None:
                found.append((made.last, made.digest))
                break
        return max(found)

    async def _head(self) -> tuple[int, str]:
        """What was noted of the last seal, or of none."""
        return await self._noted() or (0, NOTHING)

    async def _noted(self) -> tuple[int, str] | None:
        parts = read_signed(self._keyring.seal_key, _HEAD, await self._store.facts.read(_HEAD), 2)
        return None if parts is None else (int(parts[0]), parts[1])

    async def _forgotten(self) -> tuple[list[str], int]:
        """What is wrong with what says that events were forgotten; and the last number that was."""
        problems, through = [], 0
        async for each in self._all(FORGOTTEN):
            parts = read_signed(self._keyring.seal_key, FORGOTTEN, each.detail, 2)
            if parts is None:
                problems.append(f"event {each.number} says that events were forgotten, and was not made by this server")
            else:
                through = max(through, int(parts[0]))
        return problems, through

    async def _all(self, kind: EventKind) -> AsyncIterator[Event]:
        """Events of a *kind*, newest first."""
        before = None
        while batch := await self._store.events.list(EventFilter(kind=kind), before=before, most=_BATCH):
            for each in batch:
                yield each
            before = batch[-1].number


class _Trail:
    """What was found so far of a trail that is looked at from its oldest event on.

    Of events only digests are held, until the second seal after them has come: a process that was stopped for a while
    may have sealed a range once more.
    """

    def __init__(self, key: bytes, *, forgotten: int, until: Instant = _NEVER) -> None:
        self._key = key
        self._until = until
        self._forgotten = forgotten
        self._held: deque[tuple[int, bytes, Instant]] = deque()
        self._seals: deque[Seal] = deque(maxlen=2)
        self._position = forgotten
        self.events = self.sealed = 0
        self.old_through = forgotten
        """The last number up to which everything happened before *until*, and was found to be as it was sealed."""
        self.sealed_at = _NEVER
        """When the newest of the seals was made."""
        self.problems: list[tuple[int, str]] = []
        self.remarks: list[str] = []

    def look(self, each: Event, now: Instant) -> None:
        """Look at the next event."""
        self.events += 1
        if each.number <= 0:
            self._wrong(each.number, f"event {each.number} has a number that the store does not give")
        elif each.number <= self._forgotten:
            # Deleting them takes a while; what is there a day later was put in.
            if _age(each, now) < _DAY:
                self._wrong(0, f"event {each.number} is newer than those up to {self._forgotten}, which were forgotten")
        else:
            self._held.append((each.number, digest_of(each), each.at if isinstance(each.at, int) else now))
        if each.kind == SEALED:
            made = read_seal(self._key, each)
            if made is None:
                self._wrong(each.number, f"event {each.number} is a seal that was not made by this server")
            elif made.last > self._forgotten:
                self._judge(made)
            else:
                self._seals.append(made)

    def end(self, now: Instant, *, head: tuple[int, str] | None) -> None:
        """Look at what is left over; *head* is the last number that was sealed, with the digest of its seal."""
        if head is None and self._position > self._forgotten:
            self._wrong(
                self._position, "the note of how far events were sealed is gone, or was not made by this server"
            )
        elif head is not None and self._position < head[0]:
            self._wrong(head[0], f"events {self._position + 1} to {head[0]} were sealed, and their seals are gone")
        unsealed = [each for each in self._held if each[0] > self._position]
        expected = self._position + 1
        for number, _, at in unsealed:
            if number - expected > MAX_GAP:
                self._wrong(number, f"event {number} is far ahead of the one before it, {expected - 1}")
            if at > after(now, _DAY):
                self._wrong(number, f"event {number} is of a time that has not come")
            expected = number + 1
        if unsealed and now > after(min(each[2] for each in unsealed), LATE_SECONDS):
            self.remarks.append(f"{len(unsealed)} events from number {unsealed[0][0]} on are not sealed yet")

    def _judge(self, made: Seal) -> None:
        # Or the same one as a seal before: made by a process that slept with it in its hand.
        known = {digest for each in self._seals for digest in (each.previous, each.digest)}
        follows = made.previous in known if known else made.previous == NOTHING or self._forgotten > 0
        begins = self._seals[0].first if self._seals else self._forgotten + 1
        if made.first > self._position + 1 or not follows or made.first < begins:
            self._wrong(made.last, f"the seal of events {made.first} to {made.last} does not follow the one before it")
        within = [each for each in self._held if made.first <= each[0] <= made.last]
        sealed = ((number, digest) for number, digest, _ in within)
        again = seal(sealed, first=made.first, at=made.at, previous=made.previous)
        if again == made:
            # Two seals of one range count it once.
            self.sealed += sum(each[0] > self._position for each in within)
            if self.old_through == self._position and max(each[2] for each in within) < self._until:
                self.old_through = made.last
            if made.at > after(min(each[2] for each in within), LATE_SECONDS):
                self.remarks.append(
                    f"events {made.first} to {made.last} were sealed at {isoformat(made.at)}, more than minutes after "
                    "the first of them: only from then on is it certain that they stayed as they were"
                )
        else:
            self._wrong(made.last, f"events {made.first} to {made.last} are not those that were sealed")
        self._position, self.sealed_at = max(self._position, made.last), made.at
        self._seals.append(made)
        while self._held and self._held[0][0] < self._seals[0].first:
            self._held.popleft()

    def _wrong(self, number: int, text: str) -> None:
        self.problems.append((number, text))


def _age(each: Event, now: Instant) -> float:
    return (now - each.at) / MICROSECONDS if isinstance(each.at, int) else 0.0
