"""The one place where access tokens are made (RFC 9068 section 2, RFC 8707 section 2.2)."""

import asyncio
import os
from typing import Any, NamedTuple

from authwright.domain.client import FIRST_PARTY
from authwright.domain.errors import InvalidScope, InvalidTarget
from authwright.domain.instant import MICROSECONDS, Instant
from authwright.domain.plan import Plans, effective_role, format_scope, narrow
from authwright.domain.session import Session
from authwright.jose.encoding import b64url_encode
from authwright.services.keys import Keyring
from authwright.services.metrics import Metrics
from authwright.services.revoke import Revoke

Claims = dict[str, Any]
_Unsigned = tuple[Claims, str, Instant, "asyncio.Future[str]"]
"""The claims of a token, its audience, the moment, and who waits for it."""


class Grant(NamedTuple):
    """What a login or a refresh gives. *expires_in* in seconds; *scope* as the access token has it."""

    access_token: str
    expires_in: int
    refresh_token: str | None
    scope: str
    session: Session

    def __repr__(self) -> str:
        return f"Grant(session={self.session!r}, scope={self.scope!r})"


class Tokens:
    """Mints the tokens of one issuer; each access token is for exactly one audience."""

    def __init__(
        self,
        keyring: Keyring,
        revoke: Revoke,
        plans: Plans,
        metrics: Metrics,
        *,
        issuer: str,
        audiences: tuple[str, ...],
        lifetime: int,
    ) -> None:
        self._keyring = keyring
        self._revoke = revoke
        self._plans = plans
        self._count_token = metrics.tokens.inc
        self._issuer = issuer
        self._known = (issuer, *(audience for audience in audiences if audience != issuer))
        self._lifetime = lifetime
        self._unsigned: list[_Unsigned] = []

    @property
    def known_audiences(self) -> tuple[str, ...]:
        """All audiences a token can be for: the issuer first."""
        return self._known

    def grantable_audiences(self, resource: str | None, *, allowed: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """What a new session is granted: the one *resource* asked for, or all there are. Raises InvalidTarget."""
        known = self._known if allowed is None else tuple(each for each in self._known if each in allowed)
        if resource is None:
            return known
        if resource not in known:
            raise InvalidTarget
        return (resource,)

    def scopes_of(self, session: Session) -> frozenset[str]:
        """What *session* allows now: what it was granted, as far as role and plan still permit it."""
        first_party = session.client_id == FIRST_PARTY
        return self._plans.scopes_of(session.role, session.plan, session.granted_scope, first_party)

    async def issue(
        self,
        session: Session,
        *,
        refresh_token: str | None,
        now: Instant,
        scope: str | None = None,
        resource: str | None = None,
    ) -> Grant:
        """An access token for *session*; *scope* and *resource* may narrow it. It is never signed with a key that was
        withdrawn on this machine before this was called.

        Raises InvalidScope, InvalidTarget, StoreUnavailable.
        """
        # An audience that is configured no more gets no tokens, whatever was granted once.
        audiences = [each for each in session.audiences if each in self._known]
        if (resource is not None and resource not in audiences) or not audiences:
            raise InvalidTarget
        audience = resource or audiences[0]
        scopes = narrow(self.scopes_of(session), scope)
        issued_at = now // MICROSECONDS
        # An access token never outlives its session.
        expires_at = min(issued_at + self._lifetime, max(issued_at + 1, session.expires_at // MICROSECONDS))
        claims: Claims = {
            "iss": self._issuer,
            "sub": session.subject,
            "aud": audience,
            "exp": expires_at,
            "iat": issued_at,
            "jti": b64url_encode(os.urandom(16)),
            "client_id": session.client_id,
            "sid": session.id,
            "scope": format_scope(scopes),
            "roles": [effective_role(role=session.role, plan=session.plan)],
            "plan": session.plan,
            "auth_epoch": session.auth_epoch,
        }
        if session.username is not None:
            claims["preferred_username"] = session.username
        await self._revoke.look()
        token = await self._signed(claims, audience, now)
        self._count_token()
        return Grant(token, expires_at - issued_at, refresh_token, claims["scope"], session)

    async def _signed(self, claims: Claims, audience: str, now: Instant) -> str:
        # All that are asked for in one turn of the event loop are signed one after the other: then the 150 KB of
        # multiples that signing goes through are still in the processor's cache from the one before.
        loop = asyncio.get_running_loop()
        if not self._unsigned:
            loop.call_soon(self._sign)
        signed: asyncio.Future[str] = loop.create_future()
        self._unsigned.append((claims, audience, now, signed))
        return await signed

    def _sign(self) -> None:
        unsigned, self._unsigned = self._unsigned, []
        try:
            for claims, audience, now, signed in unsigned:
                if signed.done():
                    # Nobody waits for it any more.
                    continue
                try:
                    signed.set_result(self._keyring.signer(audience, now).sign(claims))
                except Exception as error:
                    signed.set_exception(error)
        finally:
            # Whatever ends this, nobody waits for a token that does not come.
            for *_, signed in unsigned:
                signed.cancel()


def require_known_scope(scope: str | None, permitted: frozenset[str]) -> str:
    """The stored form of a *scope* asked for at login: empty for all there is. Raises InvalidScope."""
    if scope is None or not scope.strip():
        return ""
    wanted = narrow(permitted, scope)
    if not wanted:
        raise InvalidScope
    return format_scope(wanted)
