"""Sessions on SQLAlchemy Core: every change is one guarded statement."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    LargeBinary,
    Select,
    Text,
    and_,
    bindparam,
    case,
    column,
    delete,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    union_all,
    update,
)

from authwright.domain.event import Event
from authwright.domain.instant import Instant
from authwright.domain.secrets import USER_PREFIX, ClientId, Digest, SessionId, Subject
from authwright.domain.session import EndReason, Session
from authwright.storage.port import Ended, Ending, Opened, Passed
from authwright.storage.sql.endings import session_steps, token_step
from authwright.storage.sql.events import steps_of
from authwright.storage.sql.statements import Database, Gathered, Row, Statement, compiled
from authwright.storage.sql.tables import api_keys, clients, events, sessions, users
from authwright.storage.sql.throttles import passed_steps

# Written into the statement: a constant that is bound has to be put among the values each time.
_ACTIVE: Any = literal_column("'active'")
# Rows in one transaction, so that none keeps the others waiting.
_AT_ONCE = 200
_COLUMNS = [column for column in sessions.c if column.name != "others"]
# The columns stand in the order of the fields of a session.
_NAMES = [column.name for column in _COLUMNS]
_INSERTED = [*_NAMES, "others"]
_AUDIENCES = _NAMES.index("audiences")

_live = (
    sessions.c.subject == bindparam("subject"),
    sessions.c.revoked_at.is_(None),
    sessions.c.idle_expires_at > bindparam("now"),
)


# What is recorded of a session that was opened. SQLite has a trigger for it, which says the same.
_RECORDED: dict[str, Any] = {
    "at": "created_at",
    "actor": "subject",
    "subject": "subject",
    "client_id": "client_id",
    "session_id": "id",
    "address": "address",
    "user_agent": "user_agent",
    "request_id": "request_id",
    "detail": "methods",
}


def _insert_for(
    source: Select[Any], *guards: Any, answer: Sequence[Any] = (), gathered: Gathered | None = None
) -> Statement:
    """A statement that inserts what *source* selects, if the rows of the tables *guards* are there.

    Where others write meanwhile, these rows are locked until the session is there: a change of them comes before and
    is seen, or after and sees the session.
    """
    columns = _INSERTED
    locked = source.with_for_update(read=True, of=guards)
    opened = insert(sessions).from_select(columns, locked).returning(sessions).cte("opened")
    fixed: dict[str, Any] = {"kind": literal_column("'login'"), "outcome": literal_column("'success'")}
    shown = [*fixed.values(), *(opened.c[name] for name in _RECORDED.values())]
    recorded = insert(events).from_select([*fixed, *_RECORDED], select(*shown)).cte("recorded")
    return compiled(
        insert(sessions).from_select(columns, source).returning(*answer, sessions.c.others),
        postgres=select(*(opened.c[column.name] for column in answer), opened.c.others).add_cte(recorded),
        gathered=gathered,
    )


def _bound(column: Any) -> Any:
    return bindparam(column.name, type_=column.type)


def _others_of(subject: Any, client: Any, now: Any) -> Any:
    return (
        select(func.count())
        .select_from(sessions)
        .where(
            sessions.c.subject == subject,
            sessions.c.client_id == client,
            sessions.c.revoked_at.is_(None),
            sessions.c.idle_expires_at > now,
        )
        .scalar_subquery()
    )


def _open_for(table: Any, *others: Any, conditions: Sequence[Any] = ()) -> Statement:
    # The subject's row is the guard: no row with this epoch that is active, no session.
    return _insert_for(
        select(*map(_bound, _COLUMNS), _others_of(table.c.id, bindparam("client_id"), bindparam("created_at")))
        .select_from(table, *others)
        .where(
            table.c.id == bindparam("subject"),
            table.c.auth_epoch == bindparam("auth_epoch"),
            table.c.status == _ACTIVE,
            *conditions,
        ),
        table,
        *others,
    )


_OPEN_FOR_USER = _open_for(users)
_OPEN_FOR_CLIENT = _open_for(clients)
_OPEN_WITH_API_KEY = _open_for(
    users,
    api_keys,
    conditions=(
        api_keys.c.id == bindparam("client_id"),
        api_keys.c.user_id == users.c.id,
        api_keys.c.expires_at > bindparam("created_at"),
    ),
)

_from_client: dict[str, Any] = {
    "subject": clients.c.id,
    "client_id": clients.c.id,
    "username": clients.c.name,
    "role": literal_column("'user'"),
    "plan": clients.c.plan,
    "auth_epoch": clients.c.auth_epoch,
    "granted_scope": clients.c.scope,
    "audiences": clients.c.audiences,
}
_DRAFTED = [column for column in _COLUMNS if column.name not in _from_client]


def _from_key(given: Callable[[Any], Any]) -> Select[Any]:
    drafted = {column.name: given(column) for column in _DRAFTED}
    return (
        select(
            *((_from_client | drafted)[name] for name in _NAMES),
            _others_of(clients.c.id, clients.c.id, drafted["created_at"]),
        )
        .select_from(clients)
        .where(clients.c.key_digest == given(column("key", LargeBinary)), clients.c.status == _ACTIVE)
    )


_key_answer = [sessions.c[name] for name in _from_client]
_OPEN_WITH_KEY = _insert_for(
    _from_key(_bound),
    clients,
    answer=_key_answer,
    gathered=Gathered(
        columns=(*(column.name for column in _DRAFTED), "key"),
        build=lambda given: (
            insert(sessions)
            .from_select(_INSERTED, _from_key(lambda column: given.c[column.name]))
            .returning(sessions.c.id, *_key_answer, sessions.c.others)
        ),
        # Of two with one key the second has to count the first among the others.
        apart="key",
        which="id",
    ),
)

_FROM_CLIENT = [_NAMES.index(name) for name in _from_client]

_FIND = compiled(select(*_COLUMNS).where(sessions.c.id == bindparam("session")))
_ROTATE_WITH: dict[str, Any] = {
    "session": Text,
    "presented_generation": BigInteger,
    "presented": LargeBinary,
    "successor": LargeBinary,
    "client": Text,
    "now": BigInteger,
    "idle": BigInteger,
}


def _rotate(given: Callable[[str], Any], *answer: Any) -> Any:
    idle = given("idle")
    return (
        update(sessions)
        .where(
            sessions.c.id == given("session"),
            sessions.c.generation == given("presented_generation"),
            sessions.c.secret_digest == given("presented"),
            or_(given("client").is_(None), sessions.c.client_id == given("client")),
            sessions.c.revoked_at.is_(None),
            sessions.c.idle_expires_at > given("now"),
        )
        .values(
            generation=sessions.c.generation + literal_column("1"),
            secret_digest=given("successor"),
            rotated_at=given("now"),
            used_at=given("now"),
            idle_expires_at=case((idle < sessions.c.expires_at, idle), else_=sessions.c.expires_at),
        )
        .returning(*answer, *_COLUMNS)
    )


# Of several that present the same secret in one batch the update takes one: a row is updated once.
_many = (
    func.unnest(*(bindparam(name, type_=ARRAY(kind)) for name, kind in _ROTATE_WITH.items()))
    .table_valued(*(column(name, kind) for name, kind in _ROTATE_WITH.items()), with_ordinality="which", name="given")
    .render_derived()
)
_ROTATE = compiled(
    _rotate(lambda name: bindparam(name, type_=_ROTATE_WITH[name])),
    batched=_rotate(lambda name: _many.c[name], _many.c.which),
    gathered=Gathered(
        columns=tuple(_ROTATE_WITH),
        build=lambda given: _rotate(lambda name: given.c[name], sessions.c.id),
        # Of two that present the same one it could not be told whose the row is.
        apart="session",
        which="session",
    ),
)
_ended: dict[str, Any] = {"revoked_at": bindparam("now"), "revoked_because": bindparam("because")}
_END = compiled(
    update(sessions)
    .where(sessions.c.id == bindparam("session"), sessions.c.revoked_at.is_(None))
    .values(**_ended)
    .returning(sessions.c.id)
)
_IS_THERE = compiled(
    union_all(*(select(table.c.id).where(table.c.id == bindparam("subject")) for table in (users, clients)))
)
_older = sessions.c.auth_epoch < bindparam("below")
_KEEP = compiled(
    update(sessions)
    .where(sessions.c.id == bindparam("keep"), _older, *_live)
    .values(auth_epoch=bindparam("below"))
    .returning(sessions.c.id)
)
_END_ALL = compiled(
    update(sessions)
    .where(sessions.c.subject == bindparam("subject"), sessions.c.revoked_at.is_(None), _older)
    .values(**_ended)
    .returning(sessions.c.id)
)
_END_EVERYTHING = compiled(
    update(sessions).where(sessions.c.revoked_at.is_(None)).values(**_ended).returning(sessions.c.id)
)
_END_EXCESS = compiled(
    update(sessions)
    .where(
        sessions.c.id.in_(
            select(sessions.c.id)
            .where(*_live, sessions.c.client_id == bindparam("client"))
            .order_by(sessions.c.used_at.desc(), sessions.c.created_at.desc(), sessions.c.id)
            .offset(bindparam("most"))
        )
    )
    .values(**_ended)
    .returning(sessions.c.id)
)
_LIST_LIVE = compiled(select(*_COLUMNS).where(*_live).order_by(sessions.c.used_at.desc(), sessions.c.id))
_LIST_ALL = compiled(
    select(*_COLUMNS)
    .where(
        sessions.c.id > bindparam("after"),
        sessions.c.revoked_at.is_(None),
        sessions.c.idle_expires_at > bindparam("now"),
    )
    .order_by(sessions.c.id)
    .limit(bindparam("most"))
)


_ended_before = sessions.c.revoked_at < bindparam("before")
_expired_before = and_(sessions.c.revoked_at.is_(None), sessions.c.idle_expires_at < bindparam("before"))
_ENDED_BEFORE = compiled(select(sessions.c.id).where(_ended_before).limit(bindparam("most")))
# No index serves this one, so that none has to be kept at every refresh; it is read on a thread.
_EXPIRED_BEFORE = compiled(select(sessions.c.id).where(_expired_before).limit(bindparam("most")))
_FORGET = compiled(
    delete(sessions)
    .where(sessions.c.id == bindparam("session"), or_(_ended_before, _expired_before))
    .returning(sessions.c.id)
)


_ENDED_SINCE = compiled(
    select(sessions.c.id, sessions.c.subject, sessions.c.auth_epoch).where(sessions.c.revoked_at >= bindparam("at"))
)


def _outdated(table: Any) -> Select[Any]:
    return (
        select(table.c.id, table.c.auth_epoch)
        .join(sessions, sessions.c.subject == table.c.id)
        .where(sessions.c.revoked_at.is_(None), sessions.c.auth_epoch < table.c.auth_epoch)
        .distinct()
    )


# Their subject was deleted, and a crash came before they were ended.
_orphaned = (
    select(sessions.c.subject, func.max(sessions.c.auth_epoch) + 1)
    .where(
        sessions.c.revoked_at.is_(None),
        ~exists().where(users.c.id == sessions.c.subject),
        ~exists().where(clients.c.id == sessions.c.subject),
    )
    .group_by(sessions.c.subject)
)
_OUTDATED = compiled(union_all(_outdated(users), _outdated(clients), _orphaned))


class SqlSessions:
    """`storage.port.Sessions`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self, session: Session, *, passed: Passed | None = None, hurry: bool = True) -> Opened | None:
        statement = _OPEN_FOR_CLIENT
        if session.subject.startswith(USER_PREFIX):
            statement = _OPEN_FOR_USER if session.first_party else _OPEN_WITH_API_KEY
        steps = [(statement, _parameters(session)), *passed_steps(passed)]
        opened = await self._database.write_together(*steps, guards=1, patient=not hurry)
        return Opened(session, opened[0][0][0]) if opened else None

    async def open_with_key(self, key: Digest, draft: Session) -> Opened | None:
        parameters = _parameters(draft)
        parameters["key"] = key
        rows = await self._database.write(_OPEN_WITH_KEY, parameters)
        if not rows:
            return None
        values: list[Any] = list(draft)
        for position, value in zip(_FROM_CLIENT, rows[0], strict=False):
            values[position] = value
        values[_AUDIENCES] = tuple(values[_AUDIENCES].split())
        return Opened(Session._make(values), rows[0][-1])

    async def find(self, session_id: SessionId) -> Session | None:
        rows = await self._database.find(_FIND, {"session": session_id})
        return _session(rows[0]) if rows else None

    async def rotate(
        self,
        session_id: SessionId,
        *,
        generation: int,
        presented: Digest,
        successor: Digest,
        client: ClientId | None,
        now: Instant,
        idle_expires_at: Instant,
    ) -> Session | None:
        parameters = {
            "session": session_id,
            "presented_generation": generation,
            "presented": presented,
            "successor": successor,
            "client": client,
            "now": now,
            "idle": idle_expires_at,
        }
        rows = await self._database.write(_ROTATE, parameters)
        return _session(rows[0]) if rows else None

    async def end(
        self,
        session_id: SessionId,
        *,
        because: EndReason,
        now: Instant,
        ending: Ending | None = None,
        event: Event | None = None,
    ) -> bool:
        step = (_END, {"session": session_id, "because": because, "now": now})
        steps = [*session_steps(session_id, ending), *steps_of(event)]
        return bool(await self._database.write_together(step, *steps, guards=1))

    async def withdraw_token(
        self, token_id: str, *, subject: Subject, ending: Ending, event: Event | None = None
    ) -> bool:
        steps = (token_step(token_id, ending), *steps_of(event))
        return bool(await self._database.write_together((_IS_THERE, {"subject": subject}), *steps, guards=1))

    async def end_all(
        self, subject: Subject, *, below_epoch: int, keep: SessionId | None, because: EndReason, now: Instant
    ) -> int:
        parameters = {"subject": subject, "below": below_epoch, "keep": keep, "because": because, "now": now}
        _, ended = await self._database.write_together((_KEEP, parameters), (_END_ALL, parameters))
        return len(ended)

    async def end_everything(self, *, because: EndReason, now: Instant) -> int:
        return len(await self._database.write(_END_EVERYTHING, {"because": because, "now": now}))

    async def end_excess(self, subject: Subject, *, client: ClientId, most: int, now: Instant) -> Sequence[SessionId]:
        parameters = {"subject": subject, "client": client, "most": most, "because": "evicted", "now": now}
        return [row[0] for row in await self._database.write(_END_EXCESS, parameters)]

    async def list_live(self, subject: Subject, *, now: Instant) -> Sequence[Session]:
        return [_session(row) for row in await self._database.read(_LIST_LIVE, {"subject": subject, "now": now})]

    async def list_all(self, *, now: Instant, after: SessionId | None, most: int) -> Sequence[Session]:
        parameters = {"now": now, "after": after or "", "most": most}
        return [_session(row) for row in await self._database.read(_LIST_ALL, parameters)]

    async def ended_since(self, at: Instant) -> Sequence[Ended]:
        return [Ended(*row) for row in await self._database.read(_ENDED_SINCE, {"at": at})]

    async def outdated(self) -> Sequence[tuple[Subject, int]]:
        return [(row[0], row[1]) for row in await self._database.read(_OUTDATED, {})]

    async def forget(self, *, before: Instant, most: int) -> int:
        parameters = {"before": before, "most": most}
        old = await self._database.report(_ENDED_BEFORE, parameters)
        old += await self._database.report(_EXPIRED_BEFORE, parameters)
        steps = [(_FORGET, {"session": row[0], "before": before}) for row in old[:most]]
        forgotten = 0
        for start in range(0, len(steps), _AT_ONCE):
            forgotten += sum(
                len(rows) for rows in await self._database.write_together(*steps[start : start + _AT_ONCE])
            )
        return forgotten


def _parameters(session: Session) -> dict[str, Any]:
    parameters = dict(zip(_NAMES, session, strict=True))
    parameters["audiences"] = " ".join(session.audiences)
    return parameters


def _session(row: Row) -> Session:
    values = list(row)
    values[_AUDIENCES] = tuple(values[_AUDIENCES].split())
    return Session._make(values)
