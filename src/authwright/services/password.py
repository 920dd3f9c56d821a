"""Change one's password: prove the current one, set the new one, end the other sessions (ASVS 6.2.3, 7.4.3)."""

import structlog

from authwright.domain.errors import InvalidCredentials, Unauthenticated
from authwright.domain.instant import Instant
from authwright.domain.passwords import PasswordPolicy, require_strong
from authwright.domain.secrets import SessionId, Subject, UserId
from authwright.services.hashing import Hashing
from authwright.services.revoke import Revoke
from authwright.services.tokens import Grant, Tokens
from authwright.storage.port import Store

log = structlog.get_logger("authwright.password")


class ChangePassword:
    """Replaces a password by its owner's wish."""

    def __init__(
        self, store: Store, tokens: Tokens, hashing: Hashing, revoke: Revoke, *, policy: PasswordPolicy
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._hashing = hashing
        self._revoke = revoke
        self._policy = policy

    async def change(
        self,
        subject: Subject,
        session_id: SessionId,
        *,
        epoch: int,
        current: str,
        new: str,
        address: str,
        now: Instant,
    ) -> Grant:
        """Replace *current* by *new*; an access token of the new epoch for the session this was asked in.

        *epoch* is the caller's token's: whatever raised the subject's meanwhile (another change, a logout everywhere)
        wins, and nothing is changed. When this returns, no other session of the user can refresh and no older access
        token is accepted. Raises InvalidCredentials, WeakPassword, Busy, Unauthenticated.
        """
        user = await self._store.users.find(UserId(subject))
        if user is None or not user.is_active or user.auth_epoch != epoch:
            raise Unauthenticated(detail="the account changed meanwhile")
        context = tuple(part for text in (user.username, user.email) if text for part in (text, text.partition("@")[0]))
        prepared = require_strong(new, policy=self._policy, context=context)
        with self._hashing.place(address):
            matched, spent = await self._hashing.verify(current, user.password_hash)
            if not matched:
                await self._hashing.even_out(spent)
                raise InvalidCredentials("The current password is not right.")
            hashed = await self._hashing.hash(prepared)
        session = await self._store.sessions.find(session_id)
        if session is None or not session.is_live(now):
            raise Unauthenticated(detail="the session ended meanwhile")
        raised = await self._store.users.replace_password(
            user.id, old=user.password_hash, new=hashed, epoch=epoch, now=now
        )
        if raised is None:
            raise Unauthenticated(detail="the account changed meanwhile")
        await self._revoke.end_all(subject, epoch=raised, because="password_changed", now=now, keep=session_id)
        log.info("password_changed", subject=subject)
        session = await self._store.sessions.find(session_id)
        if session is None or not session.is_live(now):
            raise Unauthenticated
        return self._tokens.issue(session, refresh_token=None, now=now)
