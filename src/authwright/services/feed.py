"""What guards follow: the ledger's entries that still matter, served from memory.

A follower names the cursor it has reached (store epoch and number). It gets what came after it, or a snapshot if the
store is another one by now, or forgot entries that the follower never saw.
"""

import asyncio
import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from authwright.domain.instant import MICROSECONDS, Instant, after
from authwright.domain.revocation import FOREVER, Revocation

MOST_AT_ONCE: Final = 1000
"""Entries in one message of a stream."""
_MOST_WRONG: Final = 2 * 86_400


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a follower is: *number* entries of the store with the epoch *epoch*. *mark* tells the last of them from
    another one that got its number when a store lost its newest entries and went on.
    """

    epoch: str
    number: int
    mark: str

    def __str__(self) -> str:
        return f"{self.epoch}.{self.number}.{self.mark}"


_CURSOR: Final = re.compile(r"([0-9a-zA-Z]{1,64})\.([0-9]{1,18})\.([0-9a-f]{1,16})")
_NO_ENTRY: Final = "0"


def read_cursor(text: str) -> Cursor | None:
    """The cursor that *text* is, or None if it is none; then a snapshot is due."""
    match = _CURSOR.fullmatch(text)
    return None if match is None else Cursor(match[1], int(match[2]), match[3])


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


class _Kept(NamedTuple):
    number: int
    until: Instant
    needed_until: float
    mark: str
    encoded: bytes


class Feed:
    """The newest entries of the ledger, in order. Fed by `services.revoke`, read by any number of followers.

    *loop_time* is a clock that never jumps, in seconds. *matters* is how long (seconds) an entry can meet a living
    token.
    """

    def __init__(self, loop_time: Callable[[], float], *, matters: float) -> None:
        self._loop_time = loop_time
        self.matters = matters
        self._epoch = ""
        self._entries: deque[_Kept] = deque()
        # What matters for ever does not hold up the forgetting of what came after it.
        self._lasting: list[bytes] = []
        self._complete_after = (0, _NO_ENTRY)
        self._head = (0, _NO_ENTRY)
        self.forgotten = 0
        """Entries up to this number can meet no living token any more, but for those that matter for ever."""
        self._read_at: float | None = None
        self._snapshot: tuple[bytes, ...] | None = None
        self._moved = asyncio.Event()

    @property
    def now(self) -> float:
        """Seconds on the clock that never jumps."""
        return self._loop_time()

    @property
    def cursor(self) -> Cursor:
        return Cursor(self._epoch, *self._head)

    @property
    def age(self) -> float | None:
        """Seconds since the ledger was last read to its end; None if it never was."""
        return None if self._read_at is None else self._loop_time() - self._read_at

    def start(self, epoch: str, entries: Iterable[Revocation]) -> None:
        """Begin anew with a snapshot of the store with this *epoch*."""
        self._epoch = epoch
        self._entries.clear()
        self._lasting.clear()
        self._head = (0, _NO_ENTRY)
        self.forgotten = 0
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

    def read(self, begun: float) -> None:
        """The ledger was read to its end, beginning at *begun* (of `now`)."""
        self._read_at = begun

    def forget(self, now: Instant) -> None:
        """Let go of entries that no longer matter at *now*, from the oldest on; never the newest.

        Wall clocks can be wrong, that of whoever wrote an entry and this one: so each is kept for as long as it can
        matter, counted from when it came here, too. An entry from a clock that was days ahead holds up no other one.
        """
        steady = self._loop_time()
        while len(self._entries) > 1:
            oldest = self._entries[0]
            if oldest.until == FOREVER:
                self._lasting.append(oldest.encoded)
            elif oldest.needed_until <= steady and not now < oldest.until <= after(now, _MOST_WRONG):
                self.forgotten = oldest.number
            else:
                break
            self._entries.popleft()
            self._snapshot = None
            self._complete_after = max(self._complete_after, (oldest.number, oldest.mark))

    def is_behind(self, cursor: Cursor) -> bool:
        """Whether a follower of the same store has seen more, from another server."""
        return cursor.epoch == self._epoch and cursor.number > self._head[0]

    def after(self, cursor: Cursor | None) -> News | None:
        """What a follower that has reached *cursor* does not know yet; None if it knows all.

        Raises CursorAhead: a snapshot would take back what the follower knows.
        """
        if cursor is not None and self.is_behind(cursor):
            raise CursorAhead
        if cursor is None or cursor.epoch != self._epoch or self._mark_of(cursor.number) != cursor.mark:
            if self._snapshot is None:
                # Followers that come back all at once share it.
                self._snapshot = (*self._lasting, *(entry.encoded for entry in self._entries))
            return News(self.cursor, self._snapshot, True)
        missing = self._head[0] - cursor.number
        if not missing:
            return None
        newest = [self._entries[place].encoded for place in range(len(self._entries) - missing, len(self._entries))]
        return News(self.cursor, newest, False)

    def _mark_of(self, number: int) -> str | None:
        """The mark of the entry *number*, if all that followed on it is here."""
        if number == self._complete_after[0]:
            return self._complete_after[1]
        if number < self._complete_after[0]:
            return None
        return self._entries[number - self._head[0] - 1].mark

    async def moved(self, seconds: float) -> None:
        """Return when something was added, or after *seconds*."""
        try:
            async with asyncio.timeout(seconds):
                await self._moved.wait()
        except TimeoutError:
            pass

    def _add(self, entries: Iterable[Revocation]) -> None:
        needed_until = self._loop_time() + self.matters
        for entry in entries:
            mark = _mark(entry)
            self._entries.append(_Kept(entry.number, entry.until, needed_until, mark, _encoded(entry)))
            self._head = (entry.number, mark)
        self._snapshot = None

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


def _mark(entry: Revocation) -> str:
    told = f"{entry.number} {entry.kind} {entry.target} {entry.epoch} {entry.at}"
    return hashlib.sha256(told.encode("utf-8")).hexdigest()[:8]


def _encoded(entry: Revocation) -> bytes:
    shown = {"number": entry.number, "kind": entry.kind, "target": entry.target}
    if entry.kind == "subject":
        shown["epoch"] = entry.epoch
    if entry.until != FOREVER:
        # Whole seconds, never earlier.
        shown["until"] = -(-entry.until // MICROSECONDS)
    return json.dumps(shown, separators=(",", ":")).encode("ascii")
