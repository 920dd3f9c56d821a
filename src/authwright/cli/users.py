"""authwright users ..."""

import getpass
import json
import sys
from typing import Annotated, Any

import typer

from authwright.cli.run import fail, with_server
from authwright.cli.transfer import export_users, import_users
from authwright.domain.event import COMMAND_LINE
from authwright.domain.instant import isoformat
from authwright.domain.passwords import UnsupportedHash
from authwright.domain.plan import ROLES, Role
from authwright.domain.user import User
from authwright.services.password import ResetLink
from authwright.services.users import Changes
from authwright.storage.port import UserFilter

app = typer.Typer(help="Accounts.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
UserArgument = Annotated[str, typer.Argument(metavar="USER", help="User name, e-mail address or id.")]
_PAGE = 200


@app.callback()
def group() -> None:
    """Accounts."""


@app.command()
def create(
    username: Annotated[str | None, typer.Option(help="User name.")] = None,
    email: Annotated[str | None, typer.Option(help="E-mail address.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="Give the role admin.")] = False,
    plan: Annotated[str | None, typer.Option(help="free, premium, admin, or a configured one.")] = None,
    password_hash: Annotated[
        str | None,
        typer.Option(help="A hash made elsewhere (bcrypt, Argon2id, PBKDF2, scrypt), instead of a password."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Create a user. The password is asked for, or read as one line from standard input.

    Example:  echo "$PASSWORD" | authwright users create --username ada --email ada@example.com --admin
    """
    role: Role = "admin" if admin else "user"
    given: dict[str, Any] = {"username": username, "email": email, "plan": plan, "role": role}
    password = "" if password_hash else _read_password()

    async def work(server: Any) -> User:
        by: dict[str, Any] = {"origin": COMMAND_LINE, "now": server.clock()}
        if password_hash:
            created: User = await server.register.create_with_hash(**given, password_hash=password_hash, **by)
        else:
            created = await server.register.create(**given, password=password, **by)
        return created

    try:
        user = with_server(work)
    except UnsupportedHash as error:
        fail(f"The hash cannot be used: {error}.")
    if as_json:
        shown = _shown(user)
        typer.echo(json.dumps({name: shown[name] for name in ("id", "username", "email", "role", "plan")}))
    else:
        typer.echo(f"Created {user.shown_role} {user.username or user.email} ({user.id}).")


@app.command("list")
def list_users(
    search: Annotated[str | None, typer.Option(help="Part of a user name or an e-mail address.")] = None,
    plan: Annotated[str | None, typer.Option(help="Only this plan.")] = None,
    role: Annotated[str | None, typer.Option(help="Only this role, as it was assigned: user or admin.")] = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Only those who are disabled.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON, a line for each user.")] = False,
) -> None:
    """List users, oldest first.

    Example:  authwright users list --plan premium
    """
    which = UserFilter(role=role, plan=plan, status="disabled" if disabled else None, search=search)

    async def work(server: Any) -> None:
        after = None
        while page := await server.users.list(which, after=after, most=_PAGE):
            for user in page:
                typer.echo(json.dumps(_shown(user)) if as_json else _line(user))
            after = page[-1].id

    with_server(work)


@app.command()
def show(user: UserArgument, as_json: Json = False) -> None:
    """Show a user.

    Example:  authwright users show ada@example.com
    """

    async def work(server: Any) -> User:
        found: User = await server.users.find(user)
        return found

    shown = _shown(with_server(work))
    typer.echo(json.dumps(shown) if as_json else "\n".join(f"{name:11}{value}" for name, value in shown.items()))


@app.command()
def update(
    user: UserArgument,
    username: Annotated[str | None, typer.Option(help="New user name; '' takes it away.")] = None,
    email: Annotated[str | None, typer.Option(help="New e-mail address; '' takes it away. Ends all sessions.")] = None,
    role: Annotated[str | None, typer.Option(help="user or admin.")] = None,
    plan: Annotated[str | None, typer.Option(help="free, premium, admin, or a configured one.")] = None,
    enable: Annotated[bool, typer.Option("--enable", help="Let a disabled user in again.")] = False,
    release: Annotated[
        bool, typer.Option("--release", help="Let go of the new names first, if they are reserved.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Change a user. Access tokens end; sessions go on and show the change at their next refresh.

    Example:  authwright users update ada --plan premium
    """
    wanted = Changes(
        username=username, email=email, role=_as_role(role), plan=plan, status="active" if enable else None
    )

    async def work(server: Any) -> User:
        changed: User = await server.users.change(
            user, wanted, origin=COMMAND_LINE, now=server.clock(), release=release
        )
        return changed

    changed = with_server(work)
    typer.echo(json.dumps(_shown(changed)) if as_json else _line(changed))


@app.command()
def disable(user: UserArgument) -> None:
    """Disable a user: every session ends at once. `users update --enable` lets the user in again.

    Example:  authwright users disable ada
    """

    async def work(server: Any) -> User:
        changed: User = await server.users.disable(user, origin=COMMAND_LINE, now=server.clock())
        return changed

    typer.echo(f"Disabled {_name(with_server(work))}.")


@app.command()
def reset_link(user: UserArgument, as_json: Json = False) -> None:
    """Make a link with which the user sets a new password: once, within an hour. An earlier link is void.

    Example:  authwright users reset-link ada
    """

    async def work(server: Any) -> ResetLink:
        found = await server.users.find(user)
        made: ResetLink = await server.passwords.reset_link(found, origin=COMMAND_LINE, now=server.clock())
        return made

    link = with_server(work)
    if as_json:
        typer.echo(json.dumps({"url": link.url, "expires_at": isoformat(link.expires_at)}))
    else:
        typer.echo(f"{link.url}\nGood once, until {isoformat(link.expires_at)}. Give it to {_name(link.user)} alone.")


app.command("import")(import_users)
app.command("export")(export_users)


def _shown(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "username": user.username,
        "email": user.email,
        "role": user.shown_role,
        "plan": user.plan,
        "is_active": user.is_active,
        "created_at": isoformat(user.created_at),
    }


def _as_role(text: str | None) -> Role | None:
    for role in ROLES:
        if text == role:
            return role
    return None if text is None else fail("--role is user or admin.")


def _line(user: User) -> str:
    return f"{user.id}  {user.status:8}  {user.shown_role:5}  {user.plan:8}  {_name(user)}"


def _name(user: User) -> str:
    return " ".join(name for name in (user.username, user.email and f"<{user.email}>") if name)


def _read_password() -> str:
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if password != getpass.getpass("Once more: "):
            fail("The two passwords differ.")
        return password
    return sys.stdin.readline().rstrip("\r\n")
