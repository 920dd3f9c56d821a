"""Verify an access token: signature, claims and revocation in one call that raises (RFC 9068 section 4).

    principal = verifier.verify(token, now=now)

A token seen before costs a look-up: the table is keyed by the whole token, belongs to this one issuer, audience and
key set, and every hit is still held against the clock and the revocations.
"""

from collections.abc import Mapping
from typing import Final

from authwright.domain.instant import MICROSECONDS, Instant
from authwright.domain.revocation import Revocations
from authwright.guard.principal import Principal
from authwright.jose.claims import ACCESS_TOKEN_TYPE, MAX_LEEWAY, validate_access_claims
from authwright.jose.envelope import KeySet
from authwright.jose.errors import ClaimRefused, TokenExpired
from authwright.jose.keys import VerifyingKey

MAX_CACHED_BYTES: Final = 16 * 1024 * 1024


class Verifier:
    """Judges the access tokens of one *issuer* for one *audience*.

    *leeway* (seconds) covers clocks that differ; *max_lifetime* (seconds) is the longest this issuer gives a token.
    *revocations* is fed by somebody else; the verifier only asks it. Not safe for several threads: one per event loop.
    """

    __slots__ = ("_audience", "_cache", "_cached_bytes", "_issuer", "_keys", "_leeway", "_max_lifetime", "revocations")

    def __init__(
        self,
        keys: Mapping[str, VerifyingKey],
        *,
        issuer: str,
        audience: str,
        revocations: Revocations,
        leeway: int,
        max_lifetime: int,
    ) -> None:
        if type(issuer) is not str or type(audience) is not str or not issuer or not audience:
            raise ValueError("a verifier needs an issuer and an audience")
        if not 0 <= leeway <= MAX_LEEWAY:
            raise ValueError(f"leeway is 0 to {MAX_LEEWAY} seconds")
        self._issuer = issuer
        self._audience = audience
        self._leeway = leeway
        self._max_lifetime = max_lifetime
        self.revocations = revocations
        self.use_keys(keys)

    def use_keys(self, keys: Mapping[str, VerifyingKey]) -> None:
        """Verify with *keys* from now on. Forgets what older keys vouched for."""
        self._keys = KeySet(keys, typ=ACCESS_TOKEN_TYPE)
        self._cache: dict[str, Principal] = {}
        self._cached_bytes = 0

    @property
    def audience(self) -> str:
        return self._audience

    def __len__(self) -> int:
        """How many keys there are."""
        return len(self._keys)

    def knows_key(self, kid: str) -> bool:
        return kid in self._keys

    def verify(self, token: str, *, now: Instant) -> Principal:
        """Who *token* speaks for at *now*.

        Raises InvalidToken: MalformedToken, LimitExceeded, SignatureRefused (UnknownKey), ClaimRefused, TokenExpired.
        """
        principal = self._cache.get(token)
        if principal is None:
            principal = self._verify_first(token, now)
        elif now >= (principal.expires_at + self._leeway) * MICROSECONDS:
            self._forget(token)
            raise TokenExpired("expired")
        elif now < (principal.issued_at - self._leeway) * MICROSECONDS:
            raise ClaimRefused("not yet valid")
        withdrawn = self.revocations.refuses(
            session=principal.session_id,
            subject=principal.subject,
            epoch=principal.auth_epoch,
            client=principal.client_id,
            token=principal.token_id,
            key=principal.key_id,
        )
        if withdrawn is not None:
            self._forget(token)
            raise ClaimRefused(f"revoked: {withdrawn}")
        return principal

    def _verify_first(self, token: str, now: Instant) -> Principal:
        payload, key = self._keys.open(token)
        claims = validate_access_claims(
            payload,
            issuer=self._issuer,
            audience=self._audience,
            now=now // MICROSECONDS,
            leeway=self._leeway,
            max_lifetime=self._max_lifetime,
        )
        principal = Principal(
            issuer=claims.issuer,
            subject=claims.subject,
            client_id=claims.client_id,
            session_id=claims.session_id,
            token_id=claims.token_id,
            username=claims.username,
            scopes=claims.scopes,
            roles=claims.roles,
            plan=claims.plan,
            auth_epoch=claims.auth_epoch,
            issued_at=claims.issued_at,
            expires_at=claims.expires_at,
            key_id=key.kid,
        )
        weight = _weight(token, principal)
        self._cached_bytes += weight
        if self._cached_bytes > MAX_CACHED_BYTES:
            self._cache.clear()
            self._cached_bytes = weight
        self._cache[token] = principal
        return principal

    def _forget(self, token: str) -> None:
        principal = self._cache.pop(token, None)
        if principal is not None:
            self._cached_bytes -= _weight(token, principal)


def _weight(token: str, principal: Principal) -> int:
    """About how many bytes an entry takes: the token, what was read from it, and Python's own around both."""
    return 2 * len(token) + 1024 + 128 * (len(principal.scopes) + len(principal.roles))
