"""What every store promises. Verbs that are safe under a race; each docstring states its atomicity.

An awaited verb is durable when it returns: it survives `kill -9` of the process and of the machine. Verbs raise
`StoreUnavailable` when the store cannot answer, and then may or may not have happened; none is ever half done unless
its docstring says in which order it writes. Nothing here decides anything: policy is in `domain`.

A verb that takes an `event` stores it with the act, in one step: never the one without the other. It stores none if the
verb changed nothing. The notices to those whom the event is to be told to belong to it.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, NewType, Protocol

from authwright.domain.allowance import Allowance, AllowanceLease
from authwright.domain.api_key import ApiKey
from authwright.domain.client import Client, ClientStatus
from authwright.domain.event import Event, EventKind, Outcome
from authwright.domain.instant import Instant
from authwright.domain.keyring import KeyRecord
from authwright.domain.notice import Notice
from authwright.domain.revocation import Revocation
from authwright.domain.secrets import ApiKeyId, ClientId, Digest, SessionId, Subject, UserId
from authwright.domain.session import EndReason, Session
from authwright.domain.throttle import Backoff, Bucket
from authwright.domain.usage import Counted, UsageKey, UsageRow
from authwright.domain.user import Status, User

NameDigest = NewType("NameDigest", bytes)
"""Keyed digest of a normalised name or address: what the one unique index over both holds."""


MAX_CLAIM: Final = 86_400_000_000
"""Microseconds for which something can be claimed at once."""


class StoreUnavailable(Exception):
    """The store did not answer in time, or refused to write. Try again."""


class NameTaken(Exception):
    """A user name or address is in use or reserved."""


class IncompatibleStore(Exception):
    """The store was made by another mode or by a newer version; it is not touched."""


class OutdatedStore(IncompatibleStore):
    """The store has the schema of an earlier version: `authwright migrate` brings it up to date."""

    def __init__(self, version: object, wanted: int) -> None:
        super().__init__(
            f"the store has schema version {version}, this is Authwright for version {wanted}; run: authwright migrate"
        )


class Ending(NamedTuple):
    """What a verb that takes something away does besides, in the same step: sessions end, and the ledger says so.

    *until* is when the ledger entry stops to matter. *keep* goes on; with *carry_over* so do all sessions of the epoch
    just before. What goes on shows the user as it is afterwards. The caller tells the followers.
    """

    because: EndReason
    now: Instant
    until: Instant
    keep: SessionId | None = None
    carry_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UserFilter:
    """Which users to list: all conditions that are given must hold. *search* is a part of a name or an address."""

    role: str | None = None
    plan: str | None = None
    status: Status | None = None
    search: str | None = None


class Users(Protocol):
    """Accounts, and the unique index over their names and addresses."""

    async def add(
        self,
        user: User,
        names: Sequence[NameDigest],
        *,
        released: Sequence[NameDigest] = (),
        event: Event | None = None,
    ) -> None:
        """Insert *user* and all its *names*, or nothing. Those *released* are let go of first, if they are reserved.

        Atomic: of concurrent calls that share a name exactly one succeeds; the others raise NameTaken.
        """

    async def add_many(self, entries: Sequence[tuple[User, Sequence[NameDigest], Event]]) -> None:
        """As `add` for each of *entries*: all of them, or with NameTaken none."""

    async def owners(self, names: Sequence[NameDigest]) -> Mapping[NameDigest, UserId | None]:
        """Who has each of *names*; None for one that is reserved. Those that are free are missing."""

    async def list(self, which: UserFilter, *, after: UserId | None, most: int) -> Sequence[User]:
        """Users, oldest first, that follow the user *after* in this order; at most *most*."""

    async def find(self, user_id: UserId) -> User | None:
        """The user with this id."""

    async def find_by_name(self, name: NameDigest) -> User | None:
        """The user who has this name or address now. A reserved name finds nobody."""

    async def change(
        self,
        user: User,
        *,
        epoch: int,
        gained: Sequence[NameDigest],
        lost: Sequence[NameDigest],
        released: Sequence[NameDigest] = (),
        ending: Ending | None = None,
        event: Event | None = None,
    ) -> bool:
        """Store names, role, plan, status and epoch of *user* if its epoch is still *epoch*; whether it was.

        Atomic, with the names it *gained* and those it *lost*, which stay reserved; those *released* are let go of
        first, if they are reserved. Unless sessions are carried over, a reset token is void. Raises NameTaken.
        """

    async def delete(
        self, user_id: UserId, *, epoch: int, ending: Ending | None = None, event: Event | None = None
    ) -> bool:
        """Delete the user with its API keys and reset token, and end its sessions; its names stay reserved.

        False, and nothing changed, if its epoch is not *epoch* any more.
        """

    async def offer_reset(
        self, user_id: UserId, token: Digest, *, expires_at: Instant, event: Event | None = None
    ) -> bool:
        """Let *token* set a new password until *expires_at*. It replaces an earlier one. False without such a user."""

    async def find_by_reset(self, token: Digest, *, now: Instant) -> User | None:
        """The active user whose password *token* can set."""

    async def reset_password(
        self,
        user_id: UserId,
        token: Digest,
        *,
        new: str,
        now: Instant,
        ending: Ending | None = None,
        event: Event | None = None,
    ) -> int | None:
        """Spend *token*: set the hash *new* and raise the epoch; the new epoch, or None if it is not good any more.

        The user's API keys go, too: who needed the link may not know who made them.

        Atomic: of concurrent calls exactly one succeeds.
        """

    async def forget_resets(self, *, now: Instant, most: int) -> int:
        """Delete at most *most* reset tokens that expired; how many."""

    async def replace_password(
        self,
        user_id: UserId,
        *,
        old: str,
        new: str,
        epoch: int,
        now: Instant,
        ending: Ending | None = None,
        event: Event | None = None,
    ) -> int | None:
        """Replace the hash *old* by *new* and raise the epoch; the new epoch.

        None, and nothing changed, if *old* or *epoch* is not current any more, or the user is not active.
        Atomic: of concurrent calls with the same *old* exactly one succeeds.
        """

    async def upgrade_hash(self, user_id: UserId, *, old: str, new: str, now: Instant) -> bool:
        """Replace the hash *old* by *new* of the same password; the epoch stays. False if *old* is not current."""

    async def raise_epoch(
        self, user_id: UserId, *, now: Instant, ending: Ending | None = None, event: Event | None = None
    ) -> int | None:
        """Raise the epoch by one; the new one, or None if there is no such user. Atomic: no two calls get the same."""

    async def password_formats(self) -> frozenset[str]:
        """Algorithm and cost of every hash present (`domain.passwords.hash_format`)."""


class ApiKeys(Protocol):
    """Keys that users make for their own programs."""

    async def add(self, key: ApiKey, *, epoch: int, most: int, event: Event | None = None) -> bool:
        """Insert *key* if its user is active, has the *epoch* and fewer than *most*; whether it did. Atomic."""

    async def find_by_digest(self, key: Digest) -> tuple[ApiKey, User] | None:
        """The key with this digest and the user it belongs to."""

    async def list(self, user_id: UserId | None, *, after: ApiKeyId | None, most: int) -> Sequence[ApiKey]:
        """The keys of a user, or of all, in the order of their ids, that follow *after*; at most *most*."""

    async def owner(self, key_id: ApiKeyId) -> UserId | None:
        """Whose key this is."""

    async def delete(
        self, key_id: ApiKeyId, *, user_id: UserId, ending: Ending | None = None, event: Event | None = None
    ) -> bool:
        """Delete the key, if it is *user_id*'s, and end its sessions; whether this call did it."""


