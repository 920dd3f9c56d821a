"""A chain of seals over the security events: what was changed, taken away or put in afterwards is seen.

A seal is an event itself. It names a range of numbers, how many events there were in it, the digest of the seal before
it, and a digest over all of that and over every event of the range; and it has a code under a key, without which nobody
makes one. So a seal is believed by itself, and events are believed with their seal. What else the server notes about
the trail (how far it was sealed, what was forgotten, what was sent on) has a code as well.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from authwright.domain.event import Event, EventKind
from authwright.domain.instant import Instant

SEALED: Final[EventKind] = "events_sealed"
FORGOTTEN: Final[EventKind] = "events_forgotten"
NOTHING: Final = "0" * 64
"""The digest of the seal before the first one."""
MAX_NUMBER: Final = 2**62
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}")


class Seal(NamedTuple):
    """The *size* events numbered *first* to *last*, sealed *at*; *previous* is the digest of the seal before it."""

    first: int
    last: int
    size: int
    at: Instant
    previous: str
    digest: str


def digest_of(event: Event) -> bytes:
    """A digest of everything that is kept of *event*, whatever somebody has put into its columns."""
    kept = json.dumps(event[:-1], separators=(",", ":"), default=repr)
    return hashlib.sha256(kept.encode("utf-8", "surrogatepass")).digest()


def seal(events: Iterable[tuple[int, bytes]], *, first: int, at: Instant, previous: str) -> Seal:
    """Seal *events*, numbers with their `digest_of`: all that there are from the number *first* to the last of them."""
    digest = hashlib.sha256()
    last = size = 0
    for number, each in events:
        last, size = number, size + 1
        digest.update(each)
    digest.update(f"{first} {last} {size} {at} {previous}".encode("ascii"))
    return Seal(first, last, size, at, previous, digest.hexdigest())


def text_of(key: bytes, made: Seal) -> str:
    """*made*, as the detail of its event."""
    return signed(key, SEALED, *made)


def read_seal(key: bytes, event: Event) -> Seal | None:
    """The seal that *event* is, if this server made it."""
    parts = read_signed(key, SEALED, event.detail, 6)
    if parts is None or any(_NUMBER.fullmatch(each) is None for each in parts[:4]):
        return None
    first, last, size, at = map(int, parts[:4])
    return Seal(first, last, size, Instant(at), parts[4], parts[5]) if last < event.number else None


def signed(key: bytes, purpose: str, *values: object) -> str:
    """*values* with a code over them, for one *purpose*, as one line of text."""
    text = " ".join(map(str, values))
    return f"{text} {_code(key, purpose, text)}"


def read_signed(key: bytes, purpose: str, text: object, count: int) -> list[str] | None:
    """The *count* values that `signed` made *text* of, or None if it did not."""
    if not isinstance(text, str) or not text.isascii():
        return None
    values, _, code = text.rpartition(" ")
    parts = values.split(" ")
    good = len(parts) == count and hmac.compare_digest(code, _code(key, purpose, values))
    return parts if good else None


def _code(key: bytes, purpose: str, text: str) -> str:
    return hmac.digest(key, f"{purpose}\n{text}".encode("ascii"), "sha256").hex()
