"""Numbers that grow and are never used twice."""

from authwright.storage.mongo.database import Duplicate, MongoDatabase


class Numbers:
    """Hands out the numbers of one *name*."""

    def __init__(self, database: MongoDatabase, name: str) -> None:
        self._counters = database.collection("counters")
        self._name = name

    async def take(self, count: int = 1) -> int:
        """The last of *count* numbers that nobody had before."""
        while True:
            try:
                taken = await self._counters.change({"_id": self._name}, {"$inc": {"last": count}}, upsert=True)
            except Duplicate:
                # Two made the first one at once.
                continue
            assert taken is not None
            return int(taken["last"])