class Clients(Protocol):
    """API clients."""

    async def add(self, client: Client, *, event: Event | None = None) -> None:
        """Insert *client*."""

    async def find(self, client_id: ClientId) -> Client | None:
        """The client with this id."""

    async def find_by_key(self, key: Digest) -> Client | None:
        """The client whose key has this digest."""

    async def all(self) -> Sequence[Client]:
        """All clients, oldest first."""

    async def replace_key(
        self,
        client_id: ClientId,
        *,
        digest: Digest,
        hint: str,
        now: Instant,
        ending: Ending | None = None,
        event: Event | None = None,
    ) -> int | None:
        """Replace the client's key and raise its epoch; the new epoch, or None if there is no such client."""

    async def set_status(
        self,
        client_id: ClientId,
        status: ClientStatus,
        *,
        now: Instant,
        ending: Ending | None = None,
        event: Event | None = None,
    ) -> int | None:
        """Set the status and raise the epoch; the new epoch, or None if there is no such client."""

    async def raise_epoch(
        self, client_id: ClientId, *, now: Instant, ending: Ending | None = None, event: Event | None = None
    ) -> int | None:
        """As `Users.raise_epoch`."""


class Opened(NamedTuple):
    """A session just opened, and how many live ones its subject had before with the same client."""

    session: Session
    others: int


