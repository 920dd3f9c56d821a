"""/users/: everybody themselves, an administrator everybody."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from authwright.domain.errors import (
    AlreadyRegistered,
    Busy,
    Conflicting,
    Forbidden,
    InsufficientScope,
    InvalidCredentials,
    InvalidName,
    NotFound,
    TooManyAttempts,
    Unauthenticated,
    UnknownPlan,
    WeakPassword,
)
from authwright.domain.instant import Instant, isoformat
from authwright.domain.names import normal_login
from authwright.domain.plan import ADMIN
from authwright.domain.secrets import UserId
from authwright.domain.user import User
from authwright.guard.principal import Principal
from authwright.services.password import Passwords
from authwright.services.register import Register
from authwright.services.users import MOST_LISTED, Changes, Users
from authwright.services.whoami import WhoAmI
from authwright.storage.port import UserFilter
from authwright.web.accounts import ACCOUNT_EXAMPLE, BODY_REFUSALS, DELETED, Account, Done, shown_account
from authwright.web.caller import Callers, origin_of
from authwright.web.endpoint import Answer, Body, Call, Endpoints, Reply, json_reply, page_of, query_as
from authwright.web.me import caller_of


class NewUser(Body):
    """A new account. Without a password the answer has a link with which the user sets one."""

    username: str | None = Field(default=None, min_length=1, max_length=256, examples=["ada"])
    email: str | None = Field(default=None, min_length=1, max_length=320, examples=["ada@example.com"])
    password: str | None = Field(default=None, min_length=1, json_schema_extra={"format": "password"})
    role: Literal["user", "admin"] = "user"
    plan: str | None = Field(default=None, min_length=1, max_length=32, examples=["premium"])
    release_names: bool = Field(default=False, description="Let go of these names first, if they are reserved.")


class UserChange(Body):
    """What to change; any subset. An empty text takes a name or an address away; one of them must stay.

    *current_password* is needed for one's own account. *role*, *plan*, *is_active* and *release_names* are for
    administrators, and for other accounts than their own.
    """

    username: str | None = Field(default=None, max_length=256, examples=["ada"])
    email: str | None = Field(default=None, max_length=320, examples=["ada@example.com"])
    role: Literal["user", "admin"] | None = None
    plan: str | None = Field(default=None, min_length=1, max_length=32, examples=["premium"])
    is_active: bool | None = None
    current_password: str | None = Field(default=None, min_length=1, json_schema_extra={"format": "password"})
    release_names: bool = False


class Deletion(Body):
    """Needed to delete one's own account."""

    current_password: str | None = Field(default=None, min_length=1, json_schema_extra={"format": "password"})


class UserQuery(Body):
    """Which users; all conditions that are given must hold."""

    role: Literal["user", "admin"] | None = Field(default=None, description="As it was assigned.")
    plan: str | None = Field(default=None, max_length=32)
    is_active: bool | None = None
    search: str | None = Field(default=None, max_length=100, description="Part of a user name or an e-mail address.")
    limit: int = Field(default=50, ge=1, le=MOST_LISTED)
    cursor: str | None = Field(default=None, max_length=64, description="`next` of the answer before.")


class UserList(Answer):
    """Users, oldest first. *next* is the cursor of the following page; null on the last one."""

    users: list[Account]
    next: str | None


class ResetLinkShown(Answer):
    url: str
    expires_at: str


class UserMade(Account):
    reset_link: ResetLinkShown | None = Field(default=None, description="If no password was given. Shown this once.")


