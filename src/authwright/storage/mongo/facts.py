"""Facts about the store in MongoDB."""

import contextlib

from authwright.domain.instant import Instant
from authwright.storage.mongo.database import Duplicate, MongoDatabase
from authwright.storage.port import MAX_CLAIM


class MongoFacts:
    """`storage.port.Facts`."""

    def __init__(self, database: MongoDatabase) -> None:
        self._facts = database.collection("facts")
        self._leases = database.collection("leases")

    async def establish(self, name: str, value: str) -> str:
        with contextlib.suppress(Duplicate):
            await self._facts.insert({"_id": name, "value": value})
        return await self.read(name) or value

    async def read(self, name: str) -> str | None:
        found = await self._facts.first({"_id": name})
        return found["value"] if found else None

    async def replace(self, name: str, value: str) -> None:
        await self._facts.change({"_id": name}, {"$set": {"value": value}}, upsert=True)

    async def claim(self, name: str, holder: str, *, now: Instant, until: Instant) -> bool:
        over = [{"until": {"$lte": now}}, {"until": {"$gt": now + MAX_CLAIM}}]
        free = {"_id": name, "$or": [*over, {"holder": holder}]}
        try:
            # Nothing fits where another one holds it, and a second document of that name cannot be.
            await self._leases.change(free, {"$set": {"holder": holder, "until": until}}, upsert=True)
        except Duplicate:
            return False
        return True
