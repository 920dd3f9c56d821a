"""Protect a FastAPI app.

    guard = Guard(issuer="https://auth.example.com", audience="https://api.example.com", key="awk_...")
    Caller = Annotated[Principal, Security(guard, scopes=["predict"])]

    @app.get("/predict")
    async def predict(caller: Caller): ...

The app's own Swagger UI gets a working Authorize button: with user name and password where the issuer offers the
password form, or with a pasted token.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from fastapi.exceptions import HTTPException, WebSocketException
from fastapi.openapi.models import HTTPBearer, OAuth2, OAuthFlowPassword, OAuthFlows
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection
from starlette.responses import Response

from authwright.domain.errors import Refusal, Unauthenticated
from authwright.guard import guard as core
from authwright.guard.asgi import close_code
from authwright.guard.credential import credential
from authwright.guard.errors import refusal_headers
from authwright.guard.policy import OnStale, names_in, require_on_stale
from authwright.guard.principal import Principal

__all__ = ["Guard", "OnStale", "Principal"]


class Guard(core.Guard, SecurityBase):
    """`authwright.guard.Guard` as a FastAPI dependency that answers with the caller's `Principal`.

    Takes what that one takes. *password_form*: whether Swagger UI offers to log in with user name and password; the
    issuer must then list this app's origin in `AUTHWRIGHT_CORS_ORIGINS`. Otherwise it takes a pasted token.
    """

    def __init__(self, *, issuer: str, audience: str, password_form: bool = True, **options: Any) -> None:
        super().__init__(issuer=issuer, audience=audience, **options)
        self.model = HTTPBearer(description=f"An access token of {issuer} for {audience}.")
        self.scheme_name = "Authwright"
        if password_form:
            # The token has to be for this API, and Swagger UI has no field for that.
            url = f"{issuer.rstrip('/')}/token?resource={quote(audience, safe='')}"
            self.model = OAuth2(flows=OAuthFlows(password=OAuthFlowPassword(tokenUrl=url)))

    async def __call__(
        self, connection: HTTPConnection, security_scopes: SecurityScopes, response: Response
    ) -> Principal:
        """The caller, who has all scopes that the route asks for. Raises HTTPException."""
        return await self.admit(connection, response, frozenset(security_scopes.scopes))

    def requires(
        self,
        *,
        scope: str | Iterable[str] = (),
        plan: str | Iterable[str] | None = None,
        role: str | Iterable[str] | None = None,
        on_stale: OnStale | None = None,
        cost: int = 1,
    ) -> "Requirement":
        """A dependency that asks for more: all of *scope*, one of *plan*, one of *role*; *on_stale* for this route.

        Several are given as a list, or in one text with spaces or commas.

        *cost*: units that a call costs, of a guard with *limits*.
        """
        if cost < 1:
            raise ValueError("a call costs 1 at least")
        if on_stale is not None:
            require_on_stale(on_stale)
        scopes, plans, roles = _names(scope), _names(plan), _names(role)
        return Requirement(self, scopes or frozenset(), plans, roles, on_stale, cost)

    async def admit(
        self,
        connection: HTTPConnection,
        response: Response,
        scopes: frozenset[str],
        plans: frozenset[str] | None = None,
        roles: frozenset[str] | None = None,
        on_stale: OnStale | None = None,
        cost: int = 1,
    ) -> Principal:
        """The caller of *connection*, who has what is asked for, and pays *cost*; *response* tells what is left.

        Raises HTTPException.
        """
        told: dict[str, str] = {}
        try:
            # Where the middleware of this guard was passed, the work is done.
            passed = connection.scope.get("authwright.guard")
            if passed is not None and passed[0] is self and (on_stale is None or passed[2] == on_stale):
                principal: Principal = passed[1]
            else:
                token = credential(connection.scope["headers"], keys=self.accept_keys)
                if token is None:
                    raise Unauthenticated(presented=False)
                principal = self.recall(token) or await self.verify(token, on_stale=on_stale)
            if scopes or plans is not None or roles is not None:
                self.require(principal, scopes=scopes, plans=plans, roles=roles)
            # However many dependencies ask, a request pays once: the most that one of them wants.
            if self.limits:
                spent = connection.scope.setdefault("authwright.spent", {})
                paid = spent.get(self, 0)
                if paid < cost:
                    token = credential(connection.scope["headers"], keys=self.accept_keys)
                    try:
                        await self.spend(principal, token or "", cost - paid)
                    finally:
                        told = self.limit_headers(principal)
                    spent[self] = cost
                    response.headers.update(told)
        except Refusal as refusal:
            headers = {**refusal_headers(refusal, realm=self.audience), **told}
            raise HTTPException(refusal.status, refusal.public, headers=headers) from None
        return principal

    @asynccontextmanager
    async def during(self, connection: HTTPConnection, *, on_stale: OnStale | None = None) -> AsyncIterator[Principal]:
        """What is done inside goes on as long as the caller of *connection* is not revoked: for streams and WebSockets
        behind a dependency, which sees them begin alone. *on_stale* as for `requires`.

        Raises HTTPException in the middle, which cuts a stream off; of a WebSocket WebSocketException, which closes it.
        """
        try:
            token = credential(connection.scope["headers"], keys=self.accept_keys)
            if token is None:
                raise Unauthenticated(presented=False)
            principal = self.recall(token) or await self.verify(token, on_stale=on_stale)
            async with self.while_good(principal, token, on_stale):
                yield principal
        except Refusal as refusal:
            if connection.scope["type"] == "websocket":
                raise WebSocketException(close_code(refusal), refusal.public) from None
            headers = refusal_headers(refusal, realm=self.audience)
            raise HTTPException(refusal.status, refusal.public, headers=headers) from None


class Requirement(SecurityBase):
    """What `Guard.requires` answers with."""

    def __init__(
        self,
        guard: Guard,
        scopes: frozenset[str],
        plans: frozenset[str] | None,
        roles: frozenset[str] | None,
        on_stale: OnStale | None,
        cost: int,
    ) -> None:
        self.model, self.scheme_name = guard.model, guard.scheme_name
        self._guard = guard
        self._scopes, self._plans, self._roles, self._on_stale = scopes, plans, roles, on_stale
        self._cost = cost

    async def __call__(
        self, connection: HTTPConnection, security_scopes: SecurityScopes, response: Response
    ) -> Principal:
        """The caller. Raises HTTPException."""
        scopes = self._scopes.union(security_scopes.scopes)
        return await self._guard.admit(
            connection, response, scopes, self._plans, self._roles, self._on_stale, self._cost
        )


def _names(given: str | Iterable[str] | None) -> frozenset[str] | None:
    if given is None:
        return None
    return frozenset(names_in(given) if isinstance(given, str) else given)
