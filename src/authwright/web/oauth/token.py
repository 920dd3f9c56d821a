"""/token: grant_type to service (RFC 6749 section 3.2)."""

from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, Field

from authwright.domain.client import FIRST_PARTY
from authwright.domain.errors import (
    Busy,
    InvalidClient,
    InvalidCredentials,
    InvalidGrant,
    InvalidRequest,
    InvalidScope,
    InvalidTarget,
    PayloadTooLarge,
    TooManyAttempts,
    UnauthorizedClient,
    UnsupportedGrantType,
    UnsupportedMediaType,
)
from authwright.domain.instant import Instant
from authwright.services.clients import Clients
from authwright.services.login import Login
from authwright.services.refresh import Refresh
from authwright.services.tokens import Grant
from authwright.web.caller import origin_of
from authwright.web.endpoint import Answer, Call, Endpoints, Reply, json_reply
from authwright.web.oauth.client_auth import authenticate_client


class TokenAnswer(Answer):
    """A successful login or refresh (RFC 6749 section 5.1). *user_id* is the subject: a user's or a client's id."""

    access_token: str
    token_type: Literal["bearer"]
    expires_in: int = Field(description="Seconds until the access token expires.")
    refresh_token: str | None = Field(
        default=None, description="Trade it at /refresh-token or /token for the next pair."
    )
    scope: str
    user_id: str


TOKEN_EXAMPLE = {
    "access_token": "eyJhbGciOiJFUzI1NiIs...",
    "token_type": "bearer",
    "expires_in": 300,
    "refresh_token": "awr_AQ...",
    "scope": "account predict",
    "user_id": "usr_0Zr4Yq1mQ2u4b1kQq7c3xA",
}


class TokenForm(BaseModel):
    """The parameters of /token."""

    grant_type: Literal["password", "refresh_token"] | None = Field(
        None, description="May be left out when user name and password are given."
    )
    username: str | None = Field(default=None, description="User name or e-mail address.", examples=["bholay"])
    password: str | None = Field(default=None, json_schema_extra={"format": "password"}, examples=["test123"])
    refresh_token: str | None = None
    scope: str | None = Field(default=None, description="Fewer scopes than the account has, separated by spaces.")
    resource: str | None = Field(default=None, description="URL of the API the access token is for (RFC 8707).")
    client_id: str | None = None
    client_secret: str | None = Field(default=None, json_schema_extra={"format": "password"})


def grant_reply(grant: Grant) -> Reply:
    """*grant* as clients expect it."""
    content: dict[str, object] = {
        "access_token": grant.access_token,
        "token_type": "bearer",
        "expires_in": grant.expires_in,
        "scope": grant.scope,
        "user_id": grant.session.subject,
    }
    if grant.refresh_token is not None:
        content["refresh_token"] = grant.refresh_token
    return json_reply(content)


def password_form(form: dict[str, str]) -> tuple[str, str]:
    """User name and password of a password form. Raises InvalidRequest."""
    if "username" not in form or "password" not in form:
        raise InvalidRequest("username and password are needed (JSON needs the header Content-Type: application/json).")
    return form["username"], form["password"]


def add_token(
    endpoints: Endpoints,
    *,
    login: Login,
    refresh: Refresh,
    clients: Clients,
    clock: Callable[[], Instant],
    password_grant: bool,
) -> None:
    """`/token`. Without *password_grant* (PROFILE=oauth21) the password form is an unsupported grant."""

    async def token(call: Call) -> Reply:
        """Log in with user name and password, or trade a refresh token for a new pair."""
        form = await call.form()
        # Of the query only this (RFC 6749 section 3.2 lets the URL have one): tools that know no resource parameter
        # have a place for a URL.
        resource = call.query().get("resource")
        if resource is not None and form.setdefault("resource", resource) != resource:
            raise InvalidRequest("Two resources were sent.")
        authenticated = await authenticate_client(call, form, clients, clock())
        client = FIRST_PARTY if authenticated is None else authenticated.id
        grant_type = form.get("grant_type") or ("password" if "username" in form and "password" in form else None)
        if grant_type == "password" and password_grant:
            if client != FIRST_PARTY:
                raise UnauthorizedClient
            username, password = password_form(form)
            try:
                grant = await login.with_password(
                    name=username,
                    password=password,
                    origin=origin_of(call),
                    now=clock(),
                    scope=form.get("scope"),
                    resource=form.get("resource"),
                )
            except InvalidCredentials:
                raise InvalidGrant("The credentials are not valid.") from None
            return grant_reply(grant)
        if grant_type == "refresh_token":
            if "refresh_token" not in form:
                raise InvalidRequest("refresh_token is needed.")
            return grant_reply(
                await refresh.refresh(
                    form["refresh_token"],
                    client=client,
                    origin=origin_of(call),
                    now=clock(),
                    scope=form.get("scope"),
                    resource=form.get("resource"),
                )
            )
        if grant_type is None:
            raise InvalidRequest("grant_type is needed.")
        raise UnsupportedGrantType

    endpoints.add(
        "POST",
        "/token",
        token,
        name="token",
        summary="Token",
        tag="oauth",
        answer=TokenAnswer,
        form=TokenForm,
        refusals=(
            InvalidRequest,
            InvalidGrant,
            InvalidScope,
            InvalidTarget,
            UnauthorizedClient,
            UnsupportedGrantType,
            InvalidClient,
            PayloadTooLarge,
            UnsupportedMediaType,
            TooManyAttempts,
            Busy,
        ),
        oauth=True,
        example=TOKEN_EXAMPLE,
    )
