"""The authenticated caller of the server's own routes (RFC 6750 section 2.1)."""

from collections.abc import Callable

from authwright.domain.errors import InsufficientScope, Unauthenticated
from authwright.domain.event import Origin
from authwright.domain.instant import Instant
from authwright.domain.plan import ACCOUNT, ADMIN
from authwright.domain.secrets import is_key
from authwright.guard.principal import Principal
from authwright.services.api_keys import ApiKeys
from authwright.services.limits import Limits
from authwright.services.verify import Verify
from authwright.web.endpoint import MAX_BODY, Call
from authwright.web.limits import charge


class Callers:
    """Authenticates calls by the `Authorization` header; a token in a query or a cookie is never looked at.

    With *limits* a call costs what the caller's plan says; without, nothing. Without *quotas* only the rate counts.
    """

    def __init__(
        self,
        verify: Verify,
        api_keys: ApiKeys,
        clock: Callable[[], Instant],
        limits: Limits | None = None,
        *,
        quotas: bool = True,
    ) -> None:
        self._verify = verify
        self._api_keys = api_keys
        self._clock = clock
        self._limits = limits
        self._quotas = quotas

    async def __call__(self, call: Call, *, scope: str | None = None, limit: int = MAX_BODY) -> Principal:
        """Who is calling: with an access token, a user's API key or a client's key.

        Raises Unauthenticated, TooManyAttempts, InvalidRequest (two credentials), LimitExceeded, PlanNotAvailable,
        InsufficientScope, and for a body beyond *limit* PayloadTooLarge.
        """
        token = bearer_token(call)
        if token is None:
            raise Unauthenticated(presented=False)
        # A client may take its time with the body, and be logged out meanwhile: the token is judged when all is here.
        await call.whole(limit)
        if is_key(token):
            principal = await self._api_keys.principal(token, origin=origin_of(call), now=self._clock())
        else:
            principal = await self._verify.token(token, now=self._clock())
        call.scope["authwright.caller"] = principal
        # Who is asked twice whether it may go on pays once.
        if self._limits is not None and "authwright.limits" not in call.scope:
            await charge(call, principal, self._limits, now=self._clock(), quotas=self._quotas)
        if scope is not None and scope not in principal.scopes:
            raise InsufficientScope(scope)
        return principal

    async def charge(self, call: Call, principal: Principal, times: int) -> None:
        """Charge what *call* costs *times* more, for work whose size is known only now. Raises LimitExceeded."""
        if self._limits is not None and times:
            await charge(call, principal, self._limits, now=self._clock(), times=times, further=True)

    async def themselves(self, call: Call) -> Principal:
        """Who is calling, to manage its own sessions: a client, or a user whose token has the scope `account`."""
        principal = await self(call)
        if not principal.is_client and ACCOUNT not in principal.scopes:
            raise InsufficientScope(ACCOUNT)
        return principal

    async def user(self, call: Call) -> Principal:
        """A user whose token has the scope `account`, to manage its own account."""
        return await self(call, scope=ACCOUNT)

    async def admin(self, call: Call) -> Principal:
        """An administrator, logged in as such: no key has the scope `admin`."""
        return await self(call, scope=ADMIN)


def bearer_token(call: Call) -> str | None:
    """The bearer token of *call*, or None if it has none. The scheme is matched without case (RFC 9110)."""
    header = call.header(b"authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated("This needs a bearer token.", detail="another scheme", presented=False)
    return token.strip(" ")


def origin_of(call: Call, principal: Principal | None = None) -> Origin:
    """Where *call* came from, as records remember it, and who made it."""
    return Origin(call.address, call.user_agent, call.request_id, "" if principal is None else principal.subject)
