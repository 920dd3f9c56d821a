"""Users in and out: import what other systems exported, in batches that can be repeated, and export our own."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import structlog

from authwright.domain.errors import Refusal, UnknownPlan
from authwright.domain.event import Event, Origin, event
from authwright.domain.foreign_user import ForeignUser, NotAUser, Row, read_user
from authwright.domain.instant import Instant
from authwright.domain.passwords import UnsupportedHash, hash_format, require_supported
from authwright.domain.plan import DEFAULT_PLAN, Plans
from authwright.domain.secrets import UserId, new_key, new_user_id
from authwright.domain.user import User
from authwright.services.hashing import Hashing
from authwright.services.keys import Keyring
from authwright.storage.port import NameDigest, NameTaken, Store, UserFilter

BATCH: Final = 500

log = structlog.get_logger("authwright.transfer")


@dataclass(slots=True)
class Report:
    """What became of the rows. *refused* has their numbers and why."""

    imported: int = 0
    present: int = 0
    without_password: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return self.imported + self.present + len(self.refused)


@dataclass(frozen=True, slots=True)
class _Entry:
    number: int
    user: User
    names: tuple[NameDigest, ...]
    event: Event


class Transfer:
    """Imports and exports users."""

    def __init__(self, store: Store, keyring: Keyring, hashing: Hashing, plans: Plans) -> None:
        self._store = store
        self._keyring = keyring
        self._hashing = hashing
        self._plans = plans
        self._tried: set[str] = set()

    async def take(
        self,
        rows: Iterable[tuple[int, Row]],
        *,
        origin: Origin,
        now: Instant,
        plan: str | None = None,
        admins: bool = False,
        dry_run: bool = False,
        told: Callable[[Report], None] = lambda report: None,
    ) -> Report:
        """Add the users of the numbered *rows*; *told* of the report after each batch.

        A row whose names belong to one user here already is `present` and left alone, so that what was interrupted is
        repeated. Ids are new. *plan* is for rows without one that is known here; roles other than user are taken only
        with *admins*. Raises UnknownPlan, StoreUnavailable; then the batches before are in.
        """
        if plan is not None and plan not in self._plans:
            raise UnknownPlan
        report = Report()
        seen: set[NameDigest] = set()
        unusable = await self._hashing.hash(new_key("awp_"))
        remaining = iter(rows)
        while batch := list(islice(remaining, BATCH)):
            entries = list(self._entries(batch, report, unusable, origin, now, plan, admins))
            await self._add(entries, report, seen, dry_run)
            told(report)
        log.info("users_imported", imported=report.imported, present=report.present, refused=len(report.refused))
        return report

    async def all_users(self) -> AsyncIterator[User]:
        """Every user, oldest first."""
        after: UserId | None = None
        while page := await self._store.users.list(UserFilter(), after=after, most=BATCH):
            for user in page:
                yield user
            after = page[-1].id

    def _entries(
        self,
        batch: list[tuple[int, Row]],
        report: Report,
        unusable: str,
        origin: Origin,
        now: Instant,
        plan: str | None,
        admins: bool,
    ) -> Iterator[_Entry]:
        for number, row in batch:
            try:
                given = read_user(row)
                hashed = self._usable(given.password_hash)
                user = self._user(given, hashed or unusable, now, plan, admins)
                names = tuple(self._keyring.name_digest(name) for name in user.names)
                if not names:
                    raise NotAUser("it has neither a user name nor an e-mail address")
            except (NotAUser, UnsupportedHash) as error:
                report.refused.append((number, str(error)))
            except Refusal as refusal:
                report.refused.append((number, refusal.public))
            else:
                report.without_password += hashed is None
                done = event("user_created", origin, now=now, subject=user.id, detail="imported")
                yield _Entry(number, user, names, done)

    def _usable(self, stored: str | None) -> str | None:
        if stored is None:
            return None
        kind = hash_format(stored)
        if kind not in self._tried:
            # One of each kind is tried; to try them all would take as long as that many logins.
            require_supported(stored)
            self._tried.add(kind)
        return stored

    def _user(self, given: ForeignUser, hashed: str, now: Instant, plan: str | None, admins: bool) -> User:
        chosen = given.plan if given.plan is not None and given.plan in self._plans else plan
        return User(
            id=new_user_id(),
            username=given.username,
            email=given.email,
            password_hash=hashed,
            role="admin" if given.is_admin and admins else "user",
            plan=(chosen if chosen != "admin" or admins else None) or DEFAULT_PLAN,
            status="active" if given.is_active else "disabled",
            auth_epoch=1,
            created_at=min(given.created_at or now, now),
            updated_at=now,
        )

    async def _add(self, entries: list[_Entry], report: Report, seen: set[NameDigest], dry_run: bool) -> None:
        owners = await self._store.users.owners([name for entry in entries for name in entry.names])
        free: list[_Entry] = []
        for entry in entries:
            found = {owners.get(name, "") for name in entry.names}
            if not seen.isdisjoint(entry.names):
                report.refused.append((entry.number, "a row before it has the same name or address"))
            elif found == {""}:
                free.append(entry)
                seen.update(entry.names)
            elif len(found) == 1 and None not in found:
                report.present += 1
            else:
                report.refused.append((entry.number, "its name or address is somebody else's, or reserved"))
        if not dry_run and free:
            try:
                await self._store.users.add_many([(entry.user, entry.names, entry.event) for entry in free])
            except NameTaken:
                # Somebody registers meanwhile: one at a time then.
                free = [entry for entry in free if await self._add_one(entry, report)]
        report.imported += len(free)

    async def _add_one(self, entry: _Entry, report: Report) -> bool:
        try:
            await self._store.users.add(entry.user, entry.names, event=entry.event)
        except NameTaken:
            report.refused.append((entry.number, "its name or address was taken meanwhile"))
            return False
        return True
