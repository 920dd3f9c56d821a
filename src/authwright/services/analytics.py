"""Reports from what was recorded: usage rows and security events."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import date, timedelta
from typing import Any, Final

from authwright.domain.instant import Instant
from authwright.domain.usage import DAY, day_of, quantile
from authwright.services.usage import Usage
from authwright.storage.port import Store

DAYS: Final = 30
_QUANTILES: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
_MOST_CALLERS: Final = 1000
_CALLER: Final = ("id", "plan", "calls", "refused", "predictions")


class Analytics:
    """Computes reports over the last DAYS days, today included; one of a kind at a time, for all who wait for it."""

    def __init__(self, store: Store, usage: Usage) -> None:
        self._store = store
        self._usage = usage
        self._running: dict[str, asyncio.Task[dict[str, Any]]] = {}

    async def basic(self, now: Instant) -> dict[str, Any]:
        """Calls, predictions, latencies, and callers by plan; nothing of a single caller."""
        return await self._shared("basic", self._basic, now)

    async def full(self, now: Instant) -> dict[str, Any]:
        """As `basic`, with figures of single callers, failed logins and revocations."""
        return await self._shared("full", self._full, now)

    async def _shared(
        self, name: str, compute: Callable[[Instant], Coroutine[Any, Any, dict[str, Any]]], now: Instant
    ) -> dict[str, Any]:
        task = self._running.get(name)
        if task is None:
            task = self._running[name] = asyncio.create_task(compute(now))
            task.add_done_callback(lambda _: self._running.pop(name, None))
        # Whoever goes away takes the report from nobody else.
        return await asyncio.shield(task)

    async def _basic(self, now: Instant) -> dict[str, Any]:
        # What this process counted and did not store yet belongs to the report.
        await self._usage.flush()
        since = day_of(now) - DAYS + 1
        calls: Counter[str] = Counter()
        by_route: Counter[str] = Counter()
        by_status: Counter[str] = Counter()
        for day, route, status, count in await self._store.usage.totals(since_day=since):
            calls[_date(day)] += count
            by_route[route] += count
            by_status[f"{status // 100}xx"] += count
        predictions: dict[str, Counter[str]] = {}
        for day, label, count in await self._store.usage.predictions(since_day=since):
            predictions.setdefault(_date(day), Counter())[label] += count
        units = {_date(day): count for day, count in await self._store.usage.units_by_day(since_day=since)}
        histograms: dict[str, list[tuple[int, int]]] = {}
        for route, bucket, count in await self._store.usage.latencies(since_day=since):
            histograms.setdefault(route, []).append((bucket, count))
        return {
            "since": _date(since),
            "until": _date(day_of(now)),
            "calls": {
                "total": calls.total(),
                "by_day": dict(sorted(calls.items())),
                "by_route": dict(by_route.most_common()),
                "by_status": dict(sorted(by_status.items())),
            },
            "units": {"total": sum(units.values()), "by_day": units},
            "predictions": {
                "total": sum(each.total() for each in predictions.values()),
                "by_day": {when: dict(sorted(each.items())) for when, each in sorted(predictions.items())},
            },
            "latency_ms": {
                route: {name: _milliseconds(quantile(rows, share)) for name, share in _QUANTILES}
                for route, rows in sorted(histograms.items())
            },
            "callers_by_plan": dict(sorted(await self._store.usage.callers_by_plan(since_day=since))),
        }

    async def _full(self, now: Instant) -> dict[str, Any]:
        report = await self._basic(now)
        since = day_of(now) - DAYS + 1
        callers = await self._store.usage.callers(since_day=since, most=_MOST_CALLERS)
        events: dict[str, Counter[str]] = {}
        for day, kind, outcome, count in await self._store.events.count_by_day(since=Instant(since * DAY)):
            events.setdefault(f"{kind} {outcome}", Counter())[_date(day)] += count
        revocations = await self._store.ledger.count_by_day(since=Instant(since * DAY))
        return {
            **report,
            "callers": [dict(zip(_CALLER, caller, strict=True)) for caller in callers],
            "failed_logins": dict(sorted(events.get("login failure", Counter()).items())),
            "revocations": {_date(day): count for day, count in sorted(revocations)},
            "events": {kind: each.total() for kind, each in sorted(events.items())},
        }


def _date(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


def _milliseconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1000
