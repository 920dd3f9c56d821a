"""Who is calling: what a verified access token says, and nothing it does not."""

from typing import NamedTuple

from authwright.domain.plan import ADMIN


class Principal(NamedTuple):
    """The caller of one request. *expires_at* is in seconds since 1970 UTC; *scopes* is what the token allows.

    Identify people by *subject* (with *issuer*), never by *username*: names change hands, subjects do not.
    """

    issuer: str
    subject: str
    client_id: str
    session_id: str | None
    token_id: str
    username: str | None
    scopes: frozenset[str]
    roles: tuple[str, ...]
    plan: str | None
    auth_epoch: int
    issued_at: int
    expires_at: int
    key_id: str

    @property
    def is_client(self) -> bool:
        """Whether a program calls with its own key, not a user."""
        return self.subject == self.client_id

    @property
    def is_admin(self) -> bool:
        return ADMIN in self.scopes
