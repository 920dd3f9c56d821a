"""authwright events ..."""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from authwright.cli.run import fail, with_server
from authwright.domain.event import EVENT_KINDS, Event, shown
from authwright.domain.instant import MICROSECONDS

app = typer.Typer(help="Security events.", no_args_is_help=True)
_TOLD_EVERY = 1000


@app.callback()
def group() -> None:
    """Security events."""


def _instant(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("as in 2026-11-22 or 2026-11-22T10:00:00+01:00") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * MICROSECONDS)


@app.command()
def export(
    output: Annotated[Path | None, typer.Option(help="A new file; standard output if left out.")] = None,
    after: Annotated[int, typer.Option(min=0, help="Only events with a higher number: goes on with an export.")] = 0,
    since: Annotated[
        str | None, typer.Option(help="Only from this time on (ISO 8601; UTC if it says no zone).")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only before this time.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only this kind; may be given more than once.")] = None,
) -> None:
    """Write security events, oldest first: JSON, a line for each. Ends where one may still be on its way.

    Example:  authwright events export --since 2026-11-01 --output events.jsonl
    """
    begin, end, kinds = _instant(since), _instant(until), set(kind or ())
    if unknown := kinds - set(EVENT_KINDS):
        raise typer.BadParameter(f"there is no kind {', '.join(sorted(unknown))}; there are {', '.join(EVENT_KINDS)}")

    def is_wanted(each: Event) -> bool:
        return (
            (begin is None or each.at >= begin) and (end is None or each.at < end) and (not kinds or each.kind in kinds)
        )

    async def write(server: Any, out: IO[str]) -> int:
        written = 0
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task("events", total=None)
            async for each in server.audit.export(server.clock(), after=after):
                if is_wanted(each):
                    out.write(json.dumps(shown(each)) + "\n")
                    written += 1
                if each.number % _TOLD_EVERY == 0:
                    progress.update(task, completed=each.number)
        return written

    if output is None:
        with_server(lambda server: write(server, sys.stdout))
        return
    try:
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            try:
                written = with_server(lambda server: write(server, out))
            except BaseException:
                output.unlink()
                raise
    except FileExistsError:
        fail(f"{output} exists; it is left as it is.")
    except OSError as error:
        fail(f"Cannot write {output}: {error.strerror}.")
    typer.echo(f"Wrote {written:,} events to {output}.")


@app.command()
def verify(as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False) -> None:
    """Verify the chain of seals over all events. Exit status 1 if any were changed, put in or taken away.

    Events of the last minutes are not sealed yet. Who took away the newest ones, with their seals, leaves no trace:
    export events, or have them sent, to another place.

    Example:  authwright events verify
    """

    async def work(server: Any) -> Any:
        return await server.audit.verify(server.clock())

    verdict = with_server(work)
    if as_json:
        typer.echo(json.dumps(verdict._asdict()))
    else:
        for line in (*verdict.problems, *verdict.remarks):
            typer.echo(line)
        typer.echo(f"{verdict.events:,} events, {verdict.sealed:,} of them sealed and as they were.")
    if verdict.problems:
        raise typer.Exit(1)
