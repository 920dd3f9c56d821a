"""Clients in MongoDB."""

from collections.abc import Sequence

from authwright.domain.client import Client, ClientStatus
from authwright.domain.event import Event
from authwright.domain.instant import Instant
from authwright.domain.plan import format_scope, parse_scope
from authwright.domain.secrets import ClientId, Digest
from authwright.storage.mongo.database import Document, MongoDatabase, given
from authwright.storage.mongo.outbox import Outbox, appended, follow_up
from authwright.storage.port import Ending

_FIELDS = [name for name in Client.__dataclass_fields__ if name != "id"]


class MongoClients:
    """`storage.port.Clients`."""

    def __init__(self, database: MongoDatabase, outbox: Outbox) -> None:
        self._clients = database.collection("clients")
        self._outbox = outbox

    async def add(self, client: Client, *, event: Event | None = None) -> None:
        document: Document = {"_id": client.id, **{name: getattr(client, name) for name in _FIELDS}}
        document |= {"scope": format_scope(client.scope), "audiences": list(client.audiences)}
        document["outbox"] = follow_up(event)
        await self._clients.insert(document)
        await self._outbox.settle(self._clients, document)

    async def find(self, client_id: ClientId) -> Client | None:
        found = await self._clients.first({"_id": client_id})
        return client_of(found) if found else None

    async def find_by_key(self, key: Digest) -> Client | None:
        found = await self._clients.first({"key_digest": key})
        return client_of(found) if found else None

    async def all(self) -> Sequence[Client]:
        return [client_of(each) for each in await self._clients.find({}, sort=[("created_at", 1), ("_id", 1)])]

    async def replace_key(
        self,
        client_id: ClientId,
        *,
        digest: Digest,
        hint: str,
        now: Instant,
        ending: Ending | None = None,
        event: Event | None = None,
    ) -> int | None:
        return await self._raise(client_id, {"key_digest": digest, "key_hint": hint}, now, ending, event)

    async def set_status(
        self,
        client_id: ClientId,
        status: ClientStatus,
        *,
        now: Instant,
        ending: Ending | None = None,
        event: Event | None = None,
    ) -> int | None:
        return await self._raise(client_id, {"status": status}, now, ending, event)

    async def raise_epoch(
        self, client_id: ClientId, *, now: Instant, ending: Ending | None = None, event: Event | None = None
    ) -> int | None:
        return await self._raise(client_id, {}, now, ending, event)

    async def _raise(
        self, client_id: ClientId, values: Document, now: Instant, ending: Ending | None, event: Event | None
    ) -> int | None:
        raised = {"auth_epoch": {"$add": ["$auth_epoch", 1]}, **given({**values, "updated_at": now})}
        stages = [{"$set": raised}]
        if entries := follow_up(event, ending=ending, target=client_id):
            stages.append(appended(entries))
        changed = await self._clients.change({"_id": client_id}, stages)
        await self._outbox.settle(self._clients, changed)
        return None if changed is None else int(changed["auth_epoch"])


def client_of(document: Document) -> Client:
    """The client that *document* holds."""
    values = {name: document[name] for name in _FIELDS}
    values |= {"scope": parse_scope(document["scope"]), "audiences": tuple(document["audiences"])}
    return Client(document["_id"], **values)
