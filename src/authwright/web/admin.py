"""/admin: API clients, sessions, users' API keys, events and plans, for administrators."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from authwright.domain.client import Client
from authwright.domain.errors import (
    InsufficientScope,
    InvalidName,
    InvalidRequest,
    InvalidScope,
    InvalidTarget,
    NotFound,
    Unauthenticated,
    UnknownPlan,
)
from authwright.domain.event import EventKind, shown
from authwright.domain.instant import MICROSECONDS, Instant, isoformat
from authwright.domain.plan import DEFAULT_PLAN, Plan, Plans, format_scope, parse_scope
from authwright.domain.secrets import ApiKeyId, ClientId, SessionId, Subject, UserId
from authwright.services.api_keys import ApiKeys
from authwright.services.clients import Clients, NewKey
from authwright.services.events import MOST_LISTED, Events
from authwright.services.logout import Logout
from authwright.services.users import Users
from authwright.storage.port import EventFilter
from authwright.web.accounts import BODY_REFUSALS, DELETED, LOGGED_OUT, Done
from authwright.web.caller import Callers, origin_of
from authwright.web.endpoint import Answer, Body, Call, Endpoints, Reply, json_reply, page_of, query_as
from authwright.web.me import ApiKeyShown, SessionShown, shown_api_key, shown_session


class ClientShown(Answer):
    """An API client. *client_id* is its `sub` and its `user_id`; *key_hint* is how its key begins."""

    client_id: str
    name: str
    status: Literal["active", "disabled"]
    key_hint: str
    scope: str
    audiences: list[str]
    plan: str
    created_at: str


class ClientMade(ClientShown):
    client_key: str = Field(description="Shown this once.")


class ClientList(Answer):
    clients: list[ClientShown]


class NewClient(Body):
    """An API client. *scope* and *audiences*: all there are, if left out."""

    name: str = Field(min_length=1, max_length=100, examples=["nightly scoring"])
    scope: str | None = Field(default=None, examples=["predict"])
    audiences: list[str] | None = Field(default=None, max_length=32)
    plan: str = Field(default=DEFAULT_PLAN, max_length=32)


class SessionPage(Answer):
    """Live sessions. *next* is the cursor of the following page; null on the last one."""

    sessions: list[SessionShown]
    next: str | None


class KeyPage(Answer):
    """Users' API keys. *next* is the cursor of the following page; null on the last one."""

    keys: list[ApiKeyShown]
    next: str | None


class OwnerQuery(Body):
    user: str | None = Field(default=None, max_length=320, description="Name, address or id of a user; id of a client.")
    limit: int = Field(default=50, ge=1, le=MOST_LISTED)
    cursor: str | None = Field(default=None, max_length=64, description="`next` of the answer before.")


class EventQuery(Body):
    """Which events; all conditions that are given must hold."""

    kind: EventKind | None = None
    outcome: Literal["success", "failure"] | None = None
    subject: str | None = Field(default=None, max_length=64, description="Id of the user or client it concerns.")
    actor: str | None = Field(default=None, max_length=64, description="Id of who did it; `command` for the terminal.")
    address: str | None = Field(default=None, max_length=64)
    since: AwareDatetime | None = Field(default=None, description="RFC 3339.")
    until: AwareDatetime | None = Field(default=None, description="RFC 3339; not included.")
    limit: int = Field(default=50, ge=1, le=MOST_LISTED)
    cursor: int | None = Field(default=None, ge=1, le=2**62, description="`next` of the answer before.")


class EventShown(Answer):
    """What happened. *actor* did it to *subject*; empty where nobody is known. *request_id* stands in the log, too."""

    number: int
    at: str
    kind: EventKind
    outcome: Literal["success", "failure"]
    actor: str
    subject: str
    client_id: str
    session_id: str
    address: str
    user_agent: str
    request_id: str
    detail: str


class EventPage(Answer):
    """Events, newest first. *next* is the cursor of the following page; null on the last one."""

    events: list[EventShown]
    next: int | None


class PlanShown(Answer):
    """A plan, the scopes that it permits, and how much: null where there is no limit."""

    name: str
    permissions: list[str]
    rate: str | None = Field(examples=["60/minute"])
    burst: int | None = Field(description="Units that may come at once.", examples=[60])
    quota: dict[str, int] = Field(description="Units in a day and in a month of UTC.", examples=[{"day": 1000}])
    concurrent: int | None = Field(description="Calls at once, in each process.")
    weights: dict[str, int] = Field(description="What a call costs, by route; others cost 1.")


class PlanList(Answer):
    plans: list[PlanShown]
    default: str


