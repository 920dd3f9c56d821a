"""Log out: end a session, or all of them; nothing of it is accepted from the answer on."""

from collections.abc import Sequence
from typing import Final

from authwright.domain.errors import InsufficientScope, InvalidGrant, NotFound
from authwright.domain.event import Origin, event
from authwright.domain.instant import Instant
from authwright.domain.plan import ACCOUNT
from authwright.domain.secrets import USER_PREFIX, ClientId, SessionId, Subject, UserId
from authwright.domain.session import EndReason, Session
from authwright.services.keys import Keyring
from authwright.services.revoke import Revoke
from authwright.storage.port import Store

MOST_LISTED: Final = 200


class Logout:
    """Ends sessions at their owner's wish."""

    def __init__(self, store: Store, keyring: Keyring, revoke: Revoke) -> None:
        self._store = store
        self._keyring = keyring
        self._revoke = revoke

    async def session(self, session_id: SessionId, *, subject: Subject, origin: Origin, now: Instant) -> None:
        """End one session of *subject*: its access and refresh tokens."""
        done = event("logout", origin, now=now, subject=subject, session_id=session_id)
        await self._revoke.end_session(session_id, because="logout", now=now, event=done)

    async def by_refresh_token(self, text: str, *, everywhere: bool, origin: Origin, now: Instant) -> None:
        """End the session of a refresh token, which may be spent already; a repeat is no error.

        *everywhere* asks for more than a stolen old token may do: then the token must be of a live session and the
        current one or its predecessor. Raises InvalidGrant, InsufficientScope.
        """
        token = self._keyring.refresh_tokens.decode(text)
        session = await self._store.sessions.find(token.session_id)
        if session is None:
            raise InvalidGrant(detail="logout of an unknown session")
        if everywhere:
            # A session that an API key opened ends itself, and nobody else's.
            if not session.first_party and str(session.client_id) != session.subject:
                raise InsufficientScope(ACCOUNT)
            successor = self._keyring.refresh_tokens.successor(token)
            if not session.is_live(now) or session.secret_digest not in (token.digest, successor.digest):
                raise InvalidGrant(detail="logout everywhere needs a current refresh token")
            await self.everywhere(session.subject, origin=origin, now=now)
        else:
            await self.session(session.id, subject=session.subject, origin=origin, now=now)

    async def everywhere(self, subject: Subject, *, origin: Origin, now: Instant) -> None:
        """End every session of *subject*. The epoch is raised, so that a login under way is withdrawn, too."""
        done = event("logout_everywhere", origin, now=now, subject=subject)
        ending = self._revoke.ending("logout_everywhere", now)
        if subject.startswith(USER_PREFIX):
            verb = self._store.users.raise_epoch(UserId(subject), now=now, ending=ending, event=done)
        else:
            verb = self._store.clients.raise_epoch(ClientId(subject), now=now, ending=ending, event=done)
        await self._revoke.carry_out("subject", verb)

    async def live_sessions(self, subject: Subject, *, now: Instant) -> Sequence[Session]:
        """The subject's live sessions, most recently used first."""
        return await self._store.sessions.list_live(subject, now=now)

    async def all_sessions(self, *, now: Instant, after: SessionId | None, most: int) -> Sequence[Session]:
        """Live sessions of everybody that follow *after*; at most *most* and one more than MOST_LISTED."""
        return await self._store.sessions.list_all(now=now, after=after, most=min(most, MOST_LISTED + 1))

    async def one_session(
        self, session_id: SessionId, *, subject: Subject | None, origin: Origin, now: Instant
    ) -> None:
        """End one of *subject*'s own sessions, or anybody's (None), as an administrator.

        Raises NotFound, the same for an unknown one and somebody else's.
        """
        session = await self._store.sessions.find(session_id)
        if session is None or subject not in (None, session.subject):
            raise NotFound
        if session.revoked_at is not None:
            await self._revoke.repair_session(session, now)
            raise NotFound
        because: EndReason = "logout" if origin.actor == session.subject else "ended_by_admin"
        done = event("session_ended", origin, now=now, subject=session.subject, session_id=session_id)
        await self._revoke.end_session(session_id, because=because, now=now, event=done)
