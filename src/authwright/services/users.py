"""Read, change, disable and delete users: themselves, or all of them as an administrator.

A change raises the user's epoch. Sessions go on and show it at their next refresh, unless it takes the account away
or its proof: disabling, deleting and a new address end them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from authwright.domain.errors import AlreadyRegistered, Conflicting, Forbidden, InvalidName, NotFound, UnknownPlan
from authwright.domain.event import EventKind, Origin, event
from authwright.domain.instant import Instant
from authwright.domain.names import normal_login
from authwright.domain.plan import Plans, Role
from authwright.domain.secrets import SessionId, Subject, UserId, is_subject
from authwright.domain.user import Status, User
from authwright.services.confirm import Confirm
from authwright.services.keys import Keyring
from authwright.services.notices import Notices
from authwright.services.revoke import Revoke
from authwright.services.throttle import Throttle
from authwright.storage.port import Ending, NameDigest, NameTaken, Store, UserFilter

MOST_LISTED: Final = 200

log = structlog.get_logger("authwright.users")


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What to change; None leaves it. An empty *email* or *username* takes it away."""

    username: str | None = None
    email: str | None = None
    role: Role | None = None
    plan: str | None = None
    status: Status | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: *subject*, in which session, of which epoch; *origin* for the record."""

    subject: Subject
    session_id: SessionId | None
    auth_epoch: int
    origin: Origin


class Users:
    """Manages accounts."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        confirm: Confirm,
        throttle: Throttle,
        revoke: Revoke,
        plans: Plans,
        notices: Notices,
    ) -> None:
        self._store = store
        self._throttle = throttle
        self._keyring = keyring
        self._confirm = confirm
        self._revoke = revoke
        self._plans = plans
        self._notices = notices

    async def find(self, name: str) -> User:
        """The user with this name, address or id. Raises NotFound."""
        if is_subject(name):
            user = await self._store.users.find(UserId(name))
        else:
            key = normal_login(name)
            user = None if key is None else await self._store.users.find_by_name(self._keyring.name_digest(key))
        if user is None:
            raise NotFound("There is no such user.")
        return user

    async def list(self, which: UserFilter, *, after: UserId | None, most: int) -> Sequence[User]:
        """Users, oldest first, that follow *after*; at most *most* and one more than MOST_LISTED."""
        return await self._store.users.list(which, after=after, most=min(most, MOST_LISTED + 1))

    async def change_oneself(
        self, caller: Caller, changes: Changes, *, current_password: str | None, now: Instant
    ) -> User:
        """Change the caller's own name or address; both need the current password.

        Raises Forbidden (role, plan, status), InvalidCredentials, TooManyAttempts, InvalidName, AlreadyRegistered,
        Conflicting, NotFound.
        """
        if changes.role is not None or changes.plan is not None or changes.status is not None:
            raise Forbidden("Nobody changes their own role, plan or status.")
        user = await self.find(caller.subject)
        if user.auth_epoch != caller.auth_epoch:
            raise Conflicting
        wanted = _after(user, changes)
        if wanted != user:
            # Whether a name is free is told here as at registration, so it is counted as one.
            if not set(wanted.names) <= set(user.names):
                await self._throttle.register(caller.origin.address, now=now)
            await self._confirm.password(user, current_password, origin=caller.origin, now=now)
        return await self._change(user, changes, caller.origin, now, keep=caller.session_id)

    async def change(self, name: str, changes: Changes, *, origin: Origin, now: Instant, release: bool = False) -> User:
        """Change anybody, as an administrator. *release* lets go of the new names first, if they are reserved.

        Raises Forbidden (one's own role, plan or status), UnknownPlan, InvalidName, AlreadyRegistered, Conflicting,
        NotFound.
        """
        user = await self.find(name)
        privileged = (changes.role, changes.plan, changes.status)
        if user.id == origin.actor and privileged != (None, None, None):
            raise Forbidden("Nobody changes their own role, plan or status.")
        return await self._change(user, changes, origin, now, release=release)

    async def disable(self, name: str, *, origin: Origin, now: Instant) -> User:
        """Disable a user: every session ends before this returns. Raises NotFound, Forbidden, Conflicting."""
        return await self.change(name, Changes(status="disabled"), origin=origin, now=now)

    async def delete_oneself(self, caller: Caller, *, current_password: str | None, now: Instant) -> None:
        """Delete the caller's account. Raises InvalidCredentials, TooManyAttempts, Conflicting, NotFound."""
        user = await self.find(caller.subject)
        if user.auth_epoch != caller.auth_epoch:
            raise Conflicting
        await self._confirm.password(user, current_password, origin=caller.origin, now=now)
        await self._delete(user, caller.origin, now)

    async def delete(self, name: str, *, origin: Origin, now: Instant) -> User:
        """Delete a user, as an administrator; names stay reserved, the id is never used again.

        Raises Conflicting, NotFound.
        """
        user = await self.find(name)
        await self._delete(user, origin, now)
        return user

    async def _change(
        self,
        user: User,
        changes: Changes,
        origin: Origin,
        now: Instant,
        *,
        keep: SessionId | None = None,
        release: bool = False,
    ) -> User:
        if changes.plan is not None and changes.plan not in self._plans:
            raise UnknownPlan
        wanted = _after(user, changes)
        if wanted == user:
            # As after a change: who asks for what somebody else just did is answered when it holds everywhere.
            await self._revoke.see_all()
            return user
        if wanted.username is None and wanted.email is None:
            raise InvalidName("An account needs a user name or an e-mail address.")
        before, afterwards = self._digests(user), self._digests(wanted)
        wanted = replace(wanted, auth_epoch=user.auth_epoch + 1, updated_at=now)
        changed = [
            _shown_change(name, user, wanted) for name in _CHANGEABLE if getattr(user, name) != getattr(wanted, name)
        ]
        gained = [each for each in afterwards if each not in before]
        renamed = (user.username, user.email) != (wanted.username, wanted.email)
        done = event(
            _kind(user, wanted),
            origin,
            now=now,
            subject=user.id,
            detail=" ".join(changed),
            tell=self._notices.recipients(user, wanted) if renamed else (),
        )
        change = self._store.users.change(
            wanted,
            epoch=user.auth_epoch,
            gained=gained,
            lost=[each for each in before if each not in afterwards],
            released=gained if release else (),
            ending=self._ending(user, wanted, now, keep),
            event=done,
        )
        try:
            stored = await self._revoke.carry_out("subject", change)
        except NameTaken:
            raise AlreadyRegistered from None
        if not stored:
            raise Conflicting
        log.info("user_changed", subject=user.id, changed=changed)
        return wanted

    def _ending(self, user: User, wanted: User, now: Instant, keep: SessionId | None) -> Ending:
        if not wanted.is_active:
            return self._revoke.ending("disabled", now)
        if wanted.email != user.email:
            return self._revoke.ending("address_changed", now, keep=keep)
        return self._revoke.ending("changed", now, carry_over=True)

    async def _delete(self, user: User, origin: Origin, now: Instant) -> None:
        done = event("user_deleted", origin, now=now, subject=user.id, tell=self._notices.recipients(user))
        ending = self._revoke.ending("deleted", now)
        # As it was when the password was checked, or the administrator looked: not after a change since then.
        deletion = self._store.users.delete(user.id, epoch=user.auth_epoch, ending=ending, event=done)
        if not await self._revoke.carry_out("subject", deletion):
            raise Conflicting
        log.info("user_deleted", subject=user.id)

    def _digests(self, user: User) -> Sequence[NameDigest]:
        return [self._keyring.name_digest(name) for name in user.names]


_CHANGEABLE = ("username", "email", "role", "plan", "status")


def _after(user: User, changes: Changes) -> User:
    given: dict[str, Any] = {name: getattr(changes, name) for name in _CHANGEABLE if getattr(changes, name) is not None}
    wanted: dict[str, Any] = {name: value or None for name, value in given.items()}
    return replace(user, **wanted)


def _shown_change(name: str, user: User, wanted: User) -> str:
    """What changed, for the record: from what to what, but for names, which are theirs alone."""
    if name in ("username", "email"):
        return name
    return f"{name}:{getattr(user, name)}>{getattr(wanted, name)}"


def _kind(user: User, wanted: User) -> EventKind:
    if user.status == wanted.status:
        return "user_changed"
    return "user_enabled" if wanted.is_active else "user_disabled"
