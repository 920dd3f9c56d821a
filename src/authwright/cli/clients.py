"""authwright clients ..."""

import json
from typing import Annotated, Any

import typer

from authwright.cli.run import with_server
from authwright.domain.client import Client
from authwright.domain.event import COMMAND_LINE
from authwright.domain.instant import isoformat
from authwright.domain.plan import format_scope, parse_scope
from authwright.services.clients import NewKey

app = typer.Typer(help="API clients: programs with a key of their own.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
ClientArgument = Annotated[str, typer.Argument(metavar="CLIENT_ID", help="As `authwright clients list` shows it.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What people call it.")],
    scope: Annotated[
        str | None,
        typer.Option(help="Separated by spaces: fewer than the plan permits, or `revocations` for a guard."),
    ] = None,
    plan: Annotated[str, typer.Option(help="free, premium, admin, or a configured one.")] = "free",
    as_json: Json = False,
) -> None:
    """Create a client and show its key, once.

    Example:  authwright clients create nightly-scoring --json
    """

    async def work(server: Any) -> NewKey:
        made: NewKey = await server.clients.create(
            name=name,
            origin=COMMAND_LINE,
            now=server.clock(),
            scope=None if scope is None else parse_scope(scope),
            plan=plan,
        )
        return made

    _show_key(with_server(work), as_json)


@app.command("list")
def list_clients(as_json: Json = False) -> None:
    """List all clients.

    Example:  authwright clients list
    """

    async def work(server: Any) -> list[Client]:
        return list(await server.clients.all())

    found = with_server(work)
    if as_json:
        typer.echo(json.dumps([_shown(client) for client in found]))
        return
    for client in found:
        typer.echo(f"{client.id}  {client.status:8}  {client.key_hint}...  {format_scope(client.scope)}  {client.name}")


@app.command()
def rotate_key(client_id: ClientArgument, as_json: Json = False) -> None:
    """Give a client a new key, shown once. The old key and every session made with it end at once.

    Example:  authwright clients rotate-key cli_... --json
    """

    async def work(server: Any) -> NewKey:
        made: NewKey = await server.clients.rotate_key(client_id, origin=COMMAND_LINE, now=server.clock())
        return made

    _show_key(with_server(work), as_json)


@app.command()
def disable(client_id: ClientArgument) -> None:
    """Disable a client: its key and every session of it end at once.

    Example:  authwright clients disable cli_...
    """

    async def work(server: Any) -> None:
        await server.clients.disable(client_id, origin=COMMAND_LINE, now=server.clock())

    with_server(work)
    typer.echo(f"Disabled {client_id}.")


def _shown(client: Client) -> dict[str, object]:
    return {
        "client_id": client.id,
        "name": client.name,
        "status": client.status,
        "key_hint": client.key_hint,
        "scope": format_scope(client.scope),
        "plan": client.plan,
        "created_at": isoformat(client.created_at),
    }


def _show_key(made: NewKey, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"client_id": made.client.id, "client_key": made.client_key}))
        return
    typer.echo(f"client_id   {made.client.id}\nclient_key  {made.client_key}\nKeep the key now: it is not shown again.")
