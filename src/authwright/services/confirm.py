"""Prove the current password once more, before something that a stolen access token must not be enough for."""

from authwright.domain.errors import InvalidCredentials, Unauthenticated
from authwright.domain.event import Origin, event
from authwright.domain.instant import Instant
from authwright.domain.user import User
from authwright.services.hashing import Hashing
from authwright.services.throttle import Throttle
from authwright.storage.port import Store


class Confirm:
    """Checks a password again (ASVS 7.5.1), by the same counters as a login."""

    def __init__(self, store: Store, hashing: Hashing, throttle: Throttle) -> None:
        self._store = store
        self._hashing = hashing
        self._throttle = throttle

    async def password(self, user: User, password: str | None, *, origin: Origin, now: Instant) -> None:
        """Return if *password* is the user's. Raises InvalidCredentials, TooManyAttempts, Busy, Unauthenticated."""
        if not user.is_active:
            raise Unauthenticated(detail="the account is disabled")
        if password is None:
            raise InvalidCredentials("This needs your current password: send it as current_password.")
        name = user.names[0]
        familiar = await self._throttle.familiar_until(name, origin.address, now=now)
        with self._hashing.place(origin.address, "login" if familiar is None else "familiar", account=name):
            attempt = await self._throttle.begin(name, origin.address, familiar=familiar, now=now)
            matched, spent = await self._hashing.verify(password, user.password_hash, first=familiar is not None)
            if not matched:
                await self._hashing.even_out(spent)
                failed = event("password_confirmed", origin, now=now, subject=user.id, outcome="failure")
                await self._store.events.append(failed)
                raise InvalidCredentials("The current password is not right.")
        await self._store.throttles.succeed(self._throttle.passed(attempt, user, now=now))