class Passed(NamedTuple):
    """What is stored of an attempt that was no failure.

    Forget the *cleared* buckets, take it back from the *returned* ones, and mark those *familiar* until *until*.
    """

    cleared: Sequence[Bucket]
    returned: Sequence[Bucket]
    familiar: Sequence[Bucket]
    until: Instant


class Ended(NamedTuple):
    """What a ledger entry for a session that was ended must cover."""

    session_id: SessionId
    subject: Subject
    auth_epoch: int


class Sessions(Protocol):
    """Logins. A session that ended stays ended: no verb revives one.

    Whatever opens a session records the event `login` of it in the same step.
    """

    async def open(self, session: Session, *, passed: Passed | None = None, hurry: bool = True) -> Opened | None:
        """Insert *session* if its subject is active and still has the epoch *session* was made for; else None.

        With it, as `Throttles.succeed`, what *passed*: in the same transaction, where the store has any. Without
        *hurry* it may be stored some milliseconds later, together with other writes.

        A session that a user opened with an API key has the key's id as its client id, and needs that key as well.

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

    async def end(
        self,
        session_id: SessionId,
        *,
        because: EndReason,
        now: Instant,
        ending: Ending | None = None,
        event: Event | None = None,
    ) -> bool:
        """End the session; whether this call did it."""

    async def withdraw_token(
        self, token_id: str, *, subject: Subject, ending: Ending, event: Event | None = None
    ) -> bool:
        """Write the ledger entry of one access token of *subject*, whose sessions all go on; False, and nothing is
        written, if there is no such subject any more, whose tokens are all withdrawn already.
        """

    async def end_all(
        self, subject: Subject, *, below_epoch: int, keep: SessionId | None, because: EndReason, now: Instant
    ) -> int:
        """End the subject's live sessions of an epoch below *below_epoch*; how many.

        The session *keep* is not ended but lifted to *below_epoch*. One statement each.
        """

    async def end_excess(self, subject: Subject, *, client: ClientId, most: int, now: Instant) -> Sequence[SessionId]:
        """End the subject's least recently used live sessions of *client* beyond *most*; their ids."""

    async def list_live(self, subject: Subject, *, now: Instant) -> Sequence[Session]:
        """The subject's live sessions, most recently used first."""

    async def list_all(self, *, now: Instant, after: SessionId | None, most: int) -> Sequence[Session]:
        """Live sessions of everybody, in the order of their ids, that follow *after*; at most *most*."""

    async def ended_since(self, at: Instant) -> Sequence[Ended]:
        """The sessions that were ended at *at* or later."""

    async def outdated(self) -> Sequence[tuple[Subject, int]]:
        """What a crash left out: subjects with live sessions of an epoch older than their own, and that epoch.

        For a subject that is gone the epoch after that of its sessions.
        """

    async def end_everything(self, *, because: EndReason, now: Instant) -> int:
        """End every session there is; how many. One statement, of the time that so many take."""

    async def forget(self, *, before: Instant, most: int) -> int:
        """Delete at most *most* sessions that ended or expired before *before*; how many."""


