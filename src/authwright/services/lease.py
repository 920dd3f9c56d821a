"""Guards spend the allowances of callers: units ahead for some seconds, and an account of them afterwards.

A guard gets units only for a caller whose live token it holds, for an API that it is for, and a quarter of what is left
at most: one that was broken into can take little from those who visit it, and nothing from others.
"""

import secrets
from typing import Final, NamedTuple

import structlog

from authwright.domain.allowance import AllowanceLease, share
from authwright.domain.client import Client
from authwright.domain.errors import PlanNotAvailable
from authwright.domain.instant import Instant, after
from authwright.domain.plan import Plan
from authwright.domain.secrets import ClientId, Subject
from authwright.domain.usage import day_of
from authwright.services.introspect import Introspect
from authwright.services.limits import Limits, Standing
from authwright.services.rates import LEASE_SECONDS, Taken
from authwright.services.usage import Usage
from authwright.storage.port import Store

MOST_UNITS: Final = 1_000_000
"""What one lease may account for, where the plan has no rate."""
_NOBODY: Final = ClientId("")

log = structlog.get_logger("authwright.lease")


class Leased(NamedTuple):
    """*units* to spend within LEASE_SECONDS (None: as many as are needed), and what the *plan* leaves then."""

    id: str
    units: int | None
    plan: Plan
    standing: Standing


class Lease:
    """Gives out leases of *limits* and settles them."""

    def __init__(self, store: Store, introspect: Introspect, limits: Limits, usage: Usage) -> None:
        self._store = store
        self._introspect = introspect
        self._limits = limits
        self._usage = usage

    async def lease(
        self, token: str, units: int, *, audience: str | None, guard: Client | None, now: Instant
    ) -> Leased | None:
        """A lease of *units* at least for the caller whose *token* this is; None if it is good for nothing here.

        *guard* is told of tokens for its own APIs only (None: of all), and of those of *audience*, if given.

        Raises LimitExceeded, PlanNotAvailable, StoreUnavailable.
        """
        guard_id = _NOBODY if guard is None else guard.id
        alive = await self._introspect.introspect(token, client_id=None if guard is None else guard_id, now=now)
        if alive is None or (audience is not None and audience not in alive.audiences):
            return None
        caller = Subject(alive.principal.subject)
        plan = self._limits.plan_of(alive.principal.plan)
        until = after(now, LEASE_SECONDS)
        route = "(guard)" if guard is None else f"({guard.name})"
        lease = AllowanceLease(secrets.token_urlsafe(16), guard_id, caller, route, day_of(now), 0, plan.name, until)
        left = await self._limits.quotas.left(caller, plan)
        if left is not None:
            if units > left:
                spent = await self._limits.quotas.take(caller, plan, units)
                if not spent.granted:
                    raise self._limits.quota_exceeded(plan, units, spent, now)
                # A new day began just now.
                self._limits.quotas.release(caller, units)
            # Taken before anything is waited for: nobody else gets the same units.
            lease = lease._replace(units=min(share(left, units), MOST_UNITS))
            self._count(lease, lease.units)
        taken: Taken | None = None
        try:
            if plan.rate is not None:
                most = MOST_UNITS if left is None else lease.units
                got, taken = await self._limits.rates.lease(caller, plan.rate, units, until, most=most)
                if not got:
                    raise self._limits.rate_exceeded(plan.rate, taken, now)
                self._count(lease, got - lease.units)
                lease = lease._replace(units=got)
            # Written before it is given out: what cannot be settled would be lost to the caller.
            await self._store.allowance_leases.add(lease)
        except BaseException:
            self._count(lease, -lease.units)
            raise
        quota = None if left is None else self._limits.quotas.take_now(caller, plan, 0)
        limited = plan.rate is not None or left is not None
        return Leased(lease.id, lease.units if limited else None, plan, Standing(plan, taken, quota))

    async def settle(self, lease_id: str, spent: int, *, guard: ClientId | None, now: Instant) -> bool:
        """Account for a lease: *spent* units, which may be more than it had; whether this call did it.

        What was not spent comes back, once. No lease takes more than a burst beyond its units. Raises StoreUnavailable.
        """
        lease = await self._store.allowance_leases.consume(lease_id, guard=_NOBODY if guard is None else guard)
        if lease is None:
            return False
        try:
            rate = self._limits.plan_of(lease.plan).rate
        except PlanNotAvailable:
            rate = None
        spent = min(spent, MOST_UNITS if rate is None else lease.units + rate.burst)
        self._count(lease, spent - lease.units)
        if rate is None:
            return True
        if now < lease.until:
            unspent = max(0, lease.units - spent)
            await self._limits.rates.give_back(lease.caller, rate, leased=lease.units, unspent=unspent)
        if spent > lease.units:
            await self._limits.rates.charge(lease.caller, rate, spent - lease.units)
        return True

    def _count(self, lease: AllowanceLease, units: int) -> None:
        if units:
            self._usage.charged(lease.route, lease.caller, units, day=lease.day)
            self._limits.quotas.put(lease.caller, units, day=lease.day)
