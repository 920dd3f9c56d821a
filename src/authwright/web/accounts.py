"""Accounts: register, log in, refresh, log out, and what callers see and change of themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from authwright.domain.client import Client
from authwright.domain.errors import (
    AlreadyRegistered,
    Busy,
    InsufficientScope,
    InvalidCredentials,
    InvalidGrant,
    InvalidName,
    InvalidRequest,
    InvalidScope,
    InvalidTarget,
    PayloadTooLarge,
    PlanNotSelfService,
    RegistrationClosed,
    TooManyAttempts,
    Unauthenticated,
    UnknownPlan,
    UnprocessableContent,
    UnsupportedGrantType,
    UnsupportedMediaType,
    WeakPassword,
)
from authwright.domain.instant import Instant, isoformat
from authwright.domain.secrets import SessionId, Subject
from authwright.domain.user import User
from authwright.guard.principal import Principal
from authwright.services.login import Login
from authwright.services.logout import Logout
from authwright.services.refresh import Refresh
from authwright.services.register import Register
from authwright.services.tokens import Grant
from authwright.services.verify import ExpiredToken
from authwright.services.whoami import WhoAmI
from authwright.web.caller import Callers, origin_of
from authwright.web.endpoint import FORM, Answer, Body, Call, Endpoints, Reply, as_model, json_reply
from authwright.web.errors import JSON
from authwright.web.oauth.token import TOKEN_EXAMPLE, TokenAnswer, TokenForm, grant_reply, password_form

BODY_REFUSALS = (InvalidRequest, UnprocessableContent, PayloadTooLarge, UnsupportedMediaType)


class Registration(Body):
    """A new account: a user name, an e-mail address, or both."""

    username: str | None = Field(default=None, min_length=1, max_length=256, examples=["bholay"])
    email: str | None = Field(default=None, min_length=1, max_length=320, examples=["user@example.com"])
    password: str = Field(min_length=1, examples=["test123"], json_schema_extra={"format": "password"})
    plan: str | None = Field(default=None, min_length=1, max_length=32, examples=["premium"])


class PasswordLogin(Body):
    """User name (or e-mail address) and password."""

    username: str = Field(min_length=1, examples=["bholay"])
    password: str = Field(min_length=1, examples=["test123"], json_schema_extra={"format": "password"})
    scope: str | None = None
    resource: str | None = None


class KeyLogin(Body):
    """A client's key, or one of a user's API keys."""

    client_key: str = Field(min_length=1, examples=["awk_..."], json_schema_extra={"format": "password"})
    scope: str | None = None
    resource: str | None = None


class RefreshRequest(Body):
    """A refresh token; *scope* and *resource* narrow the new access token."""

    refresh_token: str = Field(min_length=1, examples=["awr_AQ..."])
    scope: str | None = None
    resource: str | None = None


class LogoutRequest(Body):
    """Needed only when the access token has expired."""

    refresh_token: str | None = Field(default=None, min_length=1, examples=["awr_AQ..."])


class LogoutQuery(Body):
    everywhere: bool = Field(default=False, description="End all sessions, not only this one.")


class Account(Answer):
    """A user or an API client. *role* is `admin` for whoever has the role or the plan `admin`."""

    id: str
    kind: Literal["user", "client"]
    username: str | None
    email: str | None
    is_active: bool
    role: Literal["user", "admin"]
    plan: str
    created_at: str = Field(description="RFC 3339, UTC.")


class Done(Answer):
    status: str


ACCOUNT_EXAMPLE = {
    "id": "usr_0Zr4Yq1mQ2u4b1kQq7c3xA",
    "kind": "user",
    "username": "bholay",
    "email": "bholay@example.com",
    "is_active": True,
    "role": "user",
    "plan": "premium",
    "created_at": "2026-11-21T06:38:00.000000Z",
}


@dataclass(frozen=True, slots=True)
class AccountServices:
    """What these routes call."""

    register: Register
    login: Login
    refresh: Refresh
    logout: Logout
    whoami: WhoAmI


def shown_account(account: User | Client) -> dict[str, Any]:
    """*account* as answers show it."""
    is_user = isinstance(account, User)
    return {
        "id": account.id,
        "kind": "user" if is_user else "client",
        "username": account.username if isinstance(account, User) else account.name,
        "email": account.email if isinstance(account, User) else None,
        "is_active": account.status == "active",
        "role": account.shown_role if isinstance(account, User) else "user",
        "plan": account.plan,
        "created_at": isoformat(account.created_at),
    }


def session_of(principal: Principal) -> SessionId:
    """The session that the caller's token belongs to. Raises Unauthenticated: a key as it is belongs to none."""
    if principal.session_id is None:
        raise Unauthenticated(detail="token without a session")
    return SessionId(principal.session_id)


