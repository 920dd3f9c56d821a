"""/introspect: is this token or key alive? For guards and other resource servers (RFC 7662)."""

from collections.abc import Callable

from pydantic import BaseModel, Field

from authwright.domain.errors import (
    InsufficientScope,
    InvalidClient,
    InvalidRequest,
    PayloadTooLarge,
    TooManyAttempts,
    Unauthenticated,
    UnsupportedMediaType,
)
from authwright.domain.instant import Instant
from authwright.domain.plan import REVOCATIONS, format_scope
from authwright.domain.secrets import ClientId
from authwright.services.clients import Clients
from authwright.services.introspect import Alive, Introspect
from authwright.web.caller import Callers
from authwright.web.endpoint import Answer, Call, Endpoints, Reply, json_reply
from authwright.web.oauth.client_auth import authenticate_client


class IntrospectionForm(BaseModel):
    """The parameters of /introspect."""

    token: str = Field(description="An access token, an API key or a client key.")
    token_type_hint: str | None = Field(default=None, description="Not needed; any kind is found.")


class Introspection(Answer):
    """What is known of the token; of one that is not active nothing but that (RFC 7662 section 2.2)."""

    active: bool
    iss: str | None = None
    sub: str | None = None
    aud: str | list[str] | None = None
    client_id: str | None = None
    scope: str | None = None
    username: str | None = None
    token_type: str | None = None
    exp: int | None = Field(default=None, description="Seconds since 1970 UTC.")
    iat: int | None = None
    jti: str | None = None
    sid: str | None = None
    roles: list[str] | None = None
    plan: str | None = None
    auth_epoch: int | None = None


def add_introspect(
    endpoints: Endpoints,
    *,
    introspect: Introspect,
    clients: Clients,
    callers: Callers,
    clock: Callable[[], Instant],
    open_here: bool,
) -> None:
    """`POST /introspect`, for clients with the scope `revocations`; *open_here*: for everybody (development)."""

    async def client_of(call: Call, form: dict[str, str]) -> ClientId | None:
        header = call.header(b"authorization")
        if header is not None and header.partition(" ")[0].lower() == "bearer":
            if "client_secret" in form:
                raise InvalidRequest("Two ways of client authentication were used.")
            return ClientId((await callers(call, scope=REVOCATIONS)).client_id)
        client = await authenticate_client(call, form, clients, clock())
        if client is not None:
            if REVOCATIONS not in client.scope:
                raise InsufficientScope(REVOCATIONS)
            return client.id
        if open_here:
            return None
        raise Unauthenticated("This needs a client key with the scope 'revocations'.", presented=False)

    async def introspection(call: Call) -> Reply:
        """Whether a token or key is active now, and what it allows. A client is told of the APIs it is itself for."""
        form = await call.form()
        client_id = await client_of(call, form)
        if "token" not in form:
            raise InvalidRequest("token is needed.")
        alive = await introspect.introspect(form["token"], client_id=client_id, now=clock())
        return json_reply({"active": False} if alive is None else _claims(alive))

    endpoints.add(
        "POST",
        "/introspect",
        introspection,
        name="introspect",
        summary="Is this token alive?",
        tag="guards",
        answer=Introspection,
        form=IntrospectionForm,
        refusals=(
            InvalidRequest,
            InvalidClient,
            Unauthenticated,
            InsufficientScope,
            PayloadTooLarge,
            UnsupportedMediaType,
            TooManyAttempts,
        ),
        secured=True,
        oauth=True,
        example={"active": True, "sub": "usr_0Zr4Yq1mQ2u4b1kQq7c3xA", "scope": "predict", "exp": 1795000300},
    )


def _claims(alive: Alive) -> dict[str, object]:
    principal = alive.principal
    claims: dict[str, object] = {
        "active": True,
        "iss": principal.issuer,
        "sub": principal.subject,
        "aud": alive.audiences[0] if len(alive.audiences) == 1 else list(alive.audiences),
        "client_id": principal.client_id,
        "scope": format_scope(principal.scopes),
        "token_type": "bearer",
        "exp": principal.expires_at,
        "iat": principal.issued_at,
        "jti": principal.token_id,
        "roles": list(principal.roles),
        "auth_epoch": principal.auth_epoch,
    }
    optional = {"sid": principal.session_id, "username": principal.username, "plan": principal.plan}
    return claims | {name: value for name, value in optional.items() if value is not None}
