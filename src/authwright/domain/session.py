"""A login: whose, through which client, how far its refresh token has come, and when and why it ends."""

from typing import Literal, NamedTuple

from authwright.domain.client import FIRST_PARTY
from authwright.domain.instant import Instant
from authwright.domain.secrets import ClientId, Digest, SessionId, Subject

EndReason = Literal[
    "logout",
    "logout_everywhere",
    "ended_by_admin",
    "password_changed",
    "password_reset",
    "address_changed",
    "changed",
    "reuse",
    "disabled",
    "deleted",
    "key_rotated",
    "key_deleted",
    "evicted",
    "restored",
    "revoked",
]


class Session(NamedTuple):
    """One login as every store keeps it: one row, one document. `_replace` makes a changed one.

    *granted_scope* is empty where the session has all that role and plan permit. *audiences* are those granted, the
    first the one tokens get by default. *generation* counts refreshes from 1; *secret_digest* is the current one's.
    *methods* says how it was opened (`pwd`, `key`), *request_id* by which request.
    *first_party* sessions and those of a client's own key are served by `/refresh-token` and `/logout`.
    """

    id: SessionId
    subject: Subject
    client_id: ClientId
    username: str | None
    role: str
    plan: str
    auth_epoch: int
    granted_scope: str
    audiences: tuple[str, ...]
    generation: int
    secret_digest: Digest
    created_at: Instant
    rotated_at: Instant
    used_at: Instant
    idle_expires_at: Instant
    expires_at: Instant
    revoked_at: Instant | None
    revoked_because: str | None
    user_agent: str
    address: str
    methods: str
    request_id: str

    def __repr__(self) -> str:
        return f"Session(id={self.id!r}, subject={self.subject!r}, generation={self.generation})"

    @property
    def first_party(self) -> bool:
        return self.client_id == FIRST_PARTY

    def is_live(self, now: Instant) -> bool:
        return self.revoked_at is None and now < self.idle_expires_at and now < self.expires_at