class Accounts:
    """The routes of this file."""

    def __init__(
        self,
        services: AccountServices,
        callers: Callers,
        charged: Callers,
        clock: Callable[[], Instant],
        *,
        password_grant: bool,
    ) -> None:
        self._services = services
        self._callers = callers
        self._charged = charged
        self._clock = clock
        self._password_grant = password_grant

    async def register(self, call: Call) -> Reply:
        """Make an account. Whether a stranger may, and with which plan, depends on how the server is run."""
        wanted = await call.json(Registration)
        user = await self._services.register.sign_up(
            username=wanted.username,
            email=wanted.email,
            password=wanted.password,
            plan=wanted.plan,
            origin=origin_of(call),
            now=self._clock(),
        )
        return json_reply(shown_account(user), 201)

    async def login(self, call: Call) -> Reply:
        """Log in: a password form, JSON with user name and password, or JSON with a key: a client's, or one of a
        user's API keys."""
        if call.content_type() == FORM:
            form = await call.form()
            username, password = password_form(form)
            if form.get("grant_type", "password") != "password":
                raise UnsupportedGrantType
            return grant_reply(
                await self._with_password(call, username, password, form.get("scope"), form.get("resource"))
            )
        if call.content_type() != JSON:
            raise UnsupportedMediaType(f"The body must be {FORM} or {JSON}; name it in the header Content-Type.")
        content = await call.json_object()
        if "client_key" in content:
            key = as_model(KeyLogin, content)
            return grant_reply(
                await self._services.login.with_key(
                    key=key.client_key,
                    origin=origin_of(call),
                    now=self._clock(),
                    scope=key.scope,
                    resource=key.resource,
                )
            )
        given = as_model(PasswordLogin, content)
        return grant_reply(await self._with_password(call, given.username, given.password, given.scope, given.resource))

    async def _with_password(
        self, call: Call, username: str, password: str, scope: str | None, resource: str | None
    ) -> Grant:
        if not self._password_grant:
            raise UnsupportedGrantType
        return await self._services.login.with_password(
            name=username, password=password, origin=origin_of(call), now=self._clock(), scope=scope, resource=resource
        )

    async def refresh(self, call: Call) -> Reply:
        """Trade a refresh token for the next pair. The one sent is spent; sent again within seconds, as after a
        lost answer, it yields the same successor; later, it ends the session."""
        wanted = await call.json(RefreshRequest)
        return grant_reply(
            await self._services.refresh.refresh(
                wanted.refresh_token,
                client=None,
                origin=origin_of(call),
                now=self._clock(),
                scope=wanted.scope,
                resource=wanted.resource,
            )
        )

    async def logout(self, call: Call) -> Reply:
        """End this session, or with `everywhere=true` all sessions of the caller. When this answers, their access and
        refresh tokens are refused. With an expired access token, send the refresh token in the body."""
        everywhere = _everywhere(call)
        wanted = LogoutRequest()
        if call.content_type():
            wanted = await call.json(LogoutRequest)
        now = self._clock()
        try:
            principal = await (self._callers.themselves(call) if everywhere else self._callers(call))
        except Unauthenticated as refusal:
            # Only an expired token, or none at all, gives way to the refresh token; an invalid one never does.
            usable = isinstance(refusal, ExpiredToken) or not refusal.presented
            if wanted.refresh_token is None or not usable:
                raise
            await self._services.logout.by_refresh_token(
                wanted.refresh_token, everywhere=everywhere, origin=origin_of(call), now=now
            )
            return LOGGED_OUT
        subject, origin = Subject(principal.subject), origin_of(call, principal)
        if everywhere:
            await self._services.logout.everywhere(subject, origin=origin, now=now)
        else:
            await self._services.logout.session(session_of(principal), subject=subject, origin=origin, now=now)
        return LOGGED_OUT

    async def me(self, call: Call) -> Reply:
        """The caller: a user or an API client."""
        principal = await self._charged(call)
        return json_reply(shown_account(await self._services.whoami.find(principal)))


LOGGED_OUT = json_reply({"status": "logged_out"})
DELETED = json_reply({"status": "deleted"})


def _everywhere(call: Call) -> bool:
    value = call.query().get("everywhere", "false")
    if value not in ("true", "false"):
        raise InvalidRequest("everywhere is true or false.")
    return value == "true"


def add_accounts(endpoints: Endpoints, routes: Accounts) -> None:
    """All routes of this file."""
    add = endpoints.add
    add(
        "POST",
        "/refresh-token",
        routes.refresh,
        name="refresh_token",
        summary="Refresh",
        tag="accounts",
        answer=TokenAnswer,
        json=(RefreshRequest,),
        refusals=(*BODY_REFUSALS, InvalidGrant, InvalidScope, InvalidTarget),
        example=TOKEN_EXAMPLE,
    )
    add(
        "POST",
        "/login",
        routes.login,
        name="login",
        summary="Log in",
        tag="accounts",
        answer=TokenAnswer,
        json=(PasswordLogin, KeyLogin),
        form=TokenForm,
        refusals=(
            *BODY_REFUSALS,
            InvalidCredentials,
            InvalidScope,
            InvalidTarget,
            UnsupportedGrantType,
            TooManyAttempts,
            Busy,
        ),
        example=TOKEN_EXAMPLE,
    )
    for path, name in (("/me", "me"), ("/users/me", "users_me")):
        add(
            "GET",
            path,
            routes.me,
            name=name,
            summary="Who am I",
            tag="accounts",
            answer=Account,
            refusals=(Unauthenticated,),
            secured=True,
            charged=True,
            example=ACCOUNT_EXAMPLE,
        )
    add(
        "POST",
        "/logout",
        routes.logout,
        name="logout",
        summary="Log out",
        tag="accounts",
        answer=Done,
        json=(LogoutRequest,),
        query=LogoutQuery,
        body_optional=True,
        refusals=(*BODY_REFUSALS, InvalidGrant, Unauthenticated, InsufficientScope),
        secured=True,
        example={"status": "logged_out"},
    )
    add(
        "POST",
        "/register",
        routes.register,
        name="register",
        summary="Register",
        tag="accounts",
        answer=Account,
        status=201,
        json=(Registration,),
        refusals=(
            *BODY_REFUSALS,
            RegistrationClosed,
            PlanNotSelfService,
            AlreadyRegistered,
            WeakPassword,
            InvalidName,
            UnknownPlan,
            TooManyAttempts,
            Busy,
        ),
        example=ACCOUNT_EXAMPLE,
    )
