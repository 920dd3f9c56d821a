"""Follow the feed: a snapshot, then what is added, and at every moment the knowledge of how old that knowledge is.

How old is told without comparing clocks. The first event of a stream was sent after the stream was asked for; every
heartbeat says how much later than that one it was sent. So a heartbeat that a proxy held back counts for the moment
it was sent at, not for that it arrived at.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any, Final

from authwright.domain.instant import MICROSECONDS, Instant, after
from authwright.domain.revocation import FOREVER, KINDS, Revocation, Revocations
from authwright.guard.issuer import Issuer, IssuerAway, IssuerRefuses, IssuerSilent

HELD_BACK_SECONDS: Final = 2.5
"""Heartbeats that are older than this when they arrive are held back by somebody in between."""
ASK_SECONDS: Final = 60.0
"""For how long a guard asks instead of following a stream that is held back."""
ASK_WAIT: Final = 2
REFUSED_SECONDS: Final = 10.0
MOST_PAUSE: Final = 4.0
FORGET_SECONDS: Final = 60.0

log = logging.getLogger("authwright.guard")


class HeldBack(Exception):
    """What the stream says is too old when it arrives, or nothing comes at all."""


class Broken(Exception):
    """What the feed says does not fit what is known: begin again."""


class Follower:
    """Keeps *revocations* in step with the feed of *issuer*.

    *clock* is the wall clock, *time* one that never jumps (seconds). *on_progress* is called when `as_of` moved,
    *on_keys* when keys were withdrawn or the issuer's store was restored.
    """

    def __init__(
        self,
        issuer: Issuer,
        revocations: Revocations,
        *,
        clock: Callable[[], Instant],
        time: Callable[[], float],
        on_progress: Callable[[], None],
        on_keys: Callable[[], None],
    ) -> None:
        self._issuer = issuer
        self._revocations = revocations
        self._clock = clock
        self._time = time
        self._on_progress = on_progress
        self._on_keys = on_keys
        self._draft: Revocations | None = None
        self._pending: list[Revocation] = []
        self._ask_until = float("-inf")
        self._begun, self._begun_wall = time(), clock()
        self._forget_due = time() + FORGET_SECONDS
        self._pause = 0.0
        self.cursor: str | None = None
        """Up to where the ledger is known: the store's epoch and a number."""
        self.as_of = float("-inf")
        """All that the ledger held at this time (of *time*) is known."""
        self.streaming = False

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                if self._time() < self._ask_until:
                    await self._ask()
                    continue
                await self._stream()
            except IssuerRefuses as refused:
                log.error(
                    "the issuer does not let this guard follow revocations (%s): it needs a client key with the scope "
                    "`revocations` (authwright clients create NAME --scope revocations)",
                    refused,
                )
                self._pause = REFUSED_SECONDS
            except HeldBack as held:
                log.warning("the stream of revocations is held back (%s); asking for them instead", held)
                self._ask_until = self._time() + ASK_SECONDS
                continue
            except Broken as broken:
                log.error("the feed of revocations makes no sense (%s); beginning again", broken)
                self.cursor = None
                self._pause = max(self._pause, 1.0)
            except IssuerAway as away:
                log.warning("the feed of revocations is away: %s", away)
            except Exception:
                # Whatever it is, revocations must go on being followed.
                log.exception("following revocations failed")
                self.cursor = None
            # Guards that lost the same server come back spread over time, the sooner the shorter it is away.
            self._pause = min(max(self._pause * 2, 0.5), max(MOST_PAUSE, self._pause))
            await asyncio.sleep(self._pause * random.random())  # noqa: S311 - spreads, guards nothing

    async def _stream(self) -> None:
        asked = self._time()
        first: int | None = None
        late_since: float | None = None
        self._draft, self._pending = None, []
        try:
            async with self._issuer.follow(self.cursor) as events:
                async for name, content in events:
                    if name in ("snapshot", "entries"):
                        self._apply(content)
                        self._pause = 0.0
                    elif name == "heartbeat":
                        self._expect(content)
                        at, age = _number(content, "at_ms"), _number(content, "age_ms")
                        first = at if first is None else first
                        self.streaming = True
                        self._known_at(asked + (at - first - age) / 1000)
                        if self._time() - self.as_of <= HELD_BACK_SECONDS:
                            late_since = None
                        elif late_since is None:
                            # If this process itself was busy, those that wait behind this one are fresh.
                            late_since = self._time()
                        elif self._time() - late_since > HELD_BACK_SECONDS:
                            raise HeldBack(f"{self._time() - self.as_of:.1f} s old")
        except IssuerSilent as silent:
            raise HeldBack(str(silent)) from None
        finally:
            self.streaming = False
        raise IssuerAway("the stream ended")

    async def _ask(self) -> None:
        asked = self._time()
        self._draft, self._pending = None, []
        content = await self._issuer.ask(self.cursor, wait=ASK_WAIT if self.cursor else 0)
        self._apply(content)
        waited, age = _number(content, "waited_ms"), _number(content, "age_ms")
        if age >= 0:
            self._known_at(asked + (waited - age) / 1000)
        self._pause = 0.0

    def _known_at(self, moment: float) -> None:
        self.as_of = max(self.as_of, min(moment, self._time()))
        if self._time() >= self._forget_due:
            # A wall clock that jumped ahead must not make us forget what still matters.
            self._revocations.forget(min(self._clock(), after(self._begun_wall, self._time() - self._begun)))
            self._forget_due = self._time() + FORGET_SECONDS
        self._on_progress()

    def _expect(self, content: dict[str, Any]) -> None:
        if content.get("cursor") != self.cursor:
            raise Broken("a heartbeat names another place")

    def _apply(self, content: dict[str, Any]) -> None:
        """Take in a message whole, or, if more of it is to come, keep it aside until all is here."""
        cursor, entries = content.get("cursor"), content.get("entries")
        if not isinstance(cursor, str) or not isinstance(entries, list):
            raise Broken("no entries")
        if content.get("snapshot") is True:
            self._draft = self._draft or Revocations()
            self._draft.start(map(_entry, entries))
        else:
            self._pending += map(_entry, entries)
        if content.get("more") is True:
            return
        try:
            if self._draft is not None:
                self._replace(self._draft, cursor)
            else:
                self._revocations.apply(self._pending)
        except ValueError as error:
            raise Broken(str(error)) from None
        finally:
            pending, self._pending, self._draft = self._pending, [], None
        self.cursor = cursor
        if any(entry.kind == "key" for entry in pending):
            self._on_keys()

    def _replace(self, draft: Revocations, cursor: str) -> None:
        epoch, _, number = cursor.rpartition(".")
        known, _, before = (self.cursor or "").rpartition(".")
        if not number.isascii() or not number.isdigit():
            raise Broken("a cursor without a number")
        if known == epoch and int(number) < int(before):
            raise Broken("the issuer has lost what it said before")
        draft.head = int(number)
        self._revocations.take_over(draft)
        if self.cursor is not None:
            log.warning("all revocations were taken in anew")
            self._on_keys()


def _entry(content: Any) -> Revocation:
    if not isinstance(content, dict):
        raise Broken("an entry is no object")
    kind, target = content.get("kind"), content.get("target")
    number, epoch, until = content.get("number"), content.get("epoch", 0), content.get("until")
    if kind not in KINDS or type(target) is not str or not target:
        # One of a later version: what it withdraws is not known here, and must not pass as if it were.
        raise Broken("an entry of an unknown kind")
    if type(number) is not int or type(epoch) is not int or not (until is None or type(until) is int):
        raise Broken("an entry without its numbers")
    ends = FOREVER if until is None else Instant(until * MICROSECONDS)
    return Revocation(kind, target, epoch, "", Instant(0), ends, number)


def _number(content: dict[str, Any], name: str) -> int:
    value = content.get(name)
    if type(value) is not int:
        raise Broken(f"{name} is missing")
    return value
