"""Log in: check a credential, start a session.  RFC 6749 section 4.3 (first-party only), RFC 9700 section 2.

Take a place in the queue, look the account up, spend one hash whatever was found, and open the session in one step
that fails if the account changed meanwhile. Wrong name, wrong password, disabled account: one answer, one cost.
"""

from dataclasses import dataclass, replace

import structlog

from authwright.domain.client import FIRST_PARTY
from authwright.domain.errors import InvalidCredentials, Refusal
from authwright.domain.event import Origin, event, harmless
from authwright.domain.instant import Instant, after
from authwright.domain.names import MAX_ADDRESS, NameKey, normal_login
from authwright.domain.passwords import needs_rehash
from authwright.domain.plan import Plans, format_scope, narrow
from authwright.domain.refresh import FIRST_GENERATION, RefreshToken
from authwright.domain.secrets import (
    API_KEY_PREFIX,
    CLIENT_KEY_PREFIX,
    ClientId,
    Digest,
    Subject,
    key_digest,
    new_session_id,
)
from authwright.domain.session import Session
from authwright.domain.user import User
from authwright.services.hashing import Hashing
from authwright.services.keys import Keyring
from authwright.services.metrics import Metrics
from authwright.services.revoke import Revoke
from authwright.services.throttle import Attempt, Throttle
from authwright.services.tokens import Grant, Tokens, require_known_scope
from authwright.storage.port import Opened, Store

MOST_SESSIONS = 100
KEYS = "keys"
"""What wrong keys are counted under, whatever they were sent for."""

log = structlog.get_logger("authwright.login")


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """In seconds: a session without refreshes, and in any case; how long a spent refresh token may be repeated."""

    idle: int
    absolute: int
    grace: int


