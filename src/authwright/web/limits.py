"""What a call costs its caller, and the headers that tell what is left (draft-ietf-httpapi-ratelimit-headers-10)."""

from collections.abc import Iterator

from authwright.domain.instant import MICROSECONDS, Instant
from authwright.domain.secrets import Subject
from authwright.domain.usage import DAY
from authwright.guard.principal import Principal
from authwright.services.limits import Limits, Standing
from authwright.web.endpoint import Call


async def charge(
    call: Call,
    principal: Principal,
    limits: Limits,
    *,
    now: Instant,
    times: int = 1,
    further: bool = False,
    quotas: bool = True,
) -> None:
    """Charge *principal* for *call* what its plan says, *times* over; the answer's headers will tell what is left.

    *further*: it was charged for already, as one. Without *quotas* it is charged to the rate alone.

    Raises LimitExceeded, PlanNotAvailable.
    """
    caller, route = Subject(principal.subject), call.route
    plan = limits.plan_of(principal.plan)
    if not further and limits.begin(caller, plan):
        call.scope["authwright.running"] = caller
    units = plan.cost(call.scope["method"], route) * times
    if quotas:
        standing = await limits.spend(caller, plan, units, route=route, now=now)
    else:
        standing = await limits.pace(caller, plan, units, now=now)
    call.scope["authwright.limits"] = tuple(_limit_headers(standing, now))
    if standing.refused is not None:
        raise standing.refused


def _limit_headers(standing: Standing, now: Instant) -> Iterator[tuple[bytes, bytes]]:
    """What the plan allows and what is left of it."""
    plan, rate, quota, _ = standing
    policies, left = [], []
    if rate is not None and plan.rate is not None:
        policies.append(f'"rate";q={plan.rate.count};w={plan.rate.seconds}')
        left.append(f'"rate";r={rate.left};t={_seconds(rate.full_at - now)}')
    if quota is not None:
        if quota.day_left is not None:
            policies.append(f'"day";q={plan.daily};w=86400')
            left.append(f'"day";r={max(0, quota.day_left)};t={_seconds(DAY - now % DAY)}')
        if quota.month_left is not None:
            # Its window has as many days as the month; the longest are counted.
            policies.append(f'"month";q={plan.monthly};w=2678400')
            left.append(f'"month";r={max(0, quota.month_left)}')
    if policies:
        yield b"ratelimit-policy", ", ".join(policies).encode("ascii")
        yield b"ratelimit", ", ".join(left).encode("ascii")


def _seconds(microseconds: int) -> int:
    return max(0, -(-microseconds // MICROSECONDS))
