"""Rates of callers, and what guards have taken of them ahead, on SQLAlchemy Core."""

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from authwright.domain.allowance import Allowance, AllowanceLease
from authwright.domain.instant import Instant
from authwright.domain.secrets import ClientId, Subject
from authwright.storage.port import Replaced
from authwright.storage.sql.statements import Database, compiled
from authwright.storage.sql.tables import allowance_leases, allowances

_COLUMNS = (allowances.c.full_at, allowances.c.leased, allowances.c.leased_until)
_READ = compiled(select(*_COLUMNS).where(allowances.c.caller == bindparam("whose")))
_REPLACE = compiled(
    update(allowances)
    .where(allowances.c.caller == bindparam("whose"), *(each == bindparam(f"old_{each.name}") for each in _COLUMNS))
    .values({each.name: bindparam(f"new_{each.name}") for each in _COLUMNS})
    .returning(allowances.c.caller)
)
_ADD = compiled(
    insert(allowances)
    .values(caller=bindparam("whose"), **{each.name: bindparam(f"new_{each.name}") for each in _COLUMNS})
    .on_conflict_do_nothing()
    .returning(allowances.c.caller)
)
_FORGET = compiled(
    delete(allowances)
    .where(
        allowances.c.caller.in_(
            select(allowances.c.caller)
            .where(allowances.c.full_at < bindparam("before"), allowances.c.leased_until < bindparam("before"))
            .limit(bindparam("most"))
        )
    )
    .returning(allowances.c.caller)
)
_LEASE = compiled(insert(allowance_leases).values({each.name: bindparam(each.name) for each in allowance_leases.c}))
_CONSUME = compiled(
    delete(allowance_leases)
    .where(allowance_leases.c.id == bindparam("which"), allowance_leases.c.guard == bindparam("whose"))
    .returning(*allowance_leases.c)
)
_FORGET_LEASES = compiled(
    delete(allowance_leases)
    .where(
        allowance_leases.c.id.in_(
            select(allowance_leases.c.id).where(allowance_leases.c.until < bindparam("before")).limit(bindparam("most"))
        )
    )
    .returning(allowance_leases.c.id)
)


class SqlAllowances:
    """`storage.port.Allowances`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, caller: Subject) -> Allowance | None:
        rows = await self._database.find(_READ, {"whose": caller})
        return Allowance(*rows[0]) if rows else None

    async def replace(self, caller: Subject, old: Allowance | None, new: Allowance) -> Replaced:
        parameters = {"whose": caller, **{f"new_{name}": value for name, value in new._asdict().items()}}
        if old is None:
            rows = await self._database.write(_ADD, parameters)
        else:
            parameters |= {f"old_{name}": value for name, value in old._asdict().items()}
            rows = await self._database.write(_REPLACE, parameters)
        return Replaced(True, new) if rows else Replaced(False, await self.read(caller))

    async def forget(self, *, before: Instant, most: int) -> int:
        return len(await self._database.write(_FORGET, {"before": before, "most": most}))


class SqlAllowanceLeases:
    """`storage.port.AllowanceLeases`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, lease: AllowanceLease) -> None:
        await self._database.write(_LEASE, lease._asdict())

    async def consume(self, lease_id: str, *, guard: ClientId) -> AllowanceLease | None:
        rows = await self._database.write(_CONSUME, {"which": lease_id, "whose": guard})
        return AllowanceLease(*rows[0]) if rows else None

    async def forget(self, *, before: Instant, most: int) -> int:
        return len(await self._database.write(_FORGET_LEASES, {"before": before, "most": most}))
