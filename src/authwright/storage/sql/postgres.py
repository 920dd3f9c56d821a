"""PostgreSQL through asyncpg: a bounded pool, statements prepared once a connection, failures with a name.

One statement is its own transaction and one round trip; several are a transaction of READ COMMITTED, in which each sees
what was committed before it began. What lost against a concurrent transaction is tried again, a bounded number of
times; that also makes databases usable that speak the same protocol and are serializable only.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

from authwright.storage.port import StoreUnavailable
from authwright.storage.sql.statements import GATHER_TURNS, Conflict, Parameters, Row, Statement, Step

CONNECT_SECONDS: Final = 2.0
STATEMENT_SECONDS: Final = 5.0
REPORT_SECONDS: Final = 60.0
# How long nobody else waits for a server that could not be reached.
DOWN_SECONDS: Final = 0.5
# A server that answered nobody for so long, while somebody waited in vain, counts as gone.
QUIET_SECONDS: Final = 2.0
TRIES: Final = 60
# A statement that can be done for many runs once at a time; who comes meanwhile is done together by the next. Where one
# waits longer than that, for a row that somebody else has locked, others go past it, so many at once.
STUCK_SECONDS: Final = 0.05
LANES: Final = 4
MOST_TOGETHER: Final = 128

# Rows that get the number after the newest: who was second tries the next one.
_NUMBERED: Final = frozenset({"revocations_pkey"})
_LOST_A_RACE: Final = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
# The driver has an error of its own for a server that says goodbye while nobody asked it anything.
_LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
_CANNOT_WRITE: Final = (asyncpg.ReadOnlySQLTransactionError, asyncpg.CannotConnectNowError)

T = TypeVar("T")


class _Unguarded(Exception):
    """A step that had to return a row did not."""


_Waiting = tuple[Parameters, "asyncio.Future[list[Row]]"]


class _Line:
    """Who waits for one statement while it runs for others."""

    def __init__(self) -> None:
        self.busy = 0
        self.begun = 0.0
        self.waiting: list[_Waiting] = []
        self.timer: asyncio.TimerHandle | None = None
        self.tasks: set[asyncio.Task[None]] = set()


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # the library is not typed
    """A connection that goes back to the pool as it is: nothing here changes its state beyond a transaction."""

    __slots__ = ()

    def get_reset_query(self) -> str:
        return ""


class PostgresDatabase:
    """The database that *url* names, over at most *connections* connections.

    With `pgbouncer=true` in its query, behind a pooler that gives every transaction another connection: nothing is
    prepared ahead, and a single statement is a transaction of its own, too.
    """

    def __init__(self, url: str, *, connections: int) -> None:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
        self._pooled = ("pgbouncer", "true") in query
        query = [(name, value) for name, value in query if name != "pgbouncer"]
        # The driver is ours to choose, and other tools write it into the URL.
        self._url = urlunsplit(parts._replace(scheme="postgresql", query=urlencode(query)))
        self._connections = connections
        self._pool: Any = None
        self._lines: dict[Statement, _Line] = {}
        self._answered = self._down_until = 0.0

    async def open(self) -> None:
        try:
            self._pool = await asyncpg.create_pool(
                self._url,
                min_size=1,
                max_size=self._connections,
                connect=_connected,
                connection_class=_Connection,
                timeout=CONNECT_SECONDS,
                command_timeout=STATEMENT_SECONDS,
                # Of several servers the one that takes writes, whichever that is at the moment.
                target_session_attrs="read-write",
                server_settings={"application_name": "authwright"},
                statement_cache_size=0 if self._pooled else 1024,
            )
        except (asyncpg.PostgresError, *_LOST, ValueError) as error:
            raise StoreUnavailable(f"cannot connect to PostgreSQL: {_told(error)}") from None

    async def connect(self) -> Any:
        """A connection of its own, for what takes longer than a statement may."""
        return await _connected(
            self._url,
            timeout=CONNECT_SECONDS,
            target_session_attrs="read-write",
            statement_cache_size=0 if self._pooled else 100,
        )

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                async with asyncio.timeout(STATEMENT_SECONDS):
                    await pool.close()
            except TimeoutError:
                pool.terminate()

    async def write(self, statement: Statement, parameters: Parameters) -> list[Row]:
        if statement.batched is None:
            return await self._write_one(statement, parameters)
        line = self._lines.setdefault(statement, _Line())
        if not line.busy:
            line.busy, line.begun = 1, time.monotonic()
            try:
                return await self._write_one(statement, parameters)
            finally:
                self._go_on(statement, line)
        done: asyncio.Future[list[Row]] = asyncio.get_running_loop().create_future()
        line.waiting.append((parameters, done))
        if line.timer is None:
            self._look_later(statement, line, STUCK_SECONDS)
        return await done

    def _look_later(self, statement: Statement, line: "_Line", seconds: float) -> None:
        line.timer = asyncio.get_running_loop().call_later(seconds, self._look, statement, line)

    def _look(self, statement: Statement, line: "_Line") -> None:
        """Whoever waits behind a lane that is stuck goes past it; behind those that are not, soon anyway."""
        line.timer = None
        stuck = time.monotonic() - line.begun
        if not line.waiting or line.busy == LANES:
            return
        if stuck < STUCK_SECONDS:
            self._look_later(statement, line, STUCK_SECONDS - stuck)
        else:
            line.busy += 1
            self._go_on(statement, line)
            if line.waiting:
                # Not all go at once, and those that went may be stuck as well.
                self._look_later(statement, line, STUCK_SECONDS)

    def _go_on(self, statement: Statement, line: "_Line", enough: int = 0, turns: int = 0) -> None:
        """A lane is free: who waits goes next, all together, once they are *enough* or *turns* of the loop are over."""
        if turns and len(line.waiting) < enough:
            asyncio.get_running_loop().call_soon(self._go_on, statement, line, enough, turns - 1)
            return
        batch, line.waiting = line.waiting[:MOST_TOGETHER], line.waiting[MOST_TOGETHER:]
        if batch:
            line.begun = time.monotonic()
            task = asyncio.create_task(self._write_many(statement, line, batch))
            line.tasks.add(task)
            task.add_done_callback(line.tasks.discard)
        else:
            line.busy -= 1

    async def _write_many(self, statement: Statement, line: "_Line", batch: "Sequence[_Waiting]") -> None:
        batch = [(parameters, done) for parameters, done in batch if not done.done()]
        try:
            answers = await self._answers(statement, [parameters for parameters, _ in batch])
        except Exception as error:
            for _, done in batch:
                if not done.done():
                    done.set_exception(error)
        except BaseException:
            # Whatever ends this, nobody waits for an answer that does not come.
            for _, done in batch:
                done.cancel()
            raise
        else:
            for (_, done), rows in zip(batch, answers, strict=True):
                if not done.done():
                    done.set_result(rows)
        finally:
            # Who was answered together is likely to come together again.
            if line.busy == 1:
                # Nobody waits for a statement meanwhile, so that none is stuck.
                line.begun = time.monotonic()
            self._go_on(statement, line, len(batch), GATHER_TURNS if len(batch) > 1 else 0)

    async def _answers(self, statement: Statement, many: Sequence[Parameters]) -> list[list[Row]]:
        """What each of *many* is answered, in one statement."""
        if len(many) < 2:
            return [await self._write_one(statement, each) for each in many]
        text = statement.many
        values = text.values({name: [each[name] for each in many] for name in many[0]})
        answers: list[list[Row]] = [[] for _ in many]
        for row in await self._run(lambda connection: _fetch(connection, text.sql, values)):
            answers[row[0] - 1].append(row[1:])
        return answers

    async def _write_one(self, statement: Statement, parameters: Parameters) -> list[Row]:
        text = statement.postgres
        values = text.values(parameters)
        return await self._run(lambda connection: _fetch(connection, text.sql, values))

    async def write_together(self, *steps: Step, guards: int = 0, patient: bool = False) -> list[list[Row]]:
        taken = [(statement.postgres, statement.postgres.values(values)) for statement, values in steps]

        async def all_of_them(connection: Any) -> list[list[Row]]:
            answers: list[list[Row]] = []
            async with connection.transaction():
                for text, group in groupby(taken, itemgetter(0)):
                    alike = [values for _, values in group]
                    if text.silent and len(alike) > 1 and len(answers) >= guards:
                        # One round trip for all that are alike and answer nothing.
                        await connection.executemany(text.sql, alike)
                        answers += [[] for _ in alike]
                        continue
                    for values in alike:
                        answers.append(await _fetch(connection, text.sql, values))
                        if len(answers) <= guards and not answers[-1]:
                            raise _Unguarded
            return answers

        if len(taken) == 1:
            rows = await self._run(lambda connection: _fetch(connection, taken[0][0].sql, taken[0][1]))
            return [rows] if rows or not guards else []
        try:
            return await self._run(all_of_them)
        except _Unguarded:
            return []

    async def find(self, statement: Statement, parameters: Parameters) -> list[Row]:
        text = statement.postgres
        values = text.values(parameters)
        return await self._run(lambda connection: _fetch(connection, text.sql, values), again=True)

    async def find_each(self, statement: Statement, many: Sequence[Parameters]) -> list[list[Row]]:
        return await self._answers(statement, many)

    async def read(self, statement: Statement, parameters: Parameters) -> list[Row]:
        return await self.find(statement, parameters)

    async def report(self, statement: Statement, parameters: Parameters) -> list[Row]:
        text = statement.postgres
        values = text.values(parameters)
        return await self._run(lambda connection: _fetch(connection, text.sql, values, REPORT_SECONDS))

    async def _run(self, work: Callable[[Any], Awaitable[T]], *, again: bool = False) -> T:
        """What *work* answers on a connection. *again*: it may be done twice, where a connection was lost."""
        # The same to the end, also where the store is closed meanwhile.
        pool = self._pool
        if pool is None:
            raise StoreUnavailable("the store is closed")
        if time.monotonic() < self._down_until:
            raise StoreUnavailable("PostgreSQL could not be reached just now")
        for attempt in range(TRIES):
            try:
                async with pool.acquire(timeout=CONNECT_SECONDS) as connection:
                    if not self._pooled:
                        answer = await work(connection)
                    else:
                        async with connection.transaction():
                            answer = await work(connection)
                self._answered = time.monotonic()
                return answer
            except asyncpg.UniqueViolationError as error:
                if error.constraint_name not in _NUMBERED:
                    raise Conflict(error.constraint_name) from None
            except asyncpg.IntegrityConstraintViolationError as error:
                raise Conflict(error.constraint_name) from None
            except _LOST_A_RACE:
                pass
            except _CANNOT_WRITE as error:
                # Another server may be the one that takes writes now.
                await pool.expire_connections()
                raise StoreUnavailable(_told(error)) from None
            except _LOST as error:
                if again and attempt == 0 and not isinstance(error, TimeoutError):
                    continue
                # Where others are answered, one that waited in vain tells of much to do, not of a server that is gone.
                now = time.monotonic()
                if not isinstance(error, TimeoutError) or now - self._answered > QUIET_SECONDS:
                    self._down_until = now + DOWN_SECONDS
                raise StoreUnavailable(_told(error)) from None
            except asyncpg.DataError as error:
                # A value that cannot be stored: its caller's mistake alone.
                raise error.__cause__ or ValueError(_told(error)) from None
            except asyncpg.PostgresError as error:
                raise StoreUnavailable(_told(error)) from None
            pause = random.uniform(0, 0.002 * min(attempt + 1, 10))  # noqa: S311 - apart by chance; it guards nothing
            await asyncio.sleep(pause)
        raise StoreUnavailable("too many concurrent changes")


async def _connected(*given: Any, **named: Any) -> Any:
    """`asyncpg.connect`, which goes on to its end by itself where its caller is cancelled, and is closed then.

    Cancelled halfway it would leave an error behind that nobody gets, and that the event loop complains of.
    """
    connecting = asyncio.ensure_future(asyncpg.connect(*given, **named))
    try:
        return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        connecting.add_done_callback(_let_go)
        raise


def _let_go(connecting: "asyncio.Future[Any]") -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().terminate()


async def _fetch(connection: Any, sql: str, values: tuple[Any, ...], seconds: float | None = None) -> list[Row]:
    return [tuple(row) for row in await connection.fetch(sql, *values, timeout=seconds)]


def _told(error: Exception) -> str:
    """What may be said of *error*: its kind, and never a value of a statement or of the URL."""
    return f"{type(error).__name__}"
