"""A guard configured by the environment alone, where an import path is all that can be named."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from authwright.guard.guard import MAX_STALENESS, Guard
from authwright.guard.policy import OnStale, names_in

_PREFIX: Final = "AUTHWRIGHT_GUARD_"
_PLAIN_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_NAMES: Final = frozenset(
    _PREFIX + name
    for name in (
        "KEY",
        "KEY_FILE",
        "SCOPES",
        "OPEN_PATHS",
        "METRICS_PATH",
        "ON_STALE",
        "MAX_STALENESS",
        "ACCEPT_KEYS",
        "LIMITS",
    )
)


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """What the environment says of a guard."""

    issuer: str
    audience: str
    key: str | None = field(repr=False)
    scopes: frozenset[str]
    open_paths: tuple[str, ...]
    metrics_path: str | None
    on_stale: OnStale
    max_staleness: float
    accept_keys: bool
    limits: bool

    def guard(self) -> Guard:
        """The guard. Raises ValueError."""
        return Guard(
            issuer=self.issuer,
            audience=self.audience,
            key=self.key,
            on_stale=self.on_stale,
            max_staleness=self.max_staleness,
            accept_keys=self.accept_keys,
            limits=self.limits,
        )


def read_environment(environment: Mapping[str, str]) -> GuardSettings:
    """The guard's settings in *environment*. Raises ValueError, which names every problem at once.

    AUTHWRIGHT_ISSUER, AUTHWRIGHT_AUDIENCE: as for `Guard`. AUTHWRIGHT_GUARD_KEY, or the file that
    AUTHWRIGHT_GUARD_KEY_FILE names: its key. AUTHWRIGHT_GUARD_SCOPES: what every path asks for, separated by spaces or
    commas, and AUTHWRIGHT_GUARD_OPEN_PATHS: paths that need no token, separated by spaces. AUTHWRIGHT_GUARD_ON_STALE:
    introspect, allow or refuse, after AUTHWRIGHT_GUARD_MAX_STALENESS seconds. AUTHWRIGHT_GUARD_METRICS_PATH: where
    everybody may read `Guard.exposition`. AUTHWRIGHT_GUARD_ACCEPT_KEYS and AUTHWRIGHT_GUARD_LIMITS (spend the caller's
    allowance with the issuer): true or false.
    """
    problems = [f"{name} is not a setting" for name in environment if name.startswith(_PREFIX) and name not in _NAMES]
    problems += [
        f"{name} is needed" for name in ("AUTHWRIGHT_ISSUER", "AUTHWRIGHT_AUDIENCE") if not environment.get(name)
    ]
    key = environment.get("AUTHWRIGHT_GUARD_KEY") or None
    file = environment.get("AUTHWRIGHT_GUARD_KEY_FILE")
    if file and key:
        problems.append("both AUTHWRIGHT_GUARD_KEY and AUTHWRIGHT_GUARD_KEY_FILE are set")
    elif file:
        try:
            key = Path(file).read_text(encoding="ascii").strip()
        except (OSError, UnicodeError):
            problems.append("the file that AUTHWRIGHT_GUARD_KEY_FILE names cannot be read")
    on_stale = _on_stale(environment.get("AUTHWRIGHT_GUARD_ON_STALE") or "introspect")
    if on_stale is None:
        problems.append("AUTHWRIGHT_GUARD_ON_STALE is introspect, allow or refuse")
    max_staleness = MAX_STALENESS
    if text := environment.get("AUTHWRIGHT_GUARD_MAX_STALENESS"):
        try:
            max_staleness = float(text)
        except ValueError:
            problems.append("AUTHWRIGHT_GUARD_MAX_STALENESS is a number of seconds")
    metrics_path = environment.get("AUTHWRIGHT_GUARD_METRICS_PATH") or None
    if metrics_path is not None and _PLAIN_PATH.fullmatch(metrics_path) is None:
        problems.append("AUTHWRIGHT_GUARD_METRICS_PATH is a path below /")
    switches = {}
    for name in ("AUTHWRIGHT_GUARD_ACCEPT_KEYS", "AUTHWRIGHT_GUARD_LIMITS"):
        text = (environment.get(name) or "false").lower()
        if text not in ("true", "false"):
            problems.append(f"{name} is true or false")
        switches[name] = text == "true"
    if problems or on_stale is None:
        raise ValueError("; ".join(problems))
    return GuardSettings(
        issuer=environment["AUTHWRIGHT_ISSUER"],
        audience=environment["AUTHWRIGHT_AUDIENCE"],
        key=key,
        scopes=frozenset(names_in(environment.get("AUTHWRIGHT_GUARD_SCOPES", ""))),
        open_paths=tuple(environment.get("AUTHWRIGHT_GUARD_OPEN_PATHS", "").split()),
        metrics_path=metrics_path,
        on_stale=on_stale,
        max_staleness=max_staleness,
        accept_keys=switches["AUTHWRIGHT_GUARD_ACCEPT_KEYS"],
        limits=switches["AUTHWRIGHT_GUARD_LIMITS"],
    )


def _on_stale(text: str) -> OnStale | None:
    known: tuple[OnStale, ...] = ("introspect", "allow", "refuse")
    return next((each for each in known if each == text), None)