class Ledger(Protocol):
    """The append-only, gapless list of revocations."""

    async def append(self, revocation: Revocation) -> int:
        """Store *revocation* at the last number + 1; that number.

        Guaranteed: an entry n + 1 is visible to nobody before n is. Concurrent calls get different numbers.
        """

    async def since(self, number: int, *, most: int = 1000) -> Sequence[Revocation]:
        """The entries after *number*, in order, as the primary has them now; at most *most*."""

    async def snapshot(self) -> Sequence[Revocation]:
        """All entries that are kept, in order."""

    async def count_by_day(self, *, since: Instant) -> Sequence[tuple[int, int]]:
        """UTC day (since 1970) and how many of the entries that are kept were written on it."""

    async def forget(self, *, now: Instant, most: int, through: int | None = None) -> int:
        """Delete at most *most* entries that no longer matter at *now*, and have a number up to *through* if it is
        given, oldest first, never the newest; how many.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events to list: all conditions that are given must hold. *since* and *until* bound their time."""

    kind: EventKind | None = None
    outcome: Outcome | None = None
    subject: str | None = None
    actor: str | None = None
    address: str | None = None
    since: Instant | None = None
    until: Instant | None = None


class Events(Protocol):
    """Security events: only added, until the oldest are forgotten. Their numbers grow, and are never used twice."""

    async def append(self, event: Event) -> None:
        """Store an event that belongs to no other change."""

    async def list(self, which: EventFilter, *, before: int | None, most: int) -> Sequence[Event]:
        """Events with a number below *before*, newest first; at most *most*."""

    async def after(self, number: int, *, most: int) -> Sequence[Event]:
        """Events with a number above *number*, oldest first; at most *most*. One with a lower number may come later."""

    async def forget(self, *, through: int, most: int) -> int:
        """Delete at most *most* with a number up to *through*; how many."""

    async def count_by_day(self, *, since: Instant) -> Sequence[tuple[int, EventKind, Outcome, int]]:
        """UTC day (since 1970), kind, outcome and how many."""


class Notices(Protocol):
    """Mail to be sent: one for each address in an event's `tell`, stored in one step with the event."""

    async def list(self, *, after: int, most: int) -> Sequence[Notice]:
        """Those with a number above *after*, oldest first; at most *most*."""

    async def delete(self, number: int) -> None:
        """Let go of one: it was sent, or will never be."""


class Throttles(Protocol):
    """Counters of failures, shared by all processes."""

    async def admit(
        self, buckets: Sequence[tuple[Bucket, Backoff]], *, now: Instant, hurry: bool = True
    ) -> Instant | None:
        """Count an attempt in every bucket, or in none if one of them is closed: then the instant it opens.

        Atomic: of concurrent calls none is lost and none gets in between. A bucket whose last attempt is older than
        its backoff's memory begins again at one. The attempt that fills a bucket closes it for those that follow.
        Without *hurry* it may be stored some milliseconds later, together with other writes.
        """

    async def succeed(self, passed: Passed) -> None:
        """Store what *passed*. A failure of the store leaves an attempt counted, never one forgotten that failed."""

    async def familiar_until(self, bucket: Bucket, *, now: Instant) -> Instant | None:
        """Until when the bucket is marked familiar, if it still is."""

    async def forget(self, *, before: Instant, now: Instant, most: int) -> int:
        """Delete at most *most* of each: counters without an attempt since *before*, and expired marks; how many."""


