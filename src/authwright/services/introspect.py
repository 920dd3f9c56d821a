"""Introspection: is this token or key alive, and what does it allow?  RFC 7662.

Judged by what the store says now: the ledger is read first, however lately that was done.
"""

from typing import NamedTuple

from authwright.domain.instant import Instant
from authwright.domain.secrets import ClientId, is_key
from authwright.guard.principal import Principal
from authwright.services.api_keys import ApiKeys
from authwright.services.revoke import Revoke
from authwright.services.verify import Verify
from authwright.storage.port import Store


class Alive(NamedTuple):
    """Who a token speaks for, and at which APIs."""

    principal: Principal
    audiences: tuple[str, ...]


class Introspect:
    """Looks at access tokens and keys for all of *audiences*; a client is told of those it was given itself."""

    def __init__(
        self, store: Store, revoke: Revoke, verify: Verify, api_keys: ApiKeys, *, audiences: tuple[str, ...]
    ) -> None:
        self._store = store
        self._revoke = revoke
        self._verify = verify
        self._api_keys = api_keys
        self._audiences = audiences

    async def introspect(self, token: str, *, client_id: ClientId | None, now: Instant) -> Alive | None:
        """Who *token* speaks for; None if it is good for nothing that the client may be told of (None: all).

        Raises StoreUnavailable.
        """
        await self._revoke.catch_up()
        told = self._audiences
        if client_id is not None:
            client = await self._store.clients.find(client_id)
            told = () if client is None else tuple(each for each in told if each in client.audiences)
        if is_key(token):
            found = await self._api_keys.find(token, now=now)
            if found is None:
                return None
            audiences = tuple(each for each in told if each in found[1])
            return Alive(found[0], audiences) if audiences else None
        good = await self._verify.at_any(token, now=now, audiences=told)
        return None if good is None else Alive(good[0], (good[1],))
