"""The life of a key: published, active, retired, withdrawn; all of it read off three times.

A new signing key is published before it signs, for twice as long as a verifier may cache the key set, so that nobody
meets a signature by a key it has not seen. An old one is kept until the last token it signed has expired.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from authwright.domain.instant import Instant, after

Purpose = Literal["sign", "refresh", "names"]
KeyState = Literal["next", "active", "retired", "gone", "withdrawn"]

JWKS_MAX_AGE: Final = 300
"""Seconds a verifier may cache the key set."""
PUBLISH_AHEAD: Final = 2 * JWKS_MAX_AGE
LEAST_AHEAD: Final = 2
"""Seconds after which every worker and machine publishes a new key: a verifier that fetches it finds it anywhere."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A stored key. *wrapped* is its material, encrypted. *ordinal* counts the keys of one purpose and issuer."""

    id: str
    purpose: Purpose
    issuer: str
    alg: str
    ordinal: int
    wrapped: bytes = field(repr=False)
    created_at: Instant
    active_from: Instant
    withdrawn_at: Instant | None


def active_key(records: Iterable[KeyRecord], now: Instant) -> KeyRecord | None:
    """The key in use at *now*: of those whose time has come, the newest that was not withdrawn.

    If no time has come (a clock that was set back), the oldest one.
    """
    good = sorted((record for record in records if record.withdrawn_at is None), key=lambda record: record.ordinal)
    due = [record for record in good if record.active_from <= now]
    return due[-1] if due else good[0] if good else None


def key_state(record: KeyRecord, records: Sequence[KeyRecord], *, now: Instant, keep: float) -> KeyState:
    """Where *record* stands among all *records* of its purpose. *keep*: seconds an old key still verifies."""
    if record.withdrawn_at is not None:
        return "withdrawn"
    active = active_key(records, now)
    if active is None or record.ordinal > active.ordinal:
        return "next"
    if record.ordinal == active.ordinal:
        return "active"
    successors = [
        other.active_from for other in records if other.ordinal > record.ordinal and other.withdrawn_at is None
    ]
    return "retired" if now < after(min(successors), keep) else "gone"


def published_keys(records: Sequence[KeyRecord], *, now: Instant, keep: float) -> list[KeyRecord]:
    """The keys that belong in the key set at *now*: the next, the active and the retired ones."""
    return [
        record for record in records if key_state(record, records, now=now, keep=keep) in ("next", "active", "retired")
    ]
