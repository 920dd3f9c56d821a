"""Slow guesses down, over all ways to try: login, token, password change, reset, keys, registration.

An attempt at a password is counted before it is checked, in one atomic step, and taken back if the password was right.
A network that an account was logged into from within FAMILIAR_DAYS has a bucket of its own for that account, so that
no stranger can lock anybody out. Buckets are keyed by the name that was submitted, whether an account has it or not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from authwright.domain.errors import TooManyAttempts
from authwright.domain.instant import MICROSECONDS, Instant, after
from authwright.domain.names import NameKey
from authwright.domain.throttle import FAMILIAR_DAYS, Backoff, Bucket
from authwright.domain.user import User
from authwright.services.hashing import network_of
from authwright.services.keys import Keyring
from authwright.services.metrics import Metrics
from authwright.storage.port import Passed, Store

_DAY: Final = 86_400
_HOUR: Final = 3_600
_NOTICES: Final = Backoff(free=20, memory=_DAY)

log = structlog.get_logger("authwright.throttle")


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that was let in, and the buckets it was counted in."""

    name: str
    network: str
    familiar: Instant | None
    own: Bucket
    shared: tuple[Bucket, ...]


class Throttle:
    """Counts failures. *account*, *network*: how many are free; *registrations*: of one network in an hour."""

    def __init__(
        self, store: Store, keyring: Keyring, metrics: Metrics, *, account: int, network: int, registrations: int
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._keyring = keyring
        self._account = Backoff(free=account, memory=_DAY)
        self._network = Backoff(free=network, memory=_HOUR)
        self._registrations = Backoff(free=registrations, memory=_HOUR) if registrations else None

    async def familiar_until(self, name: str, address: str, *, now: Instant) -> Instant | None:
        """Until when the network of *address* is familiar to the account *name*, which was logged into from there."""
        return await self._store.throttles.familiar_until(self._familiar(name, network_of(address)), now=now)

    async def begin(
        self, name: str, address: str, *, familiar: Instant | None, now: Instant, hurry: bool = True
    ) -> Attempt:
        """Let an attempt at the password of *name* in and count it. Raises TooManyAttempts; then it is not counted.

        Without *hurry*, as where a queue has to be waited for anyway, that may take some milliseconds longer.
        """
        network = network_of(address)
        if familiar is not None:
            attempt = Attempt(name, network, familiar, self._bucket("familiar account", name, network), ())
        else:
            attempt = Attempt(name, network, None, self._bucket("account", name), (self._bucket("network", network),))
        buckets = [(attempt.own, self._account), *((bucket, self._network) for bucket in attempt.shared)]
        opens = await self._store.throttles.admit(buckets, now=now, hurry=hurry)
        if opens is not None:
            raise self._too_many(opens, now)
        return attempt

    def passed(self, attempt: Attempt, user: User, *, now: Instant) -> Passed:
        """To be stored if the password was right: the *attempt* was no failure, and its network is familiar to all
        names of *user*."""
        names: Sequence[str] = ()
        if attempt.familiar is None:
            names = user.names
        elif attempt.familiar < after(now, (FAMILIAR_DAYS - 1) * _DAY):
            names = (attempt.name,)
        return Passed(
            cleared=(attempt.own,),
            returned=attempt.shared,
            familiar=[self._familiar(name, attempt.network) for name in names],
            until=after(now, FAMILIAR_DAYS * _DAY),
        )

    async def failed(self, what: str, address: str, *, now: Instant) -> None:
        """A wrong secret of 256 bits was presented. Raises TooManyAttempts if there were too many from there.

        Right ones pass all the same: nobody guesses one, and a program with an old key stops no other beside it.
        """
        bucket = self._bucket("secret", what, network_of(address))
        opens = await self._store.throttles.admit([(bucket, self._network)], now=now)
        if opens is not None:
            raise self._too_many(opens, now)

    async def register(self, address: str, *, now: Instant) -> None:
        """Count a registration from *address*. Raises TooManyAttempts."""
        if self._registrations is None:
            return
        bucket = self._bucket("registration", network_of(address))
        opens = await self._store.throttles.admit([(bucket, self._registrations)], now=now)
        if opens is not None:
            raise self._too_many(opens, now)

    async def notice(self, recipient: str, *, now: Instant) -> bool:
        """Count a mail to *recipient*; whether it may be sent."""
        return await self._store.throttles.admit([(self._bucket("notice", recipient), _NOTICES)], now=now) is None

    async def notice_failed(self, recipient: str, *, now: Instant) -> None:
        """Take back a mail that was counted and not sent."""
        bucket = self._bucket("notice", recipient)
        await self._store.throttles.succeed(Passed(cleared=(), returned=(bucket,), familiar=(), until=now))

    def _familiar(self, name: str, network: str) -> Bucket:
        return self._bucket("familiar", name, network)

    def _bucket(self, *parts: str) -> Bucket:
        return Bucket(self._keyring.name_digest(NameKey("\0".join(("throttle", *parts)))))

    def _too_many(self, opens: Instant, now: Instant) -> TooManyAttempts:
        seconds = max(1, -(-(opens - now) // MICROSECONDS))
        self._metrics.throttled.inc()
        log.info("throttled", seconds=seconds)
        return TooManyAttempts(retry_after=seconds)
