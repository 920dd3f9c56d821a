"""A chain of seals over the security events: what was changed, taken away or put in afterwards is seen.

A seal is an event itself. It names a range of numbers, how many events there were in it, the digest of the seal before
it, and a digest under a key over all of that and over every event of the range. Who can write to the database but has
not the key cannot make one. The newest events are not sealed yet, and who takes away the end of everything leaves no
gap: that is what exports are for.
"""

import hmac
import json
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from authwright.domain.event import Event, EventKind

SEALED: Final[EventKind] = "events_sealed"
FORGOTTEN: Final[EventKind] = "events_forgotten"
NOTHING: Final = "0" * 64
"""The digest of the seal before the first one."""


class Seal(NamedTuple):
    """The *size* events numbered *first* to *last*; *previous* is the digest of the seal before this one."""

    first: int
    last: int
    size: int
    previous: str
    digest: str


def seal(key: bytes, events: Sequence[Event], *, first: int, previous: str) -> Seal:
    """Seal *events*, which are all there are from the number *first* to that of the last of them, in order."""
    last = events[-1].number
    return Seal(first, last, len(events), previous, _digest(key, events, first=first, last=last, previous=previous))


def text_of(made: Seal) -> str:
    """*made*, as the detail of its event."""
    return " ".join(map(str, made))


def read_seal(text: str) -> Seal | None:
    """What `text_of` wrote, or None."""
    parts = text.split(" ")
    numbers, digests = parts[:3], parts[3:]
    good = len(parts) == 5 and all(each.isascii() and each.isdigit() and len(each) < 20 for each in numbers)
    if not good or any(len(each) != 64 for each in digests):
        return None
    return Seal(int(numbers[0]), int(numbers[1]), int(numbers[2]), digests[0], digests[1])


def is_whole(key: bytes, made: Seal, events: Sequence[Event]) -> bool:
    """Whether *events*, all that there are with the numbers of *made*, are those that were sealed."""
    again = _digest(key, events, first=made.first, last=made.last, previous=made.previous)
    return len(events) == made.size and hmac.compare_digest(again, made.digest)


def forgotten_text(key: bytes, through: int) -> str:
    """The detail of the event that says that all events up to the number *through* were deleted, being old."""
    return f"{through} {hmac.digest(key, f'{FORGOTTEN} {through}'.encode(), 'sha256').hex()}"


def read_forgotten(key: bytes, text: str) -> int | None:
    """The number that `forgotten_text` was made with, or None if it was not made with this *key*."""
    number = text.partition(" ")[0]
    if not (number.isascii() and number.isdigit() and len(number) < 20):
        return None
    return int(number) if hmac.compare_digest(forgotten_text(key, int(number)), text) else None


def _digest(key: bytes, events: Iterable[Event], *, first: int, last: int, previous: str) -> str:
    digest = hmac.new(key, f"{SEALED} {first} {last} {previous}\n".encode(), "sha256")
    for event in events:
        # Everything but `tell`, which is not kept.
        digest.update(json.dumps(event[:-1], separators=(",", ":")).encode("ascii") + b"\n")
    return digest.hexdigest()
