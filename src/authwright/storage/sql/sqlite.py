"""SQLite: writes committed in groups, and nothing that waits on the event loop.

A statement by a key takes a few microseconds, less than handing it to a thread: it runs where it is asked for. What
waits runs on threads: for the lock that another process may hold, for the disk at a commit (`synchronous=FULL`), and
for queries over many rows. While a commit is being flushed the next writes gather, so that durability is paid once for
many. A write is one statement, or several that happen together or not at all.
"""

import asyncio
import contextlib
import functools
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from authwright.storage.port import StoreUnavailable
from authwright.storage.sql.statements import GATHER_TURNS, Conflict, Parameters, Row, Statement, Step, Values

BUSY_SECONDS: Final = 5.0
BEGIN_EVERY_SECONDS: Final = 0.0005
# Each number of rows is a statement of its own, which the driver keeps.
MOST_GATHERED: Final = 16
# How long a write waits for another one to join if its caller is in no hurry.
PATIENCE_SECONDS: Final = 0.03
# Readers hardly ever wait for anybody in WAL mode; a look-up on the event loop must not wait for long.
FIND_BUSY_SECONDS: Final = 0.1
# RETURNING and partial indexes as they are used here.
_OLDEST_SQLITE: Final = (3, 35, 0)


class _Job:
    __slots__ = ("future", "guards", "outcome", "patient", "steps", "together")

    def __init__(
        self,
        steps: Sequence[Step],
        guards: int,
        together: bool,
        patient: bool,
        future: asyncio.Future[list[list[Row]]],
    ) -> None:
        self.steps = steps
        self.guards = guards
        self.together = together
        self.patient = patient
        self.future = future
        self.outcome: list[list[Row]] | Exception = []


class _Writer:
    """The connection that writes. Its thread begins (if another process holds the lock) and commits."""

    def __init__(self, connection: sqlite3.Connection, *, in_memory: bool) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._handed: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = None if in_memory else threading.Thread(target=self._work, name="sqlite-writer", daemon=True)
        if self._thread is not None:
            self._thread.start()
        self._waiting: list[_Job] = []
        self._turns = 1
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(
        self,
        steps: Sequence[Step],
        *,
        guards: int = 0,
        together: bool = False,
        patient: bool = False,
    ) -> asyncio.Future[list[list[Row]]]:
        """Run *steps* in one transaction; the rows of each, once they are durable.

        *together*: a later one may fail, and then those before it must be taken back. *patient*: in no hurry.
        """
        job = _Job(steps, guards, together, patient, self._loop.create_future())
        self._waiting.append(job)
        if self._idle.is_set():
            self._idle.clear()
            self._go_on()
        elif self._timer is not None and not patient:
            self._timer.cancel()
            self._go_on()
        return job.future

    async def close(self) -> None:
        """Finish what was asked for and disconnect."""
        await self._idle.wait()
        if self._thread is not None:
            self._handed.put(None)
            await asyncio.to_thread(self._thread.join)
        self._connection.close()

    def _work(self) -> None:
        while (work := self._handed.get()) is not None:
            work()

    def _go_on(self) -> None:
        """Begin soon, or later if nobody who waits is in a hurry."""
        self._timer = None
        if all(job.patient for job in self._waiting):
            self._timer = self._loop.call_later(PATIENCE_SECONDS, self._begin)
        else:
            self._gather()

    def _gather(self, turn: int = 1) -> None:
        """Begin after some turns of the loop: where several write at once, others are about to join."""
        if turn < self._turns:
            self._loop.call_soon(self._gather, turn + 1)
        else:
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._timer = None
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error:
            self._aside(_begin_patiently, self._run)
        else:
            self._run(None)

    def _run(self, refused: sqlite3.Error | None) -> None:
        batch, self._waiting = self._waiting, []
        self._turns = GATHER_TURNS if sum(not job.patient for job in batch) > 1 else 1
        try:
            if refused is not None:
                raise refused
            _run_jobs(self._connection, batch)
        except Exception as error:
            # Whatever it was: everybody is answered, and nothing stays open.
            _roll_back(self._connection)
            self._answer(batch, error)
        else:
            self._aside(_commit, functools.partial(self._answer, batch))

    def _answer(self, batch: list[_Job], failed: Exception | None) -> None:
        for job in batch:
            if failed is not None:
                # Nothing of the batch is in the database now, whatever its statements answered before.
                job.outcome = StoreUnavailable(f"cannot write: {failed}")
            if job.future.done():
                continue
            if isinstance(job.outcome, Exception):
                job.future.set_exception(job.outcome)
            else:
                job.future.set_result(job.outcome)
        if self._waiting:
            self._go_on()
        else:
            self._idle.set()

    def _aside(
        self,
        work: Callable[[sqlite3.Connection], sqlite3.Error | None],
        then: Callable[[sqlite3.Error | None], None],
    ) -> None:
        """Do *work* on the thread, *then* go on here."""
        if self._thread is None:
            then(work(self._connection))
            return

        def run() -> None:
            outcome = work(self._connection)
            # The loop may have been closed meanwhile: then nobody waits any more.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(then, outcome)

        self._handed.put(run)


