"""What every store promises. Verbs that are safe under a race; each docstring states its atomicity.

An awaited verb is durable when it returns: it survives `kill -9` of the process and of the machine. Verbs raise
`StoreUnavailable` when the store cannot answer, and then may or may not have happened; none is ever half done unless
its docstring says in which order it writes. Nothing here decides anything: policy is in `domain`.
"""

from collections.abc import Sequence
from typing import NamedTuple, NewType, Protocol

from authwright.domain.client import Client, ClientStatus
from authwright.domain.instant import Instant
from authwright.domain.keyring import KeyRecord
from authwright.domain.revocation import Revocation
from authwright.domain.secrets import ClientId, Digest, SessionId, Subject, UserId
from authwright.domain.session import EndReason, Session
from authwright.domain.user import User

NameDigest = NewType("NameDigest", bytes)
"""Keyed digest of a normalised name or address: what the one unique index over both holds."""


class StoreUnavailable(Exception):
    """The store did not answer in time, or refused to write. Try again."""


class NameTaken(Exception):
    """A user name or address is in use or reserved."""


class IncompatibleStore(Exception):
    """The store was made by another mode or by a newer version; it is not touched."""


class Users(Protocol):
    """Accounts, and the unique index over their names and addresses."""

    async def add(self, user: User, names: Sequence[NameDigest]) -> None:
        """Insert *user* and all its *names*, or nothing.

        Atomic: of concurrent calls that share a name exactly one succeeds; the others raise NameTaken.
        """

    async def find(self, user_id: UserId) -> User | None:
        """The user with this id."""

    async def find_by_name(self, name: NameDigest) -> User | None:
        """The user who has this name or address now. A reserved name finds nobody."""

    async def replace_password(self, user_id: UserId, *, old: str, new: str, epoch: int, now: Instant) -> int | None:
        """Replace the hash *old* by *new* and raise the epoch; the new epoch.

        None, and nothing changed, if *old* or *epoch* is not current any more, or the user is not active.
        Atomic: of concurrent calls with the same *old* exactly one succeeds.
        """

    async def upgrade_hash(self, user_id: UserId, *, old: str, new: str, now: Instant) -> bool:
        """Replace the hash *old* by *new* of the same password; the epoch stays. False if *old* is not current."""

    async def raise_epoch(self, user_id: UserId, *, now: Instant) -> int | None:
        """Raise the epoch by one; the new one, or None if there is no such user. Atomic: no two calls get the same."""

    async def password_formats(self) -> frozenset[str]:
        """Algorithm and cost of every hash present (`domain.passwords.hash_format`)."""


class Clients(Protocol):
    """API clients."""

    async def add(self, client: Client) -> None:
        """Insert *client*."""

    async def find(self, client_id: ClientId) -> Client | None:
        """The client with this id."""

    async def find_by_key(self, key: Digest) -> Client | None:
        """The client whose key has this digest."""

    async def all(self) -> Sequence[Client]:
        """All clients, oldest first."""

    async def replace_key(self, client_id: ClientId, *, digest: Digest, hint: str, now: Instant) -> int | None:
        """Replace the client's key and raise its epoch; the new epoch, or None if there is no such client."""

    async def set_status(self, client_id: ClientId, status: ClientStatus, *, now: Instant) -> int | None:
        """Set the status and raise the epoch; the new epoch, or None if there is no such client."""

    async def raise_epoch(self, client_id: ClientId, *, now: Instant) -> int | None:
        """As `Users.raise_epoch`."""


class Opened(NamedTuple):
    """A session just opened, and how many live ones its subject had before."""

    session: Session
    others: int


class Ended(NamedTuple):
    """What a ledger entry for a session that was ended must cover."""

    session_id: SessionId
    subject: Subject
    auth_epoch: int