class Usage(Protocol):
    """What was called, summed by UTC day."""

    async def add(self, counted: Counted) -> None:
        """Add to what is there. Atomic: concurrent calls lose nothing. All of it, or nothing."""

    async def totals(self, *, since_day: int) -> Sequence[tuple[int, str, int, int]]:
        """Day, route, status and calls, over all subjects."""

    async def callers_by_plan(self, *, since_day: int) -> Sequence[tuple[str, int]]:
        """Plan, and how many subjects called with it."""

    async def callers(self, *, since_day: int, most: int) -> Sequence[tuple[str, str, int, int, int]]:
        """The *most* busiest: subject, plan, calls, those refused (status 400 and above), and predictions."""

    async def latencies(self, *, since_day: int) -> Sequence[tuple[str, int, int]]:
        """Route, bucket of the histogram and calls."""

    async def predictions(self, *, since_day: int) -> Sequence[tuple[int, str, int]]:
        """Day, predicted class and how many."""

    async def charged(self, subject: str, *, day: int, since_day: int) -> tuple[int, int]:
        """Units that *subject* spent on *day*, and since *since_day*, which is not after it."""

    async def units_by_day(self, *, since_day: int) -> Sequence[tuple[int, int]]:
        """Day and units, over all subjects."""

    async def charges(self, subject: str, *, since_day: int) -> Sequence[tuple[int, str, int]]:
        """Day, route and units of *subject*, in this order."""

    async def by_caller(
        self, *, since_day: int, until_day: int, subject: str | None, after: UsageKey, most: int
    ) -> Sequence[UsageRow]:
        """Calls and units by day, subject and route, in this order, that follow *after*; at most *most*.

        Of one *subject*, or of all who are known.
        """

    async def forget(self, *, before_day: int, most: int) -> int:
        """Delete at most *most* rows of a kind of days before *before_day*; how many."""


class Replaced(NamedTuple):
    """Whether a guarded change was *done*, and if not, what is stored instead."""

    done: bool
    stored: Allowance | None


class Allowances(Protocol):
    """What several processes know of the rates of callers. Not durable, where the store says so: a rate is forgotten
    in minutes anyway."""

    async def read(self, caller: Subject) -> Allowance | None:
        """What is stored of *caller*."""

    async def replace(self, caller: Subject, old: Allowance | None, new: Allowance) -> Replaced:
        """Store *new* if *old* is what is stored now. Atomic: one guarded statement."""

    async def forget(self, *, before: Instant, most: int) -> int:
        """Delete at most *most* that were full, and not leased, before *before*; how many."""


class AllowanceLeases(Protocol):
    """What guards have taken ahead."""

    async def add(self, lease: AllowanceLease) -> None:
        """Insert *lease*."""

    async def consume(self, lease_id: str, *, guard: ClientId) -> AllowanceLease | None:
        """Delete the lease if it is *guard*'s, and return it. Atomic: of concurrent calls exactly one gets it."""

    async def forget(self, *, before: Instant, most: int) -> int:
        """Delete at most *most* that ended before *before*: what they took counts as spent; how many."""


class Keys(Protocol):
    """Signing, MAC and look-up keys, encrypted before they come here."""

    async def add(self, record: KeyRecord, *, event: Event | None = None) -> bool:
        """Insert *record*; False if another process has taken its ordinal (then read again)."""

    async def all(self) -> Sequence[KeyRecord]:
        """Every key, in the order of ordinals."""

    async def withdraw(self, key_id: str, *, now: Instant, event: Event | None = None) -> bool:
        """Mark the key withdrawn for ever; whether this call did it."""

    async def rewrap(self, key_id: str, *, old: bytes, new: bytes) -> bool:
        """Replace the wrapping *old* by *new*; False if it is not *old* any more."""


class Facts(Protocol):
    """The few facts about the store itself."""

    async def establish(self, name: str, value: str) -> str:
        """The value of *name*; *value* if it had none. Atomic: concurrent first calls agree on one value."""

    async def read(self, name: str) -> str | None:
        """The value of *name*."""

    async def replace(self, name: str, value: str) -> None:
        """Set *name* to *value*, whatever it was."""

    async def claim(self, name: str, holder: str, *, now: Instant, until: Instant) -> bool:
        """Take *name* for *holder* until *until*, unless another one holds it at *now*; whether it did. Atomic.

        Who says to hold it for longer than MAX_CLAIM does not.
        """


