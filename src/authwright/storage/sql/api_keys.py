"""Users' API keys on SQLAlchemy Core."""

from collections.abc import Sequence

from sqlalchemy import Text, bindparam, delete, func, insert, or_, select

from authwright.domain.api_key import ApiKey
from authwright.domain.event import Event
from authwright.domain.plan import format_scope, parse_scope
from authwright.domain.secrets import ApiKeyId, Digest, UserId
from authwright.domain.user import User
from authwright.storage.port import Ending
from authwright.storage.sql.endings import client_steps
from authwright.storage.sql.events import steps_of
from authwright.storage.sql.statements import Database, Row, compiled
from authwright.storage.sql.tables import api_keys, users
from authwright.storage.sql.users import USER_COLUMNS, user_of

_COLUMNS = list(api_keys.c)
_held = (
    select(func.count())
    .select_from(api_keys)
    .where(api_keys.c.user_id == users.c.id)
    .correlate(users)
    .scalar_subquery()
)
# Whoever adds keys to one user at the same time comes one after the other, so that all are counted.
_HOLD_USER = compiled(select(users.c.id).where(users.c.id == bindparam("user_id")).with_for_update())
_ADD = compiled(
    insert(api_keys)
    .from_select(
        [column.name for column in _COLUMNS],
        select(*(bindparam(column.name, type_=column.type) for column in _COLUMNS))
        .select_from(users)
        .where(
            users.c.id == bindparam("user_id"),
            users.c.status == "active",
            users.c.auth_epoch == bindparam("held_epoch"),
            _held < bindparam("most"),
        ),
    )
    .returning(api_keys.c.id)
)
_FIND_BY_DIGEST = compiled(
    select(*_COLUMNS, *USER_COLUMNS)
    .join(users, users.c.id == api_keys.c.user_id)
    .where(api_keys.c.key_digest == bindparam("key"))
)
_LIST = compiled(
    select(*_COLUMNS)
    .where(
        or_(bindparam("user_id", type_=Text).is_(None), api_keys.c.user_id == bindparam("user_id")),
        api_keys.c.id > bindparam("after"),
    )
    .order_by(api_keys.c.id)
    .limit(bindparam("most"))
)
_DELETE = compiled(
    delete(api_keys)
    .where(api_keys.c.id == bindparam("key"), api_keys.c.user_id == bindparam("user_id"))
    .returning(api_keys.c.id)
)
_OWNER = compiled(select(api_keys.c.user_id).where(api_keys.c.id == bindparam("key")))


class SqlApiKeys:
    """`storage.port.ApiKeys`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, key: ApiKey, *, epoch: int, most: int, event: Event | None = None) -> bool:
        row = {column.name: getattr(key, column.name) for column in _COLUMNS} | {"most": most, "held_epoch": epoch}
        row["scope"], row["audiences"] = format_scope(key.scope), " ".join(key.audiences)
        hold = (_HOLD_USER, {"user_id": key.user_id})
        return bool(await self._database.write_together(hold, (_ADD, row), *steps_of(event), guards=2))

    async def find_by_digest(self, key: Digest) -> tuple[ApiKey, User] | None:
        rows = await self._database.find(_FIND_BY_DIGEST, {"key": key})
        if not rows:
            return None
        return _api_key(rows[0][: len(_COLUMNS)]), user_of(rows[0][len(_COLUMNS) :])

    async def list(self, user_id: UserId | None, *, after: ApiKeyId | None, most: int) -> Sequence[ApiKey]:
        parameters = {"user_id": user_id, "after": after or "", "most": most}
        return [_api_key(row) for row in await self._database.read(_LIST, parameters)]

    async def delete(
        self, key_id: ApiKeyId, *, user_id: UserId, ending: Ending | None = None, event: Event | None = None
    ) -> bool:
        step = (_DELETE, {"key": key_id, "user_id": user_id})
        steps = [*client_steps(key_id, user_id, ending), *steps_of(event)]
        return bool(await self._database.write_together(step, *steps, guards=1))

    async def owner(self, key_id: ApiKeyId) -> UserId | None:
        rows = await self._database.find(_OWNER, {"key": key_id})
        return rows[0][0] if rows else None


def _api_key(row: Row) -> ApiKey:
    ident, user_id, name, digest, hint, scope, audiences, created_at, expires_at = row
    given = parse_scope(scope), tuple(audiences.split())
    return ApiKey(ident, user_id, name, digest, hint, *given, created_at, expires_at)