def _begin_patiently(connection: sqlite3.Connection) -> sqlite3.Error | None:
    # SQLite's own handler looks at the lock less and less often, and so starves behind processes that write all the
    # time; they leave gaps of some hundred microseconds, which are found by looking as often as that.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                return error
            time.sleep(BEGIN_EVERY_SECONDS)
        else:
            return None


def _commit(connection: sqlite3.Connection) -> sqlite3.Error | None:
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        _roll_back(connection)
        return error
    return None


def _roll_back(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@dataclass(frozen=True, slots=True)
class _Open:
    """What an open database consists of. In memory all connections are one."""

    writer: _Writer
    finder: sqlite3.Connection
    reader: sqlite3.Connection
    thread: ThreadPoolExecutor
    reporter: sqlite3.Connection
    report_thread: ThreadPoolExecutor


class SqliteDatabase:
    """One SQLite database, used from one event loop. *path* None: in memory, for this object alone."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._open: _Open | None = None

    async def open(self) -> None:
        """Connect. Raises StoreUnavailable."""
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise StoreUnavailable(f"SQLite {sqlite3.sqlite_version} is too old; 3.35 or newer is needed")
        try:
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                # Made private before SQLite opens it; its journal files take over the mode.
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = self._connect(BUSY_SECONDS)
            connection.execute("PRAGMA busy_timeout=0")
            self._open = _Open(
                _Writer(connection, in_memory=self._path is None),
                connection if self._path is None else self._connect(FIND_BUSY_SECONDS),
                connection if self._path is None else self._connect(BUSY_SECONDS),
                ThreadPoolExecutor(1, thread_name_prefix="authwright-sqlite-reader"),
                connection if self._path is None else self._connect(BUSY_SECONDS),
                ThreadPoolExecutor(1, thread_name_prefix="authwright-sqlite-reports"),
            )
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"cannot open the database: {error}") from error

    async def close(self) -> None:
        """Finish what was asked for and disconnect."""
        opened, self._open = self._open, None
        if opened is not None:
            await asyncio.to_thread(opened.thread.shutdown)
            await asyncio.to_thread(opened.report_thread.shutdown)
            await opened.writer.close()
            opened.finder.close()
            opened.reader.close()
            opened.reporter.close()

    async def write(self, statement: Statement, parameters: Parameters) -> list[Row]:
        """Run one statement; its rows, once they are durable. Raises Conflict, StoreUnavailable."""
        return (await self._opened().writer.submit([(statement, parameters)]))[0]

    async def write_together(self, *steps: Step, guards: int = 0, patient: bool = False) -> list[list[Row]]:
        """Run *steps* in one transaction: all of them, or none. Raises Conflict, StoreUnavailable.

        The first *guards* of them must each return a row: if one does not, nothing is changed and nothing returned.
        *patient*: may wait some milliseconds for other writes, to be stored with them.
        """
        if not steps:
            return []
        together = not all(statement.unfailing for statement, _ in steps[1:])
        return await self._opened().writer.submit(steps, guards=guards, together=together, patient=patient)

    async def find(self, statement: Statement, parameters: Parameters) -> list[Row]:
        """The rows of a query by a key, or of few rows, over what is committed, at once. Raises StoreUnavailable."""
        return _fetch(self._opened().finder, *_taken(statement, parameters))

    async def find_each(self, statement: Statement, many: Sequence[Parameters]) -> list[list[Row]]:
        finder = self._opened().finder
        return [_fetch(finder, *_taken(statement, parameters)) for parameters in many]

    async def report(self, statement: Statement, parameters: Parameters) -> list[Row]:
        """As `read`, for what takes long: on a thread of its own, so that nothing else waits behind it."""
        opened = self._opened()
        if opened.reporter is opened.finder:
            return await self.find(statement, parameters)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(opened.report_thread, _fetch, opened.reporter, *_taken(statement, parameters))

    async def read(self, statement: Statement, parameters: Parameters) -> list[Row]:
        """The rows of a query over what is committed, however many. Raises StoreUnavailable."""
        opened = self._opened()
        if opened.reader is opened.finder:
            return await self.find(statement, parameters)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(opened.thread, _fetch, opened.reader, *_taken(statement, parameters))

    def _opened(self) -> _Open:
        if self._open is None:
            raise StoreUnavailable("the store is closed")
        return self._open

    def _connect(self, busy_seconds: float) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path or ":memory:",
            # Where several processes start at once, one makes the database and the others wait for it.
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
        connection.execute(f"PRAGMA busy_timeout={busy_seconds * 1000:.0f}")
        return connection


def _taken(statement: Statement, parameters: Parameters) -> tuple[str, Values]:
    text = statement.sqlite
    return text.sql, text.values(parameters)


def _fetch(connection: sqlite3.Connection, text: str, values: Values) -> list[Row]:
    try:
        return connection.execute(text, values).fetchall()
    except sqlite3.Error as error:
        raise StoreUnavailable(f"query failed: {error}") from error


def _run_jobs(connection: sqlite3.Connection, batch: Sequence[_Job]) -> None:
    alike: dict[Statement, dict[object, _Job]] = {}
    for job in batch:
        statement, parameters = job.steps[0]
        first = None
        if statement.gathered is not None and len(job.steps) == 1 and not job.guards:
            first = alike.setdefault(statement, {}).setdefault(parameters[statement.gathered.apart], job)
        # Who comes second with the same goes alone.
        if first is not job:
            job.outcome = _run_job(connection, job)
    for statement, apart in alike.items():
        jobs = list(apart.values())
        for start in range(0, len(jobs), MOST_GATHERED):
            _run_alike(connection, statement, jobs[start : start + MOST_GATHERED])


def _run_alike(connection: sqlite3.Connection, statement: Statement, jobs: Sequence[_Job]) -> None:
    assert statement.gathered is not None
    many = [job.steps[0][1] for job in jobs]
    rows: list[Row] | None = None
    if len(many) > 1:
        text, values = statement.sqlite_many(many)
        # Where one of them conflicts or cannot be stored, each is told for itself which it was.
        with contextlib.suppress(sqlite3.IntegrityError, OverflowError, UnicodeError):
            rows = connection.execute(text, values).fetchall()
    if rows is None:
        for job in jobs:
            job.outcome = _run_job(connection, job)
    else:
        found = {row[0]: row[1:] for row in rows}
        for job, parameters in zip(jobs, many, strict=True):
            row = found.get(parameters[statement.gathered.which])
            job.outcome = [[] if row is None else [row]]


def _run_job(connection: sqlite3.Connection, job: _Job) -> list[list[Row]] | Exception:
    together = job.together
    try:
        if together:
            connection.execute("SAVEPOINT job")
        rows: list[list[Row]] = []
        for step in job.steps:
            rows.append(connection.execute(*_taken(*step)).fetchall())
            if len(rows) <= job.guards and not rows[-1]:
                _take_back(connection, together)
                return []
        if together:
            connection.execute("RELEASE job")
        return rows
    except sqlite3.IntegrityError as error:
        _take_back(connection, together)
        return Conflict(str(error))
    except (sqlite3.Error, MemoryError):
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
