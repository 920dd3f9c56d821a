"""What a change brings with it: sessions that end, an entry in the ledger, an event, notices.

There is no transaction over several documents. So the one document that is changed gets, in the same step, a list of
what follows, its `outbox`. Whoever made the change carries it out before it answers: sessions, ledger, notices, event;
then it takes it out of the list. After a crash somebody else does. Everything in it can be done twice to no effect.
"""

import secrets
from collections.abc import Iterable
from typing import Any, Final

from authwright.domain.event import Event
from authwright.domain.notice import notices_of
from authwright.domain.revocation import Kind, Revocation
from authwright.storage.mongo.database import Collection, Document, MongoDatabase, given
from authwright.storage.mongo.events import MongoEvents
from authwright.storage.mongo.ledger import MongoLedger
from authwright.storage.mongo.notices import MongoNotices
from authwright.storage.port import Ending

HOLDERS: Final = ("users", "clients", "keys")
"""The collections whose documents have an outbox; sessions have one, too, with rules of their own."""

PENDING: Final = {"outbox.id": {"$gt": ""}}
"""Fits a document whose outbox is not empty."""


def follow_up(
    event: Event | None, *, ending: Ending | None = None, kind: Kind = "subject", target: str = ""
) -> list[Document]:
    """The entries of an outbox for *event* and *ending*; empty if there are neither."""
    if event is None and ending is None:
        return []
    # An id that nothing else has: by it the ledger, the events and the notices know what they already hold.
    entry: Document = {"id": secrets.token_hex(12)}
    if event is not None:
        entry["event"] = {**event._asdict(), "tell": list(event.tell)}
    if ending is not None:
        entry["ending"] = {**ending._asdict(), "kind": kind, "target": target}
    return [entry]


def appended(entries: Iterable[Document]) -> Document:
    """The stage of an update, after the one that sets the epoch, that appends *entries* and the epoch to the outbox."""
    added = [{"$mergeObjects": [{"$literal": entry}, {"epoch": "$auth_epoch"}]} for entry in entries]
    return {"$set": {"outbox": {"$concatArrays": [{"$ifNull": ["$outbox", []]}, added]}}}


class Outbox:
    """Carries out what waits in outboxes."""

    def __init__(
        self, database: MongoDatabase, ledger: MongoLedger, events: MongoEvents, notices: MongoNotices
    ) -> None:
        self._sessions = database.collection("sessions")
        self._ledger = ledger
        self._events = events
        self._notices = notices

    async def settle(self, collection: Collection, document: Document | None) -> None:
        """Carry out all that waits in *document*, in order: what an earlier change left comes before."""
        entries = (document or {}).get("outbox")
        if not document or not entries:
            return
        for entry in entries:
            await self._carry_out(entry, document)
        done = [entry["id"] for entry in entries]
        await collection.change_all({"_id": document["_id"]}, {"$pull": {"outbox": {"id": {"$in": done}}}})

    async def settle_all(self, collection: Collection) -> None:
        """Carry out what waits in every document of *collection*."""
        while documents := await collection.find(PENDING, most=1000):
            for document in documents:
                await self.settle(collection, document)

    async def _carry_out(self, entry: Document, document: Document) -> None:
        if ending := entry.get("ending"):
            await self._end(ending, entry, document)
        if event := entry.get("event"):
            made = Event(**{**event, "tell": tuple(event["tell"])})
            for number, notice in enumerate(notices_of(made)):
                await self._notices.add(notice, once=f"{entry['id']}.{number}")
            await self._events.add(made, once=entry["id"])

    async def _end(self, ending: Document, entry: Document, document: Document) -> None:
        kind, target, epoch = ending["kind"], ending["target"], 0
        if kind == "subject":
            epoch = entry["epoch"]
            await self._end_of_subject(target, epoch, ending, document)
        elif kind == "client":
            which = {"subject": document["_id"], "client_id": target, "revoked_at": None}
            await self._sessions.change_all(which, ended(ending))
        await self._ledger.append(
            Revocation(kind, target, epoch, ending["because"], ending["now"], ending["until"]), once=entry["id"]
        )

    async def _end_of_subject(self, subject: str, epoch: int, ending: Document, document: Document) -> None:
        live = {"subject": subject, "revoked_at": None, "idle_expires_at": {"$gt": ending["now"]}}
        shown: dict[str, Any] = {"auth_epoch": epoch}
        if "username" in document:
            shown |= {name: document[name] for name in ("username", "role", "plan")}
        as_it_is_now = [{"$set": given(shown)}]
        if ending["keep"] is not None:
            await self._sessions.change_all({"_id": ending["keep"], "auth_epoch": {"$lt": epoch}, **live}, as_it_is_now)
        if ending["carry_over"]:
            # Only those of the epoch before: an older one was to end by an earlier change.
            await self._sessions.change_all({**live, "auth_epoch": epoch - 1}, as_it_is_now)
        older = {"subject": subject, "revoked_at": None, "auth_epoch": {"$lt": epoch}}
        await self._sessions.change_all(older, ended(ending))


def ended(ending: Document) -> Document:
    """The change of a session that ends."""
    return {"$set": {"revoked_at": ending["now"], "revoked_because": ending["because"]}}
