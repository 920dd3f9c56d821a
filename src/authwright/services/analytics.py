"""Reports from what was recorded: usage rows and security events."""

from collections import Counter
from datetime import date, timedelta
from typing import Any, Final

from authwright.domain.instant import Instant
from authwright.domain.usage import DAY, day_of, quantile
from authwright.services.usage import Usage
from authwright.storage.port import Store

DAYS: Final = 30
_QUANTILES: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
_MOST_USERS: Final = 1000


class Analytics:
    """Computes reports over the last DAYS days, today included."""

    def __init__(self, store: Store, usage: Usage) -> None:
        self._store = store
        self._usage = usage

    async def basic(self, now: Instant) -> dict[str, Any]:
        """Calls, predictions, latencies, and callers by plan; nothing of a single caller."""
        # What this process counted and did not store yet belongs to the report.
        await self._usage.flush()
        since = day_of(now) - DAYS + 1
        calls: Counter[str] = Counter()
        by_route: Counter[str] = Counter()
        by_status: Counter[str] = Counter()
        callers: dict[str, set[str]] = {}
        for day, route, subject, plan, status, count in await self._store.usage.calls(since_day=since):
            calls[_date(day)] += count
            by_route[route] += count
            by_status[f"{status // 100}xx"] += count
            if subject:
                callers.setdefault(plan, set()).add(subject)
        predictions: dict[str, Counter[str]] = {}
        for day, label, count in await self._store.usage.predictions(since_day=since):
            predictions.setdefault(_date(day), Counter())[label] += count
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
            "predictions": {
                "total": sum(each.total() for each in predictions.values()),
                "by_day": {when: dict(sorted(each.items())) for when, each in sorted(predictions.items())},
            },
            "latency_ms": {
                route: {name: _milliseconds(quantile(rows, share)) for name, share in _QUANTILES}
                for route, rows in sorted(histograms.items())
            },
            "callers_by_plan": {plan: len(subjects) for plan, subjects in sorted(callers.items())},
        }

    async def full(self, now: Instant) -> dict[str, Any]:
        """As `basic`, with figures of single callers, failed logins and revocations."""
        report = await self.basic(now)
        since = day_of(now) - DAYS + 1
        users: dict[str, Counter[str]] = {}
        plans: dict[str, str] = {}
        for _, route, subject, plan, status, count in await self._store.usage.calls(since_day=since):
            if subject:
                figures = users.setdefault(subject, Counter())
                figures["calls"] += count
                figures["refused"] += count if status >= 400 else 0
                figures["predictions"] += count if route == "/predict" and status < 400 else 0
                plans[subject] = plan
        events: dict[str, Counter[str]] = {}
        for day, kind, outcome, count in await self._store.events.count_by_day(since=Instant(since * DAY)):
            events.setdefault(f"{kind} {outcome}", Counter())[_date(day)] += count
        busiest = sorted(users, key=lambda subject: -users[subject]["calls"])[:_MOST_USERS]
        revocations = await self._store.ledger.count_by_day(since=Instant(since * DAY))
        return {
            **report,
            "callers": [{"id": subject, "plan": plans[subject], **users[subject]} for subject in busiest],
            "failed_logins": dict(sorted(events.get("login failure", Counter()).items())),
            "revocations": {_date(day): count for day, count in sorted(revocations)},
            "events": {kind: each.total() for kind, each in sorted(events.items())},
        }


def _date(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


def _milliseconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1000
