"""Tell another system of every security event: in order, at least once, and again until it has taken it."""

import asyncio
import hashlib
import json
import secrets
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from authwright.domain.event import Event, shown
from authwright.domain.instant import Instant, after
from authwright.domain.seal import read_signed, signed
from authwright.services.audit import Settled
from authwright.services.keys import Keyring
from authwright.storage.port import EventFilter, Store, StoreUnavailable

EVERY_SECONDS: Final = 2.0
MOST_PAUSE: Final = 300.0
_AT_ONCE: Final = 100
_CLAIM: Final = "events_push"
# Longer than one message takes: it is renewed for each.
_CLAIM_SECONDS: Final = 30
_MOST_BYTES: Final = 256 * 1024
_POSITION: Final = "events_pushed"

log = structlog.get_logger("authwright.events")


class NotTaken(Exception):
    """The other system did not take what was sent, now."""


class Receiver(Protocol):
    """The other system."""

    async def take(self, body: bytes, *, message_id: str, now: Instant) -> None:
        """Return when it has taken *body*; one that it has seen has the same *message_id*. Raises NotTaken."""


class EventPush:
    """Sends events to *receiver*; None: to nobody. *time* as that of `services.audit.Settled`."""

    def __init__(self, store: Store, keyring: Keyring, receiver: Receiver | None, *, time: Callable[[], float]) -> None:
        self._store = store
        self._keyring = keyring
        self._receiver = receiver
        self._settled = Settled(time)
        self._holder = secrets.token_hex(8)

    async def push(self, clock: Callable[[], Instant]) -> int:
        """Send what was not taken yet, unless another process is at it; how many. Raises NotTaken, StoreUnavailable."""
        pushed = 0
        while self._receiver is not None:
            now = clock()
            if not await self._store.facts.claim(_CLAIM, self._holder, now=now, until=after(now, _CLAIM_SECONDS)):
                break
            taken, begun = await self._position()
            events = self._settled.leading(await self._store.events.after(taken, most=_AT_ONCE), after=taken)
            # A message that was begun is sent again as it was.
            events = [each for each in events if each.number <= begun] or _within(events)
            if not events:
                break
            last = events[-1].number
            await self._note(taken, last)
            body = json.dumps({"events": [shown(each) for each in events]}, separators=(",", ":"), default=repr)
            message_id = (
                "msg_" + hashlib.sha256(f"{taken} {last}".encode("ascii") + self._keyring.seal_key).hexdigest()[:32]
            )
            await self._receiver.take(body.encode("utf-8", "replace"), message_id=message_id, now=now)
            await self._note(last, last)
            pushed += len(events)
        return pushed

    async def run_regularly(self, clock: Callable[[], Instant]) -> None:
        """Send every EVERY_SECONDS, and less often while that does not work, until cancelled."""
        pause = EVERY_SECONDS
        while self._receiver is not None:
            await asyncio.sleep(pause)
            try:
                await self.push(clock)
                pause = EVERY_SECONDS
            except (StoreUnavailable, NotTaken) as error:
                pause = min(MOST_PAUSE, pause * 2)
                log.error("events_not_taken", detail=str(error), seconds=pause)
            except Exception:
                pause = MOST_PAUSE
                log.exception("events_not_taken")

    async def _position(self) -> tuple[int, int]:
        """The number of the last event that was taken, and that of the last one that was sent."""
        noted = await self._store.facts.read(_POSITION)
        parts = read_signed(self._keyring.seal_key, _POSITION, noted, 2)
        if parts is None:
            if noted is not None:
                log.error("events_position_unreadable", detail="all events are sent again")
            return 0, 0
        taken, begun = int(parts[0]), int(parts[1])
        if taken and not await self._store.events.after(taken - 1, most=1):
            # A backup was put back, and the numbers after it are given once more.
            restored = await self._store.events.list(EventFilter(kind="store_restored"), before=None, most=1)
            taken = begun = restored[0].number - 1 if restored else 0
            log.warning("events_went_back", to=taken)
        return taken, begun

    async def _note(self, taken: int, begun: int) -> None:
        await self._store.facts.replace(_POSITION, signed(self._keyring.seal_key, _POSITION, taken, begun))


def _within(events: Sequence[Event]) -> Sequence[Event]:
    """As many of *events* as fit into a message; at least one."""
    size = 0
    for place, each in enumerate(events):
        size += len(repr(each))
        if place and size > _MOST_BYTES:
            return events[:place]
    return events
