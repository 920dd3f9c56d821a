"""The authenticated caller of the server's own routes (RFC 6750 section 2.1)."""

from collections.abc import Callable

from authwright.domain.errors import InsufficientScope, Unauthenticated
from authwright.domain.instant import Instant
from authwright.domain.plan import ACCOUNT
from authwright.guard.principal import Principal
from authwright.services.verify import Verify
from authwright.web.endpoint import Call


class Callers:
    """Authenticates calls by the `Authorization` header; a token in a query or a cookie is never looked at."""

    def __init__(self, verify: Verify, clock: Callable[[], Instant]) -> None:
        self._verify = verify
        self._clock = clock

    async def __call__(self, call: Call, *, scope: str | None = None) -> Principal:
        """Who is calling. Raises Unauthenticated, InvalidRequest (two credentials), InsufficientScope."""
        token = bearer_token(call)
        if token is None:
            raise Unauthenticated(presented=False)
        principal = await self._verify.token(token, now=self._clock())
        if scope is not None and scope not in principal.scopes:
            raise InsufficientScope(scope)
        return principal

    async def themselves(self, call: Call) -> Principal:
        """Who is calling, to manage its own sessions: a client, or a user whose token has the scope `account`."""
        principal = await self(call)
        if not principal.is_client and ACCOUNT not in principal.scopes:
            raise InsufficientScope(ACCOUNT)
        return principal


def bearer_token(call: Call) -> str | None:
    """The bearer token of *call*, or None if it has none. The scheme is matched without case (RFC 9110)."""
    header = call.header(b"authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated("This needs a bearer token.", detail="another scheme", presented=False)
    return token.strip(" ")
