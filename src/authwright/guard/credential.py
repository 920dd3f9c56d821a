"""The credential of a request: one, in a header. Never from the query or a cookie (RFC 6750 section 2)."""

import base64
from collections.abc import Iterable

from authwright.domain.errors import InvalidRequest, Unauthenticated

_LONGEST = 16 * 1024


def credential(headers: Iterable[tuple[bytes, bytes]], *, keys: bool = False, basic: bool = False) -> str | None:
    """The bearer token in *headers* (lower-case names), or None if nothing was presented.

    *keys*: a key may also come as `X-API-Key`; *basic*: and as the password of HTTP Basic, for programs that know
    nothing else. Raises InvalidRequest for two credentials, Unauthenticated for another scheme.
    """
    authorization: bytes | None = None
    key: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            if authorization is not None:
                raise InvalidRequest("The header authorization was sent more than once.")
            authorization = value
        elif keys and name == b"x-api-key":
            if key is not None:
                raise InvalidRequest("The header x-api-key was sent more than once.")
            key = value
    if authorization is not None and key is not None:
        raise InvalidRequest("Two credentials were sent.")
    if authorization is None:
        return None if key is None else _text(key)
    scheme, _, rest = authorization.partition(b" ")
    kind = scheme.lower()
    if kind == b"bearer":
        return _text(rest.strip(b" "))
    if kind == b"basic" and basic:
        return _password(rest)
    raise Unauthenticated("This needs a bearer token.", detail="another scheme", presented=False)


def _text(value: bytes) -> str:
    if len(value) > _LONGEST:
        raise Unauthenticated("The token is not valid.", detail="too long")
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        raise Unauthenticated("The token is not valid.", detail="not ASCII") from None


def _password(encoded: bytes) -> str:
    try:
        return _text(read_basic(encoded)[1].encode("utf-8"))
    except ValueError:
        raise Unauthenticated("The credentials are not valid.", detail="malformed Basic") from None


def read_basic(encoded: bytes) -> tuple[str, str]:
    """The two halves of HTTP Basic credentials (RFC 7617), as they stand there. Raises ValueError unless they are
    UTF-8 in canonical base64, with a colon.
    """
    raw = base64.b64decode(encoded, validate=True)
    name, colon, secret = raw.decode("utf-8").partition(":")
    if not colon or base64.b64encode(raw) != encoded:
        raise ValueError("not canonical, or without a colon")
    return name, secret
