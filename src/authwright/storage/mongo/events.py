"""Security events in MongoDB: an event's `_id` is its number."""

from collections.abc import Sequence
from typing import Any

from authwright.domain.event import Event, EventKind, Outcome
from authwright.domain.instant import Instant
from authwright.domain.notice import notices_of
from authwright.domain.usage import DAY
from authwright.storage.mongo.database import Document, Duplicate, MongoDatabase
from authwright.storage.mongo.notices import MongoNotices
from authwright.storage.mongo.numbers import Numbers
from authwright.storage.port import EventFilter

_FIELDS = [name for name in Event._fields if name not in ("number", "tell")]


class MongoEvents:
    """`storage.port.Events`."""

    def __init__(self, database: MongoDatabase, notices: MongoNotices) -> None:
        self._events = database.collection("events")
        self._numbers = Numbers(database, "events")
        self._notices = notices

    async def append(self, event: Event) -> None:
        for notice in notices_of(event):
            await self._notices.add(notice)
        await self.add(event)

    async def add(self, event: Event, *, once: str | None = None) -> None:
        """Store *event*; *once*: unless one with this mark is there."""
        await self._numbers.insert(_document(event), once=once)

    async def add_many(self, events: Sequence[tuple[Event, str]]) -> None:
        """As `add` for each of *events* with its mark."""
        first = await self._numbers.take(len(events)) - len(events) + 1
        try:
            await self._events.insert_many(
                [{"_id": first + place, **_document(event), "once": once} for place, (event, once) in enumerate(events)]
            )
        except Duplicate:
            for event, once in events:
                await self.add(event, once=once)

    async def list(self, which: EventFilter, *, before: int | None, most: int) -> Sequence[Event]:
        wanted: dict[str, Any] = {
            name: value
            for name in ("kind", "outcome", "subject", "actor", "address")
            if (value := getattr(which, name)) is not None
        }
        at = {"$gte": which.since, "$lt": which.until}
        if bounds := {operator: bound for operator, bound in at.items() if bound is not None}:
            wanted["at"] = bounds
        # No number but those that `after` finds, too: others are not ours.
        wanted["_id"] = {"$lt": 2**63 - 1 if before is None else before}
        return [_event(each) for each in await self._events.find(wanted, sort=[("_id", -1)], most=most, slow=True)]

    async def after(self, number: int, *, most: int) -> Sequence[Event]:
        found = await self._events.find({"_id": {"$gt": number}}, sort=[("_id", 1)], most=most, slow=True)
        return [_event(each) for each in found]

    async def forget(self, *, through: int, most: int) -> int:
        old = await self._events.find({"_id": {"$lte": through}}, most=most, only=["_id"])
        return await self._events.delete({"_id": {"$in": [each["_id"] for each in old]}})

    async def count_by_day(self, *, since: Instant) -> Sequence[tuple[int, EventKind, Outcome, int]]:
        group = {"day": {"$floor": {"$divide": ["$at", DAY]}}, "kind": "$kind", "outcome": "$outcome"}
        rows = await self._events.aggregate(
            {"$match": {"at": {"$gte": since}}}, {"$group": {"_id": group, "count": {"$sum": 1}}}
        )
        return [(int(row["_id"]["day"]), row["_id"]["kind"], row["_id"]["outcome"], int(row["count"])) for row in rows]


def _document(event: Event) -> Document:
    return {name: getattr(event, name) for name in _FIELDS}


def _event(document: Document) -> Event:
    return Event(**{name: document[name] for name in _FIELDS}, number=int(document["_id"]))
