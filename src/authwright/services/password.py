"""Set a new password: by its owner, who proves the current one, or by a link that an administrator made.

(ASVS 6.2.3, 6.4.1, 6.4.3, 6.4.6, 7.4.3)
"""

from dataclasses import dataclass, field
from typing import Final

import structlog

from authwright.domain.errors import InvalidGrant, NotFound, Unauthenticated
from authwright.domain.event import Origin, event
from authwright.domain.instant import Instant, after
from authwright.domain.passwords import PasswordPolicy, require_strong
from authwright.domain.secrets import RESET_TOKEN_PREFIX, SessionId, Subject, UserId, digest, key_digest, new_key
from authwright.domain.user import User
from authwright.services.confirm import Confirm
from authwright.services.hashing import Hashing
from authwright.services.notices import Notices
from authwright.services.revoke import Revoke
from authwright.services.throttle import Throttle
from authwright.services.tokens import Grant, Tokens
from authwright.storage.port import Store

RESET_SECONDS: Final = 3600
RESET_PATH: Final = "/reset-password"

log = structlog.get_logger("authwright.password")


@dataclass(frozen=True, slots=True)
class ResetLink:
    """A link that sets a new password once. *url* is shown to nobody but whoever asked for it, and never again."""

    user: User
    url: str = field(repr=False)
    expires_at: Instant


class Passwords:
    """Replaces passwords. *issuer* is what links begin with."""

    def __init__(
        self,
        store: Store,
        tokens: Tokens,
        hashing: Hashing,
        confirm: Confirm,
        throttle: Throttle,
        revoke: Revoke,
        notices: Notices,
        *,
        policy: PasswordPolicy,
        issuer: str,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._hashing = hashing
        self._confirm = confirm
        self._throttle = throttle
        self._revoke = revoke
        self._notices = notices
        self._policy = policy
        self._issuer = issuer

    async def change(
        self,
        subject: Subject,
        session_id: SessionId,
        *,
        epoch: int,
        current: str,
        new: str,
        origin: Origin,
        now: Instant,
    ) -> Grant:
        """Replace *current* by *new*; an access token of the new epoch for the session this was asked in.

        *epoch* is the caller's token's: whatever raised the subject's meanwhile (another change, a logout everywhere)
        wins, and nothing is changed. When this returns, no other session of the user can refresh and no older access
        token is accepted. Raises InvalidCredentials, TooManyAttempts, WeakPassword, Busy, Unauthenticated.
        """
        user = await self._store.users.find(UserId(subject))
        if user is None or not user.is_active or user.auth_epoch != epoch:
            raise Unauthenticated(detail="the account changed meanwhile")
        prepared = require_strong(new, policy=self._policy, context=_context(user))
        await self._confirm.password(user, current, origin=origin, now=now)
        with self._hashing.place(origin.address, "familiar"):
            hashed = await self._hashing.hash(prepared)
        session = await self._store.sessions.find(session_id)
        if session is None or not session.is_live(now):
            raise Unauthenticated(detail="the session ended meanwhile")
        tell = self._notices.recipients(user)
        done = event("password_changed", origin, now=now, subject=subject, session_id=session_id, tell=tell)
        ending = self._revoke.ending("password_changed", now, keep=session_id)
        replacement = self._store.users.replace_password(
            user.id, old=user.password_hash, new=hashed, epoch=epoch, now=now, ending=ending, event=done
        )
        if await self._revoke.carry_out("subject", replacement) is None:
            raise Unauthenticated(detail="the account changed meanwhile")
        log.info("password_changed", subject=subject)
        session = await self._store.sessions.find(session_id)
        if session is None or not session.is_live(now):
            raise Unauthenticated
        return await self._tokens.issue(session, refresh_token=None, now=now)

    async def reset_link(self, user: User, *, origin: Origin, now: Instant) -> ResetLink:
        """A link that sets a new password once, within RESET_SECONDS. An earlier one is void. Raises NotFound."""
        token = new_key(RESET_TOKEN_PREFIX)
        expires_at = after(now, RESET_SECONDS)
        made = event("reset_link_made", origin, now=now, subject=user.id)
        if not await self._store.users.offer_reset(
            user.id, digest(token.encode("ascii")), expires_at=expires_at, event=made
        ):
            raise NotFound("There is no such user.")
        log.info("reset_link_made", subject=user.id)
        return ResetLink(user, f"{self._issuer}{RESET_PATH}?token={token}", expires_at)

    async def reset(self, token: str, new: str, *, origin: Origin, now: Instant) -> None:
        """Spend a reset *token*: set the password *new*, end every session, delete API keys. Nobody is logged in by it.

        Raises InvalidGrant, TooManyAttempts, WeakPassword (the token stays good), Busy.
        """
        spent = key_digest(token, RESET_TOKEN_PREFIX)
        user = None if spent is None else await self._store.users.find_by_reset(spent, now=now)
        if user is None or spent is None:
            await self._throttle.failed("reset", origin.address, now=now)
            await self._store.events.append(event("password_reset", origin, now=now, outcome="failure"))
            raise InvalidGrant("The link is not valid any more; ask for a new one.")
        prepared = require_strong(new, policy=self._policy, context=_context(user))
        with self._hashing.place(origin.address):
            hashed = await self._hashing.hash(prepared)
        tell = self._notices.recipients(user)
        done = event("password_reset", origin, now=now, subject=user.id, tell=tell)
        ending = self._revoke.ending("password_reset", now)
        reset = self._store.users.reset_password(user.id, spent, new=hashed, now=now, ending=ending, event=done)
        if await self._revoke.carry_out("subject", reset) is None:
            raise InvalidGrant("The link is not valid any more; ask for a new one.")
        log.info("password_reset", subject=user.id)


def _context(user: User) -> tuple[str, ...]:
    """What a password must not consist of."""
    return tuple(part for text in (user.username, user.email) if text for part in (text, text.partition("@")[0]))
