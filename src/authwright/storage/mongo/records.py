"""All that a MongoDB store holds, record by record, as the tables of SQL have it.

A name that stays reserved belongs to nobody there; here it gets a document of its own, that of a user who is gone.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from authwright.domain.instant import MICROSECONDS
from authwright.storage.mongo.database import Collection, Document, MongoDatabase
from authwright.storage.port import RECORD_FIELDS, Record, RecordKind

_AT_ONCE: Final = 500
_USAGE: Final = {
    "usage": "usage_calls",
    "latencies": "usage_latencies",
    "predictions": "usage_predictions",
    "charges": "usage_charges",
}
# The fields of a document in which what SQL keeps as words is a list.
_LISTS: Final = frozenset({"audiences"})


class MongoRecords:
    """`storage.port.Records`."""

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database

    async def read(self, kind: RecordKind) -> AsyncIterator[Sequence[Record]]:
        collection, records_of = self._place(kind)
        reached: Any = None
        while True:
            which = {} if reached is None else {"_id": {"$gt": reached}}
            documents = await collection.find(which, sort=[("_id", 1)], most=_AT_ONCE, slow=True)
            if not documents:
                return
            reached = documents[-1]["_id"]
            yield [record for document in documents for record in records_of(document)]

    async def write(self, kind: RecordKind, records: AsyncIterator[Sequence[Record]]) -> None:
        fields = RECORD_FIELDS[kind]
        async for some in records:
            rows = [dict(zip(fields, record, strict=True)) for record in some]
            if kind in _INSIDE:
                for row in rows:
                    await self._put_inside(kind, row)
            else:
                collection, _ = self._place(kind)
                await collection.insert_many([_document(kind, row) for row in rows])
        if kind in ("events", "notices"):
            await self._go_on(kind)

    async def _put_inside(self, kind: RecordKind, row: Document) -> None:
        """Put what SQL has in a table of its own into the document of the user."""
        users = self._database.collection("users")
        if kind == "names" and row["user_id"] is None:
            gone = {"_id": f"reserved {row['digest'].hex()}", "status": "deleted", "auth_epoch": 0}
            await users.insert({**gone, "names": [row["digest"]]})
            return
        change: Document
        if kind == "names":
            change = {"$push": {"names": row["digest"], "current": row["digest"]}}
        elif kind == "api_keys":
            key = _document(kind, row)
            change = {"$push": {"api_keys": {name: value for name, value in key.items() if name != "user_id"}}}
            change["$push"]["api_keys"]["id"] = change["$push"]["api_keys"].pop("_id")
        else:
            change = {"$set": {"reset": {"digest": row["digest"], "expires_at": row["expires_at"]}}}
        await users.change({"_id": row["user_id"]}, change)

    async def _go_on(self, kind: RecordKind) -> None:
        newest = await self._database.collection(kind).first({}, sort=[("_id", -1)], only=["_id"])
        if newest:
            counters = self._database.collection("counters")
            await counters.change({"_id": kind}, {"$set": {"last": int(newest["_id"])}}, upsert=True)

    def _place(self, kind: RecordKind) -> tuple[Collection, Callable[[Document], Iterator[Record]]]:
        """The collection that holds the records of *kind*, and how they are found in a document of it."""
        name = "users" if kind in _INSIDE else _USAGE.get(kind, kind)
        return self._database.collection(name), lambda document: _records(kind, document)


_INSIDE: Final = frozenset({"names", "api_keys", "reset_tokens"})


def _records(kind: RecordKind, document: Document) -> Iterator[Record]:
    if kind == "names":
        current = document.get("current", ())
        for name in document.get("names", ()):
            yield (name, document["_id"] if name in current else None)
    elif kind == "api_keys":
        for key in document.get("api_keys", ()):
            yield _record(kind, {**key, "user_id": document["_id"]})
    elif kind == "reset_tokens":
        if "reset" in document:
            yield _record(kind, {**document["reset"], "user_id": document["_id"]})
    elif kind in _USAGE:
        (sum_,) = (name for name in RECORD_FIELDS[kind] if name not in document["_id"])
        yield _record(kind, {**document["_id"], sum_: document["count"]})
    elif kind == "users" and document["status"] == "deleted":
        return
    elif not (kind == "facts" and document["_id"] in ("schema_version", "usable_since")):
        yield _record(kind, {**document, RECORD_FIELDS[kind][0]: document["_id"]})


def _record(kind: RecordKind, values: Document) -> Record:
    return tuple(_plain(values[name]) for name in RECORD_FIELDS[kind])


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(value)
    # The driver's numbers are a kind of their own.
    return int(value) if isinstance(value, int) else value


def _document(kind: RecordKind, row: Document) -> Document:
    document = {name: value.split() if name in _LISTS else value for name, value in row.items()}
    if kind in _USAGE:
        *key, sum_ = RECORD_FIELDS[kind]
        return {"_id": {name: row[name] for name in key}, "count": row[sum_]}
    document["_id"] = document.pop(RECORD_FIELDS[kind][0])
    if kind == "familiar":
        document["expires"] = datetime.fromtimestamp(row["until"] / MICROSECONDS, UTC)
    if kind in ("users", "clients", "keys", "sessions"):
        document["outbox"] = []
    return document
