"""Judge the tokens presented to the server's own routes: the guard's verifier, fed with the server's own facts."""

from collections.abc import Iterable
from functools import partial

import structlog

from authwright.domain.errors import Unauthenticated
from authwright.domain.instant import Instant, after
from authwright.guard.principal import Principal
from authwright.guard.verifier import Verifier
from authwright.jose.claims import MAX_LEEWAY, read_access_claims
from authwright.jose.encoding import b64url_decode
from authwright.jose.envelope import MAX_TOKEN_BYTES
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

        def verifier(audience: str, *, leeway: int = leeway) -> Verifier:
            return Verifier(
                {},
                issuer=issuer,
                audience=audience,
                revocations=revoke.revocations,
                leeway=leeway,
                max_lifetime=max_lifetime,
            )

        self._verifiers = {audience: verifier(audience) for audience in (issuer, *audiences)}
        self._own = self._verifiers[issuer]
        # As the most lenient guard of any API judges.
        self._lenient = partial(verifier, leeway=MAX_LEEWAY)
        self._known: frozenset[str] = frozenset()
        self._reload_due = Instant(0)

    async def load_keys(self, now: Instant, *, anyway: bool = True) -> None:
        """Read keys that were added or withdrawn since, and drop those that have retired. *anyway*: `Keyring.load`."""
        changed = await self._keyring.load(now, anyway=anyway)
        known = frozenset(self._keyring.verifying_keys(self._own.audience, now))
        if changed or self._known != known:
            for audience, verifier in self._verifiers.items():
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
            if not await self._looked_for_keys(now):
                raise Unauthenticated(detail="unknown key") from None
        try:
            return _judge(verifier, text, now)
        except UnknownKey as error:
            raise Unauthenticated(error.public, detail=str(error)) from None

    async def _looked_for_keys(self, now: Instant) -> bool:
        """Read the keys again, unless that was done a moment ago; whether it was."""
        if now < self._reload_due and not self._keyring.behind:
            return False
        self._reload_due = after(now, _RELOAD_AT_MOST_EVERY)
        await self.reload_keys(now)
        return True

    async def at_any(self, text: str, *, now: Instant, audiences: Iterable[str]) -> tuple[Principal, str] | None:
        """Who *text* speaks for, and at which of *audiences*; None if it is good at none of them.

        Raises StoreUnavailable.
        """
        for audience in audiences:
            try:
                return await self.token(text, now=now, audience=audience), audience
            except Unauthenticated:
                continue
        return None

    async def anywhere(self, text: str, *, now: Instant) -> Principal | None:
        """Who *text* speaks for at whatever API, one that is configured no more included, as its most lenient guard
        would have it; None if no guard can take it. Raises StoreUnavailable.
        """
        audience = _claimed_audience(text)
        if audience is None:
            return None
        await self._revoke.look()
        verifier = self._lenient(audience)
        verifier.use_keys(self._keyring.verifying_keys(audience, now))
        try:
            return _judge(verifier, text, now)
        except UnknownKey:
            if not await self._looked_for_keys(now):
                return None
            verifier.use_keys(self._keyring.verifying_keys(audience, now))
        except Unauthenticated:
            return None
        try:
            return _judge(verifier, text, now)
        except (Unauthenticated, UnknownKey):
            return None


def _claimed_audience(text: str) -> str | None:
    """What *text* says it is for, which nobody has vouched for yet: it chooses which check is made, and no more."""
    if len(text) > MAX_TOKEN_BYTES or text.count(".") != 2:
        return None
    try:
        claimed = read_access_claims(b64url_decode(text.split(".")[1])).aud
    except InvalidToken:
        return None
    if isinstance(claimed, list):
        claimed = claimed[0] if claimed else ""
    return claimed or None


def _judge(verifier: Verifier, text: str, now: Instant) -> Principal:
    try:
        return verifier.verify(text, now=now)
    except UnknownKey:
        raise
    except TokenExpired as error:
        raise ExpiredToken(error.public, detail=str(error)) from None
    except InvalidToken as error:
        raise Unauthenticated(error.public, detail=str(error)) from None
