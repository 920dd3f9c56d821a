"""Roles, plans and what they permit: permissions are scopes, derived here and nowhere else."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, get_args

from authwright.domain.errors import InvalidScope

Role = Literal["user", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

MAX_SCOPE: Final = 1024
"""Characters of a scope, all tokens together."""
_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")

ACCOUNT: Final = "account"
ADMIN: Final = "admin"
PREDICT: Final = "predict"
ANALYTICS: Final = "analytics"

# Only sessions of the first-party client hold these: an API client never changes an account or administers.
FIRST_PARTY_SCOPES: Final = frozenset({ACCOUNT, ADMIN})


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan by name and the scopes it permits. Plans have no order; membership is by name."""

    name: str
    scopes: frozenset[str]


PLANS: Final = {
    plan.name: plan
    for plan in (
        Plan("free", frozenset({PREDICT})),
        Plan("premium", frozenset({PREDICT, ANALYTICS})),
        Plan("admin", frozenset({PREDICT, ANALYTICS})),
    )
}
DEFAULT_PLAN: Final = "free"


def is_admin(*, role: str, plan: str) -> bool:
    """Whoever has the role `admin` or the plan `admin` is an admin."""
    return role == "admin" or plan == "admin"


def effective_role(*, role: str, plan: str) -> Role:
    """The role as answers and tokens show it."""
    return "admin" if is_admin(role=role, plan=plan) else "user"


@lru_cache(maxsize=256)
def permitted_scopes(*, role: str, plan: str, first_party: bool) -> frozenset[str]:
    """All scopes that *role* and *plan* permit, in a session of the first-party client or of another one."""
    scopes = PLANS[plan].scopes if plan in PLANS else PLANS[DEFAULT_PLAN].scopes
    if is_admin(role=role, plan=plan):
        scopes = scopes | PLANS["admin"].scopes | {ADMIN}
    return scopes | {ACCOUNT} if first_party else scopes - FIRST_PARTY_SCOPES


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
