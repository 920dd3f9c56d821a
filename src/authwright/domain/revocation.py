"""What was withdrawn, since when, and until when it matters.

Entries only take away. They are numbered without gaps; a follower that applied 1..n has missed nothing up to n. No
clock is compared to decide a token: a subject's entry names the first epoch that is still good.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from authwright.domain.instant import Instant

Kind = Literal["session", "subject", "client", "token", "key"]
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


class Revocations:
    """The entries that still matter, in memory: what a token is held against, in a few look-ups.

    Fed in the ledger's order by `apply`; `version` changes whenever something was added, so that tables of verified
    tokens know when to look again.
    """

    __slots__ = ("_clients", "_keys", "_sessions", "_subjects", "_tokens", "_until", "head", "version")

    def __init__(self) -> None:
        self.version = 0
        self._empty()

    def _empty(self) -> None:
        self.head = 0
        self._sessions: set[str] = set()
        self._subjects: dict[str, int] = {}
        self._clients: set[str] = set()
        self._tokens: set[str] = set()
        self._keys: set[str] = set()
        self._until: dict[tuple[Kind, str], Instant] = {}

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

    def _add(self, entry: Revocation) -> None:
        if entry.kind == "session":
            self._sessions.add(entry.target)
        elif entry.kind == "subject":
            self._subjects[entry.target] = max(entry.epoch, self._subjects.get(entry.target, 0))
        elif entry.kind == "client":
            self._clients.add(entry.target)
        elif entry.kind == "token":
            self._tokens.add(entry.target)
        else:
            self._keys.add(entry.target)
        slot = (entry.kind, entry.target)
        self._until[slot] = max(entry.until, self._until.get(slot, Instant(0)))
        self.version += 1

    def refuses(
        self, *, session: str | None, subject: str, epoch: int, client: str, token: str, key: str
    ) -> str | None:
        """The kind of entry that withdraws a token with these claims, or None."""
        if session in self._sessions:
            return "session"
        if epoch < self._subjects.get(subject, 0):
            return "subject"
        if client in self._clients:
            return "client"
        if token in self._tokens:
            return "token"
        if key in self._keys:
            return "key"
        return None

    def ended(self, session: str, *, subject: str | None = None, epoch: int = 0) -> bool:
        """Whether an entry ends this very session, or all of its *subject* at its *epoch*."""
        return session in self._sessions or (subject is not None and epoch < self._subjects.get(subject, 0))

    def forget(self, now: Instant) -> None:
        """Drop entries that no living token can meet any more."""
        for kind, target in [slot for slot, until in self._until.items() if until <= now]:
            del self._until[kind, target]
            if kind == "subject":
                del self._subjects[target]
            else:
                {"session": self._sessions, "client": self._clients, "token": self._tokens, "key": self._keys}[
                    kind
                ].discard(target)
