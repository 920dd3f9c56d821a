"""Sessions in MongoDB: one document each, every change of one is one guarded step."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from authwright.domain.event import Event, Origin, event
from authwright.domain.instant import Instant
from authwright.domain.plan import format_scope
from authwright.domain.secrets import USER_PREFIX, ClientId, Digest, SessionId, Subject
from authwright.domain.session import EndReason, Session
from authwright.storage.mongo.clients import client_of
from authwright.storage.mongo.database import Document, MongoDatabase, given
from authwright.storage.mongo.outbox import PENDING, Outbox, ended, follow_up
from authwright.storage.mongo.throttles import MongoThrottles
from authwright.storage.port import Ended, Ending, Opened, Passed

_FIELDS: Final = [name for name in Session._fields if name != "id"]
_SUBJECTS_AT_ONCE: Final = 1000
_ENDED: Final = {"revoked_at": {"$ne": None}}


class MongoSessions:
    """`storage.port.Sessions`.

    A session is inserted, then its subject is looked at again: if that has changed, the session is withdrawn before
    anybody got its secret. A change of the subject that comes later finds the session.
    """

    def __init__(self, database: MongoDatabase, outbox: Outbox, throttles: MongoThrottles) -> None:
        self._sessions = database.collection("sessions")
        self._users = database.collection("users")
        self._clients = database.collection("clients")
        self._outbox = outbox
        self._throttles = throttles

    async def open(self, session: Session, *, passed: Passed | None = None, hurry: bool = True) -> Opened | None:
        if not await self._may_open(session):
            return None
        return await self._open(session, passed)

    async def open_with_key(self, key: Digest, draft: Session) -> Opened | None:
        found = await self._clients.first({"key_digest": key, "status": "active"})
        if found is None:
            return None
        client = client_of(found)
        return await self._open(
            draft._replace(
                subject=Subject(client.id),
                client_id=client.id,
                username=client.name,
                role="user",
                plan=client.plan,
                auth_epoch=client.auth_epoch,
                granted_scope=format_scope(client.scope),
                audiences=client.audiences,
            ),
            None,
        )

    async def _open(self, session: Session, passed: Passed | None) -> Opened | None:
        origin = Origin(session.address, session.user_agent, session.request_id, session.subject)
        login = event(
            "login",
            origin,
            now=session.created_at,
            subject=session.subject,
            client_id=session.client_id,
            session_id=session.id,
            detail=session.methods,
        )
        document: Document = {"_id": session.id, **{name: getattr(session, name) for name in _FIELDS}}
        document |= {"audiences": list(session.audiences), "outbox": follow_up(login)}
        others = {"client_id": session.client_id, **_live(session.subject, session.created_at)}
        before = await self._sessions.count(others)
        await self._sessions.insert(document)
        if not await self._confirm(session, document):
            return None
        if passed is not None:
            await self._throttles.succeed(passed)
        return Opened(session, before)

    async def _may_open(self, session: Session) -> bool:
        """Whether the subject is as the session has it, and the API key there that it is opened with."""
        which: Document = {"_id": session.subject, "auth_epoch": session.auth_epoch, "status": "active"}
        if not session.subject.startswith(USER_PREFIX):
            return await self._clients.first(which, only=["_id"]) is not None
        if not session.first_party:
            good = {"id": session.client_id, "expires_at": {"$gt": session.created_at}}
            which["api_keys"] = {"$elemMatch": good}
        return await self._users.first(which, only=["_id"]) is not None

    async def _confirm(self, session: Session, document: Document) -> bool:
        """Record the login of a session that was inserted, or withdraw it; whether it stays."""
        if not await self._may_open(session):
            # As it was inserted: one that somebody confirmed meanwhile has no outbox any more.
            mark = document["outbox"][0]["id"]
            which = {"_id": session.id, "auth_epoch": session.auth_epoch, "outbox.id": mark}
            return await self._sessions.delete(which) == 0
        await self._outbox.settle(self._sessions, document)
        return True

    async def settle(self) -> None:
        """Finish what a crash left out: logins that were not recorded, endings that the ledger lacks."""
        while documents := await self._sessions.find(PENDING, most=1000):
            for document in documents:
                session = _session(document)
                if session.revoked_at is None:
                    await self._confirm(session, document)
                else:
                    await self._outbox.settle(self._sessions, document)

    async def find(self, session_id: SessionId) -> Session | None:
        found = await self._sessions.first({"_id": session_id})
        if found and found["revoked_at"] is not None:
            await self._outbox.settle(self._sessions, found)
        return _session(found) if found else None

    async def rotate(
        self,
        session_id: SessionId,
        *,
        generation: int,
        presented: Digest,
        successor: Digest,
        client: ClientId | None,
        now: Instant,
        idle_expires_at: Instant,
    ) -> Session | None:
        which: Document = {
            "_id": session_id,
            "generation": generation,
            "secret_digest": presented,
            "revoked_at": None,
            "idle_expires_at": {"$gt": now},
        }
        if client is not None:
            which["client_id"] = client
        moved = given({"generation": generation + 1, "secret_digest": successor, "rotated_at": now, "used_at": now})
        moved["idle_expires_at"] = {"$min": [idle_expires_at, "$expires_at"]}
        found = await self._sessions.change(which, [{"$set": moved}])
        return _session(found) if found else None

    async def end(
        self,
        session_id: SessionId,
        *,
        because: EndReason,
        now: Instant,
        ending: Ending | None = None,
        event: Event | None = None,
    ) -> bool:
        entries = follow_up(event, ending=ending, kind="session", target=session_id)
        change = {
            "$set": {"revoked_at": now, "revoked_because": because},
            "$push": {"outbox": {"$each": [{**entry, "epoch": 0} for entry in entries]}},
        }
        document = await self._sessions.change({"_id": session_id, "revoked_at": None}, change)
        if document is None:
            # Somebody else ended it. Who is told so is told of all that follows from it.
            await self._outbox.settle(self._sessions, await self._sessions.first({"_id": session_id, **_ENDED}))
            return False
        await self._outbox.settle(self._sessions, document)
        return True

    async def withdraw_token(
        self, token_id: str, *, subject: Subject, ending: Ending, event: Event | None = None
    ) -> bool:
        # The subject carries what follows: the outbox of a session tells of its login and of its end.
        holder = self._users if subject.startswith(USER_PREFIX) else self._clients
        entries = follow_up(event, ending=ending, kind="token", target=token_id)
        document = await holder.change({"_id": subject}, {"$push": {"outbox": {"$each": entries}}})
        if document is None:
            return False
        # Its own entry alone: nothing before it has to come first, and of many at once each would write all.
        await self._outbox.settle(holder, {**document, "outbox": entries})
        return True

    async def end_all(
        self, subject: Subject, *, below_epoch: int, keep: SessionId | None, because: EndReason, now: Instant
    ) -> int:
        older = {"auth_epoch": {"$lt": below_epoch}}
        if keep is not None:
            which = {"_id": keep, **_live(subject, now), **older}
            await self._sessions.change_all(which, {"$set": {"auth_epoch": below_epoch}})
        which = {"subject": subject, "revoked_at": None, **older}
        return await self._sessions.change_all(which, ended({"now": now, "because": because}))

    async def end_everything(self, *, because: EndReason, now: Instant) -> int:
        change = ended({"now": now, "because": because})
        return await self._sessions.change_all({"revoked_at": None}, change, slow=True)

    async def end_excess(self, subject: Subject, *, client: ClientId, most: int, now: Instant) -> Sequence[SessionId]:
        which = {"client_id": client, **_live(subject, now)}
        order = [("used_at", -1), ("created_at", -1), ("_id", 1)]
        gone = []
        for each in await self._sessions.find(which, sort=order, skip=most, only=["_id"]):
            change = ended({"now": now, "because": "evicted"})
            if await self._sessions.change({"_id": each["_id"], "revoked_at": None}, change):
                gone.append(SessionId(each["_id"]))
        return gone

    async def list_live(self, subject: Subject, *, now: Instant) -> Sequence[Session]:
        found = await self._sessions.find(_live(subject, now), sort=[("used_at", -1), ("_id", 1)])
        return [_session(each) for each in found]

    async def list_all(self, *, now: Instant, after: SessionId | None, most: int) -> Sequence[Session]:
        which = {"_id": {"$gt": after or ""}, "revoked_at": None, "idle_expires_at": {"$gt": now}}
        return [_session(each) for each in await self._sessions.find(which, sort=[("_id", 1)], most=most, slow=True)]

    async def ended_since(self, at: Instant) -> Sequence[Ended]:
        found = await self._sessions.find({"revoked_at": {"$gte": at}}, only=["subject", "auth_epoch"], slow=True)
        return [Ended(each["_id"], each["subject"], int(each["auth_epoch"])) for each in found]

    async def outdated(self) -> Sequence[tuple[Subject, int]]:
        subjects = await self._sessions.aggregate(
            {"$match": {"revoked_at": None}},
            {"$group": {"_id": "$subject", "oldest": {"$min": "$auth_epoch"}, "newest": {"$max": "$auth_epoch"}}},
        )
        found: list[tuple[Subject, int]] = []
        for start in range(0, len(subjects), _SUBJECTS_AT_ONCE):
            some = subjects[start : start + _SUBJECTS_AT_ONCE]
            which = {"_id": {"$in": [each["_id"] for each in some]}}
            known = await asyncio.gather(
                *(each.find(which, only=["auth_epoch"], slow=True) for each in (self._users, self._clients))
            )
            epochs = {each["_id"]: int(each["auth_epoch"]) for documents in known for each in documents}
            for each in some:
                epoch = epochs.get(each["_id"], int(each["newest"]) + 1)
                if int(each["oldest"]) < epoch:
                    found.append((Subject(each["_id"]), epoch))
        return found

    async def forget(self, *, before: Instant, most: int) -> int:
        expired = {"revoked_at": None, "idle_expires_at": {"$lt": before}}
        which = {"$or": [{"revoked_at": {"$gt": 0, "$lt": before}}, expired]}
        old = await self._sessions.find(which, most=most, only=["_id"], slow=True)
        return await self._sessions.delete({"_id": {"$in": [each["_id"] for each in old]}, **which})


def _live(subject: Subject, now: Instant) -> Document:
    return {"subject": subject, "revoked_at": None, "idle_expires_at": {"$gt": now}}


def _session(document: Document) -> Session:
    values: dict[str, Any] = {name: document[name] for name in _FIELDS}
    return Session(document["_id"], **{**values, "audiences": tuple(values["audiences"])})