class Login:
    """Starts sessions. At most MOST_SESSIONS live ones a subject; the least recently used one makes room."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        tokens: Tokens,
        hashing: Hashing,
        throttle: Throttle,
        revoke: Revoke,
        plans: Plans,
        metrics: Metrics,
        lifetimes: Lifetimes,
    ) -> None:
        self._store = store
        self._throttle = throttle
        self._plans = plans
        self._logins = {
            (credential, outcome): metrics.logins.labels(credential, outcome)
            for credential in ("password", "key")
            for outcome in ("success", "failure")
        }
        self._keyring = keyring
        self._tokens = tokens
        self._hashing = hashing
        self._revoke = revoke
        self._lifetimes = lifetimes

    async def with_password(
        self, *, name: str, password: str, origin: Origin, now: Instant, scope: str | None, resource: str | None
    ) -> Grant:
        """Log a user in by user name or address.

        Raises InvalidCredentials, Busy and TooManyAttempts (before the account is looked up), InvalidScope,
        InvalidTarget (both after the password).
        """
        key = normal_login(name)
        tried = key or name[:MAX_ADDRESS]
        familiar = await self._throttle.familiar_until(tried, origin.address, now=now)
        with self._hashing.place(origin.address, "login" if familiar is None else "familiar", account=tried):
            attempt = await self._throttle.begin(
                tried, origin.address, familiar=familiar, now=now, hurry=not self._hashing.is_crowded
            )
            user = await self._check_password(key, password, first=familiar is not None)
            if user is None:
                self._logins["password", "failure"].inc()
                await self._failed(origin, attempt, now)
                raise InvalidCredentials
            if needs_rehash(user.password_hash, profile=self._hashing.profile):
                user = await self._upgrade_hash(user, password, now)
        permitted = self._plans.permitted(role=user.role, plan=user.plan, first_party=True)
        draft = self._draft(origin, now)
        try:
            granted, audiences = require_known_scope(scope, permitted), self._tokens.grantable_audiences(resource)
        except Refusal:
            # That the password was right is told by this refusal, so it goes on record.
            failed = event("login", origin, now=now, subject=user.id, outcome="failure", detail="scope or resource")
            await self._store.events.append(failed)
            raise
        session = draft[0]._replace(
            subject=Subject(user.id),
            client_id=FIRST_PARTY,
            username=user.username,
            role=user.role,
            plan=user.plan,
            auth_epoch=user.auth_epoch,
            granted_scope=granted,
            audiences=audiences,
            methods="pwd",
        )
        opened = await self._store.sessions.open(
            session, passed=self._throttle.passed(attempt, user, now=now), hurry=not self._hashing.is_crowded
        )
        return await self._grant(opened, draft[1], now)

    async def with_key(
        self, *, key: str, origin: Origin, now: Instant, scope: str | None, resource: str | None
    ) -> Grant:
        """Log a client in by its key, or a user by one of its API keys.

        Raises InvalidCredentials, TooManyAttempts, InvalidScope, InvalidTarget.
        """
        grant = None
        if (digest := key_digest(key, CLIENT_KEY_PREFIX)) is not None:
            grant = await self._with_client_key(digest, origin, now, scope, resource)
        elif (digest := key_digest(key, API_KEY_PREFIX)) is not None:
            grant = await self._with_api_key(digest, origin, now, scope, resource)
        if grant is None:
            self._logins["key", "failure"].inc()
            await self._throttle.failed(KEYS, origin.address, now=now)
            refused = event("login", origin, now=now, outcome="failure", detail="key")
            await self._store.events.append(refused)
            raise InvalidCredentials
        return grant

    async def _with_client_key(
        self, digest: Digest, origin: Origin, now: Instant, scope: str | None, resource: str | None
    ) -> Grant | None:
        draft = self._draft(origin, now)
        if scope is None and resource is None:
            opened = await self._store.sessions.open_with_key(digest, draft[0])
            return None if opened is None else await self._grant(opened, draft[1], now)
        client = await self._store.clients.find_by_key(digest)
        if client is None or client.status != "active":
            return None
        session = draft[0]._replace(
            subject=Subject(client.id),
            client_id=client.id,
            username=client.name,
            plan=client.plan,
            auth_epoch=client.auth_epoch,
            granted_scope=format_scope(narrow(client.scope, scope)),
            audiences=self._tokens.grantable_audiences(resource, allowed=client.audiences),
        )
        return await self._grant(await self._store.sessions.open(session), draft[1], now)

    async def _with_api_key(
        self, digest: Digest, origin: Origin, now: Instant, scope: str | None, resource: str | None
    ) -> Grant | None:
        found = await self._store.api_keys.find_by_digest(digest)
        if found is None or not found[1].is_active or found[0].expires_at <= now:
            return None
        key, user = found
        draft = self._draft(origin, now)
        # A key acts through a client of its own: never as the first party, so never with `account` or `admin`.
        permitted = self._plans.permitted(role=user.role, plan=user.plan, first_party=False)
        session = draft[0]._replace(
            subject=Subject(user.id),
            client_id=ClientId(key.id),
            username=user.username,
            role=user.role,
            plan=user.plan,
            auth_epoch=user.auth_epoch,
            granted_scope=format_scope(narrow(key.scope & permitted, scope)),
            audiences=self._tokens.grantable_audiences(resource, allowed=key.audiences),
            idle_expires_at=min(draft[0].idle_expires_at, key.expires_at),
            expires_at=min(draft[0].expires_at, key.expires_at),
        )
        return await self._grant(await self._store.sessions.open(session), draft[1], now)

    async def _failed(self, origin: Origin, attempt: Attempt, now: Instant) -> None:
        # Not the name, which may be a password typed into the wrong field; what tells names apart is enough.
        detail = f"account {attempt.own.hex()[:12]}"
        await self._store.events.append(event("login", origin, now=now, outcome="failure", detail=detail))

    async def _check_password(self, key: NameKey | None, password: str, *, first: bool) -> User | None:
        user = None
        if key is not None:
            user = await self._store.users.find_by_name(self._keyring.name_digest(key))
        matched, seconds = await self._hashing.verify(password, user.password_hash if user else None, first=first)
        if user is not None and matched and user.is_active:
            return user
        await self._hashing.even_out(seconds)
        log.info("login_failed", subject=user.id if user else None)
        return None

    async def _upgrade_hash(self, user: User, password: str, now: Instant) -> User:
        # The typed password was right, but may be one that could not be set here: then the old hash stays.
        new = await self._hashing.hash_typed(password)
        if new is None or not await self._store.users.upgrade_hash(user.id, old=user.password_hash, new=new, now=now):
            return user
        log.info("hash_upgraded", subject=user.id)
        return replace(user, password_hash=new)

    def _draft(self, origin: Origin, now: Instant) -> tuple[Session, RefreshToken]:
        token = self._keyring.refresh_tokens.first(new_session_id(now))
        expires_at = after(now, self._lifetimes.absolute)
        session = Session(
            id=token.session_id,
            subject=Subject(""),
            client_id=ClientId(""),
            username=None,
            role="user",
            plan="",
            auth_epoch=0,
            granted_scope="",
            audiences=(),
            generation=FIRST_GENERATION,
            secret_digest=token.digest,
            created_at=now,
            rotated_at=now,
            used_at=now,
            idle_expires_at=min(after(now, self._lifetimes.idle), expires_at),
            expires_at=expires_at,
            revoked_at=None,
            revoked_because=None,
            user_agent=harmless(origin.user_agent),
            address=origin.address,
            methods="key",
            request_id=origin.request_id,
        )
        return session, token

    async def _grant(self, opened: Opened | None, token: RefreshToken, now: Instant) -> Grant:
        if opened is None:
            raise InvalidCredentials(detail="unknown, disabled, or changed during the login")
        session = opened.session
        if opened.others >= MOST_SESSIONS:
            await self._revoke.end_excess(session.subject, client=session.client_id, most=MOST_SESSIONS, now=now)
        self._logins["password" if session.methods == "pwd" else "key", "success"].inc()
        log.info("login", subject=session.subject, session=session.id, client=session.client_id)
        return await self._tokens.issue(session, refresh_token=self._keyring.refresh_tokens.encode(token), now=now)
