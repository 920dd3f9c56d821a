"""/allowance/lease and /allowance/settle: guards spend the allowances of callers."""

from collections.abc import Callable
from typing import Any

from pydantic import Field

from authwright.domain.client import Client
from authwright.domain.errors import (
    InsufficientScope,
    LimitExceeded,
    NotFound,
    PlanNotAvailable,
    TooManyAttempts,
    Unauthenticated,
)
from authwright.domain.instant import Instant
from authwright.domain.plan import LIMITS
from authwright.domain.secrets import ClientId
from authwright.services.clients import Clients
from authwright.services.lease import MOST_UNITS, Lease, Leased
from authwright.services.rates import LEASE_SECONDS
from authwright.web.accounts import BODY_REFUSALS
from authwright.web.caller import Callers, bearer_token
from authwright.web.endpoint import Answer, Body, Call, Endpoints, Reply, json_reply

_MOST_SETTLED = 100


class Settlement(Body):
    """What was spent of a lease; more than its units is charged afterwards, a burst at most."""

    lease: str = Field(min_length=1, max_length=64)
    spent: int = Field(ge=0, le=MOST_UNITS)


class LeaseRequest(Body):
    """Units for a caller who is there now."""

    token: str = Field(min_length=1, max_length=16_384, description="The caller's own token or key.")
    audience: str | None = Field(default=None, description="The API that it is for; else any that the guard is for.")
    units: int = Field(default=1, ge=1, le=MOST_UNITS, description="So many at least.")
    settle: Settlement | None = Field(default=None, description="A lease of before, settled first.")


class LeaseAnswer(Answer):
    """Units to spend within `expires_in` seconds. Of a token that is not active nothing but that."""

    active: bool
    lease: str | None = None
    units: int | None = Field(default=None, description="null: the plan has no limit.")
    expires_in: float | None = None
    plan: str | None = None
    rate: dict[str, int] | None = Field(default=None, description="`count` units in `seconds`, `burst` at once.")
    quota: dict[str, int] | None = Field(default=None, description="Units in a day and in a month of UTC.")
    concurrent: int | None = None
    left: dict[str, int] | None = Field(default=None, description="Units left of the rate, the day and the month.")
    refused: dict[str, Any] | None = Field(default=None, description="Why there are none: the refusal to pass on.")


class SettleRequest(Body):
    """Leases that ended."""

    settlements: list[Settlement] = Field(min_length=1, max_length=_MOST_SETTLED)


class SettleAnswer(Answer):
    """For each of them whether this settled it; one that was settled before, or is another guard's, is not."""

    settled: list[bool]


def add_allowance(
    endpoints: Endpoints,
    *,
    lease: Lease,
    clients: Clients,
    callers: Callers,
    clock: Callable[[], Instant],
    open_here: bool,
) -> None:
    """Both routes, for clients with the scope `limits`; *open_here*: for everybody (development)."""

    async def guard_of(call: Call) -> Client | None:
        if open_here and bearer_token(call) is None:
            return None
        principal = await callers(call, scope=LIMITS)
        try:
            return await clients.find(ClientId(principal.client_id))
        except NotFound:
            # A user's own key or session is no guard's.
            raise InsufficientScope(LIMITS) from None

    async def take(call: Call) -> Reply:
        """Units ahead for a caller: a quarter of what is left at most, single ones when they are scarce."""
        guard = await guard_of(call)
        wanted = await call.json(LeaseRequest)
        now = clock()
        if wanted.settle is not None:
            await lease.settle(wanted.settle.lease, wanted.settle.spent, guard=_id_of(guard), now=now)
        try:
            leased = await lease.lease(wanted.token, wanted.units, audience=wanted.audience, guard=guard, now=now)
        except LimitExceeded as refusal:
            refused = {**refusal.members(), "error": refusal.code, "detail": refusal.public}
            return json_reply({"active": True, "refused": {**refused, "retry_after": refusal.retry_after}})
        except PlanNotAvailable as refusal:
            return json_reply({"active": True, "refused": {"error": refusal.code, "detail": refusal.public}})
        return json_reply({"active": False} if leased is None else _shown(leased))

    async def settle(call: Call) -> Reply:
        """Account for leases; what was not spent comes back, once."""
        guard = await guard_of(call)
        wanted = await call.json(SettleRequest)
        now = clock()
        settled = [
            await lease.settle(each.lease, each.spent, guard=_id_of(guard), now=now) for each in wanted.settlements
        ]
        return json_reply({"settled": settled})

    refusals = (*BODY_REFUSALS, Unauthenticated, InsufficientScope, TooManyAttempts)
    endpoints.add(
        "POST",
        "/allowance/lease",
        take,
        name="lease_allowance",
        summary="Lease units",
        tag="guards",
        answer=LeaseAnswer,
        json=(LeaseRequest,),
        refusals=refusals,
        secured=True,
    )
    endpoints.add(
        "POST",
        "/allowance/settle",
        settle,
        name="settle_allowance",
        summary="Settle leases",
        tag="guards",
        answer=SettleAnswer,
        json=(SettleRequest,),
        refusals=refusals,
        secured=True,
    )


def _id_of(guard: Client | None) -> ClientId | None:
    return None if guard is None else guard.id


def _shown(leased: Leased) -> dict[str, object]:
    plan, rate, quota = leased.plan, leased.standing.rate, leased.standing.quota
    left = {
        "rate": None if rate is None else rate.left,
        "day": None if quota is None else quota.day_left,
        "month": None if quota is None else quota.month_left,
    }
    shown: dict[str, object] = {
        "active": True,
        "lease": leased.id,
        "units": leased.units,
        "expires_in": LEASE_SECONDS,
        "plan": plan.name,
        "left": {name: max(0, units) for name, units in left.items() if units is not None},
    }
    if plan.rate is not None:
        shown["rate"] = {"count": plan.rate.count, "seconds": plan.rate.seconds, "burst": plan.rate.burst}
    shown["quota"] = {
        name: units for name, units in (("day", plan.daily), ("month", plan.monthly)) if units is not None
    }
    if plan.concurrent is not None:
        shown["concurrent"] = plan.concurrent
    return shown
