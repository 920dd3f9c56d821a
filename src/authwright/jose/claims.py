"""The claims of an access token, validated as a whole (RFC 7519 section 4, RFC 9068 section 2.2 and 4)."""

import math
import re
from functools import lru_cache
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from authwright.jose.encoding import parse_json_object
from authwright.jose.errors import ClaimRefused, TokenExpired

ACCESS_TOKEN_TYPE: Final = "at+jwt"  # noqa: S105 - a media type, RFC 9068 section 2.1
MAX_LEEWAY: Final = 120
MAX_NAMES: Final = 256
"""Roles and scopes that are read from one token."""
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")
_LATEST: Final = 2**53  # seconds; beyond what every JSON reader holds exactly

_Name = Annotated[str, Meta(min_length=1, max_length=255)]
_Number = Annotated[int, Meta(ge=0, lt=_LATEST)]


# What it holds cannot hold it: the garbage collector need not look.
class AccessClaims(msgspec.Struct, frozen=True, gc=False):
    """Claims by their names in the token and of their types, in the order in which the server writes them.

    Times are whole seconds since 1970 UTC.
    """

    iss: str
    sub: _Name
    aud: str | list[str]
    exp: _Number
    iat: _Number
    jti: _Name
    client_id: Annotated[str, Meta(min_length=1, max_length=2048)]
    sid: str | None = None
    scope: str | None = None
    roles: Annotated[tuple[str, ...], Meta(max_length=MAX_NAMES)] = ()
    plan: str | None = None
    auth_epoch: _Number = 0
    preferred_username: str | UnsetType | None = UNSET
    nbf: _Number | UnsetType = UNSET


_decode = msgspec.json.Decoder(AccessClaims).decode
_encode = msgspec.json.Encoder().encode


def read_access_claims(payload: bytes) -> AccessClaims:
    """*payload*, read so that no two readers can disagree about it.

    Raises MalformedToken or LimitExceeded where it is not strict JSON; ClaimRefused where a claim that RFC 9068
    requires is missing, one is not of its type, or the token is bound to a key (`cnf`), which a bearer could not prove.
    """
    try:
        claims = _decode(payload)
        # What is written again as the very same bytes has no member twice, none that is not known, and no other
        # spelling: the decoder alone is not that strict. Tokens of the server come this way.
        if _encode(claims) == payload:
            return claims
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    members = parse_json_object(payload)
    if "cnf" in members:
        raise ClaimRefused("bound to a key that was not proven")
    for name in ("exp", "iat", "nbf"):
        # RFC 7519 section 2: they may have a fraction.
        if type(members.get(name)) is float:
            members[name] = math.floor(members[name])
    try:
        return msgspec.convert(members, AccessClaims)
    except msgspec.ValidationError as error:
        # It names a claim and types, and quotes nothing.
        raise ClaimRefused(str(error)) from None


def validate_access_claims(
    payload: bytes, *, issuer: str, audience: str, now: int, leeway: int, max_lifetime: int
) -> tuple[AccessClaims, frozenset[str]]:
    """The claims of a verified *payload* and its scopes if this verifier may accept them at *now* (seconds).

    Guaranteed: what `read_access_claims` guarantees; `iss` equals *issuer*; *audience* is one of those in `aud`; `exp`
    is in the future and `iat`, `nbf` are not (within *leeway*); the lifetime is at most *max_lifetime*.
    Raises MalformedToken, LimitExceeded, ClaimRefused, TokenExpired.
    """
    claims = read_access_claims(payload)
    if claims.iss != issuer:
        raise ClaimRefused("wrong issuer")
    aud = claims.aud
    if aud != audience and (type(aud) is str or audience not in aud):
        raise ClaimRefused("wrong audience")
    expires_at, issued_at, not_before = claims.exp, claims.iat, claims.nbf
    if now >= expires_at + leeway:
        raise TokenExpired("expired")
    if issued_at > now + leeway or (not_before is not UNSET and not_before > now + leeway):
        raise ClaimRefused("not yet valid")
    if not 0 < expires_at - issued_at <= max_lifetime:
        raise ClaimRefused("lifetime too long")
    if not (claims.sub.isprintable() and claims.client_id.isprintable() and claims.jti.isprintable()):
        raise ClaimRefused("sub, client_id or jti is not printable")
    return claims, _scopes(claims.scope or "")


@lru_cache(maxsize=1024)
def _scopes(text: str) -> frozenset[str]:
    # RFC 6749 section 3.3: separated by one space, and by nothing else that Python would split at.
    if text and _SCOPE.fullmatch(text) is None:
        raise ClaimRefused("scope is malformed")
    scopes = frozenset(text.split(" ") if text else ())
    if len(scopes) > MAX_NAMES:
        raise ClaimRefused("too many scopes")
    return scopes
