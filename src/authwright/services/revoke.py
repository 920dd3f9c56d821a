"""Revocation: end it in the store and write the ledger, then answer; and follow what others wrote.

On one machine this is exact: whoever writes the ledger raises the counter page before it answers, and every worker
reads the ledger before it accepts a token when the counter moved. Other machines poll one indexed read.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

import structlog

from authwright.domain.event import Event
from authwright.domain.instant import Instant, after
from authwright.domain.revocation import Kind, Revocation, Revocations
from authwright.domain.secrets import ClientId, SessionId, Subject
from authwright.domain.session import EndReason, Session
from authwright.guard.principal import Principal
from authwright.services.feed import Cursor, Feed
from authwright.services.metrics import Metrics
from authwright.storage.port import Counter, Ending, Store, StoreUnavailable

POLL_SECONDS: Final = 0.2
FORGET_SECONDS: Final = 60.0

T = TypeVar("T")

log = structlog.get_logger("authwright.revocations")


async def _anew() -> bool:
    return True


async def _nothing() -> None:
    return


class Revoke:
    """Writes and follows the ledger of one store."""

    def __init__(self, store: Store, counter: Counter, revocations: Revocations, feed: Feed, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._counter = counter
        self.revocations = revocations
        self.feed = feed
        self._seen = -1
        self._store_epoch: str | None = None
        self.on_restore: Callable[[], Awaitable[bool]] = _anew
        """Called when a backup was restored under a running server, before anything of it is used; whether no key of
        before is good any more."""
        self.on_key_withdrawn: Callable[[], Awaitable[None]] = _nothing
        """Called when a signing key was withdrawn, before anybody hears of it: so nobody signs with it any more."""
        self.wrote = False
        """Whether this process wrote to the ledger."""
        self._reading = asyncio.Lock()
        # Reads are numbered as they begin, which they do one after the other.
        self._reads_begun = self._read_done = 0

    async def start(self, now: Instant) -> None:
        """Read what matters, and finish what a crash between two writes left out."""
        self._seen = self._counter.read()
        self._store_epoch = await self._store.facts.read("store_epoch")
        begun = self.feed.now
        entries = await self._store.ledger.snapshot()
        self.revocations.start(entries)
        self.feed.start(self._store_epoch or "", entries)
        self.feed.read(begun)
        for subject, epoch in await self._store.sessions.outdated():
            log.warning("ending_repaired", subject=subject)
            await self._end_outdated(subject, epoch, now)
        for session_id, subject, epoch in await self._store.sessions.ended_since(after(now, -self.feed.matters)):
            await self._repair(session_id, subject, epoch, now)

    @property
    def behind(self) -> bool:
        """Whether somebody on this machine changed ledger or keys since the last look."""
        return self._counter.read() != self._seen

    async def look(self) -> None:
        """See what others on this machine changed before this was called. Raises StoreUnavailable: then nothing may be
        accepted, or signed with a key that may have been withdrawn.
        """
        if self.behind:
            await self.catch_up()

    async def follow_up(self, cursor: Cursor | None) -> None:
        """Before a follower that has reached *cursor* is answered: read what others on this machine, or beyond it,
        wrote. If the ledger cannot be read, the feed's age tells."""
        if self.behind or (cursor is not None and self.feed.is_behind(cursor)):
            with contextlib.suppress(StoreUnavailable):
                await self.catch_up()
                if cursor is not None and self.feed.is_behind(cursor):
                    log.error("rollback", detail="a guard has seen more of the ledger than the store holds now")

    async def catch_up(self) -> None:
        """Read the ledger to its end. Raises StoreUnavailable: then nothing may be accepted."""
        asked = self._reads_begun
        async with self._reading:
            if self._read_done > asked:
                # One that began after this was asked for has told all that there was.
                return
            self._reads_begun += 1
            counter, begun = self._counter.read(), self.feed.now
            if await self._store.facts.read("store_epoch") != self._store_epoch:
                await self._start_over()
            while True:
                entries = await self._store.ledger.since(self.revocations.head)
                try:
                    if any(entry.kind == "key" for entry in entries):
                        await self.on_key_withdrawn()
                    self.revocations.apply(entries)
                    self.feed.apply(entries)
                except ValueError:
                    # The store forgot entries this process never saw: begin again from what is kept.
                    entries = await self._store.ledger.snapshot()
                    await self.on_key_withdrawn()
                    self.revocations.start(entries)
                    self.feed.start(self._store_epoch or "", entries)
                    break
                if len(entries) < 1000:
                    break
            self._seen = counter
            self.feed.read(begun)
            self._read_done = self._reads_begun

    async def _start_over(self) -> None:
        # A backup was restored under us. Its keys come first: by them nothing older is good any more.
        epoch = await self._store.facts.read("store_epoch")
        log.warning("store_restored")
        anew = await self.on_restore()
        entries = await self._store.ledger.snapshot()
        if anew:
            self.revocations.restart(entries)
        else:
            # `restore` withdraws every key. Whoever wrote an epoch by hand takes back no revocation with it.
            log.error("epoch_without_new_keys", detail="the store has another epoch, and keys of before are still good")
            self.revocations.start(entries)
        self.feed.start(epoch or "", entries)
        self._store_epoch = epoch

    async def append(self, revocation: Revocation) -> None:
        """Write one entry; once this returns, no worker of this machine accepts what it withdraws."""
        await self._store.ledger.append(revocation)
        await self.see_all()
        self._metrics.revocations.labels(revocation.kind).inc()
        log.info("revoked", kind=revocation.kind, target=revocation.target, reason=revocation.reason)

    def still_good(self, caller: Principal) -> bool:
        """Whether nothing that *caller* came with was revoked meanwhile: for what goes on after it was let in."""
        return self.revocations.refuses(caller) is None

    def ending(
        self, because: EndReason, now: Instant, *, keep: SessionId | None = None, carry_over: bool = False
    ) -> Ending:
        """What a verb of the store is given that ends sessions and writes the ledger with its change."""
        return Ending(because, now, after(now, self.feed.matters), keep, carry_over)

    async def carry_out(self, kind: Kind, verb: Coroutine[Any, Any, T]) -> T:
        """Await *verb*, which was given an `ending`; what it answered.

        Once this returns, no worker of this machine accepts what it took away. It is finished even if the caller goes
        away half way.
        """
        return await _to_the_end(self._carry_out(kind, verb))

    async def _carry_out(self, kind: Kind, verb: Coroutine[Any, Any, T]) -> T:
        done = await verb
        # Also if somebody else did it a moment ago, who may not have come so far.
        await self.see_all()
        if done is not None and done is not False:
            self._metrics.revocations.labels(kind).inc()
        return done

    async def see_all(self) -> None:
        """Once this returns, every worker of this machine sees what the ledger holds now."""
        self.wrote = True
        self._counter.raise_()
        await self.catch_up()

    async def end_session(
        self, session_id: SessionId, *, because: EndReason, now: Instant, event: Event | None = None
    ) -> None:
        """End one session. A repeat writes what a crash left out, and otherwise nothing."""
        end = self._store.sessions.end
        ending = self.ending(because, now)
        if await self.carry_out("session", end(session_id, because=because, now=now, ending=ending, event=event)):
            log.info("revoked", kind="session", target=session_id, reason=because)

    async def _end_outdated(self, subject: Subject, epoch: int, now: Instant) -> None:
        because: EndReason = "logout_everywhere"
        await self._store.sessions.end_all(subject, below_epoch=epoch, keep=None, because=because, now=now)
        await self.append(self._entry("subject", subject, epoch, because, now))

    async def end_excess(self, subject: Subject, *, client: ClientId, most: int, now: Instant) -> None:
        """End the subject's least recently used sessions of *client* beyond *most*."""
        await _to_the_end(self._end_excess(subject, client, most, now))

    async def _end_excess(self, subject: Subject, client: ClientId, most: int, now: Instant) -> None:
        for session_id in await self._store.sessions.end_excess(subject, client=client, most=most, now=now):
            await self.append(self._entry("session", session_id, 0, "evicted", now))

    async def repair_session(self, session: Session, now: Instant) -> None:
        """Write the ledger entry of a *session* that was ended, if it is missing and can still matter."""
        ended = session.revoked_at
        if ended is not None and now < after(ended, self.feed.matters):
            await self._repair(session.id, session.subject, session.auth_epoch, now)

    async def _repair(self, session_id: SessionId, subject: Subject, epoch: int, now: Instant) -> None:
        if not self.revocations.ended(session_id, subject=subject, epoch=epoch):
            log.warning("ending_repaired", session=session_id)
            await self.append(self._entry("session", session_id, 0, "logout", now))

    def _entry(self, kind: Kind, target: str, epoch: int, reason: str, now: Instant) -> Revocation:
        return Revocation(kind, target, epoch, reason, now, after(now, self.feed.matters))

    def forget(self, now: Instant) -> None:
        """Let go of what matters no more at *now*, and neither by this process's own count of time."""
        self.feed.forget(now)
        self.revocations.forget(self.feed.forgotten)

    async def follow(self, clock: Callable[[], Instant], keep_up: Callable[[], Awaitable[None]]) -> None:
        """Poll until cancelled: what other machines wrote is seen within POLL_SECONDS and one read. Each time *keep_up*
        reads what changes beside the ledger."""
        loop = asyncio.get_running_loop()
        forget_due = 0.0
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.catch_up()
                await keep_up()
            except StoreUnavailable as error:
                log.error("ledger_unreadable", detail=str(error))
            except Exception:
                # Whatever it is, revocations of other machines must go on being followed.
                log.exception("follower_failed")
            if loop.time() >= forget_due:
                self.forget(clock())
                forget_due = loop.time() + FORGET_SECONDS


async def _to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Finish *work* even if the caller is cancelled half way: an ending is written whole."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await task
        raise
