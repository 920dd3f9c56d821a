"""One MongoDB database: what is asked of it, how long it may take, and failures with a name.

Reads go to the primary; a write is acknowledged when a majority of the members has it in its journal. A write that the
network lost is repeated once by the driver, which the server does not carry out twice.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pymongo
from pymongo import AsyncMongoClient, ReturnDocument, UpdateOne
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import (
    BulkWriteError,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
)
from pymongo.read_concern import ReadConcern

from authwright.storage.port import StoreUnavailable

Document = dict[str, Any]
Filter = Mapping[str, Any]
Change = Mapping[str, Any] | Sequence[Mapping[str, Any]]

SELECT_MS: Final = 1000
CONNECT_MS: Final = 2000
SECONDS: Final = 2.5
SLOW_SECONDS: Final = 60.0
# How often the driver looks whether a member is there that takes writes.
LOOK_MS: Final = 1000
DEFAULT_NAME: Final = "authwright"
_DUPLICATE: Final = 11000


class Duplicate(Exception):
    """A unique index said no."""


class MongoDatabase:
    """The database that *url* names, over at most *connections* connections to each member.

    How safe writes are is not for the URL to say: what stands there of it is overruled.
    """

    def __init__(self, url: str, *, connections: int) -> None:
        self._url = url
        self._connections = connections
        self._client: AsyncMongoClient[Document] | None = None
        self._database: AsyncDatabase[Document] | None = None
        self._reached = False

    async def open(self) -> None:
        """Connect. Raises StoreUnavailable."""
        try:
            with self.answering():
                self._client = self._new_client()
        except ValueError:
            raise StoreUnavailable("MongoDB: the URL cannot be used") from None
        self._database = self._client.get_default_database(DEFAULT_NAME)
        try:
            await self.ping()
        except BaseException:
            await self.close()
            raise

    def _new_client(self) -> "AsyncMongoClient[Document]":
        return AsyncMongoClient(
            self._url,
            maxPoolSize=self._connections,
            serverSelectionTimeoutMS=SELECT_MS,
            heartbeatFrequencyMS=LOOK_MS,
            serverMonitoringMode="poll",
            connectTimeoutMS=CONNECT_MS,
            timeoutMS=int(SECONDS * 1000),
            w="majority",
            journal=True,
            readPreference="primary",
            readConcernLevel="local",
            retryWrites=True,
            retryReads=True,
            appname="authwright",
        )

    async def close(self) -> None:
        """Disconnect."""
        client, self._client, self._database = self._client, None, None
        self._reached = False
        if client is not None:
            await client.close()

    async def ping(self) -> None:
        """Return if a member answers that takes writes. Raises StoreUnavailable."""
        with self.answering():
            hello = await self._opened.command("hello")
        if not hello.get("isWritablePrimary"):
            raise StoreUnavailable("MongoDB: no member takes writes at present")
        self._reached = True

    @property
    def _opened(self) -> AsyncDatabase[Document]:
        if self._database is None:
            raise StoreUnavailable("the store is not open")
        return self._database

    def collection(self, name: str, *, committed: bool = False) -> "Collection":
        """*committed*: reads see only what no change of the primary can take back."""
        return Collection(self, name, ReadConcern("majority") if committed else None)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Turn the driver's errors into ours. Nobody waits for a server that the driver knows to be away.

        Whoever is cancelled meanwhile ends: the driver, with `asyncio.wait_for` of CPython 3.11, may lose that.
        """
        client = self._client if self._reached else None
        if client is not None and not client.topology_description.has_writable_server():
            raise StoreUnavailable("MongoDB: no member takes writes at present")
        task = asyncio.current_task()
        cancelled = 0 if task is None else task.cancelling()
        try:
            yield
        except DuplicateKeyError:
            raise Duplicate from None
        except BulkWriteError as error:
            details = error.details or {}
            refused = [each.get("code") for each in details.get("writeErrors", ())]
            if refused and set(refused) == {_DUPLICATE} and not details.get("writeConcernErrors"):
                raise Duplicate from None
            raise StoreUnavailable(f"MongoDB: {type(error).__name__}") from None
        except OperationFailure as error:
            if error.code in _OUR_FAULT:
                raise
            # What the server says may quote values; the code tells enough.
            raise StoreUnavailable(f"MongoDB: {type(error).__name__} {error.code}") from None
        except PyMongoError as error:
            raise StoreUnavailable(f"MongoDB: {type(error).__name__}") from None
        finally:
            if task is not None and task.cancelling() > cancelled:
                raise asyncio.CancelledError


# A value, a type, a path or an operator that the server does not take: to be seen, not to be tried again.
_OUR_FAULT: Final = frozenset({2, 9, 14, 16, 28, 40, 52, 54, 56, 59, 66, 67, 85, 86, 168})


