"""authwright users ..."""

import getpass
import json
import sys
from typing import Annotated, Any

import typer

from authwright.cli.run import fail, with_server
from authwright.domain.passwords import UnsupportedHash
from authwright.domain.plan import Role
from authwright.domain.user import User

app = typer.Typer(help="Accounts.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Accounts."""


@app.command()
def create(
    username: Annotated[str | None, typer.Option(help="User name.")] = None,
    email: Annotated[str | None, typer.Option(help="E-mail address.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="Give the role admin.")] = False,
    plan: Annotated[str | None, typer.Option(help="free, premium or admin.")] = None,
    password_hash: Annotated[
        str | None,
        typer.Option(help="A hash made elsewhere (bcrypt, Argon2id, PBKDF2, scrypt), instead of a password."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Create a user. The password is asked for, or read as one line from standard input.

    Example:  echo "$PASSWORD" | authwright users create --username ada --email ada@example.com --admin
    """
    role: Role = "admin" if admin else "user"
    names: dict[str, Any] = {"username": username, "email": email, "plan": plan, "role": role}
    password = "" if password_hash else _read_password()

    async def work(server: Any) -> User:
        now = server.clock()
        if password_hash:
            created: User = await server.register.create_with_hash(**names, password_hash=password_hash, now=now)
        else:
            created = await server.register.create(**names, password=password, now=now)
        return created

    try:
        user = with_server(work)
    except UnsupportedHash as error:
        fail(f"The hash cannot be used: {error}.")
    shown = {"id": user.id, "username": user.username, "email": user.email, "role": user.shown_role, "plan": user.plan}
    typer.echo(
        json.dumps(shown) if as_json else f"Created {user.shown_role} {user.username or user.email} ({user.id})."
    )


def _read_password() -> str:
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if password != getpass.getpass("Once more: "):
            fail("The two passwords differ.")
        return password
    return sys.stdin.readline().rstrip("\r\n")
