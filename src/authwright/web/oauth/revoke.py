"""/revoke: this token is not needed any more (RFC 7009)."""

from collections.abc import Callable

from pydantic import BaseModel, Field

from authwright.domain.client import FIRST_PARTY
from authwright.domain.errors import (
    InvalidClient,
    InvalidGrant,
    InvalidRequest,
    PayloadTooLarge,
    TooManyAttempts,
    UnsupportedMediaType,
    UnsupportedTokenType,
)
from authwright.domain.instant import Instant
from authwright.services.clients import Clients
from authwright.services.revoke_token import RevokeToken
from authwright.web.caller import origin_of
from authwright.web.endpoint import Answer, Call, Endpoints, Reply, json_reply
from authwright.web.oauth.client_auth import authenticate_client


class RevocationForm(BaseModel):
    """The parameters of /revoke."""

    token: str = Field(description="A refresh token or an access token.")
    token_type_hint: str | None = Field(default=None, description="Not needed; either kind is found.")
    client_id: str | None = None
    client_secret: str | None = Field(default=None, json_schema_extra={"format": "password"})


class Revoked(Answer):
    """Nothing: whether there was such a token is not told."""


_REVOKED = json_reply({})


def add_revoke(
    endpoints: Endpoints, *, revoke_token: RevokeToken, clients: Clients, clock: Callable[[], Instant]
) -> None:
    """`POST /revoke`."""

    async def revoke(call: Call) -> Reply:
        """Revoke a token that was given to the client that asks. A refresh token ends its session with all its
        tokens, an access token alone is withdrawn: every API refuses it within a second. A token that is unknown or
        has expired is answered the same.
        """
        form = await call.form()
        authenticated = await authenticate_client(call, form, clients, clock())
        if "token" not in form:
            raise InvalidRequest("token is needed.")
        client = FIRST_PARTY if authenticated is None else authenticated.id
        await revoke_token.revoke(form["token"], client=client, origin=origin_of(call), now=clock())
        return _REVOKED

    endpoints.add(
        "POST",
        "/revoke",
        revoke,
        name="revoke",
        summary="Revoke a token",
        tag="oauth",
        answer=Revoked,
        form=RevocationForm,
        refusals=(
            InvalidRequest,
            InvalidGrant,
            InvalidClient,
            UnsupportedTokenType,
            PayloadTooLarge,
            UnsupportedMediaType,
            TooManyAttempts,
        ),
        oauth=True,
        example={},
    )
