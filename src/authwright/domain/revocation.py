"""What was withdrawn, since when, and until when it matters.

Entries only take away. They are numbered without gaps; a follower that applied 1..n has missed nothing up to n. No
clock is compared to decide a token: a subject's entry names the first epoch that is still good.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, Protocol, get_args

from authwright.domain.instant import Instant

Kind = Literal["session", "subject", "client", "token", "key"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
FOREVER: Final = Instant(2**62)


@dataclass(frozen=True, slots=True)
class Revocation:
    """One entry of the ledger. *number* is 0 until the store gives it one.

    *target* is a session id, a subject, a client id, a token id (`jti`) or a key id. For a subject *epoch* is the
    first epoch still accepted. After *until* every token it concerns has expired.
    """

    kind: Kind
    target: str
    epoch: int
    reason: str
    at: Instant
    until: Instant
    number: int = 0


_LASTING: Final = 2**62
"""In the place of a number: matters for ever."""


class Caller(Protocol):
    """What somebody came with that can be withdrawn."""

    @property
    def session_id(self) -> str | None: ...

    @property
    def subject(self) -> str: ...

    @property
    def auth_epoch(self) -> int: ...

    @property
    def client_id(self) -> str: ...

    @property
    def token_id(self) -> str: ...

    @property
    def key_id(self) -> str: ...


class Revocations:
    """The entries that still matter, in memory: what a token is held against, in a few look-ups.

    Fed in the ledger's order by `apply`; `version` changes whenever something was added, so that tables of verified
    tokens know when to look again.
    """

    __slots__ = ("_clients", "_epochs", "_forgotten", "_keys", "_sessions", "_subjects", "_tokens", "head", "version")

    def __init__(self) -> None:
        self.version = 0
        self._empty()

    def _empty(self) -> None:
        self.head = 0
        self._forgotten = 0
        # The number of the newest entry of each.
        self._sessions: dict[str, int] = {}
        self._subjects: dict[str, int] = {}
        self._clients: dict[str, int] = {}
        self._tokens: dict[str, int] = {}
        self._keys: dict[str, int] = {}
        # Of each subject, the first epoch that is good.
        self._epochs: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(map(len, (self._sessions, self._subjects, self._clients, self._tokens, self._keys)))

    def apply(self, entries: Iterable[Revocation]) -> None:
        """Take in *entries*, which continue after `head` without a gap. Raises ValueError if they do not."""
        for entry in entries:
            if entry.number != self.head + 1:
                raise ValueError(f"ledger entry {entry.number} does not follow {self.head}")
            self._add(entry)
            self.head = entry.number

    def start(self, entries: Iterable[Revocation]) -> None:
        """Take in a snapshot: the entries that are kept, in order; older numbers were forgotten."""
        for entry in entries:
            self._add(entry)
            self.head = entry.number

    def restart(self, entries: Iterable[Revocation]) -> None:
        """Take in the snapshot of another store, and forget what was of the one before."""
        self._empty()
        self.version += 1
        self.start(entries)

    def take_over(self, other: "Revocations") -> None:
        """Hold what *other* holds, and nothing else; *other* is not to be used afterwards."""
        self.version += 1
        self.head, self._forgotten = other.head, other._forgotten
        self._sessions, self._subjects, self._clients = other._sessions, other._subjects, other._clients
        self._tokens, self._keys, self._epochs = other._tokens, other._keys, other._epochs

    def _of(self, kind: Kind) -> dict[str, int]:
        if kind == "session":
            return self._sessions
        if kind == "subject":
            return self._subjects
        if kind == "client":
            return self._clients
        return self._tokens if kind == "token" else self._keys

    def _add(self, entry: Revocation) -> None:
        table = self._of(entry.kind)
        number = _LASTING if entry.until == FOREVER else entry.number
        table[entry.target] = max(number, table.get(entry.target, 0))
        if entry.kind == "subject":
            self._epochs[entry.target] = max(entry.epoch, self._epochs.get(entry.target, 0))
        self.version += 1

    def refuses(self, caller: Caller) -> str | None:
        """The kind of entry that withdraws what *caller* came with, or None."""
        if caller.session_id in self._sessions:
            return "session"
        if caller.auth_epoch < self._epochs.get(caller.subject, 0):
            return "subject"
        if caller.client_id in self._clients:
            return "client"
        if caller.token_id in self._tokens:
            return "token"
        if caller.key_id in self._keys:
            return "key"
        return None

    def ended(self, session: str, *, subject: str | None = None, epoch: int = 0) -> bool:
        """Whether an entry ends this very session, or all of its *subject* at its *epoch*."""
        return session in self._sessions or (subject is not None and epoch < self._epochs.get(subject, 0))

    def forget(self, number: int) -> None:
        """Drop the entries up to *number*, which no living token can meet any more; none that matters for ever."""
        if number <= self._forgotten:
            return
        self._forgotten = number
        for kind in KINDS:
            table = self._of(kind)
            for target in [target for target, newest in table.items() if newest <= number]:
                del table[target]
                if kind == "subject":
                    del self._epochs[target]
