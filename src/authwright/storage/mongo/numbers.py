"""Numbers that grow and are never used twice."""

from authwright.storage.mongo.database import Document, Duplicate, MongoDatabase


class Numbers:
    """Hands out the numbers of the documents of the collection *name*, and stores documents under them."""

    def __init__(self, database: MongoDatabase, name: str) -> None:
        self._counters = database.collection("counters")
        self._documents = database.collection(name)
        self._name = name

    async def insert(self, document: Document, *, once: str | None = None) -> None:
        """Store *document* under the next number; *once*: unless one with this mark is there."""
        marked = document if once is None else {**document, "once": once}
        while True:
            try:
                await self._documents.insert({"_id": await self.take(), **marked})
            except Duplicate:
                if once is not None and await self._documents.first({"once": once}, only=["_id"]):
                    return
                # The counter fell behind, as in a copy that was taken while others wrote.
                newest = await self._documents.first({}, sort=[("_id", -1)], only=["_id"])
                if newest:
                    await self._counters.change({"_id": self._name}, {"$max": {"last": newest["_id"]}})
                continue
            return

    async def take(self, count: int = 1) -> int:
        """The last of *count* numbers that nobody had before."""
        while True:
            try:
                taken = await self._counters.change({"_id": self._name}, {"$inc": {"last": count}}, upsert=True)
            except Duplicate:
                # Two made the first one at once.
                continue
            # One that is answered nothing may have been counted: a number that nobody has does no harm.
            if taken is not None:
                return int(taken["last"])
