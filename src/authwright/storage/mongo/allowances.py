"""Rates of callers, and what guards have taken of them ahead, in MongoDB."""

from authwright.domain.allowance import Allowance, AllowanceLease
from authwright.domain.instant import Instant
from authwright.domain.secrets import ClientId, Subject
from authwright.storage.mongo.database import Document, Duplicate, MongoDatabase
from authwright.storage.port import Replaced


class MongoAllowances:
    """`storage.port.Allowances`."""

    def __init__(self, database: MongoDatabase) -> None:
        self._allowances = database.collection("allowances")

    async def read(self, caller: Subject) -> Allowance | None:
        found = await self._allowances.first({"_id": caller})
        return _allowance(found) if found else None

    async def replace(self, caller: Subject, old: Allowance | None, new: Allowance) -> Replaced:
        if old is None:
            try:
                await self._allowances.insert({"_id": caller, **new._asdict()})
            except Duplicate:
                return Replaced(False, await self.read(caller))
            return Replaced(True, new)
        changed = await self._allowances.change({"_id": caller, **old._asdict()}, {"$set": new._asdict()})
        return Replaced(True, new) if changed else Replaced(False, await self.read(caller))

    async def forget(self, *, before: Instant, most: int) -> int:
        which = {"full_at": {"$lt": before}, "leased_until": {"$lt": before}}
        old = await self._allowances.find(which, most=most, only=["_id"])
        return await self._allowances.delete({"_id": {"$in": [each["_id"] for each in old]}, **which})


class MongoAllowanceLeases:
    """`storage.port.AllowanceLeases`."""

    def __init__(self, database: MongoDatabase) -> None:
        self._leases = database.collection("allowance_leases")

    async def add(self, lease: AllowanceLease) -> None:
        document = lease._asdict()
        await self._leases.insert({"_id": document.pop("id"), **document})

    async def consume(self, lease_id: str, *, guard: ClientId) -> AllowanceLease | None:
        found = await self._leases.take({"_id": lease_id, "guard": guard})
        if found is None:
            return None
        return AllowanceLease(
            id=found["_id"],
            guard=ClientId(found["guard"]),
            caller=Subject(found["caller"]),
            route=found["route"],
            day=int(found["day"]),
            units=int(found["units"]),
            plan=found["plan"],
            until=Instant(int(found["until"])),
        )

    async def forget(self, *, before: Instant, most: int) -> int:
        which = {"until": {"$lt": before}}
        old = await self._leases.find(which, most=most, only=["_id"])
        return await self._leases.delete({"_id": {"$in": [each["_id"] for each in old]}})


def _allowance(found: Document) -> Allowance:
    return Allowance(Instant(int(found["full_at"])), int(found["leased"]), Instant(int(found["leased_until"])))
