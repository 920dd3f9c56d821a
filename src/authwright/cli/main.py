"""dev, serve, init, openapi; the groups users, clients and keys."""

import json
import os
import shutil
import signal
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer
import uvicorn
from rich.console import Console

from authwright.cli import clients, events, keys, users
from authwright.cli.doctor import doctor
from authwright.cli.init import init
from authwright.cli.run import (
    EXIT_SETTINGS,
    fail,
    open_once,
    remember_dev_port,
    settings_or_exit,
    with_server,
    with_store,
)
from authwright.config import Settings, SettingsError
from authwright.log import configure_logs
from authwright.web.protocol import Protocol

app = typer.Typer(
    name="authwright",
    help="Accounts, API clients, tokens that verify locally, and a logout that is honoured at once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("authwright"))
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Accounts, API clients, tokens that verify locally, and a logout that is honoured at once."""


app.add_typer(users.app, name="users")
app.add_typer(clients.app, name="clients")
app.add_typer(keys.app, name="keys")
app.add_typer(events.app, name="events")

app.command()(init)
app.command()(doctor)

log = structlog.get_logger("authwright")
_console = Console(stderr=True, highlight=False)


@app.command()
def dev(
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
) -> None:
    """Run for development: this machine only, open registration, short passwords, any plan.

    Example:  authwright dev --port 8000
    """
    settings = settings_or_exit("dev", port=port)
    remember_dev_port(settings)
    configure_logs(level=settings.log_level, readable=True)
    from authwright.app.routes import create_app

    open_once(settings)
    application = create_app(settings)
    _banner(settings)
    _run(settings, application)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes.")] = None,
) -> None:
    """Run for production. Refuses to start rather than run unsafely, and names every problem at once.

    Example:  AUTHWRIGHT_ISSUER=https://auth.example.com authwright serve --host 0.0.0.0
    """
    settings = settings_or_exit("serve", host=host, port=port, workers=workers)
    # Workers are processes of their own and read the same environment.
    os.environ["AUTHWRIGHT_MODE"] = "serve"
    os.environ["AUTHWRIGHT_HOST"] = settings.host
    os.environ["AUTHWRIGHT_PORT"] = str(settings.port)
    os.environ["AUTHWRIGHT_WORKERS"] = str(settings.workers)
    for name in ("PORT", "WEB_CONCURRENCY"):
        os.environ.pop(name, None)
    if settings.workers > 1:
        _share_metrics(settings)
    configure_logs(level=settings.log_level, readable=False)
    open_once(settings)
    log.info(
        "starting",
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        issuer=settings.issuer,
        store=settings.database_name,
    )
    if settings.workers == 1:
        from authwright.app.routes import create_app

        app = create_app(settings)
        # Several workers are begun anew by the process above them, which reads the plans again, too.
        signal.signal(signal.SIGHUP, lambda *_: app.state.authwright.plan_file.look(again=True))
        _run(settings, app)
    else:
        _run(settings, "authwright.cli.main:worker")


def _share_metrics(settings: Settings) -> None:
    """A new folder in which the workers keep their counts, so that each can answer for all (services.metrics)."""
    folder = settings.data_path / "metrics"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder.resolve())


def worker() -> object:
    """The app of one worker process."""
    from authwright.app.routes import from_environment

    settings = settings_or_exit("serve")
    Protocol.patience = settings.patience_seconds
    configure_logs(level=settings.log_level, readable=False)
    return from_environment()


def _run(settings: Settings, application: object) -> None:
    Protocol.patience = settings.patience_seconds
    uvicorn.run(
        application,  # type: ignore[arg-type]
        factory=isinstance(application, str),
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop",
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.forwarded_allow_ips),
        forwarded_allow_ips=list(settings.forwarded_allow_ips),
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )


def _banner(settings: Settings) -> None:
    url = f"http://127.0.0.1:{settings.port}"
    _console.print(
        f"""
[bold]Authwright, development mode[/bold]: this machine only; anybody on it may register,
with any plan and a short password.
Data in [bold]{settings.data_path}[/bold]; delete the folder to begin again. For production: authwright serve --help

Try it:
  curl {url}/register -H 'Content-Type: application/json' \\
    -d '{{"username":"bholay","password":"test123","plan":"premium"}}'
  curl {url}/login -d 'username=bholay&password=test123'
  curl {url}/predict -H "Authorization: Bearer [dim]<access_token>[/dim]"

or open [bold]{url}/docs[/bold] and use Authorize. Stop with Ctrl-C.
"""
    )


@app.command()
def backup(target: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.")]) -> None:
    """Copy the store to a file, while the server runs. SECRET_KEY is not in it: keep it apart, and keep it.

    Example:  authwright backup authwright-2026-11-21.db
    """

    async def work(server: Any) -> None:
        await server.backup(target)

    with_server(work)
    typer.echo(f"Wrote {target} ({target.stat().st_size:,} bytes).")


@app.command()
def restore(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="What `authwright backup` wrote. None after a database server was put back with its own tools.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Put a backup in the place of the store. Everybody has to log in again; a server that runs goes on with it.

    Keys and accounts that were deleted or disabled after the backup are as they were then: repeat that.

    Example:  authwright restore authwright-2026-11-21.db --yes
    """
    if source is not None and not source.is_file():
        fail(f"There is no file {source}.")
    if not yes:
        what = "ends all sessions" if source is None else "replaces everything in the store"
        typer.confirm(f"This {what}. Go on?", abort=True, err=True)

    async def work(server: Any) -> int:
        ended: int = await server.restore(source)
        return ended

    ended = with_server(work)
    typer.echo(f"{f'Restored {source}' if source else 'Begun anew'}; {ended} sessions ended.")


@app.command()
def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Only say what is missing; exit status 1 if anything is.")
    ] = False,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="MIGRATE_TO_URL",
            help="Copy everything to this database of any kind, which is empty, and prove that it is there.",
        ),
    ] = None,
) -> None:
    """Bring the store's schema up to date, or move the store to another database.

    Servers of this version wait until it is up to date; `authwright dev` does it by itself. Safe to run from several
    places at once. Make a backup before.

    With --to nobody may use the store meanwhile: stop the servers first, and start them with the new DATABASE_URL. The
    SECRET_KEY stays, and so do logins. A URL with a password is better given as MIGRATE_TO_URL than on a command line.

    Example:  authwright migrate --check || authwright migrate
    Example:  authwright migrate --to postgresql://authwright@db.example.com/authwright
    """
    if to is not None:
        if check:
            fail("--check and --to do not go together.", EXIT_SETTINGS)
        _move(to)
        return

    async def work(store: Any) -> list[str]:
        return list(await store.migrate(check=check))

    steps = with_store(work)
    for step in steps:
        typer.echo(step)
    if steps and check:
        fail(f"{len(steps)} to do: authwright migrate")
    typer.echo(f"Done: {len(steps)}." if steps else "The store is up to date.")