class UserRoutes:
    """The routes of this file."""

    def __init__(
        self,
        *,
        users: Users,
        register: Register,
        passwords: Passwords,
        whoami: WhoAmI,
        callers: Callers,
        clock: Callable[[], Instant],
    ) -> None:
        self._users = users
        self._register = register
        self._passwords = passwords
        self._whoami = whoami
        self._callers = callers
        self._clock = clock

    async def create(self, call: Call) -> Reply:
        """Make an account with any role and plan. For administrators."""
        principal = await self._callers.admin(call)
        wanted = await call.json(NewUser)
        origin, now = origin_of(call, principal), self._clock()
        user = await self._register.create(
            username=wanted.username,
            email=wanted.email,
            password=wanted.password,
            plan=wanted.plan,
            role=wanted.role,
            release=wanted.release_names,
            origin=origin,
            now=now,
            still=lambda: self._callers.admin(call),
        )
        shown = shown_account(user)
        if wanted.password is None:
            link = await self._passwords.reset_link(user, origin=origin, now=now)
            shown["reset_link"] = {"url": link.url, "expires_at": isoformat(link.expires_at)}
        return json_reply(shown, 201)

    async def list(self, call: Call) -> Reply:
        """Users, oldest first. For administrators."""
        await self._callers.admin(call)
        query = query_as(UserQuery, call.query())
        status: Literal["active", "disabled"] | None = None
        if query.is_active is not None:
            status = "active" if query.is_active else "disabled"
        which = UserFilter(role=query.role, plan=query.plan, status=status, search=query.search)
        after = None if query.cursor is None else UserId(query.cursor)
        found = await self._users.list(which, after=after, most=query.limit + 1)
        page, cursor = page_of(found, query.limit)
        return json_reply({"users": [shown_account(user) for user in page], "next": cursor})

    async def show(self, call: Call) -> Reply:
        """A user, by name, address or id: oneself, or anybody for an administrator."""
        principal = await self._callers(call)
        return json_reply(shown_account(await self._find(call, principal)))

    async def change(self, call: Call) -> Reply:
        """Change a user, any subset of what there is: oneself with `current_password`, anybody else as an
        administrator. Access tokens end; refresh tokens go on and show the change, unless the address changed or the
        account was disabled: then its sessions end before this answers."""
        principal = await self._callers.user(call)
        wanted = await call.json(UserChange)
        user = await self._find(call, principal)
        changes = Changes(
            username=wanted.username,
            email=wanted.email,
            role=wanted.role,
            plan=wanted.plan,
            status=None if wanted.is_active is None else ("active" if wanted.is_active else "disabled"),
        )
        caller, now = caller_of(call, principal), self._clock()
        if user.id == principal.subject:
            if wanted.release_names:
                raise Forbidden("Names are released for other accounts than one's own.")
            changed = await self._users.change_oneself(
                caller, changes, current_password=wanted.current_password, now=now
            )
        else:
            changed = await self._users.change(
                user.id, changes, origin=caller.origin, now=now, release=wanted.release_names
            )
        return json_reply(shown_account(changed))

    async def delete(self, call: Call) -> Reply:
        """Delete a user: oneself with `current_password`, anybody else as an administrator. Sessions and API keys end
        before this answers; names stay reserved, and the id is never used again."""
        principal = await self._callers.user(call)
        wanted = await call.json(Deletion) if call.content_type() else Deletion()
        user = await self._find(call, principal)
        caller, now = caller_of(call, principal), self._clock()
        if user.id == principal.subject:
            await self._users.delete_oneself(caller, current_password=wanted.current_password, now=now)
        else:
            await self._users.delete(user.id, origin=caller.origin, now=now)
        return DELETED

    async def _find(self, call: Call, principal: Principal) -> User:
        """The user of the path. Whoever is no administrator learns of nobody else, not even whether they exist."""
        name = call.path_parameters["username"]
        if ADMIN in principal.scopes:
            return await self._users.find(name)
        if principal.is_client:
            raise InsufficientScope(ADMIN)
        oneself = await self._whoami.find(principal)
        if isinstance(oneself, User) and (name == oneself.id or normal_login(name) in oneself.names):
            return oneself
        raise InsufficientScope(ADMIN)


def add_users(endpoints: Endpoints, routes: UserRoutes) -> None:
    """All routes of this file. `/users/me` must stand before `/users/{username}`: `me` is no user name."""
    common: dict[str, Any] = {"tag": "users", "secured": True, "charged": True}
    denied = (Unauthenticated, InsufficientScope)
    changing = (
        *BODY_REFUSALS,
        *denied,
        Forbidden,
        InvalidCredentials,
        InvalidName,
        UnknownPlan,
        NotFound,
        AlreadyRegistered,
        Conflicting,
        TooManyAttempts,
        Busy,
    )
    endpoints.add(
        "POST",
        "/users",
        routes.create,
        name="create_user",
        summary="Create a user",
        answer=UserMade,
        status=201,
        json=(NewUser,),
        refusals=(*BODY_REFUSALS, *denied, InvalidName, UnknownPlan, WeakPassword, AlreadyRegistered),
        example=ACCOUNT_EXAMPLE,
        **common,
    )
    endpoints.add(
        "GET",
        "/users",
        routes.list,
        name="users",
        summary="List users",
        answer=UserList,
        query=UserQuery,
        refusals=denied,
        **common,
    )
    endpoints.add(
        "GET",
        "/users/{username}",
        routes.show,
        name="user",
        summary="A user",
        answer=Account,
        refusals=(*denied, NotFound),
        example=ACCOUNT_EXAMPLE,
        **common,
    )
    for method, name in (("PUT", "put_user"), ("PATCH", "change_user")):
        endpoints.add(
            method,
            "/users/{username}",
            routes.change,
            name=name,
            summary="Change a user",
            answer=Account,
            json=(UserChange,),
            refusals=changing,
            example=ACCOUNT_EXAMPLE,
            **common,
        )
    endpoints.add(
        "DELETE",
        "/users/{username}",
        routes.delete,
        name="delete_user",
        summary="Delete a user",
        answer=Done,
        json=(Deletion,),
        body_optional=True,
        refusals=changing,
        example={"status": "deleted"},
        **common,
    )