Record = tuple[str | int | bytes | None, ...]
RecordKind = Literal[
    "users",
    "names",
    "clients",
    "api_keys",
    "reset_tokens",
    "sessions",
    "throttles",
    "familiar",
    "events",
    "notices",
    "usage",
    "latencies",
    "predictions",
    "charges",
    "revocations",
    "keys",
    "facts",
]
_FIELDS: Final[Mapping[RecordKind, str]] = {
    "users": "id username email password_hash role plan status auth_epoch created_at updated_at password_format",
    "names": "digest user_id",
    "clients": "id name key_digest key_hint scope audiences plan status auth_epoch created_at updated_at",
    "api_keys": "id user_id name key_digest key_hint scope audiences created_at expires_at",
    "reset_tokens": "user_id digest expires_at",
    "sessions": (
        "id subject client_id username role plan auth_epoch granted_scope audiences generation secret_digest "
        "created_at rotated_at used_at idle_expires_at expires_at revoked_at revoked_because user_agent address "
        "methods request_id"
    ),
    "throttles": "bucket failures counted_at closed_until",
    "familiar": "bucket until",
    "events": "number at kind outcome actor subject client_id session_id address user_agent request_id detail",
    "notices": "number at kind detail address recipient",
    "usage": "day route subject plan status calls",
    "latencies": "day route bucket calls",
    "predictions": "day label count",
    "charges": "subject day route units",
    "revocations": "number kind target epoch reason at until",
    "keys": "id purpose issuer alg ordinal wrapped created_at active_from withdrawn_at",
    "facts": "name value",
}
RECORD_FIELDS: Final[Mapping[RecordKind, Sequence[str]]] = {kind: fields.split() for kind, fields in _FIELDS.items()}
"""What stores have in common: kinds of records and their fields, in an order in which none refers to a later one.

Who holds a lease, and whose bucket is how full, is left out: it is of the processes that run.
"""


class Records(Protocol):
    """All that a store holds, for moving it elsewhere. What belongs to its schema is left out."""

    def read(self, kind: RecordKind) -> AsyncIterator[Sequence[Record]]:
        """All records of *kind*, some at a time."""

    async def write(self, kind: RecordKind, records: AsyncIterator[Sequence[Record]]) -> None:
        """Store *records* in a store that has none of *kind*; kinds come in the order of RECORD_FIELDS."""


class Store(Protocol):
    """One database."""

    @property
    def users(self) -> Users: ...

    @property
    def api_keys(self) -> ApiKeys: ...

    @property
    def clients(self) -> Clients: ...

    @property
    def sessions(self) -> Sessions: ...

    @property
    def ledger(self) -> Ledger: ...

    @property
    def events(self) -> Events: ...

    @property
    def notices(self) -> Notices: ...

    @property
    def throttles(self) -> Throttles: ...

    @property
    def usage(self) -> Usage: ...

    @property
    def allowances(self) -> Allowances: ...

    @property
    def allowance_leases(self) -> AllowanceLeases: ...

    @property
    def keys(self) -> Keys: ...

    @property
    def facts(self) -> Facts: ...

    @property
    def records(self) -> Records: ...

    async def open(self) -> None:
        """Connect; an empty store is made. Raises OutdatedStore, IncompatibleStore, StoreUnavailable."""

    async def migrate(self, *, check: bool = False) -> Sequence[str]:
        """Bring the schema up to date; what was done, a line for each step. *check*: only say what is to be done.

        For a store that is not open. Of several processes that call it at once one does the work, the others wait and
        find none left. All of it, or nothing. Raises IncompatibleStore, StoreUnavailable.
        """

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
