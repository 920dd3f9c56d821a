"""Password hashing on its own niced threads, behind a bounded queue.

A hash takes tens of milliseconds of a core and tens of megabytes; nothing else may wait for it. Places in the queue
are given out before an account is looked up, so that a full queue tells nothing about accounts: one network holds at
most a quarter of the places, and registrations have a share of their own. So do logins from networks that are familiar
to the account, and these come first: a flood of guesses makes no user wait for it.
"""

import asyncio
import contextlib
import ipaddress
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Literal, NamedTuple, TypeVar

from authwright.domain import passwords
from authwright.domain.errors import Busy, WeakPassword
from authwright.domain.passwords import HashProfile

NICENESS: Final = 19
_IPV6_PREFIX: Final = 64

T = TypeVar("T")
Share = Literal["login", "familiar", "registration"]


class Verification(NamedTuple):
    """Whether the password was right, and how many seconds the hash took."""

    matched: bool
    seconds: float


def network_of(address: str) -> str:
    """What *address* is counted by: an IPv4 address, or the /64 of an IPv6 one. Anything else counts as one."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((int(ip) >> _IPV6_PREFIX << _IPV6_PREFIX, _IPV6_PREFIX)))
    return str(ip)


class Hashing:
    """Hashes and verifies with *profile* on *threads* threads; at most *places* requests are inside."""

    def __init__(self, *, profile: HashProfile, threads: int, places: int) -> None:
        self.profile = profile
        self._threads = threads
        quarter = max(1, places // 4)
        self._places: dict[Share, int] = {"login": places, "familiar": quarter, "registration": quarter}
        self._taken: Counter[Share] = Counter()
        self._held: Counter[tuple[str, str]] = Counter()
        # One more than there are threads, so that none is idle while the next turn is given.
        self._free = threads + 1
        self._waiting: tuple[deque[asyncio.Future[None]], ...] = (deque(), deque())
        self._others_next = True
        self._executor: ThreadPoolExecutor | None = None
        self._slowest = 0.0
        self._formats: frozenset[str] = frozenset()

    @property
    def taken(self) -> int:
        """How many requests hold a place in the queue."""
        return sum(self._taken.values())

    async def start(self) -> None:
        """Start the threads and make the decoy."""
        self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="authwright-hash", initializer=_be_nice)
        await self._run(passwords.decoy, self.profile)

    def stop(self) -> None:
        """Let the threads finish what they do."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None

    @contextlib.contextmanager
    def place(self, address: str, share: Share = "login", *, account: str = "") -> Iterator[None]:
        """A place in the queue for the network of *address*, and for *account*. Raises Busy if there is none."""
        if share == "familiar" and self._taken[share] >= self._places[share]:
            share = "login"
        places = self._places[share]
        holders: list[tuple[str, str]] = [(share, network_of(address))]
        # One account, with whatever password, does not fill the queue from many networks either.
        holders += [("account", account)] if account else []
        most = max(1, places // 4)
        if self._taken[share] >= places or any(self._held[each] >= most for each in holders):
            raise Busy
        self._taken[share] += 1
        self._held.update(holders)
        try:
            yield
        finally:
            self._taken[share] -= 1
            for each in holders:
                self._held[each] -= 1
                if not self._held[each]:
                    del self._held[each]

    async def hash(self, prepared: str) -> str:
        """A new hash of a prepared password."""
        return (await self._run(passwords.hash_password, prepared, profile=self.profile))[0]

    async def hash_typed(self, password: str) -> str | None:
        """A new hash of a password as typed; None if it has a form that cannot be set here."""
        try:
            return await self.hash(passwords.prepare(password))
        except WeakPassword:
            return None

    async def verify(self, password: str, stored: str | None, *, first: bool = False) -> Verification:
        """Whether *password* is *stored*'s. None (no such account) costs a hash, too, and never matches.

        *first*: before all that wait and did not say so.
        """
        against = passwords.decoy(self.profile) if stored is None else stored
        try:
            matched, seconds = await self._run(passwords.verify_password, password, against, first=first)
        except passwords.UnsupportedHash:
            return Verification(False, 0.0)
        return Verification(matched and stored is not None, seconds)

    async def even_out(self, spent: float) -> None:
        """Wait until a failure has taken as long as the slowest kind of hash present: time tells no format."""
        if self._slowest > spent:
            await asyncio.sleep(self._slowest - spent)

    async def measure(self, formats: frozenset[str]) -> None:
        """Learn how long the slowest of *formats* takes here, if there are others than before."""
        if formats == self._formats:
            return
        foreign = formats - {self.profile.format}
        own = (await self._run(passwords.verify_password, "", passwords.decoy(self.profile)))[1]
        times = [own]
        for name in foreign:
            sample = passwords.sample_hash(name)
            if sample is not None:
                with contextlib.suppress(passwords.UnsupportedHash):
                    times.append((await self._run(passwords.verify_password, "", sample))[1])
        # Without foreign hashes every path costs the same already.
        self._slowest = max(times) * 1.1 if foreign else 0.0
        self._formats = formats

    async def _run(
        self, work: Callable[..., T], *args: object, first: bool = False, **options: object
    ) -> tuple[T, float]:
        await self._turn(first)
        try:
            if self._executor is None:
                raise Busy(detail="hashing has stopped")
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._executor, _timed, work, args, options)
        finally:
            self._next()

    async def _turn(self, first: bool) -> None:
        """Wait until a thread is free, or about to be."""
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting[0 if first else 1].append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._next()
            raise

    def _next(self) -> None:
        # In turns, where both wait: who comes first must not stop the others for good.
        self._others_next = not self._others_next
        for queue in reversed(self._waiting) if self._others_next else self._waiting:
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._free += 1


def _timed(work: Callable[..., T], args: tuple[object, ...], options: dict[str, object]) -> tuple[T, float]:
    begun = time.perf_counter()
    result = work(*args, **options)
    return result, time.perf_counter() - begun


def _be_nice() -> None:
    # Hashing gives way to everything else on the machine; on Linux a thread has its own niceness.
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
