"""Password hashing on its own niced threads, behind a bounded queue.

A hash takes tens of milliseconds of a core and tens of megabytes; nothing else may wait for it. Places in the queue
are given out before an account is looked up, so that a full queue tells nothing about accounts: one network holds at
most a quarter of the places, and registrations have a share of their own. So do logins from networks that are familiar
to the account (a quarter of the places again), and these come first: a flood of guesses makes no user wait for it.
"""

import asyncio
import contextlib
import ipaddress
import os
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
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


@lru_cache(maxsize=4096)
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
        self._held: Counter[tuple[str, str]] = Counter()  # by share and network, and by share and account
        # One more than there are threads, so that none is idle while the next turn is given.
        self._free = threads + 1
        self._waiting: tuple[deque[asyncio.Future[None]], ...] = (deque(), deque())
        self._others_next = True
        self._work: queue.SimpleQueue[Callable[[], None] | None] | None = None
        self._slowest = 0.0
        self._formats: frozenset[str] = frozenset()

    @property
    def taken(self) -> int:
        """How many requests hold a place in the queue."""
        return sum(self._taken.values())

    @property
    def is_crowded(self) -> bool:
        """Whether whoever comes now waits for several others first."""
        return sum(map(len, self._waiting)) >= 2 * self._threads

    async def start(self) -> None:
        """Start the threads and make the decoy."""
        self._work = queue.SimpleQueue()
        for number in range(self._threads):
            name = f"authwright-hash-{number}"
            threading.Thread(target=_serve, args=(self._work,), name=name, daemon=True).start()
        await self._run(passwords.decoy, self.profile)

    def stop(self) -> None:
        """Let the threads finish what they do."""
        if self._work is not None:
            for _ in range(self._threads):
                self._work.put(None)
            self._work = None

    @contextlib.contextmanager
    def place(self, address: str, share: Share = "login", *, account: str = "") -> Iterator[None]:
        """A place in the queue for the network of *address*, and for *account*. Raises Busy if there is none."""
        network = network_of(address)
        if share == "familiar":
            # A whole office behind one address may log in at once, and leaves room for those of other networks.
            places = self._places[share]
            if self._taken[share] >= places or self._held[share, network] >= max(1, places // 2):
                share = "login"
        places = self._places[share]
        quarter = max(1, places // 4)
        most: dict[tuple[str, str], int] = {(share, network): places if share == "familiar" else quarter}
        if account:
            # One account, with whatever password, does not fill the queue from many networks either; and strangers
            # who try it take nothing from where it is familiar.
            most[f"account, {share}", account] = quarter
        if self._taken[share] >= places or any(self._held[each] >= most[each] for each in most):
            raise Busy
        self._taken[share] += 1
        for each in most:
            self._held[each] += 1
        try:
            yield
        finally:
            self._taken[share] -= 1
            for each in most:
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
            if self._work is None:
                raise Busy(detail="hashing has stopped")
            loop = asyncio.get_running_loop()
            done: asyncio.Future[tuple[T, float]] = loop.create_future()
            self._work.put(partial(_hand_over, loop, done, partial(work, *args, **options)))
            return await done
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
        for line in reversed(self._waiting) if self._others_next else self._waiting:
            while line:
                turn = line.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._free += 1


def _serve(work: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    """What a thread does until it is told to stop."""
    # Hashing gives way to everything else on the machine; on Linux a thread has its own niceness.
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    while (task := work.get()) is not None:
        task()


def _hand_over(loop: asyncio.AbstractEventLoop, done: asyncio.Future[tuple[T, float]], work: Callable[[], T]) -> None:
    """Do *work*, if anybody still waits on the *loop*, and give what came of it and the seconds it took."""
    if done.cancelled():
        return
    begun = time.perf_counter()
    result: tuple[T, float] | Exception
    try:
        result = work(), time.perf_counter() - begun
    except Exception as error:
        result = error
    except BaseException as error:  # a library in another language that gave up must not take the thread with it
        result = RuntimeError(f"hashing failed: {type(error).__name__}")
    # The loop may have been closed meanwhile: then nobody waits any more.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_settle, done, result)


def _settle(done: asyncio.Future[tuple[T, float]], result: tuple[T, float] | Exception) -> None:
    if done.done():
        return
    if isinstance(result, Exception):
        done.set_exception(result)
    else:
        done.set_result(result)
