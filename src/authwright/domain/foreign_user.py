"""Users as other systems export them, read as ours. Pure: a row in, a user or a reason out.

Known are the exports of Keycloak (realm or users), Auth0 (bulk export with password hashes), the table of FastAPI
Users, Django's auth_user (a table, or `dumpdata`), and our own. Which one a row is, its fields tell.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from authwright.domain.instant import MICROSECONDS, Instant

Row = Mapping[str, Any]


class NotAUser(ValueError):
    """The row cannot be read as a user; the text says why, without what stood there."""


@dataclass(frozen=True, slots=True)
class ForeignUser:
    """What a row says. *password_hash* None: nobody can log in until a reset link has set a password."""

    username: str | None
    email: str | None
    password_hash: str | None
    is_active: bool
    is_admin: bool
    plan: str | None
    created_at: Instant | None


def read_user(row: Row) -> ForeignUser:
    """The user that *row* describes. Raises NotAUser."""
    if isinstance(row.get("fields"), Mapping) and "model" in row:
        row = row["fields"]
    if "credentials" in row or "enabled" in row:
        return _from_keycloak(row)
    if "passwordHash" in row or "_id" in row or "email_verified" in row:
        return _from_auth0(row)
    hashed = next((row[name] for name in ("password_hash", "hashed_password", "password") if name in row), None)
    email = _text(row, "email")
    return ForeignUser(
        username=_text(row, "username"),
        email=email,
        password_hash=_hash(hashed),
        is_active=_text(row, "status") != "disabled" and _truth(row, "is_active", otherwise=True),
        is_admin=_text(row, "role") == "admin" or _truth(row, "is_superuser", otherwise=False),
        plan=_text(row, "plan"),
        created_at=_instant(row.get("created_at", row.get("date_joined"))),
    )


def _from_keycloak(row: Row) -> ForeignUser:
    email, username = _text(row, "email"), _text(row, "username")
    roles = row.get("realmRoles", ())
    return ForeignUser(
        # Keycloak takes an address for a user name where none was given.
        username=None if username is not None and "@" in username else username,
        email=email or (username if username is not None and "@" in username else None),
        password_hash=_keycloak_hash(row.get("credentials") or ()),
        is_active=_truth(row, "enabled", otherwise=True),
        is_admin=isinstance(roles, list) and "admin" in roles,
        plan=None,
        created_at=_milliseconds(row.get("createdTimestamp")),
    )


def _keycloak_hash(credentials: Any) -> str | None:
    """The password among *credentials*, in the modular form that we verify."""
    for each in credentials if isinstance(credentials, list) else ():
        if not isinstance(each, Mapping) or each.get("type") != "password":
            continue
        try:
            secret, data = json.loads(each["secretData"]), json.loads(each["credentialData"])
            salt, made = (base64.b64decode(secret[name], validate=True) for name in ("salt", "value"))
            rounds, algorithm = int(data["hashIterations"]), data["algorithm"]
            more = data.get("additionalParameters") or {}
            if algorithm == "argon2":
                (kind,), (memory,), (lanes,) = (more.get(name, [""]) for name in ("type", "memory", "parallelism"))
                return f"$argon2{kind}$v=19$m={memory},t={rounds},p={lanes}${_plain(salt)}${_plain(made)}"
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise NotAUser("its password credential is malformed") from None
        if algorithm in ("pbkdf2", "pbkdf2-sha256", "pbkdf2-sha512"):
            return f"${algorithm}${rounds}${_dotted(salt)}${_dotted(made)}"
        raise NotAUser("its password is hashed by an algorithm that is not known here")
    return None


def _from_auth0(row: Row) -> ForeignUser:
    username = _text(row, "username")
    return ForeignUser(
        username=username,
        email=_text(row, "email"),
        password_hash=_hash(row.get("passwordHash")),
        is_active=not _truth(row, "blocked", otherwise=False),
        is_admin=False,
        plan=None,
        created_at=_instant(row.get("created_at")),
    )


def _plain(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii").rstrip("=")


def _dotted(raw: bytes) -> str:
    return _plain(raw).replace("+", ".")


def _hash(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise NotAUser("its password hash is not a text")
    # Django writes what nobody can log in with as `!` and something random.
    return None if value.startswith("!") else value


def _text(row: Row, name: str) -> str | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise NotAUser(f"{name} is not a text")
    return value


def _truth(row: Row, name: str, *, otherwise: bool) -> bool:
    value = row.get(name)
    if value is None or value == "":
        return otherwise
    if isinstance(value, bool):
        return value
    # Tables are written with t, true, True or 1.
    known = {"t": True, "true": True, "1": True, "f": False, "false": False, "0": False}.get(str(value).lower())
    if known is None:
        raise NotAUser(f"{name} is neither true nor false")
    return known


def _instant(value: Any) -> Instant | None:
    if value is None or value == "":
        return None
    if isinstance(value, Mapping) and "$date" in value:
        value = value["$date"]
    if isinstance(value, int) and not isinstance(value, bool):
        return _milliseconds(value)
    try:
        read = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise NotAUser("when it was created is not a time") from None
    # Without a zone it is UTC: that is how all of them store it.
    moment = read if read.tzinfo is not None else read.replace(tzinfo=UTC)
    return Instant(round(moment.timestamp() * MICROSECONDS))


def _milliseconds(value: Any) -> Instant | None:
    if value is None:
        return None
    if not isinstance(value, int) or not 0 <= value < 2**45:
        raise NotAUser("when it was created is not a time")
    return Instant(value * 1000)
