"""Mail that waits to be sent, in MongoDB: a notice's `_id` is its number."""

from collections.abc import Sequence

from authwright.domain.notice import Notice
from authwright.storage.mongo.database import MongoDatabase
from authwright.storage.mongo.numbers import Numbers

_FIELDS = [name for name in Notice._fields if name != "number"]


class MongoNotices:
    """`storage.port.Notices`."""

    def __init__(self, database: MongoDatabase) -> None:
        self._notices = database.collection("notices")
        self._numbers = Numbers(database, "notices")

    async def add(self, notice: Notice, *, once: str | None = None) -> None:
        """Store *notice*; *once*: unless one with this mark waits."""
        await self._numbers.insert({name: getattr(notice, name) for name in _FIELDS}, once=once)

    async def list(self, *, after: int, most: int) -> Sequence[Notice]:
        found = await self._notices.find({"_id": {"$gt": after}}, sort=[("_id", 1)], most=most)
        return [Notice(**{name: each[name] for name in _FIELDS}, number=int(each["_id"])) for each in found]

    async def delete(self, number: int) -> None:
        await self._notices.delete({"_id": number})
