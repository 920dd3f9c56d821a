"""Tell another system of every security event: in order, at least once, and again until it has taken it."""

import asyncio
import hashlib
import json
import secrets
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from authwright.domain.event import shown
from authwright.domain.instant import Instant, after
from authwright.services.audit import Settled
from authwright.storage.port import EventFilter, Store, StoreUnavailable

EVERY_SECONDS: Final = 2.0
MOST_PAUSE: Final = 300.0
_AT_ONCE: Final = 100
_CLAIM: Final = "events_push"
_CLAIM_SECONDS: Final = 120
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

    def __init__(self, store: Store, receiver: Receiver | None, *, time: Callable[[], float]) -> None:
        self._store = store
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
            position = await self._position()
            events = self._settled.leading(await self._store.events.after(position, most=_AT_ONCE), after=position)
            if not events:
                break
            body = json.dumps({"events": [shown(each) for each in events]}, separators=(",", ":")).encode("utf-8")
            message_id = f"msg_{hashlib.sha256(body).hexdigest()[:32]}"
            await self._receiver.take(body, message_id=message_id, now=now)
            await self._store.facts.replace(_POSITION, str(events[-1].number))
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

    async def _position(self) -> int:
        """The number of the last event that was taken."""
        position = int(await self._store.facts.read(_POSITION) or 0)
        if position and not await self._store.events.after(position - 1, most=1):
            # A backup was put back, and the numbers after it are given once more.
            restored = await self._store.events.list(EventFilter(kind="store_restored"), before=None, most=1)
            position = restored[0].number - 1 if restored else 0
            log.warning("events_went_back", to=position)
        return position
