"""Read what was recorded. Events are written by the acts themselves, each in the transaction of its act."""

from collections.abc import Sequence
from typing import Final

from authwright.domain.event import Event
from authwright.storage.port import EventFilter, Store

MOST_LISTED: Final = 200


class Events:
    """Reads security events."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self, which: EventFilter, *, before: int | None, most: int) -> Sequence[Event]:
        """Events with a number below *before*, newest first; at most *most* and one more than MOST_LISTED."""
        return await self._store.events.list(which, before=before, most=min(most, MOST_LISTED + 1))
