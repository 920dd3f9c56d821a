"""Statements written in SQLAlchemy Core, compiled once for each kind of database, and run on its driver."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from types import MappingProxyType
from typing import Any, ClassVar, Final, NamedTuple, Protocol

from sqlalchemy import Dialect, FunctionElement, bindparam, column
from sqlalchemy import values as table_of
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import CompilerElement

Parameters = Mapping[str, Any]
Values = tuple[Any, ...]
Row = tuple[Any, ...]

# Turns of the event loop, some hundred microseconds under load and almost nothing without, for which those who write
# gather where several have just been done together.
GATHER_TURNS: Final = 16

_SQLITE: Final = sqlite.dialect(paramstyle="qmark")
_POSTGRES: Final = asyncpg.dialect()  # type: ignore[no-untyped-call]  # the library does not type this one


class Conflict(Exception):
    """A unique index said no."""


class Text(NamedTuple):
    """SQL text for one driver, and how the values of its placeholders are found among parameters and constants."""

    sql: str
    constants: Parameters
    pick: Callable[[Parameters], Values]
    silent: bool
    """Whether it answers no rows, whatever it does."""

    def values(self, parameters: Parameters) -> Values:
        return self.pick({**self.constants, **parameters} if self.constants else parameters)


class Gathered(NamedTuple):
    """How SQLite does in one statement for many what another does for one. It answers at most one row for each."""

    columns: tuple[str, ...]
    """The parameters of the one."""
    build: Callable[[Any], CompilerElement]
    """The statement for all that stand in this table, which has these columns."""
    apart: str
    """The parameter in which all of them have to differ."""
    which: str
    """The parameter that comes before the columns of the one, and tells whom a row is for."""


class Statement:
    """A statement. Compiled for SQLite when its module is loaded, for PostgreSQL when it first runs there.

    *unfailing*: nothing can be at odds with it, so it never fails where what came before it did not.
    """

    __slots__ = ("_for_postgres", "_many", "_postgres", "_sqlite_many", "batched", "gathered", "sqlite", "unfailing")

    def __init__(
        self,
        source: CompilerElement,
        postgres: CompilerElement | None,
        *,
        unfailing: bool,
        batched: CompilerElement | None = None,
        gathered: Gathered | None = None,
    ) -> None:
        self.sqlite = _compile(source, _SQLITE)
        self.unfailing = unfailing
        self.batched = batched
        self.gathered = gathered
        self._sqlite_many: dict[int, str] = {}
        self._for_postgres = source if postgres is None else postgres
        self._postgres: Text | None = None
        self._many: Text | None = None

    @property
    def many(self) -> Text:
        if self._many is None:
            assert self.batched is not None
            self._many = _compile(self.batched, _POSTGRES)
        return self._many

    def sqlite_many(self, many: Sequence[Parameters]) -> tuple[str, Values]:
        """The statement that does all of *many* on SQLite, and its values."""
        assert self.gathered is not None
        columns = self.gathered.columns
        sql = self._sqlite_many.get(len(many))
        if sql is None:
            names = [tuple(f"{name}_{number}" for name in columns) for number in range(len(many))]
            given = table_of(*map(column, columns)).data([tuple(map(bindparam, row)) for row in names]).cte("given")
            text = _compile(self.gathered.build(given), _SQLITE)
            # No parameter stands anywhere but in the table, so that they come in its order.
            assert text.values({name: name for row in names for name in row}) == tuple(chain.from_iterable(names))
            sql = self._sqlite_many[len(many)] = text.sql
        return sql, tuple(chain.from_iterable(map(itemgetter(*columns), many)))

    @property
    def postgres(self) -> Text:
        if self._postgres is None:
            self._postgres = _compile(self._for_postgres, _POSTGRES)
        return self._postgres


Step = tuple[Statement, Parameters]


def compiled(
    statement: CompilerElement,
    *,
    postgres: CompilerElement | None = None,
    batched: CompilerElement | None = None,
    gathered: Gathered | None = None,
) -> Statement:
    """*statement* as drivers take it; *postgres* in its place where SQLite has no words for what it says.

    *batched* does for many on PostgreSQL what *statement* does for one: its parameters are arrays of those of the one,
    and before the columns it returns which of the many it was, from 1. It answers at most one row for each. On SQLite
    *gathered* does so.
    """
    return Statement(statement, postgres, unfailing=False, batched=batched, gathered=gathered)


def unfailing(statement: CompilerElement) -> Statement:
    """*statement*, which no unique index or reference can refuse: what was done before it need not be taken back."""
    return Statement(statement, None, unfailing=True)


class Database(Protocol):
    """What runs statements. All of them raise StoreUnavailable if the database does not answer."""

    async def open(self) -> None:
        """Connect, and bring the schema up to date. Raises IncompatibleStore."""

    async def close(self) -> None:
        """Finish what was asked for and disconnect."""

    async def write(self, statement: Statement, parameters: Parameters) -> list[Row]:
        """Run one statement; its rows, once they are durable. Raises Conflict."""

    async def write_together(self, *steps: Step, guards: int = 0, patient: bool = False) -> list[list[Row]]:
        """Run *steps* in one transaction: all of them, or none. Raises Conflict.

        The first *guards* of them must each return a row: if one does not, nothing is changed and nothing returned.
        *patient*: may wait some milliseconds for other writes, to be stored with them.
        """

    async def find(self, statement: Statement, parameters: Parameters) -> list[Row]:
        """The rows of a query by a key, or of few rows, over what is committed."""

    async def find_each(self, statement: Statement, many: Sequence[Parameters]) -> list[list[Row]]:
        """As `find` for each of *many*; *statement* has a batched form."""

    async def read(self, statement: Statement, parameters: Parameters) -> list[Row]:
        """The rows of a query over what is committed, however many."""

    async def report(self, statement: Statement, parameters: Parameters) -> list[Row]:
        """As `read`, for what takes long: nothing else waits behind it."""


def _compile(statement: CompilerElement, dialect: Dialect) -> Text:
    result = statement.compile(dialect=dialect)
    constants = {name: value for name, value in (result.params or {}).items() if value is not None}
    # Definitions of tables have no parameters at all.
    changes = any(getattr(result, name, False) for name in ("isinsert", "isupdate", "isdelete"))
    silent = changes and not getattr(result, "effective_returning", None)
    return Text(str(result), constants, _picker(getattr(result, "positiontup", None) or ()), silent)


def _picker(names: Sequence[str]) -> Callable[[Parameters], Values]:
    if len(names) < 2:
        return lambda values: tuple(values[name] for name in names)
    return itemgetter(*names)


class _Named(FunctionElement[int]):
    """A function that each database calls by a name of its own."""

    inherit_cache = True
    names: ClassVar[Mapping[str, str]]


class least(_Named):
    """The smaller of two numbers."""

    inherit_cache = True
    names = MappingProxyType({"sqlite": "min", "postgresql": "least"})


class position(_Named):
    """Where the first text has the second in it, from 1; 0 for nowhere."""

    inherit_cache = True
    names = MappingProxyType({"sqlite": "instr", "postgresql": "strpos"})


@compiles(_Named)
def _call(element: _Named, compiler: Any, **options: Any) -> str:
    return f"{element.names[compiler.dialect.name]}({compiler.process(element.clauses, **options)})"
