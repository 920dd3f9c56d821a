"""An API client: a program with a key of its own."""

from dataclasses import dataclass, field
from typing import Final, Literal

from authwright.domain.instant import Instant
from authwright.domain.secrets import ClientId, Digest

FIRST_PARTY: Final = ClientId("cli_first_party")
"""The built-in client that users log in through: public, trusted, and the only one with the password form."""

ClientStatus = Literal["active", "disabled"]


@dataclass(frozen=True, slots=True)
class Client:
    """A registered client. Its `client_id` is its `sub` and its `user_id`; its key is its OAuth client secret.

    *scope* is what it was granted, *audiences* the APIs it may have tokens for (the issuer always is one).
    """

    id: ClientId
    name: str
    key_digest: Digest = field(repr=False)
    key_hint: str
    scope: frozenset[str]
    audiences: tuple[str, ...]
    plan: str
    status: ClientStatus
    auth_epoch: int
    created_at: Instant
    updated_at: Instant
