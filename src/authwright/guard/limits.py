"""Spend the allowance of a caller: the issuer leases some of it to this process, for seconds at a time.

What a plan allows is the issuer's business; here units are counted down, and accounted for before their lease ends.
While the issuer is away a caller goes on at the pace of its last lease, or is refused; nobody is ever without limits.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, get_args

from authwright.domain.allowance import NEW, Allowance, Rate, opens_at, settled, take
from authwright.domain.errors import LimitExceeded, PlanNotAvailable, Refusal, Unauthenticated, Unavailable
from authwright.domain.instant import MICROSECONDS, Instant
from authwright.guard.issuer import ANSWER_SECONDS, Issuer, IssuerAway, IssuerDropped, IssuerRefuses
from authwright.guard.principal import Principal

OnLost = Literal["continue", "refuse"]
MOST_CALLERS: Final = 100_000
MOST_UNITS: Final = 1_000_000
"""What one call may cost, and what one lease accounts for."""
AWAY_SECONDS: Final = 1.0
"""For how long an issuer that did not answer is not asked."""
# Answers that are about the guard's own key.
_NOT_FOR_US: Final = (401, 403)
# Of a lease's time units are spent for so much; then there is time enough to account for it.
_SPENT_FOR: Final = 0.6
_FORGET_SECONDS: Final = 60.0
_REFUSED_SECONDS: Final = 1.0
_SETTLED_AT_ONCE: Final = 100

log = logging.getLogger("authwright.guard")


class Terms(NamedTuple):
    """What the caller's plan says, as the last lease told it. None where there is no limit."""

    plan: str
    rate: Rate | None
    day: int | None
    month: int | None
    concurrent: int | None


class _Purse:
    """What this process has of a caller's allowance."""

    __slots__ = (
        "alone",
        "hand",
        "last",
        "lease",
        "left",
        "owed",
        "refused",
        "refused_units",
        "refused_until",
        "spent",
        "terms",
        "token",
        "until",
        "used",
        "working",
    )

    def __init__(self) -> None:
        self.token = ""
        self.lease: str | None = None
        # None: as many as are needed.
        self.hand: int | None = 0
        self.spent = 0
        self.until = self.used = self.refused_until = float("-inf")
        # Spent where there was no lease to account for it.
        self.owed = 0
        self.terms: Terms | None = None
        self.left: dict[str, int] = {}
        self.refused: Refusal | None = None
        self.refused_units = 0
        # The units of the last lease in its seconds, for when there is no next one.
        self.last: Rate | Literal["unlimited"] | None = None
        self.alone: Allowance = NEW
        self.working: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"_Purse(hand={self.hand}, spent={self.spent})"


