"""What verifiers read: the public keys (RFC 7517). Never touches the store."""

from collections.abc import Callable

from authwright.domain.instant import Instant
from authwright.domain.keyring import JWKS_MAX_AGE
from authwright.services.keys import Keyring
from authwright.web.endpoint import Answer, Call, Endpoints, Reply, json_reply

_HEADERS = (
    (b"cache-control", f"public, max-age={JWKS_MAX_AGE}".encode("ascii")),
    (b"access-control-allow-origin", b"*"),
)


class KeySetDocument(Answer):
    """A JWK set."""

    keys: list[dict[str, str]]


def add_metadata(endpoints: Endpoints, *, keyring: Keyring, clock: Callable[[], Instant]) -> None:
    """`/.well-known/jwks.json`."""

    async def jwks(_call: Call) -> Reply:
        """The public keys that access tokens are verified with. Empty where tokens are signed with HS256."""
        return json_reply(keyring.jwks(clock()), headers=_HEADERS)

    endpoints.add(
        "GET",
        "/.well-known/jwks.json",
        jwks,
        name="jwks",
        summary="Public keys",
        tag="oauth",
        answer=KeySetDocument,
        example={
            "keys": [{"alg": "ES256", "crv": "P-256", "kid": "...", "kty": "EC", "use": "sig", "x": "...", "y": "..."}]
        },
    )