class Sessions(Protocol):
    """Logins. A session that ended stays ended: no verb revives one."""

    async def open(self, session: Session) -> Opened | None:
        """Insert *session* if its subject is active and still has the epoch *session* was made for; else None.

        Guaranteed: a change of the subject that was acknowledged before this call leaves no session behind, and one
        acknowledged later finds it.
        """

    async def open_with_key(self, key: Digest, draft: Session) -> Opened | None:
        """Insert *draft* for the active client whose key has the digest *key*; None if there is none.

        Subject, client id, name, plan, epoch, scope and audiences are the client's; all else is taken from *draft*.
        One statement: the key is looked up and the session made in one step, with the guarantee of `open`.
        """

    async def find(self, session_id: SessionId) -> Session | None:
        """The session with this id, ended or not."""

    async def rotate(
        self,
        session_id: SessionId,
        *,
        generation: int,
        presented: Digest,
        successor: Digest,
        client: ClientId | None,
        now: Instant,
        idle_expires_at: Instant,
    ) -> Session | None:
        """Replace the current secret *presented* of *generation* by *successor*, one generation on.

        Atomic, one guarded update: of any number of concurrent calls with the same *presented* exactly one gets the
        session as it is afterwards; the others get None, as do calls for a session that is revoked, expired at *now*
        or of another *client* (None: any). The idle expiry never passes the absolute one. Never reads, then writes.
        """

    async def end(self, session_id: SessionId, *, because: EndReason, now: Instant) -> bool:
        """End the session; whether this call did it."""

    async def end_all(
        self, subject: Subject, *, below_epoch: int, keep: SessionId | None, because: EndReason, now: Instant
    ) -> int:
        """End the subject's live sessions of an epoch below *below_epoch*; how many.

        The session *keep* is not ended but lifted to *below_epoch*. One statement each.
        """

    async def end_excess(self, subject: Subject, *, most: int, now: Instant) -> Sequence[SessionId]:
        """End the subject's least recently used live sessions beyond *most*; their ids."""

    async def list_live(self, subject: Subject, *, now: Instant) -> Sequence[Session]:
        """The subject's live sessions, most recently used first."""

    async def ended_since(self, at: Instant) -> Sequence[Ended]:
        """The sessions that were ended at *at* or later."""

    async def outdated(self) -> Sequence[tuple[Subject, int]]:
        """Subjects with live sessions of an epoch older than their own, and that epoch: what a crash left out."""


class Ledger(Protocol):
    """The append-only, gapless list of revocations."""

    async def append(self, revocation: Revocation) -> int:
        """Store *revocation* at the last number + 1; that number.

        Guaranteed: an entry n + 1 is visible to nobody before n is. Concurrent calls get different numbers.
        """

    async def since(self, number: int, *, most: int = 1000) -> Sequence[Revocation]:
        """The entries after *number*, in order, as the primary has them now; at most *most*."""

    async def snapshot(self, *, now: Instant) -> Sequence[Revocation]:
        """The entries that matter after *now*, and the newest one in any case, in order."""


class Keys(Protocol):
    """Signing, MAC and look-up keys, encrypted before they come here."""

    async def add(self, record: KeyRecord) -> bool:
        """Insert *record*; False if another process has taken its ordinal (then read again)."""

    async def all(self) -> Sequence[KeyRecord]:
        """Every key, in the order of ordinals."""

    async def withdraw(self, key_id: str, *, now: Instant) -> bool:
        """Mark the key withdrawn for ever; whether this call did it."""

    async def rewrap(self, key_id: str, *, old: bytes, new: bytes) -> bool:
        """Replace the wrapping *old* by *new*; False if it is not *old* any more."""


class Facts(Protocol):
    """The few facts about the store itself."""

    async def establish(self, name: str, value: str) -> str:
        """The value of *name*; *value* if it had none. Atomic: concurrent first calls agree on one value."""

    async def read(self, name: str) -> str | None:
        """The value of *name*."""


class Store(Protocol):
    """One database."""

    @property
    def users(self) -> Users: ...

    @property
    def clients(self) -> Clients: ...

    @property
    def sessions(self) -> Sessions: ...

    @property
    def ledger(self) -> Ledger: ...

    @property
    def keys(self) -> Keys: ...

    @property
    def facts(self) -> Facts: ...

    async def open(self) -> None:
        """Connect and bring the schema up to date. Raises IncompatibleStore, StoreUnavailable."""

    async def ping(self) -> None:
        """Return if the store answers. Raises StoreUnavailable."""

    async def close(self) -> None:
        """Finish what was begun and let go."""


class Counter(Protocol):
    """A number that the processes of one machine share, so that a change in one is seen by all at once."""

    def read(self) -> int:
        """The number now. Never waits."""

    def raise_(self) -> None:
        """Make it another number."""

    def close(self) -> None:
        """Let go."""
