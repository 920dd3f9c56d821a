"""Users on SQLAlchemy Core."""

from collections.abc import Sequence

from sqlalchemy import bindparam, func, insert, select, update

from authwright.domain.instant import Instant
from authwright.domain.passwords import hash_format
from authwright.domain.secrets import UserId
from authwright.domain.user import User
from authwright.storage.port import NameDigest, NameTaken
from authwright.storage.sql.engine import Conflict, Database, Row, compiled
from authwright.storage.sql.tables import names, users

_COLUMNS = [column for column in users.c if column.name != "password_format"]

_ADD = compiled(insert(users))
_ADD_NAME = compiled(insert(names))
_FIND = compiled(select(*_COLUMNS).where(users.c.id == bindparam("user_id")))
_FIND_BY_NAME = compiled(
    select(*_COLUMNS).join(names, names.c.user_id == users.c.id).where(names.c.digest == bindparam("digest"))
)
_with_old_hash = (users.c.id == bindparam("user_id"), users.c.password_hash == bindparam("old"))
_REPLACE_PASSWORD = compiled(
    update(users)
    .where(*_with_old_hash, users.c.auth_epoch == bindparam("epoch"), users.c.status == "active")
    .values(
        password_hash=bindparam("new"),
        password_format=bindparam("format"),
        auth_epoch=users.c.auth_epoch + 1,
        updated_at=bindparam("now"),
    )
    .returning(users.c.auth_epoch)
)
_UPGRADE_HASH = compiled(
    update(users)
    .where(*_with_old_hash)
    .values(password_hash=bindparam("new"), password_format=bindparam("format"), updated_at=bindparam("now"))
    .returning(users.c.id)
)
_RAISE_EPOCH = compiled(
    update(users)
    .where(users.c.id == bindparam("user_id"))
    .values(auth_epoch=users.c.auth_epoch + 1, updated_at=bindparam("now"))
    .returning(users.c.auth_epoch)
)
# One look into the index for each format, however many users have it.
_least = select(func.min(users.c.password_format).label("format")).cte("formats", recursive=True)
_next = select(func.min(users.c.password_format)).where(users.c.password_format > _least.c.format).scalar_subquery()
_formats = _least.union_all(select(_next).where(_least.c.format.is_not(None)))
_FORMATS = compiled(select(_formats.c.format).where(_formats.c.format.is_not(None)))


class SqlUsers:
    """`storage.port.Users`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, user: User, names: Sequence[NameDigest]) -> None:
        row = {column.name: getattr(user, column.name) for column in _COLUMNS}
        row["password_format"] = hash_format(user.password_hash)
        steps = [(_ADD_NAME, {"digest": name, "user_id": user.id}) for name in names]
        try:
            await self._database.write_together((_ADD, row), *steps)
        except Conflict:
            raise NameTaken from None

    async def find(self, user_id: UserId) -> User | None:
        return _user(self._database.find(_FIND, {"user_id": user_id}))

    async def find_by_name(self, name: NameDigest) -> User | None:
        return _user(self._database.find(_FIND_BY_NAME, {"digest": name}))

    async def replace_password(self, user_id: UserId, *, old: str, new: str, epoch: int, now: Instant) -> int | None:
        hashes = {"old": old, "new": new, "format": hash_format(new)}
        parameters = {"user_id": user_id, "epoch": epoch, "now": now, **hashes}
        return _epoch(await self._database.write(_REPLACE_PASSWORD, parameters))

    async def upgrade_hash(self, user_id: UserId, *, old: str, new: str, now: Instant) -> bool:
        parameters = {"user_id": user_id, "old": old, "new": new, "format": hash_format(new), "now": now}
        return bool(await self._database.write(_UPGRADE_HASH, parameters))

    async def raise_epoch(self, user_id: UserId, *, now: Instant) -> int | None:
        return _epoch(await self._database.write(_RAISE_EPOCH, {"user_id": user_id, "now": now}))

    async def password_formats(self) -> frozenset[str]:
        return frozenset(row[0] for row in await self._database.read(_FORMATS, {}))


def _user(rows: list[Row]) -> User | None:
    return User(*rows[0]) if rows else None


def _epoch(rows: list[Row]) -> int | None:
    return int(rows[0][0]) if rows else None
