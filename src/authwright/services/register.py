"""Sign up: make an account, by its future owner or by an administrator."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from authwright.domain.errors import AlreadyRegistered, InvalidName, PlanNotSelfService, RegistrationClosed, UnknownPlan
from authwright.domain.event import EventKind, Origin, event
from authwright.domain.instant import Instant
from authwright.domain.names import normal_address, normal_username
from authwright.domain.passwords import PasswordPolicy, UnsupportedHash, require_strong, require_supported
from authwright.domain.plan import DEFAULT_PLAN, Plans, Role
from authwright.domain.secrets import new_user_id
from authwright.domain.user import User
from authwright.services.hashing import Hashing
from authwright.services.keys import Keyring
from authwright.services.throttle import Throttle
from authwright.storage.port import NameDigest, NameTaken, Store

log = structlog.get_logger("authwright.register")


@dataclass(frozen=True, slots=True)
class RegistrationRules:
    """*is_open*: anybody may register. *any_plan*: and choose any plan (development only)."""

    is_open: bool
    any_plan: bool
    passwords: PasswordPolicy


class Register:
    """Makes accounts."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        hashing: Hashing,
        throttle: Throttle,
        plans: Plans,
        rules: RegistrationRules,
    ) -> None:
        self._store = store
        self._throttle = throttle
        self._plans = plans
        self._keyring = keyring
        self._hashing = hashing
        self._rules = rules

    async def sign_up(
        self, *, username: str | None, email: str | None, password: str, plan: str | None, origin: Origin, now: Instant
    ) -> User:
        """Make an account for whoever asks.

        Raises RegistrationClosed, PlanNotSelfService, TooManyAttempts, InvalidName, WeakPassword, Busy,
        AlreadyRegistered.
        """
        if not self._rules.is_open:
            raise RegistrationClosed
        if plan is not None and plan != DEFAULT_PLAN and not self._rules.any_plan:
            raise PlanNotSelfService
        names = self._prepare(username, email, plan)
        prepared = self._strong(password, username, email)
        await self._throttle.register(origin.address, now=now)
        with self._hashing.place(origin.address, "registration"):
            # The hash is made before the names are looked at: a taken name takes as long as a free one.
            hashed = await self._hashing.hash(prepared)
        return await self._add("registered", username, email, names, hashed, plan, "user", origin, now)

    async def create(
        self,
        *,
        username: str | None,
        email: str | None,
        password: str | None,
        plan: str | None,
        origin: Origin,
        now: Instant,
        role: Role = "user",
        release: bool = False,
        still: Callable[[], Awaitable[object]] | None = None,
    ) -> User:
        """Make an account with any role and plan, as an administrator. *release* lets go of reserved names first.

        Without a *password* nobody can log in until a reset link has set one. *still* is asked, and may raise, when the
        hash is made: whoever may not do this any more does not.
        Raises InvalidName, UnknownPlan, WeakPassword, AlreadyRegistered.
        """
        names = self._prepare(username, email, plan)
        if password is None:
            hashed = await self._hashing.hash(secrets.token_urlsafe(32))
        else:
            hashed = await self._hashing.hash(self._strong(password, username, email))
        if still is not None:
            await still()
        return await self._add("user_created", username, email, names, hashed, plan, role, origin, now, release)

    async def create_with_hash(
        self,
        *,
        username: str | None,
        email: str | None,
        password_hash: str,
        plan: str | None,
        origin: Origin,
        now: Instant,
        role: Role = "user",
    ) -> User:
        """Make an account with a hash made elsewhere.

        Raises UnsupportedHash, InvalidName, UnknownPlan, AlreadyRegistered.
        """
        require_supported(password_hash)
        names = self._prepare(username, email, plan)
        return await self._add("user_created", username, email, names, password_hash, plan, role, origin, now)

    def _strong(self, password: str, username: str | None, email: str | None) -> str:
        context = tuple(part for text in (username, email) if text for part in (text, text.partition("@")[0]))
        return require_strong(password, policy=self._rules.passwords, context=context)

    def _prepare(self, username: str | None, email: str | None, plan: str | None) -> list[NameDigest]:
        if plan is not None and plan not in self._plans:
            raise UnknownPlan
        keys = [normal_username(username)] if username is not None else []
        keys += [normal_address(email)] if email is not None else []
        if not keys:
            raise InvalidName("An account needs a user name or an e-mail address.")
        return [self._keyring.name_digest(key) for key in keys]

    async def _add(
        self,
        kind: EventKind,
        username: str | None,
        email: str | None,
        names: list[NameDigest],
        password_hash: str,
        plan: str | None,
        role: Role,
        origin: Origin,
        now: Instant,
        release: bool = False,
    ) -> User:
        plan = plan or DEFAULT_PLAN
        user = User(new_user_id(), username, email, password_hash, role, plan, "active", 1, now, now)
        try:
            done = event(kind, origin, now=now, subject=user.id)
            await self._store.users.add(user, names, released=names if release else (), event=done)
        except NameTaken:
            raise AlreadyRegistered from None
        log.info("registered", subject=user.id, plan=plan, role=role)
        return user


__all__ = ["Register", "RegistrationRules", "UnsupportedHash"]
