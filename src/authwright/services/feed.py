"""What guards follow: the ledger's entries that still matter, served from memory.

A follower names the cursor it has reached (store epoch and number). It gets what came after it, or a snapshot if the
store is another one by now, or forgot entries that the follower never saw.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from authwright.domain.instant import MICROSECONDS, Instant
from authwright.domain.revocation import FOREVER, Revocation

MOST_AT_ONCE: Final = 1000
"""Entries in one message of a stream."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a follower is: *number* entries of the store with the epoch *epoch*."""

    epoch: str
    number: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.number}"


def read_cursor(text: str) -> Cursor | None:
    """The cursor that *text* is, or None if it is none; then a snapshot is due."""
    epoch, dot, number = text.rpartition(".")
    if not dot or not epoch.isalnum() or not number.isascii() or not number.isdigit() or len(number) > 18:
        return None
    return Cursor(epoch, int(number))


@dataclass(frozen=True, slots=True)
class News:
    """Entries, each as a JSON object, up to *cursor*; *snapshot*: all there are, instead of what was known before."""

    cursor: Cursor
    entries: Sequence[bytes]
    snapshot: bool

    def encoded(self) -> bytes:
        """All of it as one JSON object."""
        return self._encoded(self.entries, more=False)

    def pieces(self) -> Iterator[tuple[bytes, bool]]:
        """The same in JSON objects of at most MOST_AT_ONCE entries, each with whether `more` follow."""
        for start in range(0, len(self.entries) or 1, MOST_AT_ONCE):
            more = start + MOST_AT_ONCE < len(self.entries)
            yield self._encoded(self.entries[start : start + MOST_AT_ONCE], more=more), more

    def _encoded(self, entries: Sequence[bytes], *, more: bool) -> bytes:
        head = {"cursor": str(self.cursor), "snapshot": self.snapshot, "more": more}
        encoded = json.dumps(head, separators=(",", ":"))[:-1].encode("ascii")
        return encoded + b',"entries":[' + b",".join(entries) + b"]}"


class CursorAhead(Exception):
    """A follower has seen more of this store than there is here."""


class Feed:
    """The newest entries of the ledger, in order. Fed by `services.revoke`, read by any number of followers.

    *loop_time* is a clock that never jumps, in seconds.
    """

    def __init__(self, loop_time: Callable[[], float]) -> None:
        self._loop_time = loop_time
        self._epoch = ""
        self._entries: deque[tuple[int, Instant, bytes]] = deque()
        self._complete_after = 0
        self._head = 0
        self._read_at: float | None = None
        self._snapshot: tuple[bytes, ...] | None = None
        self._moved = asyncio.Event()

    @property
    def now(self) -> float:
        """Seconds on the clock that never jumps."""
        return self._loop_time()

    @property
    def cursor(self) -> Cursor:
        return Cursor(self._epoch, self._head)

    @property
    def age(self) -> float | None:
        """Seconds since the ledger was last read to its end; None if it never was."""
        return None if self._read_at is None else self._loop_time() - self._read_at

    def start(self, epoch: str, entries: Iterable[Revocation]) -> None:
        """Begin anew with a snapshot of the store with this *epoch*."""
        self._epoch = epoch
        self._entries.clear()
        self._add(entries)
        # Of what came before the newest entry some was forgotten: nobody who missed it can go on from there.
        self._complete_after = self._head
        self._wake()

    def apply(self, entries: Iterable[Revocation]) -> None:
        """Entries that follow on the head."""
        before = self._head
        self._add(entries)
        if self._head != before:
            self._wake()

    def read(self) -> None:
        """The ledger was read to its end just now."""
        self._read_at = self._loop_time()

    def forget(self, now: Instant) -> None:
        """Let go of entries that no longer matter at *now*, from the oldest on; never the newest."""
        while len(self._entries) > 1 and self._entries[0][1] <= now:
            number, _, _ = self._entries.popleft()
            self._snapshot = None
            self._complete_after = max(self._complete_after, number)

    def is_behind(self, cursor: Cursor) -> bool:
        """Whether a follower of the same store has seen more, from another server."""
        return cursor.epoch == self._epoch and cursor.number > self._head

    def after(self, cursor: Cursor | None) -> News | None:
        """What a follower that has reached *cursor* does not know yet; None if it knows all.

        Raises CursorAhead: a snapshot would take back what the follower knows.
        """
        if cursor is not None and self.is_behind(cursor):
            raise CursorAhead
        if cursor is None or cursor.epoch != self._epoch or cursor.number < self._complete_after:
            if self._snapshot is None:
                # Followers that come back all at once share it.
                self._snapshot = tuple(entry for _, _, entry in self._entries)
            return News(self.cursor, self._snapshot, True)
        if cursor.number == self._head:
            return None
        missing = self._head - cursor.number
        newest = [self._entries[place] for place in range(len(self._entries) - missing, len(self._entries))]
        return News(self.cursor, [entry for _, _, entry in newest], False)

    async def moved(self, seconds: float) -> None:
        """Return when something was added, or after *seconds*."""
        try:
            async with asyncio.timeout(seconds):
                await self._moved.wait()
        except TimeoutError:
            pass

    def _add(self, entries: Iterable[Revocation]) -> None:
        for entry in entries:
            self._entries.append((entry.number, entry.until, _encoded(entry)))
            self._head = entry.number
        self._snapshot = None

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


def _encoded(entry: Revocation) -> bytes:
    shown = {"number": entry.number, "kind": entry.kind, "target": entry.target}
    if entry.kind == "subject":
        shown["epoch"] = entry.epoch
    if entry.until != FOREVER:
        # Whole seconds, never earlier.
        shown["until"] = -(-entry.until // MICROSECONDS)
    return json.dumps(shown, separators=(",", ":")).encode("ascii")
