"""SQLite: one writer thread with group commit, one reader thread, statements compiled once.

Every write that waits while a commit is being flushed to disk joins the next one, so that durability
(`synchronous=FULL`) is paid once for many. A write is one statement, or several that happen together or not at all.
"""

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Mapping, Sequence
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
    __slots__ = ("future", "loop", "outcome", "steps")

    def __init__(self, steps: Sequence[tuple[str, Parameters]], loop: asyncio.AbstractEventLoop) -> None:
        self.steps = steps
        self.loop = loop
        self.future: asyncio.Future[list[list[Row]]] = loop.create_future()
        self.outcome: list[list[Row]] | Exception = []


class Database:
    """One SQLite database. *path* None: in memory, for this object alone."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._threads: list[threading.Thread] = []
        self._writes: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # A database in memory lives in one connection, so its reads go the way of its writes.
        self._reads = self._writes if path is None else queue.SimpleQueue[_Job | None]()

    async def open(self) -> None:
        """Connect. Raises StoreUnavailable."""
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise StoreUnavailable(f"SQLite {sqlite3.sqlite_version} is too old; 3.35 or newer is needed")
        try:
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                # Made private before SQLite opens it; its journal files take over the mode.
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._start(self._writes, self._connect(), _run_writes, "authwright-sqlite-writer")
            if self._reads is not self._writes:
                self._start(self._reads, self._connect(), _run_reads, "authwright-sqlite-reader")
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"cannot open the database: {error}") from error

    async def close(self) -> None:
        """Finish what was asked for and disconnect."""
        for jobs in {id(jobs): jobs for jobs in (self._writes, self._reads)}.values():
            jobs.put(None)
        threads, self._threads = self._threads, []
        for thread in threads:
            await asyncio.to_thread(thread.join)

    async def write(self, statement: Statement, parameters: Parameters) -> list[Row]:
        """Run one statement; its rows, once they are durable. Raises Conflict, StoreUnavailable."""
        return (await self._submit(self._writes, [(statement, parameters)]))[0]

    async def write_together(self, *steps: tuple[Statement, Parameters]) -> list[list[Row]]:
        """Run *steps* in one transaction: all of them, or none. Raises Conflict, StoreUnavailable."""
        return await self._submit(self._writes, steps)

    async def read(self, statement: Statement, parameters: Parameters) -> list[Row]:
        """The rows of a query over what is committed. Raises StoreUnavailable."""
        return (await self._submit(self._reads, [(statement, parameters)]))[0]

    def _submit(
        self, jobs: "queue.SimpleQueue[_Job | None]", steps: Sequence[tuple[Statement, Parameters]]
    ) -> asyncio.Future[list[list[Row]]]:
        if not self._threads:
            raise StoreUnavailable("the store is closed")
        job = _Job([statement.with_values(values) for statement, values in steps], asyncio.get_running_loop())
        jobs.put(job)
        return job.future

    def _start(self, jobs: Any, connection: sqlite3.Connection, run: Any, name: str) -> None:
        thread = threading.Thread(target=run, args=(jobs, connection), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

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


def _take_batch(jobs: "queue.SimpleQueue[_Job | None]") -> tuple[list[_Job], bool]:
    """The jobs that wait, at least one; and whether the end was among them."""
    batch: list[_Job] = []
    job = jobs.get()
    with contextlib.suppress(queue.Empty):
        while job is not None and len(batch) < MAX_BATCH - 1:
            batch.append(job)
            job = jobs.get_nowait()
        if job is None:
            return batch, True
        batch.append(job)
    return batch, False


def _run_writes(jobs: "queue.SimpleQueue[_Job | None]", connection: sqlite3.Connection) -> None:
    ended = False
    while not ended:
        batch, ended = _take_batch(jobs)
        if batch:
            _commit_batch(connection, batch)
            _deliver(batch)
    connection.close()


def _run_reads(jobs: "queue.SimpleQueue[_Job | None]", connection: sqlite3.Connection) -> None:
    ended = False
    while not ended:
        batch, ended = _take_batch(jobs)
        for job in batch:
            try:
                job.outcome = [connection.execute(*step).fetchall() for step in job.steps]
            except sqlite3.Error as error:
                job.outcome = StoreUnavailable(f"query failed: {error}")
            except Exception as error:
                job.outcome = error
        if batch:
            _deliver(batch)
    connection.close()


def _commit_batch(connection: sqlite3.Connection, batch: list[_Job]) -> None:
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


def _deliver(batch: list[_Job]) -> None:
    by_loop: dict[int, list[_Job]] = {}
    for job in batch:
        by_loop.setdefault(id(job.loop), []).append(job)
    for jobs in by_loop.values():
        # The loop may have been closed meanwhile: then nobody waits any more.
        with contextlib.suppress(RuntimeError):
            jobs[0].loop.call_soon_threadsafe(_resolve, jobs)


def _resolve(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if isinstance(job.outcome, Exception):
            job.future.set_exception(job.outcome)
        else:
            job.future.set_result(job.outcome)
