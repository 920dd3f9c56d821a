"""API clients: make them, give them a new key, disable them.

A key is shown once; what is stored is its digest. A new key and disabling end every session of the client.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from authwright.domain.client import Client
from authwright.domain.errors import InvalidName, InvalidScope, InvalidTarget, NotFound, PlanNotSelfService
from authwright.domain.instant import Instant
from authwright.domain.plan import DEFAULT_PLAN, PLANS, permitted_scopes
from authwright.domain.secrets import (
    ClientId,
    Subject,
    client_key_digest,
    client_key_hint,
    digest,
    new_client_id,
    new_client_key,
    same,
)
from authwright.services.revoke import Revoke
from authwright.storage.port import Store

MAX_NAME: Final = 100

log = structlog.get_logger("authwright.clients")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A client and its key, which is never shown again."""

    client: Client
    client_key: str = field(repr=False)


class Clients:
    """Manages API clients; *audiences* are those a client may be given, the issuer first."""

    def __init__(self, store: Store, revoke: Revoke, *, audiences: tuple[str, ...]) -> None:
        self._store = store
        self._revoke = revoke
        self._audiences = audiences

    async def create(
        self,
        *,
        name: str,
        now: Instant,
        scope: frozenset[str] | None = None,
        audiences: tuple[str, ...] | None = None,
        plan: str = DEFAULT_PLAN,
    ) -> NewKey:
        """Make a client with all scopes its *plan* permits and all audiences, or fewer of both.

        Raises InvalidName, InvalidScope, InvalidTarget, PlanNotSelfService (no such plan).
        """
        if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
            raise InvalidName(f"A client's name has 1 to {MAX_NAME} printable characters.")
        if plan not in PLANS:
            raise PlanNotSelfService("There is no such plan.")
        permitted = permitted_scopes(role="user", plan=plan, first_party=False)
        if scope is not None and not scope <= permitted:
            raise InvalidScope
        wanted = self._audiences if audiences is None else audiences
        if not wanted or not set(wanted) <= set(self._audiences):
            raise InvalidTarget
        key = new_client_key()
        client = Client(
            id=new_client_id(),
            name=name,
            key_digest=digest(key.encode("ascii")),
            key_hint=client_key_hint(key),
            scope=permitted if scope is None else scope,
            audiences=tuple(each for each in self._audiences if each in wanted),
            plan=plan,
            status="active",
            auth_epoch=1,
            created_at=now,
            updated_at=now,
        )
        await self._store.clients.add(client)
        log.info("client_created", client=client.id, name=name)
        return NewKey(client, key)

    async def all(self) -> Sequence[Client]:
        """All clients, oldest first."""
        return await self._store.clients.all()

    async def rotate_key(self, client_id: ClientId, *, now: Instant) -> NewKey:
        """Replace the key; the old one and every session made with it end. Raises NotFound."""
        key = new_client_key()
        epoch = await self._store.clients.replace_key(
            client_id, digest=digest(key.encode("ascii")), hint=client_key_hint(key), now=now
        )
        if epoch is None:
            raise NotFound("There is no such client.")
        await self._revoke.end_all(Subject(client_id), epoch=epoch, because="key_rotated", now=now)
        log.info("client_key_rotated", client=client_id)
        client = await self._store.clients.find(client_id)
        if client is None:
            raise NotFound("There is no such client.")
        return NewKey(client, key)

    async def disable(self, client_id: ClientId, *, now: Instant) -> None:
        """Disable the client and end all its sessions. Raises NotFound."""
        epoch = await self._store.clients.set_status(client_id, "disabled", now=now)
        if epoch is None:
            raise NotFound("There is no such client.")
        await self._revoke.end_all(Subject(client_id), epoch=epoch, because="disabled", now=now)
        log.info("client_disabled", client=client_id)

    async def authenticate(self, client_id: str, key: str) -> Client | None:
        """The active client *client_id* if *key* is its key (RFC 6749 section 2.3.1)."""
        presented = client_key_digest(key)
        client = await self._store.clients.find(ClientId(client_id))
        if presented is None or client is None or client.status != "active":
            return None
        return client if same(presented, client.key_digest) else None