def _move(url: str) -> None:
    from authwright.services.move import MoveFailed

    async def work(server: Any) -> None:
        def tell(kind: str, count: int) -> None:
            typer.echo(f"{kind:14} {count:>10,}")

        await server.move(url, tell=tell)

    try:
        with_server(work)
    except MoveFailed as error:
        fail(f"Nothing was moved: {error}")
    except SettingsError as error:
        fail(f"Nothing can be moved there:\n{error}", EXIT_SETTINGS)
    typer.echo(
        "All of it is there. Start the servers with the new DATABASE_URL and the same SECRET_KEY "
        "(`authwright dev` keeps one in a file secret_key beside its database: copy it along)."
    )


@app.command()
def openapi(
    output: Annotated[Path | None, typer.Option(help="File to write; standard output if left out.")] = None,
) -> None:
    """Write the OpenAPI document.

    Example:  authwright openapi --output openapi.json
    """
    text = _as_json(_document())
    if output is None:
        typer.echo(text, nl=False)
    else:
        _write(output, text)


@app.command()
def postman(
    output: Annotated[Path, typer.Option(help="The folder to write to.")] = Path(),
    base_url: Annotated[str, typer.Option(help="Where the server answers.")] = "http://127.0.0.1:8000",
) -> None:
    """Write a collection and an environment for Postman and its command-line runner newman.

    Flows that are checked (log in, predict, refresh, secure data, log out, users), then every request.

    Example:  authwright postman && newman run authwright.postman_collection.json -e authwright.postman_environment.json
    """
    from authwright.cli.postman import collection, environment

    _write(output / "authwright.postman_collection.json", _as_json(collection(_document(), base_url=base_url)))
    _write(output / "authwright.postman_environment.json", _as_json(environment(base_url=base_url)))
    typer.echo(f"Wrote authwright.postman_collection.json and authwright.postman_environment.json to {output}.")


def _document() -> dict[str, Any]:
    from authwright.app.routes import DESCRIPTION, create_app
    from authwright.web.docs import openapi_document

    return openapi_document(create_app(Settings.dev(database_url="sqlite://")), description=DESCRIPTION)


def _as_json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"Cannot write {path}: {error.strerror}.")


__all__ = ["EXIT_SETTINGS", "app", "worker"]
