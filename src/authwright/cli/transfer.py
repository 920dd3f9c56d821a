"""authwright users import, export: files in and out."""

import csv
import io
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import Progress, TextColumn

from authwright.cli.run import fail, with_server
from authwright.domain.event import COMMAND_LINE
from authwright.domain.instant import isoformat
from authwright.domain.user import User
from authwright.services.transfer import Report

_MOST_SHOWN = 50
_FIELDS = ("id", "username", "email", "role", "plan", "status", "created_at")

NumberedRow = tuple[int, Mapping[str, Any]]


def import_users(
    file: Annotated[
        Path, typer.Argument(help="CSV with a header, JSON lines, or a JSON export.", exists=True, dir_okay=False)
    ],
    plan: Annotated[str | None, typer.Option(help="Plan of those whose row names none that is known here.")] = None,
    admins: Annotated[
        bool, typer.Option("--with-admins", help="Take the role admin from the file, too; without, all are users.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check everything, and store nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Import users: our own export, or that of Keycloak, Auth0, FastAPI Users or Django, with their password hashes.

    Who is here already is left alone, so an interrupted import is simply repeated. Exit status 3: rows were refused.

    Example:  authwright users import realm-export.json --dry-run
    """
    size = file.stat().st_size
    begun = time.monotonic()
    with _progress() as progress:
        bar = progress.add_task("", total=None, rate=0, left="")

        def told(report: Report) -> None:
            seconds = max(time.monotonic() - begun, 0.001)
            done = min(reader.position / size, 1) if size else 1
            left = f"{seconds * (1 - done) / done:.0f} s left" if done else ""
            progress.update(bar, completed=report.rows, rate=report.rows / seconds, left=left)

        reader = _Reader(file)

        async def work(server: Any) -> Report:
            report: Report = await server.transfer.take(
                reader,
                origin=COMMAND_LINE,
                now=server.clock(),
                plan=plan,
                admins=admins,
                dry_run=dry_run,
                told=told,
            )
            return report

        try:
            report = with_server(work)
        except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
            fail(f"{file} cannot be read: {error}.")
    if as_json:
        refused = [{"row": number, "reason": reason} for number, reason in report.refused]
        counts = {"imported": report.imported, "present": report.present, "without_password": report.without_password}
        typer.echo(json.dumps({**counts, "dry_run": dry_run, "refused": refused}))
    else:
        for number, reason in report.refused[:_MOST_SHOWN]:
            typer.echo(f"Row {number}: {reason}", err=True)
        if len(report.refused) > _MOST_SHOWN:
            typer.echo(f"... and {len(report.refused) - _MOST_SHOWN} more; --json names all.", err=True)
        done = "could be imported" if dry_run else "imported"
        typer.echo(
            f"{report.imported} {done} ({report.without_password} without a password: they need a reset link), "
            f"{report.present} were here, {len(report.refused)} refused; {time.monotonic() - begun:.1f} s."
        )
    if report.refused:
        raise typer.Exit(3)


def export_users(
    file: Annotated[Path | None, typer.Argument(help="A new file; by default standard output.", dir_okay=False)] = None,
    form: Annotated[
        Literal["jsonl", "csv"], typer.Option("--format", help="JSON lines, or CSV with a header.")
    ] = "jsonl",
    hashes: Annotated[
        bool, typer.Option("--with-hashes", help="With password hashes: guard such a file as you guard the database.")
    ] = False,
) -> None:
    """Export all users, oldest first.

    Example:  authwright users export users.jsonl
    """
    names = [*_FIELDS, "password_hash"] if hashes else list(_FIELDS)
    if file is None:
        out: io.TextIOBase = sys.stdout  # type: ignore[assignment]  # a text stream, whatever its class
    else:
        try:
            # Readable by its owner alone, from the first byte on.
            out = os.fdopen(
                os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8", newline=""
            )
        except OSError as error:
            fail(f"{file} cannot be written: {error.strerror}.")
    table = csv.DictWriter(out, names) if form == "csv" else None

    async def work(server: Any) -> int:
        count = 0
        if table is not None:
            table.writeheader()
        async for user in server.transfer.all_users():
            row = {name: _shown(user, name) for name in names}
            if table is not None:
                table.writerow(row)
            else:
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
        return count

    count = with_server(work)
    if file is not None:
        out.close()
        typer.echo(f"{count} users exported to {file}.")


def _shown(user: User, name: str) -> Any:
    value = getattr(user, name)
    return isoformat(value) if name == "created_at" else value


def _progress() -> Progress:
    columns = (
        TextColumn("{task.completed} rows"),
        TextColumn("{task.fields[rate]:.0f}/s"),
        TextColumn("{task.fields[left]}"),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


class _Reader:
    """The numbered rows of a file. *position*: bytes of it that were read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.position = 0

    def __iter__(self) -> Iterator[NumberedRow]:
        with self._path.open("rb") as file:
            first = file.readline()
            start = first.lstrip(b"\xef\xbb\xbf").lstrip()[:1]
            file.seek(0)
            if start == b"[" or (start == b"{" and not _is_object(first)):
                yield from self._whole(json.load(file))
            elif start == b"{":
                yield from self._lines(file)
            else:
                yield from self._table(file)
        self.position = self._path.stat().st_size

    def _whole(self, content: Any) -> Iterator[NumberedRow]:
        rows = content.get("users", ()) if isinstance(content, dict) else content
        for number, row in enumerate(rows, 1):
            yield number, row if isinstance(row, dict) else {}

    def _lines(self, file: Iterable[bytes]) -> Iterator[NumberedRow]:
        for number, line in enumerate(file, 1):
            self.position += len(line)
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if number == 1 and isinstance(row, dict) and isinstance(row.get("users"), list):
                yield from self._whole(row)
            else:
                # What is no object has no fields, and is refused with its number.
                yield number, row if isinstance(row, dict) else {}

    def _table(self, file: Iterable[bytes]) -> Iterator[NumberedRow]:
        def lines() -> Iterator[str]:
            for line in file:
                self.position += len(line)
                yield line.decode("utf-8-sig" if self.position == len(line) else "utf-8")

        table = csv.DictReader(lines())
        for row in table:
            yield table.line_num, {name: value for name, value in row.items() if name is not None}


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
