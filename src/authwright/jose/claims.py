"""The claims of an access token, validated as a whole (RFC 7519 section 4, RFC 9068 section 2.2 and 4)."""

import re
from dataclasses import dataclass
from typing import Any, Final

from authwright.jose.encoding import parse_json_object
from authwright.jose.errors import ClaimRefused, TokenExpired

ACCESS_TOKEN_TYPE: Final = "at+jwt"  # noqa: S105 - a media type, RFC 9068 section 2.1
MAX_LEEWAY: Final = 120
MAX_NAMES: Final = 256
"""Roles and scopes that are read from one token."""
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")
_LATEST: Final = 2**53  # seconds; beyond what every JSON reader holds exactly


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """Validated claims. Times are whole seconds since 1970 UTC."""

    issuer: str
    subject: str
    audience: str
    client_id: str
    token_id: str
    session_id: str | None
    issued_at: int
    expires_at: int
    scopes: frozenset[str]
    roles: tuple[str, ...]
    plan: str | None
    username: str | None
    auth_epoch: int


def validate_access_claims(
    payload: bytes, *, issuer: str, audience: str, now: int, leeway: int, max_lifetime: int
) -> AccessClaims:
    """The claims of a verified *payload* if this verifier may accept them at *now* (seconds); raises otherwise.

    Guaranteed: `iss` equals *issuer*; *audience* is the one in `aud`; `exp` is in the future and `iat`, `nbf` are not
    (within *leeway*); the lifetime is at most *max_lifetime*; every claim RFC 9068 requires is there and of its type;
    the token is not bound to a key (`cnf`), which a bearer could not prove.
    Raises MalformedToken, ClaimRefused, TokenExpired.
    """
    claims = parse_json_object(payload)
    if claims.get("iss") != issuer:
        raise ClaimRefused("wrong issuer")
    aud = claims.get("aud")
    if isinstance(aud, list):
        if not all(isinstance(each, str) for each in aud) or audience not in aud:
            raise ClaimRefused("wrong audience")
    elif aud != audience:
        raise ClaimRefused("wrong audience")
    expires_at, issued_at = _time(claims, "exp"), _time(claims, "iat")
    if now >= expires_at + leeway:
        raise TokenExpired("expired")
    if issued_at > now + leeway or ("nbf" in claims and _time(claims, "nbf") > now + leeway):
        raise ClaimRefused("not yet valid")
    if not 0 < expires_at - issued_at <= max_lifetime:
        raise ClaimRefused("lifetime too long")
    if "cnf" in claims:
        raise ClaimRefused("bound to a key that was not proven")
    roles = claims.get("roles", [])
    if not isinstance(roles, list) or len(roles) > MAX_NAMES or not all(isinstance(role, str) for role in roles):
        raise ClaimRefused("roles is not a list of strings")
    epoch = claims.get("auth_epoch", 0)
    if type(epoch) is not int or not 0 <= epoch < _LATEST:
        raise ClaimRefused("auth_epoch is not a number")
    return AccessClaims(
        issuer=issuer,
        subject=_text(claims, "sub"),
        audience=audience,
        client_id=_text(claims, "client_id", longest=2048),
        token_id=_text(claims, "jti"),
        session_id=_optional_text(claims, "sid"),
        issued_at=issued_at,
        expires_at=expires_at,
        scopes=_scopes(claims),
        roles=tuple(roles),
        plan=_optional_text(claims, "plan"),
        username=_optional_text(claims, "preferred_username"),
        auth_epoch=epoch,
    )


def _time(claims: dict[str, Any], name: str) -> int:
    value = claims.get(name)
    # bool is an int to Python and not a time to anybody.
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < _LATEST:
        raise ClaimRefused(f"{name} is missing or not a time")
    return int(value)


def _text(claims: dict[str, Any], name: str, *, longest: int = 255) -> str:
    value = claims.get(name)
    if type(value) is not str or not 0 < len(value) <= longest or not value.isprintable():
        raise ClaimRefused(f"{name} is missing or not a text")
    return value


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    # RFC 6749 section 3.3: separated by one space, and by nothing else that Python would split at.
    text = _optional_text(claims, "scope") or ""
    if text and _SCOPE.fullmatch(text) is None:
        raise ClaimRefused("scope is malformed")
    scopes = frozenset(text.split(" ") if text else ())
    if len(scopes) > MAX_NAMES:
        raise ClaimRefused("too many scopes")
    return scopes


def _optional_text(claims: dict[str, Any], name: str) -> str | None:
    value = claims.get(name)
    if value is not None and type(value) is not str:
        raise ClaimRefused(f"{name} is not a text")
    return value
