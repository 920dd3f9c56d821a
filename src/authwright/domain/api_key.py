"""A key that a user makes for a program of its own: it acts for the user, within a scope, until it expires."""

from dataclasses import dataclass, field
from typing import Final

from authwright.domain.instant import Instant
from authwright.domain.secrets import ApiKeyId, Digest, UserId

MOST_API_KEYS: Final = 50
"""Keys that one user may have at a time."""
MAX_DAYS: Final = 366


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key. *scope* is what it was given; it never allows more than its user's role and plan still permit.

    Its id stands as `client_id` in the tokens of sessions that are opened with it.
    """

    id: ApiKeyId
    user_id: UserId
    name: str
    key_digest: Digest = field(repr=False)
    key_hint: str
    scope: frozenset[str]
    audiences: tuple[str, ...]
    created_at: Instant
    expires_at: Instant
