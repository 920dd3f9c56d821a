"""Move a store: copy everything into another database of any kind, and prove that it is there."""

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from authwright.storage.port import RECORD_FIELDS, Record, RecordKind, Store

_MODULUS: Final = 1 << 256
# Some databases forget by themselves which networks are familiar, when their time is over.
_FLEETING: Final = frozenset({"familiar"})
_MADE_BY: Final = "made_by"
_UNFINISHED: Final = "migrate --to, which did not finish"


class MoveFailed(Exception):
    """The target cannot be used."""


@dataclass
class _Sum:
    """How many records there were, and a checksum that does not ask for their order."""

    count: int = 0
    checksum: int = 0

    def add(self, records: Sequence[Record]) -> None:
        self.count += len(records)
        for record in records:
            digest = hashlib.sha256(repr(record).encode("utf-8", "surrogatepass")).digest()
            self.checksum = (self.checksum + int.from_bytes(digest, "big")) % _MODULUS


async def move(source: Store, target: Store, *, tell: Callable[[RecordKind, int], None]) -> None:
    """Copy all records of *source*, which nobody else uses, into *target*, which is empty. Both are open.

    *tell* is called with each kind and how many there are, once they were read back from *target* and found to be what
    *source* holds. Raises MoveFailed, StoreUnavailable; then *target* holds a part, and must be emptied by hand.
    """
    for kind in RECORD_FIELDS:
        if await _sum(target, kind) != _Sum():
            raise MoveFailed(f"the target is not empty: it has {kind}")
    # Whoever opens a target that was not finished is told so.
    await target.facts.replace(_MADE_BY, _UNFINISHED)
    for kind in RECORD_FIELDS:
        read = _Sum()
        records = _counted(source.records.read(kind), read)
        if kind == "facts":
            await _put_facts(records, target)
        else:
            await target.records.write(kind, records)
        await _compare(kind, read, target)
        tell(kind, read.count)
    for kind in RECORD_FIELDS:
        # Once more, and now against what the source holds at the end: nobody may have written to it meanwhile.
        await _compare(kind, await _sum(source, kind), target)


async def _put_facts(records: AsyncIterator[Sequence[Record]], target: Store) -> None:
    facts = {str(name): str(value) async for some in records for name, value in some}
    made_by = facts.pop(_MADE_BY)
    for name, value in facts.items():
        await target.facts.replace(name, value)
    await target.facts.replace(_MADE_BY, made_by)


async def _compare(kind: RecordKind, expected: _Sum, target: Store) -> None:
    found = await _sum(target, kind)
    if kind in _FLEETING:
        return
    if found != expected:
        raise MoveFailed(
            f"of {kind} the source has {expected.count} and the target {found.count}, or they differ: "
            "was the source written to meanwhile?"
        )


async def _sum(store: Store, kind: RecordKind) -> _Sum:
    total = _Sum()
    async for some in store.records.read(kind):
        total.add(some)
    return total


async def _counted(records: AsyncIterator[Sequence[Record]], into: _Sum) -> AsyncIterator[Sequence[Record]]:
    async for some in records:
        into.add(some)
        yield some
