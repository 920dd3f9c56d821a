"""Refresh: trade a refresh token for a new pair.  RFC 6749 section 6, RFC 9700 section 4.14.

Check the token's own HMAC, rotate once, and only if that failed look at the session and let the rule decide: the
same successor within the grace period, the end of the session for anything older.
"""

import structlog

from authwright.domain.errors import InvalidGrant
from authwright.domain.event import Event, EventKind, Origin, event
from authwright.domain.instant import Instant, after
from authwright.domain.plan import narrow
from authwright.domain.refresh import RefreshToken, Verdict, judge
from authwright.domain.secrets import ClientId
from authwright.domain.session import Session
from authwright.services.keys import Keyring
from authwright.services.login import Lifetimes
from authwright.services.metrics import Metrics
from authwright.services.revoke import Revoke
from authwright.services.tokens import Grant, Tokens
from authwright.storage.port import Store

log = structlog.get_logger("authwright.refresh")


class Refresh:
    """Rotates refresh tokens."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        tokens: Tokens,
        revoke: Revoke,
        metrics: Metrics,
        lifetimes: Lifetimes,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._count_rotated = metrics.refreshes.labels("rotated").inc
        self._keyring = keyring
        self._tokens = tokens
        self._revoke = revoke
        self._lifetimes = lifetimes

    async def refresh(
        self,
        text: str,
        *,
        client: ClientId | None,
        origin: Origin,
        now: Instant,
        scope: str | None = None,
        resource: str | None = None,
    ) -> Grant:
        """The next pair for the refresh token *text*.

        *client* is the authenticated client; None where first-party and client-key sessions are served without one.
        *scope* and *resource* narrow the access token only: the session keeps what it was granted. A request that
        asks for too much leaves the refresh token unspent.
        Raises InvalidGrant, InvalidScope, InvalidTarget, StoreUnavailable.
        """
        presented = self._keyring.refresh_tokens.decode(text)
        if scope is not None or resource is not None:
            await self._check_request(presented, scope, resource, now)
        successor = self._keyring.refresh_tokens.successor(presented)
        session = await self._rotate(presented, successor, client, origin, now)
        encoded = self._keyring.refresh_tokens.encode(successor)
        return await self._tokens.issue(session, refresh_token=encoded, now=now, scope=scope, resource=resource)

    async def _rotate(
        self,
        presented: RefreshToken,
        successor: RefreshToken,
        client: ClientId | None,
        origin: Origin,
        now: Instant,
    ) -> Session:
        while True:
            rotated = await self._store.sessions.rotate(
                presented.session_id,
                generation=presented.generation,
                presented=presented.digest,
                successor=successor.digest,
                client=client,
                now=now,
                idle_expires_at=after(now, self._lifetimes.idle),
            )
            if rotated is not None:
                self._count_rotated()
                return rotated
            session = await self._store.sessions.find(presented.session_id)
            verdict = judge(session, presented, successor, client=client, now=now, grace=self._lifetimes.grace)
            if verdict is Verdict.REPLAY and session is not None:
                self._metrics.refreshes.labels("replay").inc()
                return session
            if verdict is not Verdict.RACED:
                break
        await self._refuse(verdict, presented, session, origin, now)
        raise InvalidGrant(detail=verdict.value)

    async def _refuse(
        self, verdict: Verdict, presented: RefreshToken, session: Session | None, origin: Origin, now: Instant
    ) -> None:
        self._metrics.refreshes.labels(verdict.value).inc()
        subject, client = (session.subject, session.client_id) if session is not None else ("", "")

        def recorded(kind: EventKind) -> Event:
            return event(
                kind,
                origin,
                now=now,
                outcome="failure",
                subject=subject,
                client_id=client,
                session_id=presented.session_id,
            )

        if verdict is Verdict.REVOKED and session is not None:
            await self._revoke.repair_session(session, now)
        if verdict is Verdict.REUSE:
            self._metrics.reuses.inc()
            await self._revoke.end_session(
                presented.session_id, because="reuse", now=now, event=recorded("refresh_reused")
            )
            log.warning("refresh_token_reused", session=presented.session_id, generation=presented.generation)
        elif verdict is Verdict.ROLLBACK:
            await self._store.events.append(recorded("store_rolled_back"))
            log.error("store_rolled_back", session=presented.session_id, generation=presented.generation)
        else:
            log.info("refresh_refused", session=presented.session_id, verdict=verdict.value)

    async def _check_request(
        self, presented: RefreshToken, scope: str | None, resource: str | None, now: Instant
    ) -> None:
        session = await self._store.sessions.find(presented.session_id)
        if session is None or not session.is_live(now):
            return
        narrow(self._tokens.scopes_of(session), scope)
        self._tokens.grantable_audiences(resource, allowed=session.audiences)
