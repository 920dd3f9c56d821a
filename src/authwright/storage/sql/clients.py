"""Clients on SQLAlchemy Core."""

from collections.abc import Sequence

from sqlalchemy import bindparam, insert, select, update

from authwright.domain.client import Client, ClientStatus
from authwright.domain.event import Event
from authwright.domain.instant import Instant
from authwright.domain.plan import format_scope, parse_scope
from authwright.domain.secrets import ClientId, Digest
from authwright.storage.port import Ending
from authwright.storage.sql.endings import subject_steps
from authwright.storage.sql.events import steps_of
from authwright.storage.sql.statements import Database, Row, compiled
from authwright.storage.sql.tables import clients
from authwright.storage.sql.users import epoch_of

_ADD = compiled(insert(clients))
_FIND = compiled(select(clients).where(clients.c.id == bindparam("client")))
_FIND_BY_KEY = compiled(select(clients).where(clients.c.key_digest == bindparam("key")))
_LIST = compiled(select(clients).order_by(clients.c.created_at, clients.c.id))
_change = update(clients).where(clients.c.id == bindparam("client")).returning(clients.c.auth_epoch)
_raised = {"auth_epoch": clients.c.auth_epoch + 1, "updated_at": bindparam("now")}
_REPLACE_KEY = compiled(_change.values(key_digest=bindparam("digest"), key_hint=bindparam("hint"), **_raised))
_SET_STATUS = compiled(_change.values(status=bindparam("new_status"), **_raised))
_RAISE_EPOCH = compiled(_change.values(**_raised))


class SqlClients:
    """`storage.port.Clients`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, client: Client, *, event: Event | None = None) -> None:
        row = {column.name: getattr(client, column.name) for column in clients.c}
        row["scope"], row["audiences"] = format_scope(client.scope), " ".join(client.audiences)
        await self._database.write_together((_ADD, row), *steps_of(event))

    async def find(self, client_id: ClientId) -> Client | None:
        rows = await self._database.find(_FIND, {"client": client_id})
        return _client(rows[0]) if rows else None

    async def find_by_key(self, key: Digest) -> Client | None:
        rows = await self._database.find(_FIND_BY_KEY, {"key": key})
        return _client(rows[0]) if rows else None

    async def all(self) -> Sequence[Client]:
        return [_client(row) for row in await self._database.read(_LIST, {})]

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
        parameters = {"client": client_id, "digest": digest, "hint": hint, "now": now}
        return epoch_of(
            await self._database.write_together(
                (_REPLACE_KEY, parameters), *subject_steps(client_id, ending), *steps_of(event), guards=1
            )
        )

    async def set_status(
        self,
        client_id: ClientId,
        status: ClientStatus,
        *,
        now: Instant,
        ending: Ending | None = None,
        event: Event | None = None,
    ) -> int | None:
        parameters = {"client": client_id, "new_status": status, "now": now}
        return epoch_of(
            await self._database.write_together(
                (_SET_STATUS, parameters), *subject_steps(client_id, ending), *steps_of(event), guards=1
            )
        )

    async def raise_epoch(
        self, client_id: ClientId, *, now: Instant, ending: Ending | None = None, event: Event | None = None
    ) -> int | None:
        step = (_RAISE_EPOCH, {"client": client_id, "now": now})
        return epoch_of(
            await self._database.write_together(step, *subject_steps(client_id, ending), *steps_of(event), guards=1)
        )


def _client(row: Row) -> Client:
    ident, name, digest, hint, scope, audiences, *rest = row
    return Client(ident, name, digest, hint, parse_scope(scope), tuple(audiences.split()), *rest)
