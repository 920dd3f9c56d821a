"""GET /revocations: what guards follow. A snapshot, then what is added: as a stream of events, or by asking.

Tokens are verified by the APIs themselves; this feed is how they learn within a second that one was revoked.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from pydantic import Field

from authwright.domain.errors import (
    InsufficientScope,
    TooManyAttempts,
    Unauthenticated,
    Unavailable,
)
from authwright.domain.plan import REVOCATIONS
from authwright.services.feed import Cursor, Feed, News, read_cursor
from authwright.services.revoke import Revoke
from authwright.web.caller import Callers, bearer_token
from authwright.web.endpoint import Answer, Body, Call, Endpoints, Reply, Stream, query_as

HEARTBEAT_SECONDS: Final = 1.0
FRESH_SECONDS: Final = 2.0
"""A server whose last look into the ledger is older has nothing to say about it."""
UNREADABLE_SECONDS: Final = 5.0
"""After so long without its ledger a server lets its followers go, to another one if there is one."""
MOST_WAIT: Final = 25
EVENTS: Final = "text/event-stream"
_NO_STORE: Final = (b"cache-control", b"no-store")
_STREAM_HEADERS: Final = (
    (b"content-type", EVENTS.encode("ascii")),
    _NO_STORE,
    # nginx gathers answers unless it is told not to.
    (b"x-accel-buffering", b"no"),
)
_JSON_HEADERS: Final = ((b"content-type", b"application/json"), _NO_STORE)


class Following(Body):
    """From where, and how long to wait for news."""

    cursor: str | None = Field(default=None, max_length=120, description="`cursor` of the answer before.")
    wait: int = Field(default=0, ge=0, le=MOST_WAIT, description="Seconds to wait if there is nothing new.")


class RevocationEntry(Answer):
    number: int
    kind: str = Field(description="session, subject, client, token or key")
    target: str
    epoch: int | None = Field(default=None, description="Of a subject: the first epoch that is still good.")
    until: int | None = Field(default=None, description="Seconds since 1970 UTC; absent: it matters for ever.")


class RevocationNews(Answer):
    """*snapshot*: these are all there are; forget what you knew."""

    cursor: str
    snapshot: bool
    more: bool = Field(description="In a stream: the same cursor goes on in the next event.")
    entries: list[RevocationEntry]
    age_ms: int = Field(description="How long ago the server read its ledger to the end; -1: it cannot.")
    waited_ms: int = Field(description="How long the answer was held back for news.")
    forgotten_up_to: int = Field(
        description="Entries up to this number that have an `until` can meet no living token any more."
    )


def add_revocations(endpoints: Endpoints, *, revoke: Revoke, callers: Callers, open_here: bool) -> None:
    """`GET /revocations`, for clients with the scope `revocations`; *open_here*: for everybody (development).

    A stream ends when the key of its caller is withdrawn.
    """
    feed = revoke.feed

    async def revocations(call: Call) -> Reply | Stream:
        """What was revoked and can still matter. With `Accept: text/event-stream` a stream of the events `snapshot`,
        `entries` and, every second while the server can read its ledger, `heartbeat` (`age_ms`, and `at_ms` on a
        clock of the server's own); `Last-Event-ID` goes on after a cursor. Otherwise one answer, at once or when
        there is news.
        """
        principal = None
        if not open_here or bearer_token(call) is not None:
            principal = await callers(call, scope=REVOCATIONS)
        wanted = query_as(Following, call.query())
        cursor = read_cursor(wanted.cursor or call.header(b"last-event-id") or "")
        await revoke.follow_up(cursor)
        if cursor is not None and feed.is_behind(cursor):
            raise Unavailable("This server has not seen so much of its store.")
        if EVENTS in (call.header(b"accept") or ""):
            events = _events(feed, cursor, lambda: principal is None or revoke.still_good(principal))
            return Stream(200, events, call.receive, asyncio.Event(), _STREAM_HEADERS)
        return Reply(200, await _news(feed, cursor, wanted.wait), _JSON_HEADERS)

    endpoints.add(
        "GET",
        "/revocations",
        revocations,
        name="revocations",
        summary="What was revoked",
        tag="guards",
        answer=RevocationNews,
        query=Following,
        refusals=(Unauthenticated, InsufficientScope, TooManyAttempts),
        secured=True,
        example={
            "cursor": "6f3a.12.9c41e0ab",
            "snapshot": False,
            "more": False,
            "entries": [_EXAMPLE],
            "age_ms": 40,
            "waited_ms": 310,
            "forgotten_up_to": 9,
        },
    )


_EXAMPLE: Final = {"number": 12, "kind": "session", "target": "Zq...", "until": 1795003905}


async def _news(feed: Feed, cursor: Cursor | None, wait: int) -> bytes:
    begun = feed.now
    news = feed.after(cursor)
    if news is None and wait:
        await feed.moved(wait)
        news = feed.after(cursor)
    head = {"age_ms": _age_ms(feed), "waited_ms": int((feed.now - begun) * 1000), "forgotten_up_to": feed.forgotten}
    news = news or News(feed.cursor, (), False)
    return json.dumps(head)[:-1].encode("ascii") + b"," + news.encoded()[1:]


async def _events(feed: Feed, cursor: Cursor | None, still_good: Callable[[], bool]) -> AsyncIterator[bytes]:
    readable = feed.now
    while still_good() and feed.now < readable + UNREADABLE_SECONDS:
        while (news := feed.after(cursor)) is not None:
            cursor = news.cursor
            name = b"snapshot" if news.snapshot else b"entries"
            for piece, more in news.pieces():
                # Who goes on after an id has all up to it.
                place = b"" if more else b"id: %s\n" % str(cursor).encode("ascii")
                yield b"event: %s\n%sdata: %s\n\n" % (name, place, piece)
        if feed.age is not None and feed.age <= FRESH_SECONDS:
            # By `at_ms` a follower knows how long this was under way, whatever stands in between.
            readable = feed.now
            beat: dict[str, Any] = {"cursor": str(cursor), "age_ms": _age_ms(feed), "at_ms": int(readable * 1000)}
            beat["forgotten_up_to"] = feed.forgotten
            yield b"event: heartbeat\ndata: %s\n\n" % json.dumps(beat).encode("ascii")
        else:
            # Nothing is said of the ledger; for a while the connection is kept.
            yield b": the ledger cannot be read\n\n"
        await feed.moved(HEARTBEAT_SECONDS)


def _age_ms(feed: Feed) -> int:
    return -1 if feed.age is None else round(feed.age * 1000)
