"""What users change of themselves: name, address, password, sessions, API keys."""

from collections.abc import Callable
from typing import Any

from pydantic import Field

from authwright.domain.api_key import MOST_API_KEYS, ApiKey
from authwright.domain.errors import (
    AlreadyRegistered,
    Busy,
    Conflicting,
    Forbidden,
    InsufficientScope,
    InvalidCredentials,
    InvalidName,
    InvalidScope,
    NotFound,
    TooManyAttempts,
    Unauthenticated,
    WeakPassword,
)
from authwright.domain.instant import Instant, isoformat
from authwright.domain.plan import format_scope, parse_scope
from authwright.domain.secrets import ApiKeyId, SessionId, Subject, UserId
from authwright.domain.session import Session
from authwright.guard.principal import Principal
from authwright.services.api_keys import ApiKeys
from authwright.services.logout import Logout
from authwright.services.password import Passwords
from authwright.services.users import Caller, Changes, Users
from authwright.web.accounts import (
    ACCOUNT_EXAMPLE,
    BODY_REFUSALS,
    DELETED,
    LOGGED_OUT,
    Account,
    Done,
    session_of,
    shown_account,
)
from authwright.web.caller import Callers, origin_of
from authwright.web.endpoint import Answer, Body, Call, Endpoints, Reply, json_reply
from authwright.web.oauth.token import TOKEN_EXAMPLE, TokenAnswer, grant_reply


class SelfChange(Body):
    """What to change of oneself. An empty text takes a name or an address away; one of them must stay."""

    username: str | None = Field(default=None, max_length=256, examples=["ada"])
    email: str | None = Field(default=None, max_length=320, examples=["ada@example.com"])
    current_password: str | None = Field(default=None, min_length=1, json_schema_extra={"format": "password"})


class NewKey(Body):
    """An API key: its *scope* (all of one's permissions, if left out) and the *days* until it expires."""

    name: str = Field(min_length=1, max_length=100, examples=["nightly scoring"])
    scope: str | None = Field(default=None, examples=["predict"])
    days: int = Field(default=90, ge=1, le=366)


class PasswordChange(Body):
    """The password as it is, and as it shall be."""

    current_password: str = Field(min_length=1, json_schema_extra={"format": "password"})
    new_password: str = Field(min_length=1, json_schema_extra={"format": "password"})


class SessionShown(Answer):
    """One login. *current* marks the one this request belongs to."""

    id: str
    user_id: str
    client_id: str
    created_at: str
    last_used_at: str
    expires_at: str
    user_agent: str
    address: str
    current: bool


class ApiKeyShown(Answer):
    """An API key, without the key itself: *hint* is how it begins."""

    id: str
    user_id: str
    name: str
    hint: str
    scope: str
    created_at: str
    expires_at: str


class ApiKeyMade(ApiKeyShown):
    key: str = Field(description="Shown this once.")


class ApiKeyList(Answer):
    keys: list[ApiKeyShown]


class SessionList(Answer):
    sessions: list[SessionShown]


def shown_api_key(key: ApiKey) -> dict[str, Any]:
    """*key* as answers show it."""
    return {
        "id": key.id,
        "user_id": key.user_id,
        "name": key.name,
        "hint": key.key_hint,
        "scope": format_scope(key.scope),
        "created_at": isoformat(key.created_at),
        "expires_at": isoformat(key.expires_at),
    }


def caller_of(call: Call, principal: Principal) -> Caller:
    """Who makes *call*, as the services that change users need it."""
    session_id = None if principal.session_id is None else SessionId(principal.session_id)
    return Caller(Subject(principal.subject), session_id, principal.auth_epoch, origin_of(call, principal))


def shown_session(session: Session, current: str | None) -> dict[str, Any]:
    """*session* as answers show it; *current* is the one of the request."""
    return {
        "id": session.id,
        "user_id": session.subject,
        "client_id": session.client_id,
        "created_at": isoformat(session.created_at),
        "last_used_at": isoformat(session.used_at),
        "expires_at": isoformat(session.idle_expires_at),
        "user_agent": session.user_agent,
        "address": session.address,
        "current": session.id == current,
    }


