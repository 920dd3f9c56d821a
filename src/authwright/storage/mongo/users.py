"""Users in MongoDB: one document holds the account, its names now and before, its API keys and its reset token.

`names` are all that the user has or had, under one unique index; `current` those it has now. Of a deleted user the
document keeps its id, its epoch and its names.
"""

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from authwright.domain.event import Event
from authwright.domain.instant import Instant
from authwright.domain.passwords import hash_format
from authwright.domain.secrets import Digest, UserId
from authwright.domain.user import User
from authwright.storage.mongo.database import Document, Duplicate, Filter, MongoDatabase, given, unless_empty
from authwright.storage.mongo.events import MongoEvents
from authwright.storage.mongo.outbox import Outbox, appended, follow_up
from authwright.storage.port import Ending, NameDigest, NameTaken, UserFilter

_FIELDS = [name for name in User.__dataclass_fields__ if name != "id"]
_THERE: Filter = {"status": {"$ne": "deleted"}}
_Holders = list[tuple[str, NameDigest]]
_RAISED: Document = {"auth_epoch": {"$add": ["$auth_epoch", 1]}}


class MongoUsers:
    """`storage.port.Users`.

    Names that are *released* are let go of in a step before; if what follows fails they are reserved again.
    `add_many` takes back what it inserted if a name is taken; a crash in between leaves some of the users there.
    """

    def __init__(self, database: MongoDatabase, outbox: Outbox, events: MongoEvents) -> None:
        self._users = database.collection("users")
        self._outbox = outbox
        self._events = events

    async def add(
        self,
        user: User,
        names: Sequence[NameDigest],
        *,
        released: Sequence[NameDigest] = (),
        event: Event | None = None,
    ) -> None:
        document = _document(user, names) | {"outbox": follow_up(event)}
        holders = await self._release(released)
        try:
            await self._users.insert(document)
        except Duplicate:
            await self._reserve_again(holders)
            raise NameTaken from None
        await self._outbox.settle(self._users, document)

    async def add_many(self, entries: Sequence[tuple[User, Sequence[NameDigest], Event]]) -> None:
        documents = [_document(user, names) | {"outbox": follow_up(event)} for user, names, event in entries]
        inserted = {"_id": {"$in": [document["_id"] for document in documents]}}
        try:
            await self._users.insert_many(documents)
        except Duplicate:
            await self._users.delete(inserted)
            raise NameTaken from None
        marked = [
            (event, document["outbox"][0]["id"]) for (_, _, event), document in zip(entries, documents, strict=True)
        ]
        await self._events.add_many(marked)
        await self._users.change_all(inserted, {"$pull": {"outbox": {"id": {"$in": [mark for _, mark in marked]}}}})

    async def owners(self, names: Sequence[NameDigest]) -> Mapping[NameDigest, UserId | None]:
        found = await self._users.find({"names": {"$in": list(names)}}, only=["names", "current"])
        return {
            NameDigest(name): UserId(each["_id"]) if name in each.get("current", ()) else None
            for each in found
            for name in each["names"]
            if name in names
        }

    async def find(self, user_id: UserId) -> User | None:
        return await self._settled({"_id": user_id, **_THERE})

    async def find_by_name(self, name: NameDigest) -> User | None:
        return await self._settled({"names": name, "current": name, **_THERE})

    async def _settled(self, which: Filter) -> User | None:
        """The user that fits. Nobody is told of a change before what follows from it was carried out."""
        found = await self._users.first(which)
        await self._outbox.settle(self._users, found)
        return _user(found)

    async def list(self, which: UserFilter, *, after: UserId | None, most: int) -> Sequence[User]:
        wanted: list[Filter] = [_THERE]
        wanted += [{name: value} for name in ("role", "plan", "status") if (value := getattr(which, name)) is not None]
        if which.search is not None:
            part = {"$regex": re.escape(which.search), "$options": "i"}
            wanted.append({"$or": [{"username": part}, {"email": part}]})
        if after is not None:
            reached = await self._users.first({"_id": after}, only=["created_at"])
            created_at = reached["created_at"] if reached else -1
            later = {"created_at": {"$gt": created_at}}
            wanted.append({"$or": [later, {"created_at": created_at, "_id": {"$gt": after}}]})
        found = await self._users.find({"$and": wanted}, sort=[("created_at", 1), ("_id", 1)], most=most, slow=True)
        return [user for each in found if (user := _user(each))]

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
        changed = ("username", "email", "role", "plan", "status", "auth_epoch", "updated_at")
        values = given({name: getattr(user, name) for name in changed})
        if gained or lost:
            kept = {"$setDifference": [{"$ifNull": ["$current", []]}, list(lost)]}
            values["names"] = unless_empty({"$setUnion": [{"$ifNull": ["$names", []]}, list(gained)]})
            values["current"] = {"$setUnion": [kept, list(gained)]}
        if ending is not None and not ending.carry_over:
            values["reset"] = "$$REMOVE"
        which = {"_id": user.id, "auth_epoch": epoch, **_THERE}
        holders = await self._release(released)
        try:
            # A name that was the user's own before is reserved like anybody else's.
            changes = self._change({**which, "names": {"$nin": list(gained)}}, values, user.id, ending, event)
            done = await changes
            if done is None and await self._users.first(which, only=["_id"]):
                raise Duplicate
        except Duplicate:
            await self._reserve_again(holders)
            raise NameTaken from None
        if done is None:
            await self._reserve_again(holders)
        return done is not None

    async def delete(
        self, user_id: UserId, *, epoch: int, ending: Ending | None = None, event: Event | None = None
    ) -> bool:
        gone = {*_FIELDS, "password_format", "api_keys", "reset", "current"} - {"auth_epoch", "created_at", "status"}
        values: Document = {**dict.fromkeys(gone, "$$REMOVE"), **_RAISED, "status": "deleted"}
        which = {"_id": user_id, "auth_epoch": epoch, **_THERE}
        return await self._change(which, values, user_id, ending, event) is not None

    async def offer_reset(
        self, user_id: UserId, token: Digest, *, expires_at: Instant, event: Event | None = None
    ) -> bool:
        values = {"reset": {"digest": token, "expires_at": expires_at}}
        return await self._change({"_id": user_id, **_THERE}, values, user_id, None, event) is not None

    async def find_by_reset(self, token: Digest, *, now: Instant) -> User | None:
        return await self._settled(_good_reset(token, now))

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
        values = _new_password(new, now) | _RAISED | {"reset": "$$REMOVE", "api_keys": "$$REMOVE"}
        which = {"_id": user_id, **_good_reset(token, now)}
        return _epoch(await self._change(which, values, user_id, ending, event))

    async def forget_resets(self, *, now: Instant, most: int) -> int:
        expired = {"reset.expires_at": {"$lte": now}}
        old = await self._users.find(expired, most=most, only=["_id"])
        which = {"_id": {"$in": [each["_id"] for each in old]}, **expired}
        return await self._users.change_all(which, {"$unset": {"reset": ""}})

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
        which = {"_id": user_id, "password_hash": old, "auth_epoch": epoch, "status": "active"}
        values = _new_password(new, now) | _RAISED | {"reset": "$$REMOVE"}
        return _epoch(await self._change(which, values, user_id, ending, event))

    async def upgrade_hash(self, user_id: UserId, *, old: str, new: str, now: Instant) -> bool:
        which = {"_id": user_id, "password_hash": old}
        return await self._change(which, _new_password(new, now), user_id, None, None) is not None

    async def raise_epoch(
        self, user_id: UserId, *, now: Instant, ending: Ending | None = None, event: Event | None = None
    ) -> int | None:
        values = {**_RAISED, "updated_at": now, "reset": "$$REMOVE"}
        return _epoch(await self._change({"_id": user_id, **_THERE}, values, user_id, ending, event))

    async def password_formats(self) -> frozenset[str]:
        return frozenset(await self._users.distinct("password_format", {"password_format": {"$gt": ""}}))

    async def _change(
        self, which: Filter, values: Document, user_id: UserId, ending: Ending | None, event: Event | None
    ) -> Document | None:
        """Set *values*, which are expressions, and carry out what follows on it; the user as it is then."""
        stages = [{"$set": values}]
        if entries := follow_up(event, ending=ending, target=user_id):
            stages.append(appended(entries))
        document = await self._users.change(which, stages)
        await self._outbox.settle(self._users, document)
        return document

    async def _release(self, names: Sequence[NameDigest]) -> _Holders:
        """Let go of those of *names* that are reserved, unless somebody has one of them; who had them."""
        holders: _Holders = []
        if names and any(owner is not None for owner in (await self.owners(names)).values()):
            return holders
        for name in names:
            rest = unless_empty({"$setDifference": ["$names", [name]]})
            found = await self._users.change({"names": name, "current": {"$ne": name}}, [{"$set": {"names": rest}}])
            if found:
                holders.append((found["_id"], name))
        return holders

    async def _reserve_again(self, holders: _Holders) -> None:
        for holder, name in holders:
            # Whoever was faster has it now.
            with contextlib.suppress(Duplicate):
                await self._users.change({"_id": holder}, {"$addToSet": {"names": name}})


def _good_reset(token: Digest, now: Instant) -> Document:
    return {"reset.digest": token, "reset.expires_at": {"$gt": now}, "status": "active"}


def _new_password(new: str, now: Instant) -> Document:
    return given({"password_hash": new, "password_format": hash_format(new), "updated_at": now})


def _epoch(document: Document | None) -> int | None:
    return None if document is None else int(document["auth_epoch"])


def _document(user: User, names: Sequence[NameDigest]) -> Document:
    document: dict[str, Any] = {"_id": user.id, **{name: getattr(user, name) for name in _FIELDS}}
    document["password_format"] = hash_format(user.password_hash)
    document["current"] = list(names)
    return document | ({"names": list(names)} if names else {})


def user_of(document: Document) -> User:
    """The user that *document* holds."""
    return User(document["_id"], *(document[name] for name in _FIELDS))


def _user(document: Document | None) -> User | None:
    return None if document is None else user_of(document)
