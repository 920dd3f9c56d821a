"""API clients: make them, give them a new key, disable them.

A key is shown once; what is stored is its digest. A new key and disabling end every session of the client.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from authwright.domain.client import Client
from authwright.domain.errors import InvalidClient, InvalidName, InvalidScope, InvalidTarget, NotFound, UnknownPlan
from authwright.domain.event import Origin, event
from authwright.domain.instant import Instant
from authwright.domain.plan import DEFAULT_PLAN, Plans
from authwright.domain.secrets import (
    CLIENT_KEY_PREFIX,
    ClientId,
    digest,
    key_digest,
    key_hint,
    new_client_id,
    new_key,
    same,
)
from authwright.services.revoke import Revoke
from authwright.services.throttle import Throttle
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

    def __init__(
        self, store: Store, revoke: Revoke, throttle: Throttle, plans: Plans, *, audiences: tuple[str, ...]
    ) -> None:
        self._store = store
        self._throttle = throttle
        self._plans = plans
        self._revoke = revoke
        self._audiences = audiences

    async def create(
        self,
        *,
        name: str,
        origin: Origin,
        now: Instant,
        scope: frozenset[str] | None = None,
        audiences: tuple[str, ...] | None = None,
        plan: str = DEFAULT_PLAN,
    ) -> NewKey:
        """Make a client with all scopes its *plan* permits and all audiences, or with those given.

        Raises InvalidName, InvalidScope, InvalidTarget, UnknownPlan.
        """
        if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
            raise InvalidName(f"A client's name has 1 to {MAX_NAME} printable characters.")
        if plan not in self._plans:
            raise UnknownPlan
        permitted = self._plans.permitted(role="user", plan=plan, first_party=False)
        if scope is not None and not scope <= self._plans.grantable(plan):
            raise InvalidScope
        wanted = self._audiences if audiences is None else audiences
        if not wanted or not set(wanted) <= set(self._audiences):
            raise InvalidTarget
        key = new_key(CLIENT_KEY_PREFIX)
        client = Client(
            id=new_client_id(),
            name=name,
            key_digest=digest(key.encode("ascii")),
            key_hint=key_hint(key),
            scope=permitted if scope is None else scope,
            audiences=tuple(each for each in self._audiences if each in wanted),
            plan=plan,
            status="active",
            auth_epoch=1,
            created_at=now,
            updated_at=now,
        )
        done = event("client_created", origin, now=now, subject=client.id, client_id=client.id)
        await self._store.clients.add(client, event=done)
        log.info("client_created", client=client.id, name=name)
        return NewKey(client, key)

    async def all(self) -> Sequence[Client]:
        """All clients, oldest first."""
        return await self._store.clients.all()

    async def find(self, client_id: ClientId) -> Client:
        """The client with this id. Raises NotFound."""
        client = await self._store.clients.find(client_id)
        if client is None:
            raise NotFound("There is no such client.")
        return client

    async def rotate_key(self, client_id: ClientId, *, origin: Origin, now: Instant) -> NewKey:
        """Replace the key; the old one and every session made with it end. Raises NotFound."""
        key = new_key(CLIENT_KEY_PREFIX)
        done = event("client_key_rotated", origin, now=now, subject=client_id, client_id=client_id)
        replacement = self._store.clients.replace_key(
            client_id,
            digest=digest(key.encode("ascii")),
            hint=key_hint(key),
            now=now,
            ending=self._revoke.ending("key_rotated", now),
            event=done,
        )
        if await self._revoke.carry_out("subject", replacement) is None:
            raise NotFound("There is no such client.")
        log.info("client_key_rotated", client=client_id)
        return NewKey(await self.find(client_id), key)

    async def disable(self, client_id: ClientId, *, origin: Origin, now: Instant) -> None:
        """Disable the client and end all its sessions. Raises NotFound."""
        done = event("client_disabled", origin, now=now, subject=client_id, client_id=client_id)
        ending = self._revoke.ending("disabled", now)
        change = self._store.clients.set_status(client_id, "disabled", now=now, ending=ending, event=done)
        if await self._revoke.carry_out("subject", change) is None:
            raise NotFound("There is no such client.")
        log.info("client_disabled", client=client_id)

    async def authenticate(self, client_id: str, key: str, *, origin: Origin, now: Instant) -> Client:
        """The active client *client_id* if *key* is its key (RFC 6749 section 2.3.1).

        Raises InvalidClient, TooManyAttempts: wrong keys are counted by client and network.
        """
        client = await self._store.clients.find(ClientId(client_id))
        # Ids that nobody has share a counter: making them up opens no door, and fills no table.
        what = "unknown clients" if client is None else f"client {client.id}"
        presented = key_digest(key, CLIENT_KEY_PREFIX)
        if client is None or presented is None or client.status != "active" or not same(presented, client.key_digest):
            await self._throttle.failed(what, origin.address, now=now)
            subject = "" if client is None else client.id
            failed = event("client_authenticated", origin, now=now, subject=subject, outcome="failure")
            await self._store.events.append(failed)
            raise InvalidClient
        return client
