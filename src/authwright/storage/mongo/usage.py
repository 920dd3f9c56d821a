"""Usage by day in MongoDB: sums that are added to.

What is to be added is stored as one document first, so that it is kept whole or not at all; then each sum takes its
part and notes which batch of which writer it took last, so that doing it again after a crash adds nothing twice.
"""

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from authwright.domain.usage import Counted, UsageKey, UsageRow
from authwright.storage.mongo.database import Change, Document, Filter, MongoDatabase
from authwright.storage.port import StoreUnavailable

# The fields of the `_id` of a sum, in the order of the keys of what was counted.
_KEYS: Final = {
    "calls": ("day", "route", "subject", "plan", "status"),
    "latencies": ("day", "route", "bucket"),
    "predictions": ("day", "label"),
    "charges": ("subject", "day", "route"),
}


class MongoUsage:
    """`storage.port.Usage`."""

    def __init__(self, database: MongoDatabase) -> None:
        self._sums = {name: database.collection(f"usage_{name}") for name in _KEYS}
        self._batches = database.collection("usage_batches")
        self._writer = secrets.token_hex(6)
        self._stored = 0
        # A sum takes the batches of a writer in their order, or not at all.
        self._turn = asyncio.Lock()
        self._behind = False

    async def add(self, counted: Counted) -> None:
        if not counted:
            return
        counters: tuple[Counter[Any], ...] = (counted.calls, counted.latencies, counted.predictions, counted.charges)
        batch: Document = {"_id": {"writer": self._writer, "number": 0}}
        for name, counter in zip(_KEYS, counters, strict=True):
            batch[name] = [[*key, count] for key, count in counter.items()]
        async with self._turn:
            if self._behind:
                await self._take_all({"_id.writer": self._writer})
            batch["_id"]["number"] = self._stored = self._stored + 1
            await self._batches.insert(batch)
            # Stored, so it will be taken: now, or by whoever comes next.
            self._behind = True
            with contextlib.suppress(StoreUnavailable):
                await self._take(batch)
                self._behind = False

    async def settle(self) -> None:
        """Finish what a crash left out."""
        await self._take_all({})

    async def _take_all(self, which: Filter) -> None:
        while batches := await self._batches.find(which, sort=[("_id", 1)], most=1000):
            for batch in batches:
                await self._take(batch)

    async def _take(self, batch: Document) -> None:
        writer, number = batch["_id"]["writer"], batch["_id"]["number"]
        for name, fields in _KEYS.items():
            changes: list[tuple[Filter, Change]] = []
            # A batch that an earlier version left may know fewer kinds.
            for *key, count in batch.get(name, ()):
                ident = dict(zip(fields, key, strict=True))
                # One that took it already does not fit; a second one of this key cannot be made, so it is left alone.
                which = {"_id": ident, f"taken.{writer}": {"$not": {"$gte": number}}}
                changes.append((which, {"$inc": {"count": count}, "$set": {f"taken.{writer}": number}}))
            await self._sums[name].upsert_each(changes)
        await self._batches.delete({"_id": batch["_id"]})

    async def totals(self, *, since_day: int) -> Sequence[tuple[int, str, int, int]]:
        rows = await self._grouped("calls", since_day, "day", "route", "status")
        return [(int(row["day"]), row["route"], int(row["status"]), int(row["count"])) for row in rows]

    async def callers_by_plan(self, *, since_day: int) -> Sequence[tuple[str, int]]:
        rows = await self._sums["calls"].aggregate(
            {"$match": {"_id.day": {"$gte": since_day}, "_id.subject": {"$ne": ""}}},
            {"$group": {"_id": {"plan": "$_id.plan", "subject": "$_id.subject"}}},
            {"$group": {"_id": "$_id.plan", "count": {"$sum": 1}}},
        )
        return [(row["_id"], int(row["count"])) for row in rows]

    async def callers(self, *, since_day: int, most: int) -> Sequence[tuple[str, str, int, int, int]]:
        refused = {"$cond": [{"$gte": ["$_id.status", 400]}, "$count", 0]}
        predicted = {"$and": [{"$eq": ["$_id.route", "/predict"]}, {"$lt": ["$_id.status", 400]}]}
        rows = await self._sums["calls"].aggregate(
            {"$match": {"_id.day": {"$gte": since_day}, "_id.subject": {"$ne": ""}}},
            {
                "$group": {
                    "_id": "$_id.subject",
                    "plan": {"$max": "$_id.plan"},
                    "calls": {"$sum": "$count"},
                    "refused": {"$sum": refused},
                    "predictions": {"$sum": {"$cond": [predicted, "$count", 0]}},
                }
            },
            {"$sort": {"calls": -1, "_id": 1}},
            {"$limit": most},
        )
        return [
            (row["_id"], row["plan"], int(row["calls"]), int(row["refused"]), int(row["predictions"])) for row in rows
        ]

    async def latencies(self, *, since_day: int) -> Sequence[tuple[str, int, int]]:
        rows = await self._grouped("latencies", since_day, "route", "bucket")
        return [(row["route"], int(row["bucket"]), int(row["count"])) for row in rows]

    async def predictions(self, *, since_day: int) -> Sequence[tuple[int, str, int]]:
        rows = await self._grouped("predictions", since_day, "day", "label")
        return [(int(row["day"]), row["label"], int(row["count"])) for row in rows]

    async def charged(self, subject: str, *, day: int, since_day: int) -> tuple[int, int]:
        today = {"$cond": [{"$eq": ["$_id.day", day]}, "$count", 0]}
        rows = await self._sums["charges"].aggregate(
            {"$match": {"_id.subject": subject, "_id.day": {"$gte": since_day}}},
            {"$group": {"_id": None, "today": {"$sum": today}, "all": {"$sum": "$count"}}},
        )
        return (int(rows[0]["today"]), int(rows[0]["all"])) if rows else (0, 0)

    async def units_by_day(self, *, since_day: int) -> Sequence[tuple[int, int]]:
        rows = await self._grouped("charges", since_day, "day")
        return sorted((int(row["day"]), int(row["count"])) for row in rows)

    async def charges(self, subject: str, *, since_day: int) -> Sequence[tuple[int, str, int]]:
        rows = await self._sums["charges"].find({"_id.subject": subject, "_id.day": {"$gte": since_day}})
        return sorted((int(row["_id"]["day"]), row["_id"]["route"], int(row["count"])) for row in rows)

    async def by_caller(
        self, *, since_day: int, until_day: int, subject: str | None, after: UsageKey, most: int
    ) -> Sequence[UsageRow]:
        def part(calls: Any, units: Any) -> list[Document]:
            # Days that were listed are not summed again.
            days = {"$gte": max(since_day, after[0]), "$lte": until_day}
            which = {"_id.day": days, "_id.subject": {"$ne": ""} if subject is None else subject}
            key = {name: f"$_id.{name}" for name in UsageRow._fields[:3]}
            return [{"$match": which}, {"$project": {"_id": 0, "key": key, "calls": calls, "units": units}}]

        day, whose, route = after
        of_charges = part({"$literal": 0}, "$count")
        rows = await self._sums["calls"].aggregate(
            *part("$count", {"$literal": 0}),
            {"$unionWith": {"coll": "usage_charges", "pipeline": of_charges}},
            {"$group": {"_id": "$key", "calls": {"$sum": "$calls"}, "units": {"$sum": "$units"}}},
            {
                "$match": {
                    "$or": [
                        {"_id.day": {"$gt": day}},
                        {"_id.day": day, "_id.subject": {"$gt": whose}},
                        {"_id.day": day, "_id.subject": whose, "_id.route": {"$gt": route}},
                    ]
                }
            },
            {"$sort": {"_id.day": 1, "_id.subject": 1, "_id.route": 1}},
            {"$limit": most},
        )
        return [
            UsageRow(
                int(row["_id"]["day"]), row["_id"]["subject"], row["_id"]["route"], int(row["calls"]), int(row["units"])
            )
            for row in rows
        ]

    async def _grouped(self, name: str, since_day: int, *by: str) -> list[Document]:
        rows = await self._sums[name].aggregate(
            {"$match": {"_id.day": {"$gte": since_day}}},
            {"$group": {"_id": {field: f"$_id.{field}" for field in by}, "count": {"$sum": "$count"}}},
        )
        return [{**row["_id"], "count": row["count"]} for row in rows]

    async def forget(self, *, before_day: int, most: int) -> int:
        forgotten = 0
        for sums in self._sums.values():
            old = await sums.find({"_id.day": {"$lt": before_day}}, most=most, only=["_id"])
            forgotten += await sums.delete({"_id": {"$in": [each["_id"] for each in old]}})
        return forgotten
