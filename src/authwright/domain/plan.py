"""Roles, plans and what they permit: permissions are scopes, derived here and nowhere else."""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from authwright.domain.allowance import FASTEST, SPANS, Rate
from authwright.domain.errors import InvalidScope

Role = Literal["user", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

MAX_SCOPE: Final = 1024
"""Characters of a scope, all tokens together."""
_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_PLAN_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")

ACCOUNT: Final = "account"
ADMIN: Final = "admin"
PREDICT: Final = "predict"
ANALYTICS: Final = "analytics"
ANALYTICS_FULL: Final = "analytics:full"

REVOCATIONS: Final = "revocations"
"""To follow what was revoked: for the client key of a guard. No plan gives it; a client is given it by name."""

LIMITS: Final = "limits"
"""To spend the allowance of callers: for the client key of a guard, as `revocations` is."""

GUARD_SCOPES: Final = frozenset({REVOCATIONS, LIMITS})

# Only sessions of the first-party client hold these: an API client never changes an account or administers.
FIRST_PARTY_SCOPES: Final = frozenset({ACCOUNT, ADMIN})


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan by name, the scopes it permits, and how much. Plans have no order; membership is by name.

    *rate*, *daily* and *monthly* (units; days and months of UTC) and *concurrent* (calls at once in each process) are
    None where there is no limit. *weights*: what a call costs, by route or method and route; others cost 1.
    """

    name: str
    scopes: frozenset[str]
    rate: Rate | None = None
    daily: int | None = None
    monthly: int | None = None
    concurrent: int | None = None
    weights: Mapping[str, int] = field(default_factory=dict)

    def cost(self, method: str, route: str) -> int:
        """Units that a call of *route* costs."""
        weights = self.weights
        return (weights.get(f"{method} {route}") or weights.get(route, 1)) if weights else 1


DEFAULT_PLAN: Final = "free"
ADMIN_PLAN: Final = "admin"
BUILT_IN_PLANS: Final = (
    Plan(DEFAULT_PLAN, frozenset({PREDICT}), rate=Rate(60, 60, 60), daily=1000),
    Plan("premium", frozenset({PREDICT, ANALYTICS}), rate=Rate(600, 60, 600)),
    Plan(ADMIN_PLAN, frozenset({PREDICT, ANALYTICS})),
)


class Plans:
    """The plans there are: the built-in ones, and *configured* ones, which may also replace those."""

    def __init__(self, configured: Iterable[Plan] = ()) -> None:
        self._plans = {plan.name: plan for plan in (*BUILT_IN_PLANS, *configured)}
        self.scopes_of = lru_cache(maxsize=1024)(self._scopes_of)
        self.get = self._plans.get

    def become(self, other: "Plans") -> None:
        """Be what *other* is, from now on, for all who hold these plans."""
        self._plans.clear()
        self._plans.update(other._plans)
        self.scopes_of.cache_clear()

    def __contains__(self, name: str) -> bool:
        return name in self._plans

    def __iter__(self) -> Iterator[Plan]:
        return iter(self._plans.values())

    def permitted(self, *, role: str, plan: str, first_party: bool) -> frozenset[str]:
        """All scopes that *role* and *plan* permit, in a session of the first-party client or of another one.

        A plan that does not exist (any more) permits nothing.
        """
        scopes = self._plans[plan].scopes if plan in self._plans else frozenset()
        if is_admin(role=role, plan=plan):
            scopes = scopes | self._plans[ADMIN_PLAN].scopes | {ADMIN, ANALYTICS_FULL}
        return scopes | {ACCOUNT} if first_party else scopes - FIRST_PARTY_SCOPES

    def grantable(self, plan: str) -> frozenset[str]:
        """All scopes that a client with *plan* may be given by name."""
        return self.permitted(role="user", plan=plan, first_party=False) | GUARD_SCOPES

    def _scopes_of(self, role: str, plan: str, granted: str, first_party: bool) -> frozenset[str]:
        """What a session that was *granted* a scope allows now; one of the first party without one: all there is."""
        permitted = self.permitted(role=role, plan=plan, first_party=first_party)
        if not granted and first_party:
            return permitted
        return parse_scope(granted) & permitted


_TABLE: Final = frozenset({"permissions", "rate", "burst", "quota", "concurrent", "weights"})
_UNITS: Final = {name: seconds for seconds, name in SPANS.items()}
_AMOUNT = re.compile(r"([1-9][0-9]{0,11})([kM]?)/([a-z]+)")
_ROUTE = re.compile(r"([A-Z]{3,7} )?/\S*")
_MOST: Final = 10**12
_SLOWEST: Final = 10 * 366 * 86_400 * 1_000_000


def read_plans(text: str) -> Plans:
    """Plans from TOML, a table for each. Raises ValueError, saying what is wrong.

    [team]
    permissions = ["predict"]
    rate = "300/minute"                    # or "unlimited"; second, minute, hour, day
    burst = 50                             # at once; if left out, the count of the rate
    quota = ["10000/day", "1M/month"]      # days and months of UTC
    concurrent = 8                         # calls at once, in each process
    weights = { "/predict" = 2 }           # what a call costs; others cost 1
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"is not TOML: {error}") from None
    return Plans([_plan(name, table) for name, table in tables.items()])