class Collection:
    """One collection. Every verb raises StoreUnavailable; those that write raise Duplicate."""

    def __init__(self, database: MongoDatabase, name: str, concern: ReadConcern | None = None) -> None:
        self._owner = database
        self._name = name
        self._concern = concern

    @property
    def _documents(self) -> Any:
        return self._owner._opened.get_collection(self._name, read_concern=self._concern)

    async def insert(self, document: Document) -> None:
        with self._owner.answering():
            await self._documents.insert_one(document)

    async def insert_many(self, documents: Sequence[Document]) -> None:
        """Insert all that no unique index refuses, in any order; then raise Duplicate if one was refused."""
        if documents:
            with self._owner.answering():
                await self._documents.insert_many(documents, ordered=False)

    async def first(
        self, which: Filter, *, sort: Sequence[tuple[str, int]] | None = None, only: Sequence[str] | None = None
    ) -> Document | None:
        """The first document that fits; *only* these fields of it (and its `_id`)."""
        with self._owner.answering():
            found: Document | None = await self._documents.find_one(which, projection=only, sort=sort)
            return found

    async def find(
        self,
        which: Filter,
        *,
        sort: Sequence[tuple[str, int]] | None = None,
        skip: int = 0,
        most: int = 0,
        only: Sequence[str] | None = None,
        slow: bool = False,
    ) -> list[Document]:
        """The documents that fit; at most *most* (0: all). *slow*: it may take long."""
        with self._owner.answering(), pymongo.timeout(SLOW_SECONDS if slow else SECONDS):
            cursor = self._documents.find(which, projection=only, sort=sort, skip=skip, limit=most)
            found: list[Document] = await cursor.to_list()
            return found

    async def count(self, which: Filter) -> int:
        with self._owner.answering():
            return int(await self._documents.count_documents(which))

    async def distinct(self, field: str, which: Filter) -> list[Any]:
        with self._owner.answering():
            return list(await self._documents.distinct(field, which))

    async def aggregate(self, *stages: Mapping[str, Any]) -> list[Document]:
        with self._owner.answering(), pymongo.timeout(SLOW_SECONDS):
            found: list[Document] = await (await self._documents.aggregate(list(stages))).to_list()
            return found

    async def change(
        self, which: Filter, change: Change, *, upsert: bool = False, before: bool = False
    ) -> Document | None:
        """Change one document that fits, in one guarded step; it as it is afterwards, or was *before*."""
        shown = ReturnDocument.BEFORE if before else ReturnDocument.AFTER
        with self._owner.answering():
            found: Document | None = await self._documents.find_one_and_update(
                which, change, upsert=upsert, return_document=shown
            )
            return found

    async def take(self, which: Filter) -> Document | None:
        """Delete one document that fits, and answer with it."""
        with self._owner.answering():
            found: Document | None = await self._documents.find_one_and_delete(which)
            return found

    async def change_all(self, which: Filter, change: Change, *, slow: bool = False) -> int:
        """Change every document that fits, each by itself; how many. *slow*: it may take long."""
        with self._owner.answering(), pymongo.timeout(SLOW_SECONDS if slow else SECONDS):
            return int((await self._documents.update_many(which, change)).modified_count)

    async def upsert_each(self, changes: Sequence[tuple[Filter, Change]]) -> None:
        """Change or insert a document for each of *changes*, in any order. What a unique index refuses is left out."""
        if changes:
            work = [UpdateOne(which, change, upsert=True) for which, change in changes]
            # Two that make the same document at once: who came second finds it when trying again.
            for _ in range(2):
                try:
                    with self._owner.answering():
                        await self._documents.bulk_write(work, ordered=False)
                    return
                except Duplicate:
                    continue

    async def delete(self, which: Filter) -> int:
        """Delete every document that fits; how many."""
        with self._owner.answering(), pymongo.timeout(SLOW_SECONDS):
            return int((await self._documents.delete_many(which)).deleted_count)

    async def make_index(self, fields: Sequence[tuple[str, int]], **options: Any) -> None:
        """Make an index, unless it is there. It is built beside other work."""
        with self._owner.answering(), pymongo.timeout(None):
            await self._documents.create_index(list(fields), **options)


def given(values: Mapping[str, Any]) -> Document:
    """*values* for an update that is a pipeline, where a text that begins with `$` would be taken for a field."""
    return {name: {"$literal": value} for name, value in values.items()}


def unless_empty(array: Any) -> Document:
    """*array*, or no field at all: a unique index takes two empty arrays for the same value."""
    return {"$cond": [{"$eq": [array, []]}, "$$REMOVE", array]}
