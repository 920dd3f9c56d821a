"""May this caller go on? Its plan says how often, how much in a day and a month, and how many calls at once.

A caller is a user or a client, whatever it comes with: all its sessions, tokens and keys spend the same allowance.
"""

from collections import Counter
from typing import NamedTuple

from authwright.domain.allowance import Rate
from authwright.domain.errors import LimitExceeded, PlanNotAvailable
from authwright.domain.instant import MICROSECONDS, Instant, isoformat
from authwright.domain.plan import Plan, Plans
from authwright.domain.secrets import Subject
from authwright.domain.usage import day_of
from authwright.services.metrics import Metrics
from authwright.services.quotas import Quotas, Spent
from authwright.services.rates import Rates, Taken
from authwright.services.usage import Usage


class Standing(NamedTuple):
    """What a *plan* leaves its caller after a call: of the *rate*, and of the *quota*; None: it has no such limit.

    *refused*: the call may not pass, and cost nothing.
    """

    plan: Plan
    rate: Taken | None
    quota: Spent | None
    refused: LimitExceeded | None = None


class Limits:
    """Spends what *plans* allow."""

    def __init__(self, plans: Plans, rates: Rates, quotas: Quotas, usage: Usage, metrics: Metrics) -> None:
        self._plans = plans
        self.rates = rates
        self.quotas = quotas
        self._usage = usage
        self._metrics = metrics
        self._running: Counter[Subject] = Counter()

    def plan_of(self, name: str | None) -> Plan:
        """The plan *name*. Raises PlanNotAvailable: nobody is without limits because nobody knows them."""
        plan = self._plans.get(name or "")
        if plan is None:
            raise PlanNotAvailable(detail=f"plan {name!r}")
        return plan

    async def spend(self, caller: Subject, plan: Plan, units: int, *, route: str, now: Instant) -> Standing:
        """Spend *units* for a call of *route*: all, or none."""
        quota = rate = None
        if plan.daily is not None or plan.monthly is not None:
            quota = self.quotas.take_now(caller, plan, units) or await self.quotas.take(caller, plan, units)
            if not quota.granted:
                return Standing(plan, None, quota, self.quota_exceeded(plan, units, quota, now))
        try:
            if plan.rate is not None:
                rate = self.rates.take_now(caller, plan.rate, units) or await self.rates.take(caller, plan.rate, units)
        finally:
            if quota is not None:
                self.quotas.release(caller, units)
        if plan.rate is not None and rate is not None and not rate.granted:
            quota = quota and self.quotas.take_now(caller, plan, 0)
            return Standing(plan, rate, quota, self.rate_exceeded(plan.rate, rate, now))
        # Together, so that what is stored of it is known.
        day = day_of(now)
        self.quotas.put(caller, units, day=day)
        self._usage.charged(route, caller, units, day=day)
        return Standing(plan, rate, quota)

    async def pace(self, caller: Subject, plan: Plan, units: int, *, now: Instant) -> Standing:
        """As `spend`, of the rate alone: for what nobody is to be kept from by a quota."""
        if plan.rate is None:
            return Standing(plan, None, None)
        rate = self.rates.take_now(caller, plan.rate, units) or await self.rates.take(caller, plan.rate, units)
        return Standing(plan, rate, None, None if rate.granted else self.rate_exceeded(plan.rate, rate, now))

    def begin(self, caller: Subject, plan: Plan) -> bool:
        """Count a call that begins, if the plan bounds how many there may be at once; whether `end` must follow.

        Raises LimitExceeded.
        """
        if plan.concurrent is None:
            return False
        if self._running[caller] >= plan.concurrent:
            self._metrics.limited.labels("concurrent").inc()
            policy = f"{plan.concurrent} at once"
            raise LimitExceeded(
                f"Your plan allows {policy}; wait for one to end.", limit="concurrent", policy=policy, retry_after=1
            )
        self._running[caller] += 1
        return True

    def end(self, caller: Subject) -> None:
        """A call that `begin` counted has ended."""
        self._running[caller] -= 1
        if not self._running[caller]:
            del self._running[caller]

    def rate_exceeded(self, rate: Rate, taken: Taken, now: Instant) -> LimitExceeded:
        """The refusal of what a *rate* does not allow."""
        policy = rate.text if rate.burst == rate.count else f"{rate.text}, {rate.burst} at once"
        return self._exceeded("rate", policy, taken.opens_at, now)

    def quota_exceeded(self, plan: Plan, units: int, spent: Spent, now: Instant) -> LimitExceeded:
        """The refusal of what a quota of *plan* does not allow."""
        most = plan.daily if spent.limit == "day" else plan.monthly
        fits = most is not None and units <= most
        return self._exceeded(spent.limit, f"{most}/{spent.limit}", spent.opens_at if fits else None, now)

    def _exceeded(self, limit: str, policy: str, opens: Instant | None, now: Instant) -> LimitExceeded:
        self._metrics.limited.labels(limit).inc()
        if opens is None:
            public = f"Your plan allows {policy}: less than this costs."
            return LimitExceeded(public, limit=limit, policy=policy)
        seconds, opens_at = max(1, -(-(opens - now) // MICROSECONDS)), isoformat(opens)
        public = f"Your plan allows {policy}; there is more from {opens_at} on."
        return LimitExceeded(public, limit=limit, policy=policy, retry_after=seconds, opens_at=opens_at)