def _plan(name: str, table: Any) -> Plan:
    if _PLAN_NAME.fullmatch(name) is None:
        raise ValueError(f"names a plan {name!r}; names have small letters, digits, - and _")
    if not isinstance(table, dict) or not table.keys() <= _TABLE:
        raise ValueError(f"may give the plan {name!r} {', '.join(sorted(_TABLE))}, and nothing else")
    # Nobody is without limits because somebody forgot them.
    if not {"permissions", "rate"} <= table.keys():
        raise ValueError(f'must give the plan {name!r} its permissions and its rate (or rate = "unlimited")')
    permissions = table["permissions"]
    if not isinstance(permissions, list) or not all(
        isinstance(each, str) and _SCOPE_TOKEN.fullmatch(each) for each in permissions
    ):
        raise ValueError(f"must list the permissions of {name!r} as scopes")
    if not {*FIRST_PARTY_SCOPES, *GUARD_SCOPES}.isdisjoint(permissions):
        raise ValueError(f"gives {name!r} the scope account, admin, revocations or limits, which no plan can give")
    quotas = _quotas(name, table.get("quota", []))
    return Plan(
        name,
        frozenset(permissions),
        rate=_rate(name, table["rate"], table.get("burst")),
        daily=quotas.get("day"),
        monthly=quotas.get("month"),
        concurrent=_number(name, "concurrent", table["concurrent"]) if "concurrent" in table else None,
        weights=_weights(name, table.get("weights", {})),
    )


def _rate(name: str, text: Any, burst: Any) -> Rate | None:
    if text == "unlimited":
        if burst is not None:
            raise ValueError(f"gives {name!r} a burst, but no rate")
        return None
    count, unit = _amount(name, "rate", text)
    seconds = _UNITS.get(unit)
    if seconds is None:
        raise ValueError(f"gives {name!r} a rate by {unit!r}; there are {', '.join(_UNITS)}")
    if count > FASTEST * seconds:
        raise ValueError(f'gives {name!r} more than {FASTEST} a second; say rate = "unlimited"')
    rate = Rate(count, seconds, count if burst is None else _number(name, "burst", burst))
    if rate.burst * rate.interval > _SLOWEST:
        raise ValueError(f"gives {name!r} a burst that takes years to grow back")
    return rate


def _quotas(name: str, texts: Any) -> dict[str, int]:
    quotas: dict[str, int] = {}
    for text in [texts] if isinstance(texts, str) else texts if isinstance(texts, list) else [None]:
        count, unit = _amount(name, "quota", text)
        if unit not in ("day", "month") or unit in quotas:
            raise ValueError(f"gives {name!r} a quota by {unit!r}; there is one by day and one by month")
        quotas[unit] = count
    return quotas


def _weights(name: str, table: Any) -> Mapping[str, int]:
    if not isinstance(table, dict) or not all(_ROUTE.fullmatch(route) for route in table):
        raise ValueError(f'must give {name!r} weights by route, as "/predict" or "POST /predict"')
    return MappingProxyType({route: _number(name, "weights", weight) for route, weight in table.items()})


def _amount(name: str, what: str, text: Any) -> tuple[int, str]:
    parts = _AMOUNT.fullmatch(text) if isinstance(text, str) else None
    if parts is None:
        raise ValueError(f"must give {name!r} its {what} as a text like 10000/day")
    return _number(name, what, int(parts[1]) * {"": 1, "k": 1000, "M": 1_000_000}[parts[2]]), parts[3]


def _number(name: str, what: str, value: Any) -> int:
    if type(value) is not int or not 1 <= value <= _MOST:
        raise ValueError(f"must give {name!r} its {what} as a whole number from 1 on")
    return value


def is_admin(*, role: str, plan: str) -> bool:
    """Whoever has the role `admin` or the plan `admin` is an admin."""
    return role == "admin" or plan == ADMIN_PLAN


def effective_role(*, role: str, plan: str) -> Role:
    """The role as answers and tokens show it."""
    return "admin" if is_admin(role=role, plan=plan) else "user"


def parse_scope(text: str) -> frozenset[str]:
    """The scope tokens of a space-separated *text* (RFC 6749 section 3.3). Raises InvalidScope."""
    if len(text) > MAX_SCOPE:
        raise InvalidScope
    return _scope_tokens(text)


@lru_cache(maxsize=1024)
def _scope_tokens(text: str) -> frozenset[str]:
    tokens = frozenset(token for token in text.split(" ") if token)
    if any(_SCOPE_TOKEN.fullmatch(token) is None for token in tokens):
        raise InvalidScope
    return tokens


@lru_cache(maxsize=1024)
def format_scope(scopes: frozenset[str]) -> str:
    """*scopes* as one text, in a stable order."""
    return " ".join(sorted(scopes))


def narrow(granted: frozenset[str], requested: str | None) -> frozenset[str]:
    """The *requested* scopes if all are *granted*; all granted ones if none was asked for. Raises InvalidScope."""
    if requested is None or not requested.strip():
        return granted
    wanted = parse_scope(requested)
    if not wanted <= granted:
        raise InvalidScope
    return wanted
