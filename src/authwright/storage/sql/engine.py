"""SQLite: one writer thread with group commit, one reader thread, statements compiled once.

What one turn of the event loop asks for is handed to a thread at once: waking a thread costs more than a statement.

Every write that waits while a commit is being flushed to disk joins the next one, so that durability
(`synchronous=FULL`) is paid once for many. A write is one statement, or several that happen together or not at all.
"""

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.elements import CompilerElement

from authwright.storage.port import StoreUnavailable

Parameters = Mapping[str, Any]
Row = tuple[Any, ...]

MAX_BATCH: Final = 256
BUSY_SECONDS: Final = 5.0
# RETURNING and partial indexes as they are used here.
_OLDEST_SQLITE: Final = (3, 35, 0)

_dialect = sqlite.dialect(paramstyle="named")


class Statement(NamedTuple):
    """SQL text with `:name` parameters, and the values of those that are constants of the statement."""

    text: str
    constants: Parameters

    def with_values(self, parameters: Parameters) -> tuple[str, Parameters]:
        return self.text, {**self.constants, **parameters}


def compiled(statement: CompilerElement) -> Statement:
    """*statement* as the driver takes it. Done once, when a module is loaded."""
    result = statement.compile(dialect=_dialect)
    constants = {name: value for name, value in (result.params or {}).items() if value is not None}
    return Statement(str(result), constants)


class Conflict(Exception):
    """A unique index said no."""


class _Job:
    __slots__ = ("future", "outcome", "steps")

    def __init__(self, steps: Sequence[tuple[str, Parameters]], future: asyncio.Future[list[list[Row]]]) -> None:
        self.steps = steps
        self.future = future
        self.outcome: list[list[Row]] | Exception = []


class _Worker:
    """A thread with a connection, and the jobs it was given."""

    def __init__(self, connection: sqlite3.Connection, run: Callable[[sqlite3.Connection, list[_Job]], None]) -> None:
        self._connection = connection
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._gathered: list[_Job] = []
        self._handed: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"authwright-{run.__name__}", daemon=True)
        self._thread.start()

    def submit(self, steps: Sequence[tuple[str, Parameters]]) -> asyncio.Future[list[list[Row]]]:
        """Run *steps*; the rows of each."""
        job = _Job(steps, self._loop.create_future())
        self._gathered.append(job)
        if len(self._gathered) == 1:
            self._loop.call_soon(self._hand_over)
        return job.future

    async def close(self) -> None:
        """Finish what was asked for and disconnect."""
        self._hand_over()
        self._handed.put(None)
        await asyncio.to_thread(self._thread.join)

    def _hand_over(self) -> None:
        if self._gathered:
            self._handed.put(self._gathered)
            self._gathered = []

    def _work(self) -> None:
        ended = False
        while not ended:
            batch, ended = self._take_batch()
            if batch:
                self._run(self._connection, batch)
                # The loop may have been closed meanwhile: then nobody waits any more.
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(_resolve, batch)
        self._connection.close()

    def _take_batch(self) -> tuple[list[_Job], bool]:
        """The jobs that wait, at least one; and whether the end was among them."""
        batch: list[_Job] = []
        jobs = self._handed.get()
        with contextlib.suppress(queue.Empty):
            while jobs is not None:
                batch += jobs
                if len(batch) >= MAX_BATCH:
                    return batch, False
                jobs = self._handed.get_nowait()
        return batch, jobs is None


class Database:
    """One SQLite database, used from one event loop. *path* None: in memory, for this object alone."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._writer: _Worker | None = None
        self._reader: _Worker | None = None

    async def open(self) -> None:
        """Connect. Raises StoreUnavailable."""
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise StoreUnavailable(f"SQLite {sqlite3.sqlite_version} is too old; 3.35 or newer is needed")
        try:
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                # Made private before SQLite opens it; its journal files take over the mode.
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._writer = _Worker(self._connect(), commit_batch)
            # A database in memory lives in one connection, so its reads go the way of its writes.
            self._reader = self._writer if self._path is None else _Worker(self._connect(), answer_batch)
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"cannot open the database: {error}") from error

    async def close(self) -> None:
        """Finish what was asked for and disconnect."""
        workers = {self._writer, self._reader} - {None}
        self._writer = self._reader = None
        for worker in workers:
            if worker is not None:
                await worker.close()

    async def write(self, statement: Statement, parameters: Parameters) -> list[Row]:
        """Run one statement; its rows, once they are durable. Raises Conflict, StoreUnavailable."""
        return (await _submit(self._writer, (statement, parameters)))[0]

    async def write_together(self, *steps: tuple[Statement, Parameters]) -> list[list[Row]]:
        """Run *steps* in one transaction: all of them, or none. Raises Conflict, StoreUnavailable."""
        return await _submit(self._writer, *steps)

    async def read(self, statement: Statement, parameters: Parameters) -> list[Row]:
        """The rows of a query over what is committed. Raises StoreUnavailable."""
        return (await _submit(self._reader, (statement, parameters)))[0]

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path or ":memory:",
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "temp_store=MEMORY",
            "trusted_schema=OFF",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        return connection


def _submit(worker: _Worker | None, *steps: tuple[Statement, Parameters]) -> asyncio.Future[list[list[Row]]]:
    if worker is None:
        raise StoreUnavailable("the store is closed")
    return worker.submit([statement.with_values(values) for statement, values in steps])


def answer_batch(connection: sqlite3.Connection, batch: list[_Job]) -> None:
    """Run the queries of *batch*, each for itself."""
    for job in batch:
        try:
            job.outcome = [connection.execute(*step).fetchall() for step in job.steps]
        except sqlite3.Error as error:
            job.outcome = StoreUnavailable(f"query failed: {error}")
        except Exception as error:
            job.outcome = error


def commit_batch(connection: sqlite3.Connection, batch: list[_Job]) -> None:
    """Run the jobs of *batch* in one transaction; a job that is refused takes nothing of the others with it."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        for job in batch:
            job.outcome = _run_job(connection, job)
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        # Nothing of the batch is in the database now, whatever its statements answered before.
        with contextlib.suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        for job in batch:
            job.outcome = StoreUnavailable(f"cannot write: {error}")


def _run_job(connection: sqlite3.Connection, job: _Job) -> list[list[Row]] | Exception:
    together = len(job.steps) > 1
    try:
        if together:
            connection.execute("SAVEPOINT job")
        rows = [connection.execute(*step).fetchall() for step in job.steps]
        if together:
            connection.execute("RELEASE job")
        return rows
    except sqlite3.IntegrityError as error:
        _take_back(connection, together)
        return Conflict(str(error))
    except sqlite3.Error:
        raise
    except Exception as error:
        # A value that the driver cannot store (a lone surrogate, a number beyond 64 bits): its caller's mistake alone.
        _take_back(connection, together)
        return error


def _take_back(connection: sqlite3.Connection, together: bool) -> None:
    # A refused statement changes nothing by itself; its predecessors in the same job are taken back.
    if together:
        connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")


def _resolve(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if isinstance(job.outcome, Exception):
            job.future.set_exception(job.outcome)
        else:
            job.future.set_result(job.outcome)
