"""The indexes, and the version of what the documents hold."""

from collections.abc import Sequence
from typing import Any, Final

from authwright.storage.mongo.database import MongoDatabase
from authwright.storage.mongo.facts import MongoFacts
from authwright.storage.port import IncompatibleStore, OutdatedStore

SCHEMA_VERSION: Final = 2
USABLE_SINCE: Final = 1
"""As for SQL (storage.sql.tables)."""

_UNIQUE: Final = {"unique": True}
_ONCE: Final = {"unique": True, "sparse": True}
_SPARSE: Final = {"sparse": True}

_INDEXES: Final[tuple[tuple[str, str, list[tuple[str, int]], dict[str, Any]], ...]] = (
    # Names and addresses, current and former ones: nobody else may have any of them.
    ("users", "names", [("names", 1)], _ONCE),
    ("users", "listed", [("created_at", 1), ("_id", 1)], {}),
    ("users", "password_format", [("password_format", 1)], _SPARSE),
    ("users", "api_key_digest", [("api_keys.key_digest", 1)], _ONCE),
    ("users", "api_key_id", [("api_keys.id", 1)], _ONCE),
    ("users", "reset_digest", [("reset.digest", 1)], _ONCE),
    ("users", "reset_expires_at", [("reset.expires_at", 1)], _SPARSE),
    ("users", "outbox", [("outbox.id", 1)], _SPARSE),
    ("clients", "key_digest", [("key_digest", 1)], _UNIQUE),
    ("clients", "outbox", [("outbox.id", 1)], _SPARSE),
    (
        "sessions",
        "live_by_client",
        [("subject", 1), ("revoked_at", 1), ("client_id", 1), ("idle_expires_at", 1)],
        {},
    ),
    ("sessions", "ended", [("revoked_at", 1)], {"partialFilterExpression": {"revoked_at": {"$gt": 0}}}),
    ("sessions", "idle_expires_at", [("idle_expires_at", 1)], {}),
    ("sessions", "outbox", [("outbox.id", 1)], _SPARSE),
    ("revocations", "once", [("once", 1)], _ONCE),
    ("revocations", "until", [("until", 1)], {}),
    ("events", "once", [("once", 1)], _ONCE),
    ("notices", "once", [("once", 1)], _ONCE),
    ("keys", "ordinal", [("purpose", 1), ("issuer", 1), ("ordinal", 1)], _UNIQUE),
    ("keys", "outbox", [("outbox.id", 1)], _SPARSE),
    ("throttles", "counted_at", [("counted_at", 1)], {}),
    ("familiar", "until", [("until", 1)], {}),
    # The server itself deletes what expired.
    ("familiar", "expires", [("expires", 1)], {"expireAfterSeconds": 0}),
    ("usage_calls", "day", [("_id.day", 1)], {}),
    ("usage_latencies", "day", [("_id.day", 1)], {}),
    ("usage_predictions", "day", [("_id.day", 1)], {}),
    ("usage_charges", "day", [("_id.day", 1)], {}),
    ("usage_charges", "of_subject", [("_id.subject", 1), ("_id.day", 1)], {}),
    ("allowance_leases", "until", [("until", 1)], {}),
)


_STEPS: Final = ("1: Indexes.", "2: Indexes of what callers spend.")
"""A line for each version; what it does is done again without harm."""


async def version_of(database: MongoDatabase, facts: MongoFacts) -> int | None:
    """The version of the store; None if it is empty. Raises IncompatibleStore, StoreUnavailable."""
    version = await facts.read("schema_version")
    if version is None:
        return None
    if version.isdigit() and int(version) > SCHEMA_VERSION:
        since = await facts.read("usable_since")
        if since is not None and since.isdigit() and int(since) <= SCHEMA_VERSION:
            return SCHEMA_VERSION
    if not version.isdigit() or int(version) > SCHEMA_VERSION:
        raise IncompatibleStore(
            f"the store has schema version {version}, this is Authwright for version {SCHEMA_VERSION}"
        )
    return int(version)


async def prepare(database: MongoDatabase, facts: MongoFacts) -> None:
    """Make the indexes of an empty store. Raises OutdatedStore, IncompatibleStore, StoreUnavailable."""
    version = await version_of(database, facts)
    if version is None:
        await migrate(database, facts)
    elif version < SCHEMA_VERSION:
        raise OutdatedStore(version, SCHEMA_VERSION)


async def migrate(database: MongoDatabase, facts: MongoFacts, *, check: bool = False) -> Sequence[str]:
    """As `storage.port.Store.migrate`; a step that was cut off is done again, so "all or nothing" means until then."""
    missing = _STEPS[await version_of(database, facts) or 0 :]
    if check or not missing:
        return missing
    # Indexes are built by the server beside other work, and building one that is there does nothing: so several
    # processes may do this at once.
    for collection, name, fields, options in _INDEXES:
        await database.collection(collection).make_index(fields, name=name, **options)
    await facts.replace("usable_since", str(USABLE_SINCE))
    await facts.replace("schema_version", str(SCHEMA_VERSION))
    return missing
