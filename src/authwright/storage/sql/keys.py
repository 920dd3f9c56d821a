"""Keys on SQLAlchemy Core."""

from collections.abc import Sequence

from sqlalchemy import bindparam, insert, select, update

from authwright.domain.event import Event
from authwright.domain.instant import Instant
from authwright.domain.keyring import KeyRecord
from authwright.storage.sql.events import steps_of
from authwright.storage.sql.statements import Conflict, Database, Row, compiled
from authwright.storage.sql.tables import keys

_ADD = compiled(insert(keys))
_ALL = compiled(select(keys).order_by(keys.c.purpose, keys.c.issuer, keys.c.ordinal))
_WITHDRAW = compiled(
    update(keys)
    .where(keys.c.id == bindparam("key"), keys.c.withdrawn_at.is_(None))
    .values(withdrawn_at=bindparam("now"))
    .returning(keys.c.id)
)
_REWRAP = compiled(
    update(keys)
    .where(keys.c.id == bindparam("key"), keys.c.wrapped == bindparam("old"))
    .values(wrapped=bindparam("new"))
    .returning(keys.c.id)
)


class SqlKeys:
    """`storage.port.Keys`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, record: KeyRecord, *, event: Event | None = None) -> bool:
        row = {column.name: getattr(record, column.name) for column in keys.c}
        try:
            await self._database.write_together((_ADD, row), *steps_of(event))
        except Conflict:
            return False
        return True

    async def all(self) -> Sequence[KeyRecord]:
        # A few rows, and requests may wait for them.
        return [_key(row) for row in await self._database.find(_ALL, {})]

    async def withdraw(self, key_id: str, *, now: Instant, event: Event | None = None) -> bool:
        step = (_WITHDRAW, {"key": key_id, "now": now})
        return bool(await self._database.write_together(step, *steps_of(event), guards=1))

    async def rewrap(self, key_id: str, *, old: bytes, new: bytes) -> bool:
        return bool(await self._database.write(_REWRAP, {"key": key_id, "old": old, "new": new}))


def _key(row: Row) -> KeyRecord:
    return KeyRecord(*row)
