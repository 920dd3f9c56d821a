"""Users' API keys: make one, see them, delete one; and who a key speaks for when it is presented as it is.

A key acts for its user within its scope, and never beyond what the user's role and plan still permit. It survives a
change of the password, and ends when it is deleted, when it expires, or with its user.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from authwright.domain.api_key import MAX_DAYS, MOST_API_KEYS, ApiKey
from authwright.domain.errors import Forbidden, InvalidName, InvalidScope, NotFound, Unauthenticated
from authwright.domain.event import Origin, event
from authwright.domain.instant import MICROSECONDS, Instant, after
from authwright.domain.plan import Plans, effective_role
from authwright.domain.secrets import (
    API_KEY_PREFIX,
    CLIENT_KEY_PREFIX,
    ApiKeyId,
    SessionId,
    UserId,
    digest,
    key_digest,
    key_hint,
    new_api_key_id,
    new_key,
)
from authwright.guard.principal import Principal
from authwright.services.clients import MAX_NAME
from authwright.services.login import KEYS
from authwright.services.notices import Notices
from authwright.services.revoke import Revoke
from authwright.services.throttle import Throttle
from authwright.storage.port import Store

MOST_LISTED: Final = 200
_DAY: Final = 86_400

log = structlog.get_logger("authwright.api_keys")


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key, which is never shown again."""

    api_key: ApiKey
    key: str = field(repr=False)


class ApiKeys:
    """Manages the keys of users; *audiences* are those a key may be given, the issuer first."""

    def __init__(
        self,
        store: Store,
        revoke: Revoke,
        throttle: Throttle,
        plans: Plans,
        notices: Notices,
        *,
        issuer: str,
        audiences: tuple[str, ...],
    ) -> None:
        self._store = store
        self._revoke = revoke
        self._throttle = throttle
        self._plans = plans
        self._notices = notices
        self._issuer = issuer
        self._audiences = audiences

    async def create(
        self,
        caller: Principal,
        *,
        name: str,
        scope: frozenset[str] | None,
        days: int,
        origin: Origin,
        now: Instant,
    ) -> NewApiKey:
        """Make a key with the permissions that *caller* has, or fewer, and for its audiences; good for *days*.

        Raises InvalidName, InvalidScope, Forbidden (MOST_API_KEYS, or the account changed meanwhile), NotFound.
        """
        user_id = UserId(caller.subject)
        if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
            raise InvalidName(f"A key's name has 1 to {MAX_NAME} printable characters.")
        user = await self._store.users.find(user_id)
        if user is None:
            raise NotFound("There is no such user.")
        # A token that was made for less makes no key for more.
        permitted = self._plans.permitted(role=user.role, plan=user.plan, first_party=False) & caller.scopes
        if not permitted or (scope is not None and not scope <= permitted):
            raise InvalidScope
        session = None if caller.session_id is None else await self._store.sessions.find(SessionId(caller.session_id))
        granted = () if session is None else session.audiences
        key = new_key(API_KEY_PREFIX)
        made = ApiKey(
            id=new_api_key_id(),
            user_id=user_id,
            name=name,
            key_digest=digest(key.encode("ascii")),
            key_hint=key_hint(key),
            scope=permitted if scope is None else scope,
            audiences=tuple(each for each in self._audiences if each in granted),
            created_at=now,
            expires_at=after(now, min(days, MAX_DAYS) * _DAY),
        )
        tell = self._notices.recipients(user)
        done = event("api_key_created", origin, now=now, subject=user_id, client_id=made.id, tell=tell)
        if not await self._store.api_keys.add(made, epoch=caller.auth_epoch, most=MOST_API_KEYS, event=done):
            raise Forbidden(f"A user has at most {MOST_API_KEYS} keys; delete one first.")
        log.info("api_key_created", subject=user_id, key=made.id)
        return NewApiKey(made, key)

    async def list(self, user_id: UserId | None, *, after: ApiKeyId | None, most: int) -> Sequence[ApiKey]:
        """The keys of a user, or of all, that follow *after*; at most *most* and one more than MOST_LISTED."""
        return await self._store.api_keys.list(user_id, after=after, most=min(most, MOST_LISTED + 1))

    async def delete(self, key_id: ApiKeyId, *, user_id: UserId | None, origin: Origin, now: Instant) -> None:
        """Delete a key: it, its sessions and their tokens are refused from the return on.

        *user_id*: whose it must be (None: anybody's). Raises NotFound.
        """
        owner = await self._store.api_keys.owner(key_id)
        if owner is None or user_id not in (None, owner):
            raise NotFound("There is no such key.")
        done = event("api_key_deleted", origin, now=now, subject=owner, client_id=key_id)
        ending = self._revoke.ending("key_deleted", now)
        deletion = self._store.api_keys.delete(key_id, user_id=owner, ending=ending, event=done)
        if not await self._revoke.carry_out("client", deletion):
            raise NotFound("There is no such key.")
        log.info("api_key_deleted", subject=owner, key=key_id)

    async def principal(self, key: str, *, origin: Origin, now: Instant, audience: str | None = None) -> Principal:
        """Who *key*, a user's or a client's, speaks for at *audience* (None: the issuer), as things are now.

        Raises Unauthenticated, TooManyAttempts.
        """
        found = await self.find(key, now=now)
        if found is None or (audience or self._issuer) not in found[1]:
            await self._throttle.failed(KEYS, origin.address, now=now)
            failed = event("login", origin, now=now, outcome="failure", detail="key as bearer")
            await self._store.events.append(failed)
            raise Unauthenticated("The key is not valid.", detail="unknown, expired or disabled key")
        return found[0]

    async def find(self, key: str, *, now: Instant) -> tuple[Principal, tuple[str, ...]] | None:
        """Who *key* speaks for and at which audiences, or None. Nothing is counted: for who was let in himself."""
        if (presented := key_digest(key, API_KEY_PREFIX)) is not None:
            found = await self._store.api_keys.find_by_digest(presented)
            if found is None or not found[1].is_active or found[0].expires_at <= now:
                return None
            api_key, user = found
            permitted = self._plans.permitted(role=user.role, plan=user.plan, first_party=False)
            principal = self._principal(
                user.id,
                api_key.id,
                user.username,
                api_key.scope & permitted,
                role=user.role,
                plan=user.plan,
                epoch=user.auth_epoch,
                expires_at=api_key.expires_at,
                now=now,
            )
            return principal, api_key.audiences
        if (presented := key_digest(key, CLIENT_KEY_PREFIX)) is not None:
            client = await self._store.clients.find_by_key(presented)
            if client is None or client.status != "active":
                return None
            permitted = self._plans.grantable(client.plan)
            principal = self._principal(
                client.id,
                client.id,
                client.name,
                client.scope & permitted,
                role="user",
                plan=client.plan,
                epoch=client.auth_epoch,
                expires_at=after(now, _DAY),
                now=now,
            )
            return principal, client.audiences
        return None

    def _principal(
        self,
        subject: str,
        client_id: str,
        name: str | None,
        scopes: frozenset[str],
        *,
        role: str,
        plan: str,
        epoch: int,
        expires_at: Instant,
        now: Instant,
    ) -> Principal:
        return Principal(
            issuer=self._issuer,
            subject=subject,
            client_id=client_id,
            session_id=None,
            token_id=client_id,
            username=name,
            scopes=scopes,
            roles=(effective_role(role=role, plan=plan),),
            plan=plan,
            auth_epoch=epoch,
            issued_at=now // MICROSECONDS,
            expires_at=expires_at // MICROSECONDS,
            key_id="",
        )