class Me:
    """The routes of this file."""

    def __init__(
        self,
        *,
        users: Users,
        passwords: Passwords,
        api_keys: ApiKeys,
        logout: Logout,
        callers: Callers,
        clock: Callable[[], Instant],
    ) -> None:
        self._users = users
        self._passwords = passwords
        self._api_keys = api_keys
        self._logout = logout
        self._callers = callers
        self._clock = clock

    async def change_me(self, call: Call) -> Reply:
        """Change the caller's user name or address; both need `current_password`. A new address ends the other
        sessions. Access tokens end; the refresh token goes on and shows the change."""
        principal = await self._callers.user(call)
        wanted = await call.json(SelfChange)
        user = await self._users.change_oneself(
            caller_of(call, principal),
            Changes(username=wanted.username, email=wanted.email),
            current_password=wanted.current_password,
            now=self._clock(),
        )
        return json_reply(shown_account(user))

    async def api_keys(self, call: Call) -> Reply:
        """The caller's API keys."""
        principal = await self._callers.user(call)
        found = await self._api_keys.list(UserId(principal.subject), after=None, most=MOST_API_KEYS)
        return json_reply({"keys": [shown_api_key(key) for key in found]})

    async def create_api_key(self, call: Call) -> Reply:
        """Make an API key for a program of one's own. Send it as a bearer token, or log in with it as `client_key`.
        It never has the scopes `account` and `admin`."""
        principal = await self._callers.user(call)
        wanted = await call.json(NewKey)
        made = await self._api_keys.create(
            principal,
            name=wanted.name,
            scope=None if wanted.scope is None else parse_scope(wanted.scope),
            days=wanted.days,
            origin=origin_of(call, principal),
            now=self._clock(),
        )
        return json_reply({**shown_api_key(made.api_key), "key": made.key}, 201)

    async def delete_api_key(self, call: Call) -> Reply:
        """Delete one of the caller's API keys. It, its sessions and their tokens are refused from the answer on."""
        principal = await self._callers.user(call)
        await self._api_keys.delete(
            ApiKeyId(call.path_parameters["key_id"]),
            user_id=UserId(principal.subject),
            origin=origin_of(call, principal),
            now=self._clock(),
        )
        return DELETED

    async def sessions(self, call: Call) -> Reply:
        """The caller's live sessions, most recently used first."""
        principal = await self._callers.themselves(call)
        found = await self._logout.live_sessions(Subject(principal.subject), now=self._clock())
        return json_reply({"sessions": [shown_session(session, principal.session_id) for session in found]})

    async def end_session(self, call: Call) -> Reply:
        """End one of the caller's sessions."""
        principal = await self._callers.themselves(call)
        session_id = SessionId(call.path_parameters["session_id"])
        await self._logout.one_session(
            session_id, subject=Subject(principal.subject), origin=origin_of(call, principal), now=self._clock()
        )
        return LOGGED_OUT

    async def change_password(self, call: Call) -> Reply:
        """Change the caller's password. All its other sessions end; this one goes on with the answer's access token
        and the refresh token it has."""
        principal = await self._callers.user(call)
        wanted = await call.json(PasswordChange)
        grant = await self._passwords.change(
            Subject(principal.subject),
            session_of(principal),
            epoch=principal.auth_epoch,
            current=wanted.current_password,
            new=wanted.new_password,
            origin=origin_of(call, principal),
            now=self._clock(),
        )
        return grant_reply(grant)


def add_me(endpoints: Endpoints, routes: Me) -> None:
    """All routes of this file."""
    add = endpoints.add
    add(
        "PATCH",
        "/me",
        routes.change_me,
        name="change_me",
        summary="Change me",
        tag="me",
        answer=Account,
        json=(SelfChange,),
        refusals=(
            *BODY_REFUSALS,
            Unauthenticated,
            InvalidCredentials,
            InsufficientScope,
            InvalidName,
            AlreadyRegistered,
            Conflicting,
            TooManyAttempts,
            Busy,
        ),
        secured=True,
        charged=True,
        example=ACCOUNT_EXAMPLE,
    )
    add(
        "GET",
        "/me/keys",
        routes.api_keys,
        name="my_keys",
        summary="My API keys",
        tag="me",
        answer=ApiKeyList,
        refusals=(Unauthenticated, InsufficientScope),
        secured=True,
        charged=True,
    )
    add(
        "POST",
        "/me/keys",
        routes.create_api_key,
        name="create_my_key",
        summary="Make an API key",
        tag="me",
        answer=ApiKeyMade,
        status=201,
        json=(NewKey,),
        refusals=(*BODY_REFUSALS, Unauthenticated, InsufficientScope, InvalidScope, InvalidName, Forbidden),
        secured=True,
        charged=True,
    )
    add(
        "DELETE",
        "/me/keys/{key_id}",
        routes.delete_api_key,
        name="delete_my_key",
        summary="Delete an API key",
        tag="me",
        answer=Done,
        refusals=(Unauthenticated, InsufficientScope, NotFound),
        secured=True,
        charged=True,
        example={"status": "deleted"},
    )
    add(
        "GET",
        "/me/sessions",
        routes.sessions,
        name="my_sessions",
        summary="My sessions",
        tag="me",
        answer=SessionList,
        refusals=(Unauthenticated, InsufficientScope),
        secured=True,
        charged=True,
    )
    add(
        "DELETE",
        "/me/sessions/{session_id}",
        routes.end_session,
        name="end_my_session",
        summary="End one of my sessions",
        tag="me",
        answer=Done,
        refusals=(Unauthenticated, InsufficientScope, NotFound),
        secured=True,
        charged=True,
        example={"status": "logged_out"},
    )
    add(
        "POST",
        "/me/password",
        routes.change_password,
        name="change_my_password",
        summary="Change my password",
        tag="me",
        answer=TokenAnswer,
        json=(PasswordChange,),
        refusals=(
            *BODY_REFUSALS,
            Unauthenticated,
            InvalidCredentials,
            InsufficientScope,
            WeakPassword,
            TooManyAttempts,
            Busy,
        ),
        secured=True,
        charged=True,
        example={name: value for name, value in TOKEN_EXAMPLE.items() if name != "refresh_token"},
    )
