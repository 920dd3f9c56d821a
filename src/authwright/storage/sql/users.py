"""Users on SQLAlchemy Core."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    LargeBinary,
    Text,
    bindparam,
    column,
    delete,
    func,
    insert,
    null,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from authwright.domain.event import Event
from authwright.domain.instant import Instant
from authwright.domain.passwords import hash_format
from authwright.domain.secrets import Digest, UserId
from authwright.domain.user import User
from authwright.storage.port import Ending, NameDigest, NameTaken, UserFilter
from authwright.storage.sql.endings import subject_steps
from authwright.storage.sql.events import event_step, steps_of
from authwright.storage.sql.statements import Conflict, Database, Row, Step, compiled, position
from authwright.storage.sql.tables import api_keys, names, reset_tokens, users

USER_COLUMNS = [column for column in users.c if column.name != "password_format"]
"""The columns in the order of the fields of a user."""

_ADD = compiled(insert(users))
_ADD_NAME = compiled(insert(names))
_FIND = compiled(select(*USER_COLUMNS).where(users.c.id == bindparam("user_id")))
_FIND_BY_NAME = compiled(
    select(*USER_COLUMNS).join(names, names.c.user_id == users.c.id).where(names.c.digest == bindparam("digest"))
)
_digests = func.unnest(bindparam("digest", type_=ARRAY(LargeBinary))).table_valued(
    column("digest", LargeBinary), with_ordinality="which", name="given"
)
_many = _digests.render_derived()
_OWNER = compiled(
    select(names.c.user_id).where(names.c.digest == bindparam("digest")),
    batched=select(_many.c.which, names.c.user_id).join(names, names.c.digest == _many.c.digest),
)
_search: Any = bindparam("search", type_=Text)
_CREATED_AT = compiled(select(users.c.created_at).where(users.c.id == bindparam("user_id")))
_LIST = compiled(
    select(*USER_COLUMNS)
    .where(
        tuple_(users.c.created_at, users.c.id)
        > tuple_(bindparam("created_at", type_=BigInteger), bindparam("after", type_=Text)),
        or_(bindparam("role", type_=Text).is_(None), users.c.role == bindparam("role")),
        or_(bindparam("plan", type_=Text).is_(None), users.c.plan == bindparam("plan")),
        or_(bindparam("status", type_=Text).is_(None), users.c.status == bindparam("status")),
        or_(
            _search.is_(None),
            position(func.lower(func.coalesce(users.c.username, "")), func.lower(_search)) > 0,
            position(func.lower(func.coalesce(users.c.email, "")), func.lower(_search)) > 0,
        ),
    )
    .order_by(users.c.created_at, users.c.id)
    .limit(bindparam("most"))
)
_CHANGE = compiled(
    update(users)
    .where(users.c.id == bindparam("user_id"), users.c.auth_epoch == bindparam("epoch"))
    .values(
        username=bindparam("new_name"),
        email=bindparam("new_email"),
        role=bindparam("new_role"),
        plan=bindparam("new_plan"),
        status=bindparam("new_status"),
        auth_epoch=bindparam("new_epoch"),
        updated_at=bindparam("now"),
    )
    .returning(users.c.id)
)
_RESERVE_NAME = compiled(update(names).where(names.c.digest == bindparam("name")).values(user_id=null()))
_RESERVE_NAMES = compiled(update(names).where(names.c.user_id == bindparam("owner")).values(user_id=null()))
_RELEASE = compiled(
    delete(names).where(names.c.digest == bindparam("name"), names.c.user_id.is_(None)).returning(names.c.digest)
)
# The guard of a deletion; what refers to the user goes before the user itself.
_HOLD = compiled(
    update(users)
    .where(users.c.id == bindparam("user_id"), users.c.auth_epoch == bindparam("epoch"))
    .values(status="disabled", auth_epoch=users.c.auth_epoch + 1)
    .returning(users.c.auth_epoch)
)
_DELETE_API_KEYS = compiled(delete(api_keys).where(api_keys.c.user_id == bindparam("owner")))
_DELETE_RESET = compiled(delete(reset_tokens).where(reset_tokens.c.user_id == bindparam("owner")))
_DELETE = compiled(delete(users).where(users.c.id == bindparam("user_id")))
_OFFER_RESET = compiled(
    upsert(reset_tokens)
    .from_select(
        ["user_id", "digest", "expires_at"],
        select(
            users.c.id,
            bindparam("token", type_=reset_tokens.c.digest.type),
            bindparam("expires_at", type_=reset_tokens.c.expires_at.type),
        ).where(users.c.id == bindparam("user_id")),
    )
    .on_conflict_do_update(
        index_elements=["user_id"], set_={"digest": bindparam("token"), "expires_at": bindparam("expires_at")}
    )
    .returning(reset_tokens.c.user_id)
)
_FIND_BY_RESET = compiled(
    select(*USER_COLUMNS)
    .join(reset_tokens, reset_tokens.c.user_id == users.c.id)
    .where(
        reset_tokens.c.digest == bindparam("token"),
        reset_tokens.c.expires_at > bindparam("now"),
        users.c.status == "active",
    )
)
_SPEND_RESET = compiled(
    delete(reset_tokens)
    .where(
        reset_tokens.c.digest == bindparam("token"),
        reset_tokens.c.user_id == bindparam("user_id"),
        reset_tokens.c.expires_at > bindparam("now"),
    )
    .returning(reset_tokens.c.user_id)
)
_FORGET_RESETS = compiled(
    delete(reset_tokens)
    .where(
        reset_tokens.c.user_id.in_(
            select(reset_tokens.c.user_id).where(reset_tokens.c.expires_at <= bindparam("now")).limit(bindparam("most"))
        )
    )
    .returning(reset_tokens.c.user_id)
)
_SET_PASSWORD = compiled(
    update(users)
    .where(users.c.id == bindparam("user_id"), users.c.status == "active")
    .values(
        password_hash=bindparam("new"),
        password_format=bindparam("format"),
        auth_epoch=users.c.auth_epoch + 1,
        updated_at=bindparam("now"),
    )
    .returning(users.c.auth_epoch)
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

    async def add(
        self,
        user: User,
        names: Sequence[NameDigest],
        *,
        released: Sequence[NameDigest] = (),
        event: Event | None = None,
    ) -> None:
        steps: list[Step] = [(_RELEASE, {"name": name}) for name in released]
        steps += [(_ADD_NAME, {"digest": name, "user_id": user.id}) for name in names]
        try:
            await self._database.write_together((_ADD, _row(user)), *steps, *steps_of(event))
        except Conflict:
            raise NameTaken from None

    async def add_many(self, entries: Sequence[tuple[User, Sequence[NameDigest], Event]]) -> None:
        rows: list[Step] = [(_ADD, _row(user)) for user, _, _ in entries]
        rows += [(_ADD_NAME, {"digest": name, "user_id": user.id}) for user, names, _ in entries for name in names]
        rows += [event_step(event) for _, _, event in entries]
        try:
            await self._database.write_together(*rows)
        except Conflict:
            raise NameTaken from None

    async def owners(self, names: Sequence[NameDigest]) -> Mapping[NameDigest, UserId | None]:
        found = await self._database.find_each(_OWNER, [{"digest": name} for name in names])
        return {name: rows[0][0] for name, rows in zip(names, found, strict=True) if rows}

    async def find(self, user_id: UserId) -> User | None:
        return _first(await self._database.find(_FIND, {"user_id": user_id}))

    async def find_by_name(self, name: NameDigest) -> User | None:
        return _first(await self._database.find(_FIND_BY_NAME, {"digest": name}))

    async def list(self, which: UserFilter, *, after: UserId | None, most: int) -> Sequence[User]:
        reached = await self._database.find(_CREATED_AT, {"user_id": after}) if after else []
        parameters = {
            "role": which.role,
            "plan": which.plan,
            "status": which.status,
            "search": which.search,
            "created_at": reached[0][0] if reached else -1,
            "after": after or "",
            "most": most,
        }
        return [user_of(row) for row in await self._database.report(_LIST, parameters)]

    async def change(
        self,
        user: User,
        *,
        epoch: int,
        gained: Sequence[NameDigest],
        lost: Sequence[NameDigest],
        released: Sequence[NameDigest] = (),
        ending: Ending | None = None,
        event: Event | None = None,
    ) -> bool:
        parameters = {
            "user_id": user.id,
            "epoch": epoch,
            "new_name": user.username,
            "new_email": user.email,
            "new_role": user.role,
            "new_plan": user.plan,
            "new_status": user.status,
            "new_epoch": user.auth_epoch,
            "now": user.updated_at,
        }
        steps: list[Step] = [(_CHANGE, parameters)]
        steps += [(_RESERVE_NAME, {"name": name}) for name in lost]
        steps += [(_RELEASE, {"name": name}) for name in released]
        steps += [(_ADD_NAME, {"digest": name, "user_id": user.id}) for name in gained]
        steps += subject_steps(user.id, ending)
        if ending is not None and not ending.carry_over:
            steps.append((_DELETE_RESET, {"owner": user.id}))
        try:
            return bool(await self._database.write_together(*steps, *steps_of(event), guards=1))
        except Conflict:
            raise NameTaken from None

    async def delete(
        self, user_id: UserId, *, epoch: int, ending: Ending | None = None, event: Event | None = None
    ) -> bool:
        whose = {"owner": user_id, "user_id": user_id, "epoch": epoch}
        statements = (_RESERVE_NAMES, _DELETE_API_KEYS, _DELETE_RESET, _DELETE)
        steps = [*subject_steps(user_id, ending), *((statement, whose) for statement in statements)]
        return bool(await self._database.write_together((_HOLD, whose), *steps, *steps_of(event), guards=1))

    async def offer_reset(
        self, user_id: UserId, token: Digest, *, expires_at: Instant, event: Event | None = None
    ) -> bool:
        step = (_OFFER_RESET, {"user_id": user_id, "token": token, "expires_at": expires_at})
        return bool(await self._database.write_together(step, *steps_of(event), guards=1))

    async def find_by_reset(self, token: Digest, *, now: Instant) -> User | None:
        return _first(await self._database.find(_FIND_BY_RESET, {"token": token, "now": now}))

    async def reset_password(
        self,
        user_id: UserId,
        token: Digest,
        *,
        new: str,
        now: Instant,
        ending: Ending | None = None,
        event: Event | None = None,
    ) -> int | None:
        parameters = {"user_id": user_id, "token": token, "new": new, "format": hash_format(new), "now": now}
        steps: list[Step] = [(_SPEND_RESET, parameters), (_SET_PASSWORD, parameters)]
        steps += [*subject_steps(user_id, ending), (_DELETE_API_KEYS, {"owner": user_id})]
        answers = await self._database.write_together(*steps, *steps_of(event), guards=2)
        return epoch_of(answers[1:])

    async def forget_resets(self, *, now: Instant, most: int) -> int:
        return len(await self._database.write(_FORGET_RESETS, {"now": now, "most": most}))

    async def replace_password(
        self,
        user_id: UserId,
        *,
        old: str,
        new: str,
        epoch: int,
        now: Instant,
        ending: Ending | None = None,
        event: Event | None = None,
    ) -> int | None:
        hashes = {"old": old, "new": new, "format": hash_format(new)}
        parameters = {"user_id": user_id, "epoch": epoch, "now": now, **hashes}
        steps = [*subject_steps(user_id, ending), (_DELETE_RESET, {"owner": user_id}), *steps_of(event)]
        return epoch_of(await self._database.write_together((_REPLACE_PASSWORD, parameters), *steps, guards=1))

    async def upgrade_hash(self, user_id: UserId, *, old: str, new: str, now: Instant) -> bool:
        parameters = {"user_id": user_id, "old": old, "new": new, "format": hash_format(new), "now": now}
        return bool(await self._database.write(_UPGRADE_HASH, parameters))

    async def raise_epoch(
        self, user_id: UserId, *, now: Instant, ending: Ending | None = None, event: Event | None = None
    ) -> int | None:
        step = (_RAISE_EPOCH, {"user_id": user_id, "now": now})
        steps = [*subject_steps(user_id, ending), (_DELETE_RESET, {"owner": user_id}), *steps_of(event)]
        return epoch_of(await self._database.write_together(step, *steps, guards=1))

    async def password_formats(self) -> frozenset[str]:
        return frozenset(row[0] for row in await self._database.read(_FORMATS, {}))


def _row(user: User) -> dict[str, Any]:
    row = {column.name: getattr(user, column.name) for column in USER_COLUMNS}
    return {**row, "password_format": hash_format(user.password_hash)}


def user_of(row: Row) -> User:
    """The user whose USER_COLUMNS *row* holds."""
    return User(*row)


def epoch_of(answers: Sequence[Sequence[Row]]) -> int | None:
    """The epoch that the first of several steps returned, if it did."""
    return int(answers[0][0][0]) if answers else None


def _first(rows: Sequence[Row]) -> User | None:
    return user_of(rows[0]) if rows else None
