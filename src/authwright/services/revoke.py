"""Revocation: end it in the store, write the ledger, then answer; and follow what others wrote.

On one machine this is exact: whoever writes the ledger raises the counter page before it answers, and every worker
reads the ledger before it accepts a token when the counter moved. Other machines poll one indexed read.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from authwright.domain.instant import Instant, after
from authwright.domain.revocation import Kind, Revocation, Revocations
from authwright.domain.secrets import SessionId, Subject
from authwright.domain.session import EndReason
from authwright.storage.port import Counter, Store, StoreUnavailable

POLL_SECONDS: Final = 0.2
RELOAD_KEYS_SECONDS: Final = 1.0

log = structlog.get_logger("authwright.revocations")
T = TypeVar("T")


class Revoke:
    """Writes and follows the ledger of one store. *matters* is how long (seconds) an entry can meet a living token."""

    def __init__(self, store: Store, counter: Counter, revocations: Revocations, *, matters: float) -> None:
        self._store = store
        self._counter = counter
        self._matters = matters
        self.revocations = revocations
        self._seen = -1
        self._reading = asyncio.Lock()

    async def start(self, now: Instant) -> None:
        """Read what matters, and finish what a crash between two writes left out."""
        self._seen = self._counter.read()
        self.revocations.start(await self._store.ledger.snapshot(now=now))
        for subject, epoch in await self._store.sessions.outdated():
            log.warning("ending_repaired", subject=subject)
            await self.end_all(subject, epoch=epoch, because="logout_everywhere", now=now)

    @property
    def behind(self) -> bool:
        """Whether somebody on this machine changed ledger or keys since the last look."""
        return self._counter.read() != self._seen

    async def catch_up(self) -> None:
        """Read the ledger to its end. Raises StoreUnavailable: then nothing may be accepted."""
        async with self._reading:
            counter = self._counter.read()
            while True:
                entries = await self._store.ledger.since(self.revocations.head)
                try:
                    self.revocations.apply(entries)
                except ValueError:
                    # The store forgot entries this process never saw: begin again from what is kept.
                    self.revocations.start(await self._store.ledger.snapshot(now=Instant(0)))
                    break
                if len(entries) < 1000:
                    break
            self._seen = counter

    async def append(self, revocation: Revocation) -> None:
        """Write one entry; once this returns, no worker of this machine accepts what it withdraws."""
        await self._store.ledger.append(revocation)
        self._counter.raise_()
        await self.catch_up()
        log.info("revoked", kind=revocation.kind, target=revocation.target, reason=revocation.reason)

    async def end_session(self, session_id: SessionId, *, because: EndReason, now: Instant) -> bool:
        """End one session; whether this call did it. A repeat writes what a crash left out."""
        return await _to_the_end(self._end_session(session_id, because, now))

    async def _end_session(self, session_id: SessionId, because: EndReason, now: Instant) -> bool:
        ended = await self._store.sessions.end(session_id, because=because, now=now)
        await self.append(self._entry("session", session_id, 0, because, now))
        return ended

    async def end_all(
        self, subject: Subject, *, epoch: int, because: EndReason, now: Instant, keep: SessionId | None = None
    ) -> None:
        """End every session and token of *subject* older than *epoch*, which its row has already."""
        await _to_the_end(self._end_all(subject, epoch, because, now, keep))

    async def _end_all(
        self, subject: Subject, epoch: int, because: EndReason, now: Instant, keep: SessionId | None
    ) -> None:
        await self._store.sessions.end_all(subject, below_epoch=epoch, keep=keep, because=because, now=now)
        await self.append(self._entry("subject", subject, epoch, because, now))

    async def end_excess(self, subject: Subject, *, most: int, now: Instant) -> None:
        """End the subject's least recently used sessions beyond *most*."""
        for session_id in await self._store.sessions.end_excess(subject, most=most, now=now):
            await self.append(self._entry("session", session_id, 0, "evicted", now))

    def _entry(self, kind: Kind, target: str, epoch: int, reason: str, now: Instant) -> Revocation:
        return Revocation(kind, target, epoch, reason, now, after(now, self._matters))

    async def follow(self, clock: Callable[[], Instant], reload_keys: Callable[[], Awaitable[None]]) -> None:
        """Poll until cancelled: what other machines wrote is seen within POLL_SECONDS and one read."""
        keys_due = forget_due = 0.0
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.catch_up()
                if loop.time() >= keys_due:
                    await reload_keys()
                    keys_due = loop.time() + RELOAD_KEYS_SECONDS
            except StoreUnavailable as error:
                log.error("ledger_unreadable", detail=str(error))
                continue
            if loop.time() >= forget_due:
                self.revocations.forget(clock())
                forget_due = loop.time() + 60


async def _to_the_end(work: Awaitable[T]) -> T:
    """Finish *work* even if the caller is cancelled half way: an ending is written whole."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await task
        raise