def shown_client(client: Client) -> dict[str, Any]:
    """*client* as answers show it."""
    return {
        "client_id": client.id,
        "name": client.name,
        "status": client.status,
        "key_hint": client.key_hint,
        "scope": format_scope(client.scope),
        "audiences": list(client.audiences),
        "plan": client.plan,
        "created_at": isoformat(client.created_at),
    }


def _shown_plan(plan: Plan) -> dict[str, object]:
    quota = {"day": plan.daily, "month": plan.monthly}
    return {
        "name": plan.name,
        "permissions": sorted(plan.scopes),
        "rate": None if plan.rate is None else plan.rate.text,
        "burst": None if plan.rate is None else plan.rate.burst,
        "quota": {period: units for period, units in quota.items() if units is not None},
        "concurrent": plan.concurrent,
        "weights": dict(plan.weights),
    }


class AdminRoutes:
    """The routes of this file."""

    def __init__(
        self,
        *,
        clients: Clients,
        users: Users,
        api_keys: ApiKeys,
        logout: Logout,
        events: Events,
        plans: Plans,
        callers: Callers,
        clock: Callable[[], Instant],
    ) -> None:
        self._clients = clients
        self._users = users
        self._api_keys = api_keys
        self._logout = logout
        self._events = events
        self._plans = plans
        self._callers = callers
        self._clock = clock

    async def clients(self, call: Call) -> Reply:
        """All API clients, oldest first."""
        await self._callers.admin(call)
        return json_reply({"clients": [shown_client(client) for client in await self._clients.all()]})

    async def create_client(self, call: Call) -> Reply:
        """Make an API client. Its key is shown this once."""
        principal = await self._callers.admin(call)
        wanted = await call.json(NewClient)
        made = await self._clients.create(
            name=wanted.name,
            scope=None if wanted.scope is None else parse_scope(wanted.scope),
            audiences=None if wanted.audiences is None else tuple(wanted.audiences),
            plan=wanted.plan,
            origin=origin_of(call, principal),
            now=self._clock(),
        )
        return json_reply(_with_key(made), 201)

    async def client(self, call: Call) -> Reply:
        """One API client."""
        await self._callers.admin(call)
        return json_reply(shown_client(await self._clients.find(_client_id(call))))

    async def rotate_client_key(self, call: Call) -> Reply:
        """Give a client a new key, shown this once. The old one and every session of it end before this answers."""
        principal = await self._callers.admin(call)
        origin = origin_of(call, principal)
        return json_reply(_with_key(await self._clients.rotate_key(_client_id(call), origin=origin, now=self._clock())))

    async def disable_client(self, call: Call) -> Reply:
        """Disable a client: its key and every session of it end before this answers. It stays in the list."""
        principal = await self._callers.admin(call)
        await self._clients.disable(_client_id(call), origin=origin_of(call, principal), now=self._clock())
        return json_reply({"status": "disabled"})

    async def sessions(self, call: Call) -> Reply:
        """Live sessions: of one user or client, most recently used first, or of everybody, page by page."""
        principal = await self._callers.admin(call)
        query, now = query_as(OwnerQuery, call.query()), self._clock()
        cursor: str | None = None
        if query.user is not None:
            found: Sequence[Any] = await self._logout.live_sessions(Subject(await self._owner(query.user)), now=now)
        else:
            after = None if query.cursor is None else SessionId(query.cursor)
            rows = await self._logout.all_sessions(now=now, after=after, most=query.limit + 1)
            found, cursor = page_of(rows, query.limit)
        shown = [shown_session(session, principal.session_id) for session in found]
        return json_reply({"sessions": shown, "next": cursor})

    async def end_session(self, call: Call) -> Reply:
        """End anybody's session: its tokens are refused from the answer on."""
        principal = await self._callers.admin(call)
        await self._logout.one_session(
            SessionId(call.path_parameters["session_id"]),
            subject=None,
            origin=origin_of(call, principal),
            now=self._clock(),
        )
        return LOGGED_OUT

    async def api_keys(self, call: Call) -> Reply:
        """Users' API keys: of one user, or of everybody, page by page."""
        await self._callers.admin(call)
        query = query_as(OwnerQuery, call.query())
        owner = None if query.user is None else UserId(await self._owner(query.user))
        after = None if query.cursor is None else ApiKeyId(query.cursor)
        found, cursor = page_of(await self._api_keys.list(owner, after=after, most=query.limit + 1), query.limit)
        return json_reply({"keys": [shown_api_key(key) for key in found], "next": cursor})

    async def delete_api_key(self, call: Call) -> Reply:
        """Delete anybody's API key: it, its sessions and their tokens are refused from the answer on."""
        principal = await self._callers.admin(call)
        await self._api_keys.delete(
            ApiKeyId(call.path_parameters["key_id"]),
            user_id=None,
            origin=origin_of(call, principal),
            now=self._clock(),
        )
        return DELETED

    async def events(self, call: Call) -> Reply:
        """Security events, newest first."""
        await self._callers.admin(call)
        query = query_as(EventQuery, call.query())
        which = EventFilter(
            kind=query.kind,
            outcome=query.outcome,
            subject=query.subject,
            actor=query.actor,
            address=query.address,
            since=_instant(query.since),
            until=_instant(query.until),
        )
        found = await self._events.list(which, before=query.cursor, most=query.limit + 1)
        page = found[: query.limit]
        cursor = page[-1].number if len(found) > len(page) else None
        return json_reply({"events": [shown(event) for event in page], "next": cursor})

    async def plans(self, call: Call) -> Reply:
        """The plans there are, what they permit, and how much."""
        await self._callers.admin(call)
        return json_reply({"plans": [_shown_plan(plan) for plan in self._plans], "default": DEFAULT_PLAN})

    async def _owner(self, name: str) -> str:
        return name if name.startswith("cli_") else (await self._users.find(name)).id


