"""Who am I: the account or the client behind a verified token, as it is now."""

from authwright.domain.client import Client
from authwright.domain.errors import Unauthenticated
from authwright.domain.secrets import ClientId, UserId
from authwright.domain.user import User
from authwright.guard.principal import Principal
from authwright.storage.port import Store


class WhoAmI:
    """Looks the caller up."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def find(self, principal: Principal) -> User | Client:
        """The caller's record. Raises Unauthenticated if it is gone or disabled."""
        found: User | Client | None
        if principal.is_client:
            found = await self._store.clients.find(ClientId(principal.subject))
        else:
            found = await self._store.users.find(UserId(principal.subject))
        if found is None or found.status != "active":
            raise Unauthenticated(detail="the subject is gone or disabled")
        return found
