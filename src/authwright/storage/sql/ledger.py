"""The revocation ledger on SQLAlchemy Core."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Text, bindparam, delete, func, insert, literal_column, select

from authwright.domain.instant import Instant
from authwright.domain.revocation import Kind, Revocation
from authwright.domain.usage import DAY
from authwright.storage.sql.statements import Conflict, Database, Row, Statement, compiled
from authwright.storage.sql.tables import revocations

_COLUMNS = [column for column in revocations.c if column.name != "number"]
_NEXT = func.coalesce(func.max(revocations.c.number), 0) + literal_column("1")
_APPEND = compiled(
    insert(revocations)
    .from_select(
        ["number", *(column.name for column in _COLUMNS)],
        select(_NEXT, *(bindparam(column.name, type_=column.type) for column in _COLUMNS)).select_from(revocations),
    )
    .returning(revocations.c.number)
)


def append_of(kind: Kind, target: Any, epoch: Any) -> Statement:
    """A statement that appends an entry of *kind* in the transaction of what it tells of.

    Other parameters: `because`, `now`, `until`.
    """
    given = {
        "number": _NEXT,
        "kind": literal_column(f"'{kind}'"),
        "target": target,
        "epoch": epoch,
        "reason": bindparam("because", type_=Text),
        "at": bindparam("now", type_=revocations.c.at.type),
        "until": bindparam("until", type_=revocations.c.until.type),
    }
    return compiled(insert(revocations).from_select(list(given), select(*given.values()).select_from(revocations)))


_SINCE = compiled(
    select(revocations)
    .where(revocations.c.number > bindparam("number"))
    .order_by(revocations.c.number)
    .limit(bindparam("most"))
)
_newest = select(func.max(revocations.c.number)).scalar_subquery()
_SNAPSHOT = compiled(select(revocations).order_by(revocations.c.number))


_ALL = 2**62
_day = revocations.c.at.op("/")(DAY)
_COUNT_BY_DAY = compiled(select(_day, func.count()).where(revocations.c.at >= bindparam("since")).group_by(_day))
_FORGET = compiled(
    delete(revocations)
    .where(
        revocations.c.number.in_(
            select(revocations.c.number)
            .where(
                revocations.c.until <= bindparam("now"),
                revocations.c.number < _newest,
                revocations.c.number <= bindparam("through", type_=revocations.c.number.type),
            )
            .order_by(revocations.c.until)
            .limit(bindparam("most"))
        )
    )
    .returning(revocations.c.number)
)


class SqlLedger:
    """`storage.port.Ledger`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, revocation: Revocation) -> int:
        parameters = {column.name: getattr(revocation, column.name) for column in _COLUMNS}
        while True:
            # Another writer may take the same number first; the unique index tells, and the next one is tried.
            try:
                rows = await self._database.write(_APPEND, parameters)
            except Conflict:
                continue
            return int(rows[0][0])

    async def since(self, number: int, *, most: int = 1000) -> Sequence[Revocation]:
        # Requests wait for this one: it must not stand behind a report on the reader's thread.
        return [_revocation(row) for row in await self._database.find(_SINCE, {"number": number, "most": most})]

    async def snapshot(self) -> Sequence[Revocation]:
        return [_revocation(row) for row in await self._database.read(_SNAPSHOT, {})]

    async def count_by_day(self, *, since: Instant) -> Sequence[tuple[int, int]]:
        return [(row[0], row[1]) for row in await self._database.report(_COUNT_BY_DAY, {"since": since})]

    async def forget(self, *, now: Instant, most: int, through: int | None = None) -> int:
        parameters = {"now": now, "most": most, "through": _ALL if through is None else through}
        return len(await self._database.write(_FORGET, parameters))


def _revocation(row: Row) -> Revocation:
    number, kind, target, epoch, reason, at, until = row
    return Revocation(kind=kind, target=target, epoch=epoch, reason=reason, at=at, until=until, number=number)