class Limits:
    """Spends the allowances that *client*'s issuer leases for *audience*, on one event loop.

    *on_lost*: what is done while the issuer is away. *time*: a clock that never jumps.
    """

    def __init__(self, client: Issuer, *, audience: str, on_lost: OnLost, time: Callable[[], float]) -> None:
        self._client = client
        self._audience = audience
        self._on_lost = on_lost
        self._time = time
        self._purses: OrderedDict[str, _Purse] = OrderedDict()
        self._unsettled: list[tuple[str, int]] = []
        self._lost = self._trying = self._leased_before = self._said = False
        self._away_until = float("-inf")
        self.leases = 0

    def spend_now(self, subject: str, units: int) -> bool:
        """Spend *units* of what was leased; whether there were enough. Raises LimitExceeded, if that is known."""
        purse = self._purses.get(subject)
        if purse is None:
            return False
        now = self._time()
        if now < purse.until and (purse.hand is None or purse.hand >= units):
            if purse.hand is not None:
                purse.hand -= units
            purse.spent += units
            purse.used = now
            return True
        if purse.refused is not None and now < purse.refused_until and units >= purse.refused_units:
            # It is raised again and again, and is not to remember from where.
            raise purse.refused.with_traceback(None)
        return False

    async def spend(self, principal: Principal, token: str, units: int) -> None:
        """Spend *units* of the allowance of *principal*, who came with *token*.

        Raises LimitExceeded, PlanNotAvailable, Unauthenticated; Unavailable if there is no lease to go on from.
        """
        if units > MOST_UNITS:
            raise LimitExceeded("This costs more than any plan allows.", limit="rate", policy=f"{MOST_UNITS} at once")
        while not self.spend_now(principal.subject, units):
            purse = self._purse(principal.subject)
            purse.used = self._time()
            # While nobody answers, one at a time tries whether somebody is back.
            if self._lost and (self._trying or self._time() < self._away_until):
                self._go_on_alone(purse, units)
                return
            await self._renewed(purse, token, units)

    def charge(self, principal: Principal, units: int) -> None:
        """Count *units* that *principal* spent already; more than were leased are accounted for with the next lease."""
        purse = self._purse(principal.subject)
        purse.used = self._time()
        if purse.lease is None:
            purse.owed += units
            return
        purse.spent += units
        if purse.hand is not None:
            purse.hand = max(0, purse.hand - units)

    def terms(self, principal: Principal) -> Terms | None:
        """What the plan of *principal* says, if something was leased for it lately."""
        purse = self._purses.get(principal.subject)
        return None if purse is None else purse.terms

    def headers(self, principal: Principal) -> dict[str, str]:
        """What the plan of *principal* allows, and what is left (draft-ietf-httpapi-ratelimit-headers-10)."""
        purse = self._purses.get(principal.subject)
        if purse is None or purse.terms is None:
            return {}
        terms, policies, left = purse.terms, [], []
        hand = purse.hand or 0
        if terms.rate is not None:
            policies.append(f'"rate";q={terms.rate.count};w={terms.rate.seconds}')
            left.append(f'"rate";r={purse.left.get("rate", 0) + hand}')
        for name, most, seconds in (("day", terms.day, 86_400), ("month", terms.month, 2_678_400)):
            if most is not None:
                policies.append(f'"{name}";q={most};w={seconds}')
                left.append(f'"{name}";r={purse.left.get(name, 0) + hand}')
        if not policies:
            return {}
        return {"ratelimit-policy": ", ".join(policies), "ratelimit": ", ".join(left)}

    async def tidy(self, *, everything: bool = False) -> None:
        """Account for leases that ended and for what was charged without one; forget who does not call any more."""
        now = self._time()
        for subject, purse in list(self._purses.items()):
            if purse.working is not None:
                continue
            if purse.lease is not None and (everything or purse.until <= now):
                self._put_down(purse)
            if purse.owed and purse.token and not self._lost and (everything or purse.refused_until <= now):
                await self._account(purse)
            elif purse.lease is None and purse.used + _FORGET_SECONDS <= now and not (purse.owed and purse.token):
                del self._purses[subject]
        while self._unsettled and (everything or now >= self._away_until):
            some, self._unsettled = self._unsettled[:_SETTLED_AT_ONCE], self._unsettled[_SETTLED_AT_ONCE:]
            try:
                await self._settle(some)
            except (IssuerAway, TimeoutError):
                # Doing it again is harmless: a lease is settled once.
                self._unsettled += some
                return
            except IssuerRefuses as error:
                if len(some) > 1 and error.status not in _NOT_FOR_US:
                    # One of them is not understood; the others are not to be lost with it.
                    self._unsettled += some[1:]
                    some = some[:1]
                log.error("%d leases cannot be settled: %s", len(some), error)

    async def _settle(self, some: list[tuple[str, int]]) -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._client.settle({"settlements": [{"lease": lease, "spent": spent} for lease, spent in some]})

    async def _account(self, purse: _Purse) -> None:
        """Lease a unit, and account with it for what was charged when there was no lease."""
        try:
            await self._renewed(purse, purse.token, 1)
        except LimitExceeded:
            # As soon as there is any.
            return
        except Refusal as refusal:
            log.error("%d units cannot be accounted for: %s", purse.owed, refusal)
            purse.owed = 0
            return
        self._put_down(purse)

    def _purse(self, subject: str) -> _Purse:
        purse = self._purses.get(subject)
        if purse is None:
            purse = self._purses[subject] = _Purse()
            if len(self._purses) > MOST_CALLERS:
                self._forget_one()
        else:
            self._purses.move_to_end(subject)
        return purse

    def _forget_one(self) -> None:
        """Forget who did not call for longest, and owes nothing."""
        for subject, purse in self._purses.items():
            if purse.working is None and not purse.owed and purse.used > float("-inf"):
                self._put_down(purse)
                del self._purses[subject]
                return

    def _put_down(self, purse: _Purse) -> None:
        """No more is spent of its lease; it is to be settled."""
        if purse.lease is not None:
            accounted = min(purse.spent, MOST_UNITS)
            self._unsettled.append((purse.lease, accounted))
            purse.owed += purse.spent - accounted
        purse.lease, purse.hand, purse.spent, purse.until = None, 0, 0, float("-inf")

    async def _renewed(self, purse: _Purse, token: str, units: int) -> None:
        """Wait for the next lease; whoever comes meanwhile waits for the same."""
        working = purse.working
        if working is None:
            purse.token = token
            working = purse.working = asyncio.create_task(self._renew(purse, units))
            working.add_done_callback(lambda task: _worked(purse, task))
        asked_with = purse.token
        try:
            await asyncio.shield(working)
        except Unauthenticated:
            # That of somebody else is not good; with this one it is asked again.
            if asked_with == token:
                raise
        except (IssuerAway, IssuerRefuses, TimeoutError):
            # Then it goes on alone.
            return

    async def _renew(self, purse: _Purse, units: int) -> None:
        self._trying = self._lost
        try:
            await self._renew_once(purse, units)
        except (IssuerAway, IssuerRefuses, TimeoutError) as away:
            if isinstance(away, IssuerRefuses) and away.status not in (0, *_NOT_FOR_US):
                # It is there, and does not understand what was asked for this caller: that is nobody else's matter.
                log.error("the issuer does not understand what is to be leased: %s", away)
                raise self._refuse(purse, Unavailable(detail=str(away)), units) from None
            if not self._lost:
                log.error("nothing can be leased: %s", away or "no answer")
            self._lost, self._away_until = True, self._time() + AWAY_SECONDS
            raise
        except Refusal:
            self._lost = False
            raise
        else:
            self._lost = False
        finally:
            self._trying = False

    async def _renew_once(self, purse: _Purse, units: int) -> None:
        self._put_down(purse)
        body: dict[str, Any] = {"token": purse.token, "audience": self._audience, "units": units}
        if self._unsettled:
            lease, spent = self._unsettled.pop(0)
            body["settle"] = {"lease": lease, "spent": spent}
        asked = self._time()
        try:
            answer = await self._leased(body)
        except BaseException:
            if "settle" in body:
                self._unsettled.append((body["settle"]["lease"], body["settle"]["spent"]))
            raise
        self.leases += 1
        self._take_in(purse, answer, asked, units)

    async def _leased(self, body: dict[str, Any]) -> dict[str, Any]:
        async with asyncio.timeout(ANSWER_SECONDS):
            try:
                return await self._client.lease(body)
            except IssuerDropped:
                # A connection that was kept and had ended meanwhile. What was leased by it, if so, is lost for seconds.
                return await self._client.lease(body)

    def _refuse(self, purse: _Purse, refusal: Refusal, units: int) -> Refusal:
        """*refusal* of so many units, for whoever asks for as many within a moment."""
        wait = refusal.retry_after
        purse.refused, purse.refused_units = refusal, units
        purse.refused_until = self._time() + (_REFUSED_SECONDS if wait is None else min(wait, _REFUSED_SECONDS))
        return refusal

    def _take_in(self, purse: _Purse, answer: dict[str, Any], asked: float, wanted: int) -> None:
        purse.refused = None
        lease: Any = answer.get("lease")
        units: Any = answer.get("units")
        seconds: Any = answer.get("expires_in")
        if answer.get("active") is not True:
            if not self._leased_before and not self._said:
                self._said = True
                # One that was revoked a moment ago, or all of them: then what is wrong stands in no answer.
                log.error(
                    "nothing is leased for a token that is good here; was %s among the server's audiences when this "
                    "guard's key was made?",
                    self._audience,
                )
            raise Unauthenticated(detail="the issuer leases nothing for it")
        self._leased_before = True
        refused = answer.get("refused")
        if refused is not None:
            refusal = self._refuse(purse, _refusal(refused), wanted)
            if wanted == 1 or not isinstance(refusal, LimitExceeded):
                # What is refused now goes on being refused while nobody can be asked.
                purse.last = None
            raise refusal
        if (
            type(lease) is not str
            or type(seconds) not in (int, float)
            or not 0 < seconds <= 60
            or not (units is None or (type(units) is int and 0 < units <= 10**9))
        ):
            raise IssuerRefuses("a lease without its members")
        purse.lease, purse.spent, purse.owed = lease, purse.owed, 0
        purse.hand = None if units is None else max(0, units - purse.spent)
        purse.until = asked + _SPENT_FOR * seconds
        purse.alone = NEW
        purse.terms, purse.left = _terms(answer), _numbers(answer.get("left"))
        pace, rate = Rate(units or 1, max(1, round(seconds)), units or 1), purse.terms.rate
        if rate is not None and rate.interval > pace.interval:
            # Nobody goes on faster than its plan says.
            pace = Rate(rate.count, rate.seconds, units or 1)
        purse.last = "unlimited" if units is None else pace

    def _go_on_alone(self, purse: _Purse, units: int) -> None:
        """Spend *units* at the pace of the last lease. Raises LimitExceeded, Unavailable."""
        if self._on_lost == "refuse" or purse.last is None:
            raise (purse.refused or Unavailable(detail="nothing can be leased")).with_traceback(None)
        if purse.last != "unlimited":
            now = Instant(int(self._time() * MICROSECONDS))
            allowance = settled(purse.alone, purse.last, now)
            taken = take(allowance, purse.last, units, now)
            if taken is None:
                opens = opens_at(allowance, purse.last, units)
                wait = None if opens is None else max(1, -(-(opens - now) // MICROSECONDS))
                policy = f"{purse.last.count} in {purse.last.seconds} seconds"
                raise LimitExceeded(
                    f"Your plan allows no more than {policy} just now.", limit="rate", policy=policy, retry_after=wait
                )
            purse.alone = taken
        purse.owed += units


def _worked(purse: _Purse, task: "asyncio.Task[None]") -> None:
    purse.working = None
    if not task.cancelled():
        # Whoever waited was told; if nobody waited any more, nobody needs to know.
        task.exception()


def require_on_lost(on_lost: str) -> None:
    """Raises ValueError unless *on_lost* is `continue` or `refuse`."""
    if on_lost not in get_args(OnLost):
        raise ValueError("on_limits_lost is 'continue' or 'refuse'")


def _refusal(refused: Any) -> Refusal:
    """The refusal that the issuer tells of. Raises IssuerRefuses for what makes no sense."""
    told = refused if isinstance(refused, dict) else {}
    detail = told.get("detail")
    text = detail if type(detail) is str and len(detail) < 1000 else None
    if told.get("error") == PlanNotAvailable.code:
        return PlanNotAvailable(text)
    if told.get("error") != LimitExceeded.code:
        raise IssuerRefuses("a lease that was refused for no known reason")
    limit, policy, opens, wait = (told.get(name) for name in ("limit", "policy", "opens_at", "retry_after"))
    return LimitExceeded(
        text or LimitExceeded.default,
        limit=limit if type(limit) is str else "rate",
        policy=policy if type(policy) is str else "",
        retry_after=wait if type(wait) is int and 0 < wait < 10**8 else None,
        opens_at=opens if type(opens) is str else None,
    )


def _terms(answer: dict[str, Any]) -> Terms:
    plan, quota, concurrent = answer.get("plan"), _numbers(answer.get("quota")), answer.get("concurrent")
    rate = _numbers(answer.get("rate"))
    known = all(rate.get(name, 0) > 0 for name in ("count", "seconds", "burst"))
    return Terms(
        plan if type(plan) is str else "",
        Rate(rate["count"], rate["seconds"], rate["burst"]) if known else None,
        quota.get("day"),
        quota.get("month"),
        concurrent if type(concurrent) is int else None,
    )


def _numbers(value: Any) -> dict[str, int]:
    if not isinstance(value, dict):
        return {}
    return {str(name): number for name, number in value.items() if type(number) is int and 0 <= number < 10**15}
