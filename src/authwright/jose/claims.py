"""The claims of an access token, validated as a whole (RFC 7519 section 4, RFC 9068 section 2.2 and 4)."""

import re
from functools import lru_cache
from typing import Any, Final, NamedTuple

from authwright.jose.encoding import parse_json_object
from authwright.jose.errors import ClaimRefused, TokenExpired

ACCESS_TOKEN_TYPE: Final = "at+jwt"  # noqa: S105 - a media type, RFC 9068 section 2.1
MAX_LEEWAY: Final = 120
MAX_NAMES: Final = 256
"""Roles and scopes that are read from one token."""
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")
_LATEST: Final = 2**53  # seconds; beyond what every JSON reader holds exactly


class AccessClaims(NamedTuple):
    """Validated claims. Times are whole seconds since 1970 UTC."""

    issuer: str
    subject: str
    client_id: str
    session_id: str | None
    token_id: str
    username: str | None
    scopes: frozenset[str]
    roles: tuple[str, ...]
    plan: str | None
    auth_epoch: int
    issued_at: int
    expires_at: int


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
    get = claims.get
    epoch = get("auth_epoch", 0)
    if type(epoch) is not int or not 0 <= epoch < _LATEST:
        raise ClaimRefused("auth_epoch is not a number")
    subject, client_id, token_id = get("sub"), get("client_id"), get("jti")
    if not type(subject) is type(client_id) is type(token_id) is str:
        raise ClaimRefused("sub, client_id or jti is missing or not a text")
    if not (0 < len(subject) < 256 and 0 < len(client_id) <= 2048 and 0 < len(token_id) < 256):
        raise ClaimRefused("sub, client_id or jti is empty or too long")
    if not (subject.isprintable() and client_id.isprintable() and token_id.isprintable()):
        raise ClaimRefused("sub, client_id or jti is not printable")
    session_id, username, plan, scope = get("sid"), get("preferred_username"), get("plan"), get("scope")
    if (
        (session_id is not None and type(session_id) is not str)
        or (username is not None and type(username) is not str)
        or (plan is not None and type(plan) is not str)
        or (scope is not None and type(scope) is not str)
    ):
        raise ClaimRefused("sid, preferred_username, plan or scope is not a text")
    scopes, roles = _scopes(scope or ""), _roles(get("roles", []))
    claimed = (issuer, subject, client_id, session_id, token_id, username, scopes, roles, plan, epoch)
    # What AccessClaims(...) does, in half of its time.
    return tuple.__new__(AccessClaims, (*claimed, issued_at, expires_at))


def _time(claims: dict[str, Any], name: str) -> int:
    value = claims.get(name)
    # By type: bool is an int to Python and not a time to anybody.
    if (type(value) is not int and type(value) is not float) or not 0 <= value < _LATEST:
        raise ClaimRefused(f"{name} is missing or not a time")
    return int(value)


def _roles(roles: Any) -> tuple[str, ...]:
    if type(roles) is not list or len(roles) > MAX_NAMES:
        raise ClaimRefused("roles is not a list of strings")
    for role in roles:
        if type(role) is not str:
            raise ClaimRefused("roles is not a list of strings")
    return tuple(roles)


@lru_cache(maxsize=1024)
def _scopes(text: str) -> frozenset[str]:
    # RFC 6749 section 3.3: separated by one space, and by nothing else that Python would split at.
    if text and _SCOPE.fullmatch(text) is None:
        raise ClaimRefused("scope is malformed")
    scopes = frozenset(text.split(" ") if text else ())
    if len(scopes) > MAX_NAMES:
        raise ClaimRefused("too many scopes")
    return scopes
