"""authwright init: what a server needs before its first start, from three questions."""

import getpass
import os
import re
import secrets
import shlex
import sys
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from authwright.cli.run import EXIT_SETTINGS, fail, with_server
from authwright.config import Settings, new_secret_key, secret_key_problem, settings_problems
from authwright.domain.errors import Refusal
from authwright.domain.event import COMMAND_LINE

Run = Literal["by-hand", "systemd", "compose"]
_HOW = {"by-hand": "by-hand", "systemd": "systemd", "compose": "compose"}
_FILES = {"systemd": "authwright.service", "compose": "compose.yml"}


def init(
    path: Annotated[Path, typer.Option(help="The file to write the settings to.")] = Path(".env"),
    issuer: Annotated[str | None, typer.Option(help="The https URL under which the server is reached.")] = None,
    run: Annotated[
        str | None, typer.Option(help="How it will run: by-hand, systemd (a unit) or compose (with PostgreSQL).")
    ] = None,
    admin: Annotated[str | None, typer.Option(help="User name of the first administrator.")] = None,
) -> None:
    """Write what a production server needs: .env with strong secrets, a unit or compose file, the first administrator.

    Asks what is not given, if there is somebody to ask. A file that exists is left as it is.

    Example:  authwright init
    Example:  authwright init --issuer https://auth.example.com --run systemd --admin ada
    """
    if sys.stdin.isatty():
        issuer, run, admin = _asked(issuer, run, admin)
    how = cast("Run", _HOW.get(run or "by-hand") or fail(f"--run must be one of {', '.join(_HOW)}.", EXIT_SETTINGS))
    if issuer:
        _require_issuer(issuer)
    folder = path.resolve().parent
    extra = folder / _FILES[how] if how in _FILES else None
    if how == "systemd" and re.fullmatch(r"[\w./%+@~-]+", f"{folder}{_command_path()}") is None:
        fail("A unit cannot name paths with spaces or quotes; choose another folder.", EXIT_SETTINGS)
    for each in (path, extra):
        if each is not None and each.exists():
            fail(f"{each} exists; it is left as it is.")
    _write(path, _dotenv(issuer, how), mode=0o600)
    typer.echo(f"Wrote {path} with a new SECRET_KEY: keep a copy of it where backups of the database are not.")
    if extra is not None:
        template = resources.files("authwright.cli") / "templates" / extra.name
        user = _service_user() if how == "systemd" else ""
        text = template.read_text(encoding="utf-8").format(user=user, folder=_unit_path(folder), command=_command())
        _write(extra, text, mode=0o644)
        typer.echo(f"Wrote {extra}.")
    if admin:
        _first_admin(admin, how, path, issuer)
    typer.echo(_next_steps(issuer, how, path))


def _asked(issuer: str | None, run: str | None, admin: str | None) -> tuple[str | None, str | None, str | None]:
    if issuer is None:
        question = "Under which https URL will the server be reached? It cannot be changed later. Empty: not yet known"
        issuer = typer.prompt(question, default="", show_default=False).strip()
    if run is None:
        run = typer.prompt("How will it run: by-hand, systemd or compose?", default="by-hand").strip()
    if admin is None:
        question = "User name of the first administrator. Empty: none yet"
        admin = typer.prompt(question, default="", show_default=False).strip()
    return issuer, run, admin


def _require_issuer(issuer: str) -> None:
    settings = Settings(issuer=issuer, secret_key=new_secret_key())
    if problems := [each for each in settings_problems(settings) if "AUTHWRIGHT_ISSUER" in each]:
        fail("\n".join(problems), EXIT_SETTINGS)


def _dotenv(issuer: str | None, how: Run) -> str:
    secret = new_secret_key()
    while secret_key_problem(secret):
        secret = new_secret_key()
    lines = [
        "# Every other key is encrypted under this one: keep it out of version control, and keep a copy safe.",
        f"SECRET_KEY={secret}",
        "# The https URL under which this server is reached: it stands in every token, and stays.",
        f"{'' if issuer else '# '}AUTHWRIGHT_ISSUER={issuer or 'https://auth.example.com'}",
    ]
    if how == "compose":
        lines += ["# Of the database that compose.yml starts.", f"POSTGRES_PASSWORD={secrets.token_hex(24)}"]
    elif issuer:
        lines += ["# The proxy that speaks TLS, if it runs on this machine.", "FORWARDED_ALLOW_IPS=127.0.0.1"]
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str, *, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        fail(f"{path} exists; it is left as it is.")
    except OSError as error:
        fail(f"Cannot write {path}: {error.strerror}.")
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(text)


def _first_admin(username: str, how: Run, path: Path, issuer: str | None) -> None:
    """Make the administrator, if the store is there to make one in; otherwise `_next_steps` says how."""
    if how == "compose" or not issuer or path.resolve() != Path(".env").resolve():
        typer.echo(f"When it runs: {_of(how)} users create --username {shlex.quote(username)} --admin")
        return
    password = secrets.token_urlsafe(18)

    async def work(server: Any) -> None:
        who = {"username": username, "email": None, "password": password, "plan": None, "role": "admin"}
        try:
            await server.register.create(**who, origin=COMMAND_LINE, now=server.clock())
        except Refusal as refusal:
            again = f"authwright users create --username {shlex.quote(username)} --admin"
            fail(f"{refusal.public} No administrator was made; try again: {again}")

    os.environ["AUTHWRIGHT_MODE"] = "serve"
    with_server(work)
    typer.echo(f"Made the administrator {username}. The password, shown this once: {password}")


def _of(how: Run) -> str:
    return "docker compose run --rm authwright" if how == "compose" else "authwright"


def _service_user() -> str:
    """Whom the unit runs as: nobody runs it as root."""
    user = getpass.getuser()
    return "authwright" if user == "root" else user


def _command_path() -> Path:
    return Path(sys.executable).with_name("authwright")


def _command() -> str:
    """The command as a unit has to name it: that of the environment which runs this."""
    command = _command_path()
    return _unit_path(command) if command.is_file() else f"{_unit_path(Path(sys.executable))} -m authwright"


def _unit_path(path: Path) -> str:
    return str(path).replace("%", "%%")


def _next_steps(issuer: str | None, how: Run, path: Path) -> str:
    folder = path.resolve().parent
    owner = ""
    if how == "systemd" and getpass.getuser() == "root":
        owner = f"useradd --system authwright; chown -R authwright {folder}\n"
    start = {
        "by-hand": "authwright serve",
        "systemd": f"{owner}sudo cp authwright.service /etc/systemd/system/ && sudo systemctl enable --now authwright",
        "compose": "docker compose up --detach (the image is built as compose.yml says)",
    }[how]
    first = "" if issuer else f"Set AUTHWRIGHT_ISSUER in {path}, then: "
    return f"{first or 'Next: '}{start}\nIs all well? {_of(how)} doctor"
