"""All that an SQL store holds, record by record."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from sqlalchemy import BigInteger, Table, bindparam, delete, insert, literal_column, select, text, tuple_

from authwright.storage.port import RECORD_FIELDS, Record, RecordKind
from authwright.storage.sql.statements import Database, Statement, compiled
from authwright.storage.sql.tables import events, metadata

_AT_ONCE: Final = 500
_CLEAR_EVENTS: Final = compiled(delete(events))


class _Copied:
    """The statements for one table."""

    def __init__(self, kind: RecordKind) -> None:
        table: Table = metadata.tables[kind]
        self.fields = RECORD_FIELDS[kind]
        columns = [table.c[name] for name in self.fields]
        self.key = [column.name for column in table.primary_key]
        every = select(*columns).order_by(*table.primary_key).limit(_AT_ONCE)
        if kind == "facts":
            every = every.where(table.c.name != literal_column("'usable_since'"))
        self.first = compiled(every)
        reached = tuple_(*(bindparam(f"after_{each.name}", type_=each.type) for each in table.primary_key))
        self.next = compiled(every.where(tuple_(*table.primary_key) > reached))
        # What a session was told when it opened is of no use any more.
        rest = {"others": literal_column("0", BigInteger)} if "others" in table.c else {}
        self.add = compiled(insert(table).values({**{name: bindparam(name) for name in self.fields}, **rest}))


# Rows that were given a number by whoever wrote them: the next one must follow.
_GO_ON: Final[dict[str, Statement]] = {
    name: compiled(
        text("SELECT 1"),
        postgres=text(
            f"SELECT setval(pg_get_serial_sequence('{name}', 'number'), max(number)) FROM {name}"  # noqa: S608 - ours
        ),
    )
    for name in ("events", "notices")
}


class SqlRecords:
    """`storage.port.Records`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, kind: RecordKind) -> AsyncIterator[Sequence[Record]]:
        copied = _Copied(kind)
        rows = await self._database.report(copied.first, {})
        while rows:
            yield [tuple(row) for row in rows]
            last = dict(zip(copied.fields, rows[-1], strict=True))
            rows = await self._database.report(copied.next, {f"after_{name}": last[name] for name in copied.key})

    async def write(self, kind: RecordKind, records: AsyncIterator[Sequence[Record]]) -> None:
        copied = _Copied(kind)
        if kind == "events":
            # Those of the sessions that were copied: SQLite records a session wherever it comes from.
            await self._database.write(_CLEAR_EVENTS, {})
        async for some in records:
            steps: list[tuple[Statement, dict[str, Any]]] = [
                (copied.add, dict(zip(copied.fields, record, strict=True))) for record in some
            ]
            await self._database.write_together(*steps)
        if kind in _GO_ON:
            await self._database.write(_GO_ON[kind], {})
