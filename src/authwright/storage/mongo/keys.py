"""Keys in MongoDB."""

from collections.abc import Sequence

from authwright.domain.event import Event
from authwright.domain.instant import Instant
from authwright.domain.keyring import KeyRecord
from authwright.storage.mongo.database import Document, Duplicate, MongoDatabase
from authwright.storage.mongo.outbox import Outbox, follow_up

_FIELDS = ("purpose", "issuer", "alg", "ordinal", "wrapped", "created_at", "active_from", "withdrawn_at")


class MongoKeys:
    """`storage.port.Keys`."""

    def __init__(self, database: MongoDatabase, outbox: Outbox) -> None:
        self._keys = database.collection("keys")
        self._outbox = outbox

    async def add(self, record: KeyRecord, *, event: Event | None = None) -> bool:
        document: Document = {"_id": record.id, **{name: getattr(record, name) for name in _FIELDS}}
        document["outbox"] = follow_up(event)
        try:
            await self._keys.insert(document)
        except Duplicate:
            return False
        await self._outbox.settle(self._keys, document)
        return True

    async def all(self) -> Sequence[KeyRecord]:
        found = await self._keys.find({}, sort=[("purpose", 1), ("issuer", 1), ("ordinal", 1)])
        return [KeyRecord(each["_id"], *(each[name] for name in _FIELDS)) for each in found]

    async def withdraw(self, key_id: str, *, now: Instant, event: Event | None = None) -> bool:
        change = {"$set": {"withdrawn_at": now}, "$push": {"outbox": {"$each": follow_up(event)}}}
        document = await self._keys.change({"_id": key_id, "withdrawn_at": None}, change)
        await self._outbox.settle(self._keys, document)
        return document is not None

    async def rewrap(self, key_id: str, *, old: bytes, new: bytes) -> bool:
        return await self._keys.change({"_id": key_id, "wrapped": old}, {"$set": {"wrapped": new}}) is not None
