"""Facts about the store on SQLAlchemy Core."""

from sqlalchemy import bindparam, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from authwright.domain.instant import Instant
from authwright.storage.port import MAX_CLAIM
from authwright.storage.sql.statements import Database, compiled
from authwright.storage.sql.tables import facts, leases

_ESTABLISH = compiled(insert(facts).values(name=bindparam("name"), value=bindparam("value")).on_conflict_do_nothing())
_REPLACE = compiled(update(facts).where(facts.c.name == bindparam("fact")).values(value=bindparam("new_value")))
_READ = compiled(select(facts.c.value).where(facts.c.name == bindparam("name")))


_CLAIM = compiled(
    insert(leases)
    .values(name=bindparam("name"), holder=bindparam("holder"), until=bindparam("until"))
    .on_conflict_do_update(
        index_elements=["name"],
        set_={"holder": bindparam("holder"), "until": bindparam("until")},
        where=or_(
            leases.c.until <= bindparam("now"),
            leases.c.until > bindparam("absurd"),
            leases.c.holder == bindparam("holder"),
        ),
    )
    .returning(leases.c.name)
)


class SqlFacts:
    """`storage.port.Facts`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def establish(self, name: str, value: str) -> str:
        _, rows = await self._database.write_together(
            (_ESTABLISH, {"name": name, "value": value}), (_READ, {"name": name})
        )
        return str(rows[0][0])

    async def read(self, name: str) -> str | None:
        rows = await self._database.find(_READ, {"name": name})
        return rows[0][0] if rows else None

    async def replace(self, name: str, value: str) -> None:
        await self.establish(name, value)
        await self._database.write(_REPLACE, {"fact": name, "new_value": value})

    async def claim(self, name: str, holder: str, *, now: Instant, until: Instant) -> bool:
        parameters = {"name": name, "holder": holder, "now": now, "absurd": now + MAX_CLAIM, "until": until}
        return bool(await self._database.write(_CLAIM, parameters))
