"""Count what is called, in memory, and store it before a second has passed: a crash loses a second at most.

What is counted belongs to days of UTC, and sums are added to what is stored, so that any number of workers count.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from authwright.domain.instant import Instant
from authwright.domain.usage import DAY, Counted, latency_bucket
from authwright.services.metrics import Metrics
from authwright.storage.port import Store, StoreUnavailable

# So much shorter than a second as storing may take.
FLUSH_SECONDS: Final = 0.75
# While the store is away counts gather; beyond this many rows new callers are counted as one.
_MOST_ROWS: Final = 100_000
# Rows in one transaction, so that none keeps the others waiting.
_AT_ONCE: Final = 200
OTHERS: Final = "(others)"

log = structlog.get_logger("authwright.usage")


class Usage:
    """Counts calls and predictions."""

    def __init__(self, store: Store, metrics: Metrics, clock: Callable[[], Instant]) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._counted = Counted()
        self.flushing = asyncio.Lock()
        """Held while something is stored."""
        self.on_flush: Callable[[], Callable[[], None]] = lambda: lambda: None
        """Called when what was counted so far is about to be stored; what it answers with, when that was done."""

    def called(self, route: str, subject: str, plan: str, status: int, microseconds: int) -> None:
        """Count a call of *route* by *subject* (empty: nobody known)."""
        counted = self._counted
        day = self._clock() // DAY
        if len(counted.calls) >= _MOST_ROWS:
            subject = OTHERS
        counted.calls[day, route, subject, plan, status] += 1
        counted.latencies[day, route, latency_bucket(microseconds)] += 1

    def predicted(self, label: str) -> None:
        """Count a prediction."""
        self._counted.predictions[self._clock() // DAY, label] += 1

    def charged(self, route: str, subject: str, units: int, *, day: int) -> None:
        """Count *units* that *subject* spent on *day* with *route*; below zero: that came back."""
        charges = self._counted.charges
        charges[subject if len(charges) < _MOST_ROWS else OTHERS, day, route] += units

    async def flush(self) -> None:
        """Store what was counted. Raises StoreUnavailable; then it is kept for the next time."""
        async with self.flushing:
            stored = self.on_flush()
            await self._flush()
            stored()

    async def _flush(self) -> None:
        counted, self._counted = self._counted, Counted()
        parts = list(counted.parts(_AT_ONCE))
        try:
            while parts:
                await self._store.usage.add(parts[-1])
                parts.pop()
        finally:
            for part in parts:
                self._counted.add(part)
        self._metrics.usage_backlog.set(len(self._counted.calls) + len(self._counted.predictions))

    async def flush_regularly(self) -> None:
        """Store every FLUSH_SECONDS, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except StoreUnavailable as error:
                log.error("usage_not_stored", detail=str(error))
            except Exception:
                log.exception("usage_not_stored")
