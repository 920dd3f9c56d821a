"""Follow the feed: a snapshot, then what is added, and at every moment the knowledge of how old that knowledge is.

How old is told without comparing clocks. The first heartbeat of a stream was sent after the stream was asked for;
every other says how much later than that one it was sent. So a heartbeat that a proxy held back counts for the moment
it was sent at, not for that it arrived at (docs/decisions/0019).
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from authwright.domain.instant import MICROSECONDS, Instant
from authwright.domain.revocation import FOREVER, KINDS, Revocation, Revocations
from authwright.guard.issuer import SILENT_SECONDS, Issuer, IssuerAway, IssuerRefuses, IssuerSilent

HELD_BACK_SECONDS: Final = 2.5
"""Heartbeats that are older than this when they arrive are held back by somebody in between."""
PROVEN: Final = 3
"""Heartbeats in time after which a stream that was held back is trusted again."""
ASK_SECONDS: Final = 60.0
"""For how long a stream that is held back is not tried again, at first."""
MOST_ASK_SECONDS: Final = 900.0
ASK_WAIT: Final = 2
REFUSED_SECONDS: Final = 10.0
FIRST_PAUSE: Final = 0.4
"""Guards whose stream ended come back within this time, one here and one there; so a logout is still heard of within a
second."""
MOST_PAUSE: Final = 4.0

log = logging.getLogger("authwright.guard")


class HeldBack(Exception):
    """What the stream says is too old when it arrives, or nothing comes at all."""


class Broken(Exception):
    """What the feed says does not fit what is known: begin again."""


class Place(NamedTuple):
    """How far the ledger is known: *number* entries of the store with this *epoch*; *text*: as the issuer writes it."""

    epoch: str
    number: int
    text: str


class Follower:
    """Keeps *revocations* in step with the feed of *issuer*.

    *time* is a clock that never jumps (seconds). *on_progress* is called when `as_of` moved, *on_keys* when keys were
    withdrawn or the issuer's store was restored.
    """

    def __init__(
        self,
        issuer: Issuer,
        revocations: Revocations,
        *,
        time: Callable[[], float],
        on_progress: Callable[[], None],
        on_keys: Callable[[], None],
    ) -> None:
        self._issuer = issuer
        self._revocations = revocations
        self._time = time
        self._on_progress = on_progress
        self._on_keys = on_keys
        # What is held now, which no snapshot of the same store may fall behind; and from where to go on, if one can.
        self._known: Place | None = None
        self._from: Place | None = None
        self._held_back = asyncio.Event()
        self._ask_seconds = ASK_SECONDS
        self.as_of = float("-inf")
        """All that the ledger held at this time (of *time*) is known."""
        self.streaming = False

    @property
    def cursor(self) -> str | None:
        return None if self._known is None else self._known.text

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again_and_again(self._stream))
            group.create_task(self._again_and_again(self._ask))

    async def _again_and_again(self, once: Callable[[], Any]) -> None:
        failures = 0
        while True:
            pause = None
            begun = self.as_of
            try:
                await once()
                failures = 0
                continue
            except HeldBack as held:
                pause, self._ask_seconds = self._ask_seconds, min(self._ask_seconds * 2, MOST_ASK_SECONDS)
                log.warning("the stream of revocations is held back (%s); asking for them instead", held)
                self._held_back.set()
            except IssuerRefuses as refused:
                log.error(
                    "the issuer does not let this guard follow revocations (%s): it needs a client key with the scope "
                    "`revocations` (authwright clients create NAME --scope revocations)",
                    refused,
                )
                pause = REFUSED_SECONDS
            except Broken as broken:
                log.error("the feed of revocations makes no sense (%s); beginning again", broken)
                self._from = None
            except IssuerAway as away:
                log.warning("the feed of revocations is away: %s", away)
            except Exception:
                # Whatever it is, revocations must go on being followed.
                log.exception("following revocations failed")
                self._from = None
            # Guards that lost the same server come back spread over time, the sooner the shorter it is away.
            failures = 0 if self.as_of > begun else failures + 1
            usual = min(FIRST_PAUSE * 2**failures, MOST_PAUSE)
            await asyncio.sleep((pause or usual) * random.random())  # noqa: S311 - spreads, guards nothing

    async def _stream(self) -> None:
        asked, message = self._time(), _Message()
        first: int | None = None
        late_since: float | None = None
        beats = 0
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(2 * SILENT_SECONDS) as limit, self._issuer.follow(self._sent()) as events:
                async for name, content in events:
                    # A server that says that it lives, but cannot read its ledger, is to be left for another.
                    limit.reschedule(loop.time() + SILENT_SECONDS)
                    if name in ("snapshot", "entries"):
                        self._take(message, content)
                    elif name == "heartbeat":
                        self._expect(content)
                        at, age = _number(content, "at_ms"), _number(content, "age_ms")
                        first = at if first is None else first
                        self._known_at(asked + (at - first - age) / 1000, content)
                        if self._time() - self.as_of <= HELD_BACK_SECONDS:
                            late_since, beats, self.streaming = None, beats + 1, True
                        elif late_since is None:
                            # If this process itself was busy, those that wait behind this one are fresh.
                            late_since = self._time()
                        elif self._time() - late_since > HELD_BACK_SECONDS:
                            raise HeldBack(f"{self._time() - self.as_of:.1f} s old")
                        if beats == PROVEN and self._held_back.is_set():
                            self._held_back.clear()
                            self._ask_seconds = ASK_SECONDS
        except IssuerSilent as silent:
            raise HeldBack(str(silent)) from None
        except TimeoutError:
            raise IssuerAway("it has not read its ledger for too long") from None
        finally:
            self.streaming = False
        raise IssuerAway("the stream ended")

    async def _ask(self) -> None:
        """While the stream is held back, ask; also while it is tried again."""
        await self._held_back.wait()
        asked = self._time()
        content = await self._issuer.ask(self._sent(), wait=ASK_WAIT if self._from else 0)
        self._take(_Message(), content)
        waited, age = _number(content, "waited_ms"), _number(content, "age_ms")
        if age < 0:
            raise IssuerAway("it cannot read its ledger")
        self._known_at(asked + (waited - age) / 1000, content)

    def _sent(self) -> str | None:
        return None if self._from is None else self._from.text

    def _known_at(self, moment: float, content: dict[str, Any]) -> None:
        # What the issuer has forgotten can meet no living token; clocks of this machine decide nothing.
        self._revocations.forget(min(_number(content, "forgotten_up_to"), self._revocations.head))
        self.as_of = max(self.as_of, min(moment, self._time()))
        self._on_progress()

    def _expect(self, content: dict[str, Any]) -> None:
        """A heartbeat speaks of what is known here, or of less, if it was under way for long. Raises Broken."""
        place = _place(content)
        if self._known is None or place.epoch != self._known.epoch or place.number > self._known.number:
            raise Broken("a heartbeat names another place")

    def _take(self, message: "_Message", content: dict[str, Any]) -> None:
        """Take in a message whole, or, if more of it is to come, keep it aside until all is here. Raises Broken."""
        entries = content.get("entries")
        if not isinstance(entries, list):
            raise Broken("no entries")
        place = _place(content)
        if content.get("snapshot") is True:
            message.snapshot.start(map(_entry, entries))
        else:
            message.entries += map(_entry, entries)
        if content.get("more") is True:
            return
        if content.get("snapshot") is True:
            self._replace(message.snapshot, place)
        else:
            self._apply(message.entries, place)
        message.snapshot, message.entries = Revocations(), []
        self._known = self._from = place

    def _apply(self, entries: list[Revocation], place: Place) -> None:
        if self._known is None or place.epoch != self._known.epoch:
            raise Broken("entries of another store")
        # The other way of following may have brought some of them before.
        new = [entry for entry in entries if entry.number > self._revocations.head]
        try:
            self._revocations.apply(new)
        except ValueError as error:
            raise Broken(str(error)) from None
        if self._revocations.head != place.number and not (not new and place.number <= self._revocations.head):
            raise Broken("entries and their cursor do not belong together")
        if any(entry.kind == "key" for entry in new):
            self._on_keys()

    def _replace(self, draft: Revocations, place: Place) -> None:
        known = self._known
        if known is not None and place.epoch == known.epoch and place.number < known.number:
            # Nothing that is known is given up for it: the guard grows stale, and says so.
            raise Broken("rollback: the issuer has lost what it said before")
        if draft.head > place.number:
            raise Broken("a snapshot and its cursor do not belong together")
        draft.head = place.number
        self._revocations.take_over(draft)
        # How fresh this one is, its own heartbeats have to say.
        self.as_of = float("-inf")
        if known is not None:
            log.warning("all revocations were taken in anew")
            self._on_keys()


class _Message:
    """What of a message is here, of which more is to come."""

    def __init__(self) -> None:
        self.snapshot = Revocations()
        self.entries: list[Revocation] = []


def _place(content: dict[str, Any]) -> Place:
    text = content.get("cursor")
    parts = text.split(".") if isinstance(text, str) else []
    if len(parts) != 3 or not parts[1].isascii() or not parts[1].isdigit():
        raise Broken("a cursor that is none")
    return Place(parts[0], int(parts[1]), str(text))


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
