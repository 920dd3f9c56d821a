"""Roles, plans and what they permit: permissions are scopes, derived here and nowhere else."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, get_args

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

# Only sessions of the first-party client hold these: an API client never changes an account or administers.
FIRST_PARTY_SCOPES: Final = frozenset({ACCOUNT, ADMIN})


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan by name and the scopes it permits. Plans have no order; membership is by name."""

    name: str
    scopes: frozenset[str]


DEFAULT_PLAN: Final = "free"
ADMIN_PLAN: Final = "admin"
BUILT_IN_PLANS: Final = (
    Plan(DEFAULT_PLAN, frozenset({PREDICT})),
    Plan("premium", frozenset({PREDICT, ANALYTICS})),
    Plan(ADMIN_PLAN, frozenset({PREDICT, ANALYTICS})),
)


class Plans:
    """The plans there are: the built-in ones, and *configured* ones, which may also replace those."""

    def __init__(self, configured: Iterable[Plan] = ()) -> None:
        self._plans = {plan.name: plan for plan in (*BUILT_IN_PLANS, *configured)}
        self.scopes_of = lru_cache(maxsize=1024)(self._scopes_of)

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
        return self.permitted(role="user", plan=plan, first_party=False) | {REVOCATIONS}

    def _scopes_of(self, role: str, plan: str, granted: str, first_party: bool) -> frozenset[str]:
        """What a session that was *granted* a scope allows now; one of the first party without one: all there is."""
        permitted = self.permitted(role=role, plan=plan, first_party=first_party)
        if not granted and first_party:
            return permitted
        return parse_scope(granted) & permitted


def read_plans(text: str) -> Plans:
    """Plans from TOML: a table for each plan, with its `permissions`. Raises ValueError, saying what is wrong."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"is not TOML: {error}") from None
    return Plans([_plan(name, table) for name, table in tables.items()])


def _plan(name: str, table: Any) -> Plan:
    if _PLAN_NAME.fullmatch(name) is None:
        raise ValueError(f"names a plan {name!r}; names have small letters, digits, - and _")
    if not isinstance(table, dict) or table.keys() != {"permissions"}:
        raise ValueError(f"must give the plan {name!r} its permissions, and nothing else")
    permissions = table["permissions"]
    if not isinstance(permissions, list) or not all(
        isinstance(each, str) and _SCOPE_TOKEN.fullmatch(each) for each in permissions
    ):
        raise ValueError(f"must list the permissions of {name!r} as scopes")
    if not {*FIRST_PARTY_SCOPES, REVOCATIONS}.isdisjoint(permissions):
        raise ValueError(f"gives {name!r} the scope account, admin or revocations, which no plan can give")
    return Plan(name, frozenset(permissions))


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