def _with_key(made: NewKey) -> dict[str, Any]:
    return {**shown_client(made.client), "client_key": made.client_key}


def _client_id(call: Call) -> ClientId:
    return ClientId(call.path_parameters["client_id"])


def _instant(moment: datetime | None) -> Instant | None:
    try:
        return None if moment is None else Instant(round(moment.timestamp() * MICROSECONDS))
    except (OverflowError, ValueError):
        raise InvalidRequest("The time is out of range.") from None


def add_admin(endpoints: Endpoints, routes: AdminRoutes) -> None:
    """All routes of this file."""
    common: dict[str, Any] = {"tag": "admin", "secured": True}
    denied = (Unauthenticated, InsufficientScope)
    add = endpoints.add
    add(
        "GET",
        "/admin/clients",
        routes.clients,
        name="clients",
        summary="List clients",
        answer=ClientList,
        refusals=denied,
        **common,
    )
    add(
        "POST",
        "/admin/clients",
        routes.create_client,
        name="create_client",
        summary="Create a client",
        answer=ClientMade,
        status=201,
        json=(NewClient,),
        refusals=(*BODY_REFUSALS, *denied, InvalidName, InvalidScope, InvalidTarget, UnknownPlan),
        **common,
    )
    one = "/admin/clients/{client_id}"
    add(
        "GET",
        one,
        routes.client,
        name="client",
        summary="A client",
        answer=ClientShown,
        refusals=(*denied, NotFound),
        **common,
    )
    add(
        "DELETE",
        one,
        routes.disable_client,
        name="disable_client",
        summary="Disable a client",
        answer=Done,
        refusals=(*denied, NotFound),
        example={"status": "disabled"},
        **common,
    )
    add(
        "POST",
        one + "/rotate-key",
        routes.rotate_client_key,
        name="rotate_client_key",
        summary="Rotate a client's key",
        answer=ClientMade,
        refusals=(*denied, NotFound),
        **common,
    )
    add(
        "GET",
        "/admin/sessions",
        routes.sessions,
        name="sessions",
        summary="List sessions",
        answer=SessionPage,
        query=OwnerQuery,
        refusals=(*denied, NotFound),
        **common,
    )
    add(
        "DELETE",
        "/admin/sessions/{session_id}",
        routes.end_session,
        name="end_session",
        summary="End a session",
        answer=Done,
        refusals=(*denied, NotFound),
        example={"status": "logged_out"},
        **common,
    )
    add(
        "GET",
        "/admin/keys",
        routes.api_keys,
        name="api_keys",
        summary="List API keys",
        answer=KeyPage,
        query=OwnerQuery,
        refusals=(*denied, NotFound),
        **common,
    )
    add(
        "DELETE",
        "/admin/keys/{key_id}",
        routes.delete_api_key,
        name="delete_api_key",
        summary="Delete an API key",
        answer=Done,
        refusals=(*denied, NotFound),
        example={"status": "deleted"},
        **common,
    )
    add(
        "GET",
        "/admin/events",
        routes.events,
        name="events",
        summary="Security events",
        answer=EventPage,
        query=EventQuery,
        refusals=denied,
        **common,
    )
    add(
        "GET",
        "/admin/plans",
        routes.plans,
        name="plans",
        summary="Plans",
        answer=PlanList,
        refusals=denied,
        **common,
    )
