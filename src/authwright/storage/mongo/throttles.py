"""Counters of failures in MongoDB."""

from collections.abc import Sequence
from datetime import UTC, datetime

from authwright.domain.instant import MICROSECONDS, Instant, after
from authwright.domain.throttle import MOST_SECONDS, Backoff, Bucket
from authwright.storage.mongo.database import Document, Duplicate, MongoDatabase
from authwright.storage.port import Passed


def _count(backoff: Backoff, now: Instant) -> list[Document]:
    """The change that counts an attempt in a bucket that is open."""
    forgotten = {"$lt": ["$counted_at", after(now, -backoff.memory)]}
    over = {"$min": [{"$subtract": ["$failures", backoff.free]}, 20]}
    seconds = {"$cond": [{"$lt": ["$failures", backoff.free]}, 0, {"$min": [MOST_SECONDS, {"$pow": [2, over]}]}]}
    return [
        {"$set": {"failures": {"$add": [{"$cond": [forgotten, 0, {"$ifNull": ["$failures", 0]}]}, 1]}}},
        {
            "$set": {
                "counted_at": now,
                "closed_until": {"$add": [now, {"$multiply": [{"$toLong": seconds}, MICROSECONDS]}]},
            }
        },
    ]


class MongoThrottles:
    """`storage.port.Throttles`.

    Of several buckets, each is counted in its own step. If one turns out closed, those before are put back; meanwhile
    an attempt of somebody else may be refused that could have passed, and none passes that should not.
    """

    def __init__(self, database: MongoDatabase) -> None:
        self._throttles = database.collection("throttles")
        self._familiar = database.collection("familiar")

    async def admit(
        self, buckets: Sequence[tuple[Bucket, Backoff]], *, now: Instant, hurry: bool = True
    ) -> Instant | None:
        if len(buckets) > 1 and (opens := await self._closed_until([bucket for bucket, _ in buckets], now)):
            return opens
        counted: list[tuple[Bucket, Backoff, Document | None]] = []
        for bucket, backoff in buckets:
            while True:
                try:
                    # A closed bucket does not fit, and a second one of that name cannot be.
                    which = {"_id": bucket, "closed_until": {"$lte": now}}
                    before = await self._throttles.change(which, _count(backoff, now), upsert=True, before=True)
                except Duplicate:
                    opens = await self._closed_until([bucket], now)
                    if opens is None:
                        # It was cleared, or made, in between: once more.
                        continue
                    for each in reversed(counted):
                        await self._put_back(*each, now=now)
                    return opens
                counted.append((bucket, backoff, before))
                break
        return None

    async def _closed_until(self, buckets: Sequence[Bucket], now: Instant) -> Instant | None:
        found = await self._throttles.find({"_id": {"$in": buckets}, "closed_until": {"$gt": now}})
        return max((Instant(each["closed_until"]) for each in found), default=None)

    async def _put_back(self, bucket: Bucket, backoff: Backoff, before: Document | None, *, now: Instant) -> None:
        earlier = before or {"failures": 0, "counted_at": now, "closed_until": now}
        remembered = earlier["failures"] if earlier["counted_at"] >= after(now, -backoff.memory) else 0
        mine = {"_id": bucket, "failures": remembered + 1, "counted_at": now}
        restored = {name: earlier[name] for name in ("failures", "counted_at", "closed_until")}
        if await self._throttles.change(mine, {"$set": restored}) is None:
            await self._return([bucket])

    async def succeed(self, passed: Passed) -> None:
        if passed.cleared:
            await self._throttles.delete({"_id": {"$in": passed.cleared}})
        await self._return(passed.returned)
        # The server forgets a mark by itself some time after it expired.
        expires = datetime.fromtimestamp(passed.until / MICROSECONDS, UTC)
        change = {"$set": {"until": passed.until, "expires": expires}}
        await self._familiar.upsert_each([({"_id": bucket}, change) for bucket in passed.familiar])

    async def _return(self, buckets: Sequence[Bucket]) -> None:
        if buckets:
            which = {"_id": {"$in": buckets}, "failures": {"$gt": 0}}
            await self._throttles.change_all(which, {"$inc": {"failures": -1}})

    async def familiar_until(self, bucket: Bucket, *, now: Instant) -> Instant | None:
        found = await self._familiar.first({"_id": bucket, "until": {"$gt": now}})
        return Instant(found["until"]) if found else None

    async def forget(self, *, before: Instant, now: Instant, most: int) -> int:
        quiet = {"counted_at": {"$lt": before}, "closed_until": {"$lte": now}}
        old = await self._throttles.find(quiet, most=most, only=["_id"])
        forgotten = await self._throttles.delete({"_id": {"$in": [each["_id"] for each in old]}, **quiet})
        expired = {"until": {"$lte": now}}
        old = await self._familiar.find(expired, most=most, only=["_id"])
        return forgotten + await self._familiar.delete({"_id": {"$in": [each["_id"] for each in old]}, **expired})
