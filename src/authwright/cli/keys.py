"""authwright keys ..."""

import json
from typing import Annotated, Any

import typer

from authwright.cli.run import fail, with_server
from authwright.domain.instant import isoformat
from authwright.domain.keyring import LEAST_AHEAD, KeyRecord
from authwright.services.keys import ListedKey, UnknownKeyId

app = typer.Typer(help="Signing keys.", no_args_is_help=True)


@app.command("list")
def list_keys(as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False) -> None:
    """List the signing keys: next, active, retired (still verifies), gone, withdrawn.

    Example:  authwright keys list
    """

    async def work(server: Any) -> list[ListedKey]:
        return list(server.keyring.signing_keys(server.clock()))

    rows = with_server(work)
    if as_json:
        typer.echo(json.dumps([_shown(key) for key in rows]))
        return
    for key in rows:
        typer.echo(f"{key.record.id}  {key.record.alg}  {key.state:9}  active from {isoformat(key.record.active_from)}")


def _shown(key: ListedKey) -> dict[str, str]:
    record = key.record
    return {"kid": record.id, "alg": record.alg, "state": key.state, "active_from": isoformat(record.active_from)}


@app.command()
def rotate(
    now: Annotated[
        bool, typer.Option("--now", help="Sign with it two seconds later; verifiers that cache for long must fetch it.")
    ] = False,
) -> None:
    """Add a signing key. It is published at once and signs ten minutes later, when every verifier has seen it.

    Example:  authwright keys rotate
    """

    async def work(server: Any) -> KeyRecord:
        made: KeyRecord = await server.keyring.rotate(server.clock(), ahead=LEAST_AHEAD if now else None)
        return made

    key = with_server(work)
    typer.echo(f"Added {key.id} ({key.alg}), active from {isoformat(key.active_from)}.")


# A key id may begin with a dash; it is no option for that.
@app.command(context_settings={"ignore_unknown_options": True})
def withdraw(kid: Annotated[str, typer.Argument(metavar="KID", help="As `authwright keys list` shows it.")]) -> None:
    """Withdraw a signing key for ever: every token it signed is refused at once. For a key that leaked.

    Example:  authwright keys withdraw 3q2-7w...
    """

    async def work(server: Any) -> None:
        entry = await server.keyring.withdraw(kid, server.clock())
        await server.revoke.append(entry)

    try:
        with_server(work)
    except UnknownKeyId:
        fail("There is no signing key with this id.")
    typer.echo(f"Withdrawn {kid}.")


@app.command()
def share(
    audience: Annotated[str, typer.Argument(metavar="AUDIENCE", help="One of AUTHWRIGHT_AUDIENCES.")],
) -> None:
    """Show the secrets by which a guard of AUDIENCE verifies HS256, as JSON by key id. For closed systems.

    Whoever has them can make tokens for this API. Show them again after `authwright keys rotate`.

    Example:  authwright keys share https://api.example.com
    """

    async def work(server: Any) -> dict[str, str]:
        if audience not in server.settings.audiences or audience == server.settings.issuer:
            fail("AUDIENCE is none of AUTHWRIGHT_AUDIENCES; what is for the issuer itself is never shared.")
        shared: dict[str, str] = server.keyring.shared_secrets(audience, server.clock())
        return shared

    secrets = with_server(work)
    if not secrets:
        fail("There is no HS256 key: guards read the public keys from /.well-known/jwks.json.")
    typer.echo(json.dumps(secrets))


@app.command()
def rewrap() -> None:
    """Encrypt every stored key under the current SECRET_KEY, the old one being SECRET_KEY_PREVIOUS.

    Sessions and tokens stay valid. Afterwards SECRET_KEY_PREVIOUS can be removed.

    Example:  SECRET_KEY=new SECRET_KEY_PREVIOUS=old authwright keys rewrap
    """

    async def work(server: Any) -> int:
        count: int = await server.keyring.rewrap(server.clock())
        return count

    typer.echo(f"Encrypted {with_server(work)} keys under the current SECRET_KEY.")
