"""Points in time and spans between them: whole microseconds, so that every store keeps them exactly."""

from datetime import UTC, datetime, timedelta
from typing import Final, NewType

Instant = NewType("Instant", int)
"""Microseconds since 1970-01-01 00:00 UTC."""

MICROSECONDS: Final = 1_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def after(now: Instant, seconds: float) -> Instant:
    """The instant *seconds* after *now*."""
    return Instant(now + round(seconds * MICROSECONDS))


def isoformat(instant: Instant) -> str:
    """RFC 3339 in UTC with microseconds, as answers show times."""
    return (_EPOCH + timedelta(microseconds=instant)).isoformat().replace("+00:00", "Z")
