"""Forget what no longer matters: in small batches, by one process at a time."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from authwright.domain.instant import Instant, after
from authwright.domain.usage import day_of
from authwright.storage.port import Store, StoreUnavailable

EVERY_SECONDS: Final = 60.0
_CLAIM: Final = "cleanup"
_CLAIM_SECONDS: Final = 300
_DAY: Final = 86_400
# A session that ended is of use for a while to whoever asks why.
_KEEP_SESSIONS: Final = 7 * _DAY
# As long as failures of an account are remembered.
_KEEP_COUNTERS: Final = _DAY
KEEP_USAGE_DAYS: Final = 400
_BATCH: Final = 200
# Finding them reads the whole table, on a thread; the store deletes them in batches.
_MOST_SESSIONS: Final = 10_000
# Where a wall clock alone says what matters no more, it may be wrong.
_KEEP_REVOCATIONS: Final = _DAY
_KEEP_REVOCATIONS_ANYWAY: Final = 7 * _DAY
# So long after they were full, which also forgives a clock that is ahead.
_KEEP_ALLOWANCES: Final = 3600
_PAUSE_SECONDS: Final = 0.01

log = structlog.get_logger("authwright.cleanup")


class Cleanup:
    """Deletes old rows. *forgotten*: up to which number this process has let go of the ledger (`Feed.forgotten`)."""

    def __init__(self, store: Store, forgotten: Callable[[], int]) -> None:
        self._store = store
        self._forgotten = forgotten
        self._holder = secrets.token_hex(8)

    async def run(self, now: Instant, *, through: int | None = None) -> int:
        """Forget all there is to forget, unless another process is at it; how many rows. Of the ledger entries up to
        *through*, and older ones, which a process that lives for minutes has not seen grow old. Raises
        StoreUnavailable.
        """
        keep = _KEEP_REVOCATIONS if through is None else _KEEP_REVOCATIONS_ANYWAY
        until = after(now, _CLAIM_SECONDS)
        if not await self._store.facts.claim(_CLAIM, self._holder, now=now, until=until):
            return 0
        store = self._store
        steps: tuple[tuple[str, Callable[[], Awaitable[int]]], ...] = (
            ("sessions", lambda: store.sessions.forget(before=after(now, -_KEEP_SESSIONS), most=_MOST_SESSIONS)),
            ("revocations", lambda: store.ledger.forget(now=after(now, -keep), most=_BATCH)),
            ("revocations", lambda: store.ledger.forget(now=now, most=_BATCH, through=through or 0)),
            ("reset_tokens", lambda: store.users.forget_resets(now=now, most=_BATCH)),
            (
                "throttles",
                lambda: store.throttles.forget(before=after(now, -_KEEP_COUNTERS), now=now, most=_BATCH),
            ),
            ("allowances", lambda: store.allowances.forget(before=after(now, -_KEEP_ALLOWANCES), most=_BATCH)),
            ("leases", lambda: store.allowance_leases.forget(before=after(now, -_KEEP_ALLOWANCES), most=_BATCH)),
            ("usage", lambda: store.usage.forget(before_day=day_of(now) - KEEP_USAGE_DAYS, most=_BATCH)),
        )
        total = 0
        for name, forget in steps:
            forgotten = 0
            while some := await forget():
                forgotten += some
                # Others want to write, too.
                await asyncio.sleep(_PAUSE_SECONDS)
            if forgotten:
                log.info("forgotten", what=name, rows=forgotten)
            total += forgotten
        return total

    async def run_regularly(self, clock: Callable[[], Instant]) -> None:
        """Run once a minute, until cancelled."""
        loop = asyncio.get_running_loop()
        begun, begun_wall = loop.time(), clock()
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                # A wall clock that jumped ahead must not make us forget what still matters, nor one that was ahead from
                # the beginning what can still meet a token.
                await self.run(min(clock(), after(begun_wall, loop.time() - begun)), through=self._forgotten())
            except StoreUnavailable as error:
                log.error("cleanup_failed", detail=str(error))
            except Exception:
                log.exception("cleanup_failed")
