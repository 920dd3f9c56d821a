"""The revocation ledger in MongoDB: an entry's `_id` is its number."""

import asyncio
from collections.abc import Sequence

from authwright.domain.instant import Instant
from authwright.domain.revocation import Revocation
from authwright.domain.usage import DAY
from authwright.storage.mongo.database import Document, Duplicate, MongoDatabase

_NEWEST_FIRST = [("_id", -1)]


class MongoLedger:
    """`storage.port.Ledger`."""

    def __init__(self, database: MongoDatabase) -> None:
        self._entries = database.collection("revocations")
        # An entry that a change of the primary can still take back must not move anybody's cursor.
        self._committed = database.collection("revocations", committed=True)
        # Those of one process come one after the other, instead of all trying the same number.
        self._turn = asyncio.Lock()

    async def append(self, revocation: Revocation, *, once: str | None = None) -> int:
        """As the port says; *once*: nothing is stored if an entry with this mark is there, and its number returned."""
        document: Document = {
            "kind": revocation.kind,
            "target": revocation.target,
            "epoch": revocation.epoch,
            "reason": revocation.reason,
            "at": revocation.at,
            "until": revocation.until,
        }
        if once is not None:
            document["once"] = once
        async with self._turn:
            while True:
                number = await self._newest() + 1
                try:
                    await self._entries.insert({"_id": number, **document})
                except Duplicate:
                    # Another writer took the number, or wrote this entry.
                    if once is not None and (there := await self._entries.first({"once": once}, only=["_id"])):
                        return int(there["_id"])
                    continue
                return number

    async def since(self, number: int, *, most: int = 1000) -> Sequence[Revocation]:
        return [
            _revocation(each)
            for each in await self._committed.find({"_id": {"$gt": number}}, sort=[("_id", 1)], most=most)
        ]

    async def snapshot(self) -> Sequence[Revocation]:
        return [_revocation(each) for each in await self._committed.find({}, sort=[("_id", 1)], slow=True)]

    async def count_by_day(self, *, since: Instant) -> Sequence[tuple[int, int]]:
        rows = await self._entries.aggregate(
            {"$match": {"at": {"$gte": since}}},
            {"$group": {"_id": {"$floor": {"$divide": ["$at", DAY]}}, "count": {"$sum": 1}}},
        )
        return [(int(row["_id"]), int(row["count"])) for row in rows]

    async def forget(self, *, now: Instant, most: int, through: int | None = None) -> int:
        newest = await self._newest()
        which = {"until": {"$lte": now}, "_id": {"$lt": newest if through is None else min(newest, through + 1)}}
        old = await self._entries.find(which, sort=[("until", 1)], most=most, only=["_id"])
        return await self._entries.delete({"_id": {"$in": [each["_id"] for each in old]}})

    async def _newest(self) -> int:
        newest = await self._entries.first({}, sort=_NEWEST_FIRST, only=["_id"])
        return int(newest["_id"]) if newest else 0


def _revocation(document: Document) -> Revocation:
    return Revocation(
        kind=document["kind"],
        target=document["target"],
        epoch=int(document["epoch"]),
        reason=document["reason"],
        at=Instant(document["at"]),
        until=Instant(document["until"]),
        number=int(document["_id"]),
    )
