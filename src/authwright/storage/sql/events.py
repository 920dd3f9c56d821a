"""Security events on SQLAlchemy Core."""

from collections.abc import Sequence

from sqlalchemy import BigInteger, ColumnElement, Text, bindparam, delete, func, insert, or_, select

from authwright.domain.event import Event, EventKind, Outcome
from authwright.domain.instant import Instant
from authwright.domain.notice import notices_of
from authwright.domain.usage import DAY
from authwright.storage.port import EventFilter
from authwright.storage.sql.notices import notice_step
from authwright.storage.sql.statements import Database, Step, compiled, unfailing
from authwright.storage.sql.tables import events

_COLUMNS = [column for column in events.c if column.name != "number"]
_NAMES = [column.name for column in _COLUMNS]
_APPEND = unfailing(insert(events).values({name: bindparam(name) for name in _NAMES}))


def _if_given(name: str, condition: ColumnElement[bool]) -> ColumnElement[bool]:
    kind = BigInteger if name in ("since", "until") else Text
    return or_(bindparam(name, type_=kind).is_(None), condition)


_LIST = compiled(
    select(*_COLUMNS, events.c.number)
    .where(
        events.c.number < bindparam("before"),
        _if_given("kind", events.c.kind == bindparam("kind")),
        _if_given("outcome", events.c.outcome == bindparam("outcome")),
        _if_given("subject", events.c.subject == bindparam("subject")),
        _if_given("actor", events.c.actor == bindparam("actor")),
        _if_given("address", events.c.address == bindparam("address")),
        _if_given("since", events.c.at >= bindparam("since")),
        _if_given("until", events.c.at < bindparam("until")),
    )
    .order_by(events.c.number.desc())
    .limit(bindparam("most"))
)
_AFTER = compiled(
    select(*_COLUMNS, events.c.number)
    .where(events.c.number > bindparam("after"))
    .order_by(events.c.number)
    .limit(bindparam("most"))
)
_old = select(events.c.number).where(events.c.number <= bindparam("through")).limit(bindparam("most"))
_FORGET = compiled(delete(events).where(events.c.number.in_(_old)).returning(events.c.number))
_day = events.c.at.op("/")(DAY)
_COUNT_BY_DAY = compiled(
    select(_day, events.c.kind, events.c.outcome, func.count())
    .where(events.c.at >= bindparam("since"))
    .group_by(_day, events.c.kind, events.c.outcome)
)


def event_step(event: Event) -> Step:
    """The step that stores *event* in the transaction of the act it belongs to."""
    return _APPEND, dict(zip(_NAMES, event, strict=False))


def steps_of(event: Event | None) -> tuple[Step, ...]:
    """The steps that store *event*, if there is one, and the notices of it."""
    return () if event is None else (event_step(event), *map(notice_step, notices_of(event)))


class SqlEvents:
    """`storage.port.Events`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, event: Event) -> None:
        await self._database.write_together(*steps_of(event))

    async def list(self, which: EventFilter, *, before: int | None, most: int) -> Sequence[Event]:
        parameters = {
            "kind": which.kind,
            "outcome": which.outcome,
            "subject": which.subject,
            "actor": which.actor,
            "address": which.address,
            "since": which.since,
            "until": which.until,
            "before": 2**63 - 1 if before is None else before,
            "most": most,
        }
        return [Event(*row) for row in await self._database.report(_LIST, parameters)]

    async def after(self, number: int, *, most: int) -> Sequence[Event]:
        return [Event(*row) for row in await self._database.report(_AFTER, {"after": number, "most": most})]

    async def forget(self, *, through: int, most: int) -> int:
        return len(await self._database.write(_FORGET, {"through": through, "most": most}))

    async def count_by_day(self, *, since: Instant) -> Sequence[tuple[int, EventKind, Outcome, int]]:
        rows = await self._database.report(_COUNT_BY_DAY, {"since": since})
        return [(row[0], row[1], row[2], row[3]) for row in rows]
