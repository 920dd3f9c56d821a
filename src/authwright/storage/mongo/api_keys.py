"""Users' API keys in MongoDB: a list in the document of the user."""

from collections.abc import Sequence

from authwright.domain.api_key import ApiKey
from authwright.domain.event import Event
from authwright.domain.instant import Instant
from authwright.domain.plan import format_scope, parse_scope
from authwright.domain.secrets import ApiKeyId, Digest, UserId
from authwright.domain.user import User
from authwright.storage.mongo.database import Document, MongoDatabase, unless_empty
from authwright.storage.mongo.outbox import Outbox, appended, follow_up
from authwright.storage.mongo.users import user_of
from authwright.storage.port import Ending

_FIELDS = [name for name in ApiKey.__dataclass_fields__ if name != "user_id"]


class MongoApiKeys:
    """`storage.port.ApiKeys`."""

    def __init__(self, database: MongoDatabase, outbox: Outbox) -> None:
        self._users = database.collection("users")
        self._outbox = outbox

    async def add(self, key: ApiKey, *, epoch: int, most: int, event: Event | None = None) -> bool:
        document = {name: getattr(key, name) for name in _FIELDS}
        document |= {"scope": format_scope(key.scope), "audiences": list(key.audiences)}
        which = {"_id": key.user_id, "status": "active", "auth_epoch": epoch}
        room = {f"api_keys.{most - 1}": {"$exists": False}}
        push = {"api_keys": document, "outbox": {"$each": follow_up(event)}}
        changed = await self._users.change({**which, **room}, {"$push": push})
        await self._outbox.settle(self._users, changed)
        return changed is not None

    async def find_by_digest(self, key: Digest) -> tuple[ApiKey, User] | None:
        found = await self._users.first({"api_keys.key_digest": key})
        if found is None:
            return None
        (api_key,) = (each for each in found["api_keys"] if each["key_digest"] == key)
        return _api_key(api_key, found["_id"]), user_of(found)

    async def list(self, user_id: UserId | None, *, after: ApiKeyId | None, most: int) -> Sequence[ApiKey]:
        which = {"api_keys.id": {"$gt": after or ""}}
        found = await self._users.aggregate(
            {"$match": which if user_id is None else {"_id": user_id, **which}},
            {"$project": {"api_keys": 1}},
            {"$unwind": "$api_keys"},
            {"$match": which},
            {"$sort": {"api_keys.id": 1}},
            {"$limit": most},
        )
        return [_api_key(each["api_keys"], each["_id"]) for each in found]

    async def delete(
        self, key_id: ApiKeyId, *, user_id: UserId, ending: Ending | None = None, event: Event | None = None
    ) -> bool:
        others = {"$filter": {"input": "$api_keys", "cond": {"$ne": ["$$this.id", {"$literal": key_id}]}}}
        stages = [{"$set": {"api_keys": unless_empty(others)}}]
        if entries := follow_up(event, ending=ending, kind="client", target=key_id):
            stages.append(appended(entries))
        changed = await self._users.change({"_id": user_id, "api_keys.id": key_id}, stages)
        await self._outbox.settle(self._users, changed)
        return changed is not None

    async def owner(self, key_id: ApiKeyId) -> UserId | None:
        found = await self._users.first({"api_keys.id": key_id}, only=["_id"])
        return found["_id"] if found else None


def _api_key(document: Document, user_id: str) -> ApiKey:
    return ApiKey(
        id=document["id"],
        user_id=UserId(user_id),
        name=document["name"],
        key_digest=document["key_digest"],
        key_hint=document["key_hint"],
        scope=parse_scope(document["scope"]),
        audiences=tuple(document["audiences"]),
        created_at=Instant(document["created_at"]),
        expires_at=Instant(document["expires_at"]),
    )
