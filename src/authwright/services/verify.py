"""Judge the tokens presented to the server's own routes: the guard's verifier, fed with the server's own facts."""

from collections.abc import Iterable

import structlog

from authwright.domain.errors import Unauthenticated
from authwright.domain.instant import Instant, after
from authwright.guard.principal import Principal
from authwright.guard.verifier import Verifier
from authwright.jose.claims import MAX_LEEWAY
from authwright.jose.errors import InvalidToken, TokenExpired, UnknownKey
from authwright.services.keys import Keyring, UnreadableKey
from authwright.services.revoke import Revoke

_RELOAD_AT_MOST_EVERY = 1.0  # seconds; a flood of unknown key ids must not become a flood of queries

log = structlog.get_logger("authwright.verify")


class ExpiredToken(Unauthenticated):
    """All is well with the token but its time. `/logout` then takes the refresh token."""


class Verify:
    """Verifies access tokens whose audience is the issuer itself; those for others of *audiences* if told which."""

    def __init__(
        self,
        keyring: Keyring,
        revoke: Revoke,
        *,
        issuer: str,
        audiences: tuple[str, ...],
        leeway: int,
        max_lifetime: int,
    ) -> None:
        self._keyring = keyring
        self._revoke = revoke

        def verifiers(leeway: int) -> dict[str, Verifier]:
            return {
                audience: Verifier(
                    {},
                    issuer=issuer,
                    audience=audience,
                    revocations=revoke.revocations,
                    leeway=leeway,
                    max_lifetime=max_lifetime,
                )
                for audience in (issuer, *audiences)
            }

        self._verifiers = verifiers(leeway)
        # As the most lenient of all guards.
        self._lenient = verifiers(MAX_LEEWAY)
        self._own = self._verifiers[issuer]
        self._known: frozenset[str] = frozenset()
        self._reload_due = Instant(0)

    async def load_keys(self, now: Instant, *, anyway: bool = True) -> None:
        """Read keys that were added or withdrawn since, and drop those that have retired. *anyway*: `Keyring.load`."""
        changed = await self._keyring.load(now, anyway=anyway)
        known = frozenset(self._keyring.verifying_keys(self._own.audience, now))
        if changed or self._known != known:
            for audience, verifier in (*self._verifiers.items(), *self._lenient.items()):
                verifier.use_keys(self._keyring.verifying_keys(audience, now))
            self._known = known

    async def reload_keys(self, now: Instant, *, anyway: bool = True) -> None:
        """As `load_keys`, but going on with what is in memory if a key in the store cannot be read any more."""
        try:
            await self.load_keys(now, anyway=anyway)
        except UnreadableKey as error:
            log.error("keys_unreadable", detail=str(error))

    async def replace_withdrawn(self, now: Instant) -> None:
        """As `load_keys`, after a key was withdrawn; nothing is signed if the one in its place cannot be read."""
        try:
            await self.load_keys(now)
        except UnreadableKey as error:
            log.error("keys_unreadable", detail=str(error))
            self._keyring.stop_signing()

    async def token(self, text: str, *, now: Instant, audience: str | None = None) -> Principal:
        """Who *text* speaks for, at *audience* (None: the issuer). Nothing revoked on this machine before the call
        is accepted.

        Raises ExpiredToken, Unauthenticated; StoreUnavailable if what was revoked cannot be read.
        """
        return await self._by(self._own if audience is None else self._verifiers[audience], text, now)

    async def _by(self, verifier: Verifier, text: str, now: Instant) -> Principal:
        if self._revoke.behind:
            await self._revoke.catch_up()
            await self.reload_keys(now, anyway=False)
        try:
            return _judge(verifier, text, now)
        except UnknownKey:
            if now < self._reload_due and not self._keyring.behind:
                raise Unauthenticated(detail="unknown key") from None
        self._reload_due = after(now, _RELOAD_AT_MOST_EVERY)
        await self.reload_keys(now)
        try:
            return _judge(verifier, text, now)
        except UnknownKey as error:
            raise Unauthenticated(error.public, detail=str(error)) from None

    async def at_any(
        self, text: str, *, now: Instant, audiences: Iterable[str], lenient: bool = False
    ) -> tuple[Principal, str] | None:
        """Who *text* speaks for, and at which of *audiences*; None if it is good at none of them.

        *lenient*: also if it has expired by this server's leeway, and not by the longest that a guard may have.
        Raises StoreUnavailable.
        """
        verifiers = self._lenient if lenient else self._verifiers
        for audience in audiences:
            try:
                return await self._by(verifiers[audience], text, now), audience
            except Unauthenticated:
                continue
        return None


def _judge(verifier: Verifier, text: str, now: Instant) -> Principal:
    try:
        return verifier.verify(text, now=now)
    except UnknownKey:
        raise
    except TokenExpired as error:
        raise ExpiredToken(error.public, detail=str(error)) from None
    except InvalidToken as error:
        raise Unauthenticated(error.public, detail=str(error)) from None
