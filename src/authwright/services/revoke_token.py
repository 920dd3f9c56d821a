"""Revoke a token at the wish of the client it was given to.  RFC 7009.

A refresh token ends its session, and with it every access token of it. An access token is withdrawn alone: what else
the session has goes on, and the next refresh brings another one.
"""

import asyncio

from authwright.domain.client import FIRST_PARTY
from authwright.domain.errors import InvalidGrant, UnsupportedTokenType
from authwright.domain.event import Origin, event
from authwright.domain.instant import Instant
from authwright.domain.secrets import API_KEY_ID_PREFIX, ClientId, SessionId, Subject, is_key
from authwright.guard.principal import Principal
from authwright.services.keys import Keyring
from authwright.services.logout import Logout
from authwright.services.revoke import Revoke
from authwright.services.verify import Verify
from authwright.storage.port import Store


class RevokeToken:
    """Revokes refresh tokens, and access tokens for any API."""

    def __init__(self, store: Store, keyring: Keyring, verify: Verify, revoke: Revoke, logout: Logout) -> None:
        self._store = store
        self._keyring = keyring
        self._verify = verify
        self._revoke = revoke
        self._logout = logout
        # By token id: who asks for the same meanwhile waits for the same entry.
        self._under_way: dict[str, asyncio.Task[object]] = {}

    async def revoke(self, token: str, *, client: ClientId, origin: Origin, now: Instant) -> None:
        """Once this returns, no worker of this machine accepts *token*; one that was good for nothing is no error.

        *client* is the authenticated one, or FIRST_PARTY. Raises InvalidGrant for the token of another client,
        UnsupportedTokenType, StoreUnavailable.
        """
        if is_key(token):
            raise UnsupportedTokenType
        try:
            refresh_token = self._keyring.refresh_tokens.decode(token)
        except InvalidGrant:
            await self._revoke_access(token, client, origin, now)
        else:
            await self._revoke_refresh(refresh_token.session_id, client, origin, now)

    async def _revoke_refresh(self, session_id: SessionId, client: ClientId, origin: Origin, now: Instant) -> None:
        session = await self._store.sessions.find(session_id)
        if session is not None:
            _require_own(session.client_id, client)
            # Also where it has ended: a crash may have left the ledger without it.
            await self._logout.session(session.id, subject=session.subject, origin=origin, now=now)

    async def _revoke_access(self, token: str, client: ClientId, origin: Origin, now: Instant) -> None:
        principal = await self._verify.anywhere(token, now=now)
        if principal is None:
            return
        _require_own(principal.client_id, client)
        name = principal.token_id
        if name not in self._under_way:
            self._under_way[name] = asyncio.create_task(self._withdraw(principal, origin, now))
            self._under_way[name].add_done_callback(lambda _: self._under_way.pop(name))
        await asyncio.shield(self._under_way[name])

    async def _withdraw(self, principal: Principal, origin: Origin, now: Instant) -> None:
        done = event(
            "token_revoked",
            origin,
            now=now,
            subject=principal.subject,
            client_id=principal.client_id,
            session_id=principal.session_id or "",
            detail=principal.token_id,
        )
        verb = self._store.sessions.withdraw_token(
            principal.token_id,
            subject=Subject(principal.subject),
            ending=self._revoke.ending("revoked", now),
            event=done,
        )
        await self._revoke.carry_out("token", verb)


def _require_own(owner: str, client: ClientId) -> None:
    # An API key is no client that could authenticate: what it opened is revoked by whoever has the token.
    if owner != client and not (client == FIRST_PARTY and owner.startswith(API_KEY_ID_PREFIX)):
        raise InvalidGrant("The token was issued to another client.", detail="revocation by another client")
