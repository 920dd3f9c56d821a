"""Usage by day on SQLAlchemy Core: rows that are added to."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Table,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal_column,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import insert

from authwright.domain.usage import Counted, UsageKey, UsageRow
from authwright.storage.sql.statements import Database, Statement, Step, compiled
from authwright.storage.sql.tables import charges, latencies, predictions, usage


def _add_to(table: Table) -> Statement:
    *key, sum_ = table.c
    statement = insert(table).values({column.name: bindparam(column.name) for column in table.c})
    return compiled(
        statement.on_conflict_do_update(index_elements=key, set_={sum_.name: sum_ + statement.excluded[sum_.name]})
    )


def _forget(table: Table) -> Statement:
    key = list(table.primary_key)
    old = select(*key).where(table.c.day < bindparam("before")).limit(bindparam("most"))
    return compiled(delete(table).where(tuple_(*key).in_(old)).returning(table.c.day))


def _total(numbers: Any) -> Any:
    # PostgreSQL's sum of whole numbers is a decimal one.
    return cast(func.sum(numbers), BigInteger)


_TABLES = (usage, latencies, predictions, charges)
_ADD = {table.name: _add_to(table) for table in _TABLES}
_FORGET = [_forget(table) for table in _TABLES]
_since = usage.c.day >= bindparam("since")
_sum = _total(usage.c.calls)
_grouped = (usage.c.day, usage.c.route, usage.c.status)
_TOTALS = compiled(select(*_grouped, _sum).where(_since).group_by(*_grouped))
_known = usage.c.subject != literal_column("''")
_CALLERS_BY_PLAN = compiled(
    select(usage.c.plan, func.count(usage.c.subject.distinct())).where(_since, _known).group_by(usage.c.plan)
)
_refused = case((usage.c.status >= 400, usage.c.calls), else_=0)
_predicted = case((and_(usage.c.route == "/predict", usage.c.status < 400), usage.c.calls), else_=0)
_CALLERS = compiled(
    select(usage.c.subject, func.max(usage.c.plan), _sum, _total(_refused), _total(_predicted))
    .where(_since, _known)
    .group_by(usage.c.subject)
    .order_by(_sum.desc(), usage.c.subject)
    .limit(bindparam("most"))
)
_LATENCIES = compiled(
    select(latencies.c.route, latencies.c.bucket, _total(latencies.c.calls))
    .where(latencies.c.day >= bindparam("since"))
    .group_by(latencies.c.route, latencies.c.bucket)
)
_PREDICTIONS = compiled(select(predictions).where(predictions.c.day >= bindparam("since")))
_CHARGED = compiled(
    select(
        func.coalesce(_total(case((charges.c.day == bindparam("day"), charges.c.units), else_=0)), 0),
        func.coalesce(_total(charges.c.units), 0),
    ).where(charges.c.subject == bindparam("subject"), charges.c.day >= bindparam("since"))
)
_UNITS_BY_DAY = compiled(
    select(charges.c.day, _total(charges.c.units)).where(charges.c.day >= bindparam("since")).group_by(charges.c.day)
)
_CHARGES_OF = compiled(
    select(charges.c.day, charges.c.route, charges.c.units)
    .where(charges.c.subject == bindparam("subject"), charges.c.day >= bindparam("since"))
    .order_by(charges.c.day, charges.c.route)
)


def _by_caller(*, one: bool) -> Statement:
    """Calls and units of callers, page by page. Both are sums over the same key, so they are added as one."""
    nothing = literal_column("0", BigInteger)
    of_usage: list[ColumnElement[bool]] = [usage.c.day.between(bindparam("since"), bindparam("until")), _known]
    of_charges: list[ColumnElement[bool]] = [charges.c.day.between(bindparam("since"), bindparam("until"))]
    # Days that were listed are not summed again.
    of_usage.append(usage.c.day >= bindparam("after_day"))
    of_charges.append(charges.c.day >= bindparam("after_day"))
    if one:
        of_usage.append(usage.c.subject == bindparam("subject"))
        of_charges.append(charges.c.subject == bindparam("subject"))
    rows = union_all(
        select(usage.c.day, usage.c.subject, usage.c.route, usage.c.calls, nothing.label("units")).where(*of_usage),
        select(charges.c.day, charges.c.subject, charges.c.route, nothing.label("calls"), charges.c.units).where(
            *of_charges
        ),
    ).subquery()
    key = (rows.c.day, rows.c.subject, rows.c.route)
    after = tuple_(*(bindparam(f"after_{each.name}", type_=each.type) for each in key))
    return compiled(
        select(*key, _total(rows.c.calls), _total(rows.c.units))
        .where(tuple_(*key) > after)
        .group_by(*key)
        .order_by(*key)
        .limit(bindparam("most"))
    )


_BY_CALLER = _by_caller(one=False)
_BY_ONE_CALLER = _by_caller(one=True)


class SqlUsage:
    """`storage.port.Usage`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, counted: Counted) -> None:
        steps: list[Step] = []
        counters: tuple[Counter[Any], ...] = (counted.calls, counted.latencies, counted.predictions, counted.charges)
        for table, rows in zip(_TABLES, counters, strict=True):
            names = [column.name for column in table.c]
            statement = _ADD[table.name]
            # In one order, so that two workers that add to the same rows never wait for each other.
            steps += [(statement, dict(zip(names, (*key, sum_), strict=True))) for key, sum_ in sorted(rows.items())]
        if steps:
            await self._database.write_together(*steps)

    async def totals(self, *, since_day: int) -> Sequence[tuple[int, str, int, int]]:
        rows = await self._database.report(_TOTALS, {"since": since_day})
        return [(row[0], row[1], row[2], row[3]) for row in rows]

    async def callers_by_plan(self, *, since_day: int) -> Sequence[tuple[str, int]]:
        rows = await self._database.report(_CALLERS_BY_PLAN, {"since": since_day})
        return [(row[0], row[1]) for row in rows]

    async def callers(self, *, since_day: int, most: int) -> Sequence[tuple[str, str, int, int, int]]:
        rows = await self._database.report(_CALLERS, {"since": since_day, "most": most})
        return [(row[0], row[1], row[2], row[3], row[4]) for row in rows]

    async def latencies(self, *, since_day: int) -> Sequence[tuple[str, int, int]]:
        rows = await self._database.report(_LATENCIES, {"since": since_day})
        return [(row[0], row[1], row[2]) for row in rows]

    async def predictions(self, *, since_day: int) -> Sequence[tuple[int, str, int]]:
        rows = await self._database.report(_PREDICTIONS, {"since": since_day})
        return [(row[0], row[1], row[2]) for row in rows]

    async def charged(self, subject: str, *, day: int, since_day: int) -> tuple[int, int]:
        rows = await self._database.find(_CHARGED, {"subject": subject, "day": day, "since": since_day})
        return rows[0][0], rows[0][1]

    async def units_by_day(self, *, since_day: int) -> Sequence[tuple[int, int]]:
        rows = await self._database.report(_UNITS_BY_DAY, {"since": since_day})
        return sorted((row[0], row[1]) for row in rows)

    async def charges(self, subject: str, *, since_day: int) -> Sequence[tuple[int, str, int]]:
        rows = await self._database.read(_CHARGES_OF, {"subject": subject, "since": since_day})
        return [(row[0], row[1], row[2]) for row in rows]

    async def by_caller(
        self, *, since_day: int, until_day: int, subject: str | None, after: UsageKey, most: int
    ) -> Sequence[UsageRow]:
        day, whose, route = after
        parameters: dict[str, Any] = {"since": since_day, "until": until_day, "most": most}
        parameters |= {"after_day": day, "after_subject": whose, "after_route": route}
        if subject is None:
            rows = await self._database.report(_BY_CALLER, parameters)
        else:
            rows = await self._database.report(_BY_ONE_CALLER, {**parameters, "subject": subject})
        return [UsageRow(*row) for row in rows]

    async def forget(self, *, before_day: int, most: int) -> int:
        parameters = {"before": before_day, "most": most}
        return sum(len(rows) for rows in await self._database.write_together(*((each, parameters) for each in _FORGET)))
