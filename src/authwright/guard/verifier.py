"""Verify an access token: signature, claims and revocation in one call that raises (RFC 9068 section 4).

    principal = verifier.verify(token, now=now)

A token seen before costs a look-up: the table is keyed by the whole token, belongs to this one issuer, audience and
key set, and every hit is still held against the clock and the revocations.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from msgspec import UNSET

from authwright.domain.instant import MICROSECONDS, Instant
from authwright.domain.revocation import Revocations
from authwright.guard.principal import Principal
from authwright.jose.claims import ACCESS_TOKEN_TYPE, MAX_LEEWAY, validate_access_claims
from authwright.jose.envelope import KeySet
from authwright.jose.errors import ClaimRefused, TokenExpired
from authwright.jose.keys import VerifyingKey

MAX_CACHED_BYTES: Final = 64 * 1024 * 1024
"""What the tokens that were seen before may take, all together."""
ENTRY_BYTES: Final = 1000
"""About what each takes beside itself: what was read from it, and Python's own around that."""


Seen = tuple[Principal, int, int]
"""Of a token: its principal, until when it is good (microseconds), and the version of the revocations that were asked.
"""


class Verifier:
    """Judges the access tokens of one *issuer* for one *audience*.

    *leeway* (seconds) covers clocks that differ; *max_lifetime* (seconds) is the longest this issuer gives a token.
    *revocations* is fed by somebody else; the verifier only asks it. *cache_bytes* bounds what tokens that were seen
    before may take. Not safe for several threads: one per event loop.
    """

    __slots__ = (
        "_audience",
        "_generation_bytes",
        "_issuer",
        "_keys",
        "_late",
        "_latest",
        "_leeway",
        "_max_lifetime",
        "_old",
        "_young",
        "_young_bytes",
        "revocations",
    )

    def __init__(
        self,
        keys: Mapping[str, VerifyingKey],
        *,
        issuer: str,
        audience: str,
        revocations: Revocations,
        leeway: int,
        max_lifetime: int,
        cache_bytes: int = MAX_CACHED_BYTES,
    ) -> None:
        if type(issuer) is not str or type(audience) is not str or not issuer or not audience:
            raise ValueError("a verifier needs an issuer and an audience")
        if not 0 <= leeway <= MAX_LEEWAY:
            raise ValueError(f"leeway is 0 to {MAX_LEEWAY} seconds")
        self._issuer = issuer
        self._audience = audience
        self._leeway = leeway
        self._late = max(leeway, 1) * MICROSECONDS
        self._max_lifetime = max_lifetime
        # Tokens move from one generation to the next when they are asked for; what is left behind is dropped whole.
        self._generation_bytes = cache_bytes // 2
        self.revocations = revocations
        self.use_keys(keys)

    def _forget_all(self) -> None:
        self._young: dict[str, Seen] = {}
        self._old: dict[str, Seen] = {}
        self._young_bytes = 0
        self._latest = 0

    def use_keys(self, keys: Mapping[str, VerifyingKey]) -> None:
        """Verify with *keys* from now on. Forgets what older keys vouched for."""
        self._keys = KeySet(keys, typ=ACCESS_TOKEN_TYPE)
        self._forget_all()

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
        if now < self._latest:
            # A clock that was set back may be before the time of what was seen: nothing of it counts.
            self._forget_all()
        seen = remembered = self._young.get(token)
        if seen is None:
            seen = self._old.pop(token, None) or self._verify_first(token, now)
        principal, until, version = seen
        if now >= until:
            self._forget(token)
            raise TokenExpired("expired")
        # What was looked up once holds until something is added.
        if version != self.revocations.version:
            withdrawn = self.revocations.refuses(principal)
            if withdrawn is not None:
                self._forget(token)
                raise ClaimRefused(f"revoked: {withdrawn}")
            seen = (principal, until, self.revocations.version)
            if remembered is not None:
                self._young[token] = seen
        if remembered is None:
            self._remember(token, seen)
        return principal

    def _verify_first(self, token: str, now: Instant) -> Seen:
        payload, key = self._keys.open(token)
        leeway = self._leeway
        claims, scopes = validate_access_claims(
            payload,
            issuer=self._issuer,
            audience=self._audience,
            now=now // MICROSECONDS,
            leeway=leeway,
            max_lifetime=self._max_lifetime,
        )
        username = claims.preferred_username
        fields = (
            # Equal to what the token says, and one text for all that are remembered.
            self._issuer,
            claims.sub,
            claims.client_id,
            claims.sid,
            claims.jti,
            None if username is UNSET else username,
            scopes,
            claims.roles,
            claims.plan,
            claims.auth_epoch,
            claims.iat,
            claims.exp,
            key.kid,
        )
        # Requests that wait may come with a moment that is a little past.
        self._latest = now - self._late
        # What Principal(...) does, in half of its time. Not held against anything yet: no version is -1.
        return tuple.__new__(Principal, fields), _instant(claims.exp + leeway), -1

    def _remember(self, token: str, seen: Seen) -> None:
        self._young_bytes += len(token) + ENTRY_BYTES
        if self._young_bytes > self._generation_bytes:
            # What was not asked for during a whole generation goes.
            self._old, self._young, self._young_bytes = self._young, {}, len(token) + ENTRY_BYTES
        self._young[token] = seen

    def _forget(self, token: str) -> None:
        if self._young.pop(token, None) is not None:
            self._young_bytes -= len(token) + ENTRY_BYTES


@lru_cache(maxsize=4096)
def _instant(second: int) -> int:
    # One number for all tokens that end in the same second: there is less memory to wait for.
    return second * MICROSECONDS
