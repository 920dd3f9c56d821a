"""The tables. Columns of hot paths are text, integers or bytes; times are integer microseconds since 1970 UTC."""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA_VERSION = 4
USABLE_SINCE = 3
"""The earliest version whose code can use this schema; a migration that takes something away raises it."""

metadata = MetaData()

facts = Table(
    "facts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

# What one process at a time does, and until when it has it.
leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("until", BigInteger, nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True),
    Column("username", Text),
    Column("email", Text),
    Column("password_hash", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("auth_epoch", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    # Algorithm and cost of the hash, so that the slowest one present is found without reading the hashes.
    Column("password_format", Text, nullable=False, index=True),
)

# The order in which users are listed.
Index("users_created", users.c.created_at, users.c.id)

# Names and addresses share one unique index. A row without a user is a name that stays reserved.
names = Table(
    "names",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("user_id", Text, ForeignKey("users.id"), index=True),
)

clients = Table(
    "clients",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("key_digest", LargeBinary, nullable=False, unique=True),
    Column("key_hint", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("audiences", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("auth_epoch", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("subject", Text, nullable=False),
    Column("client_id", Text, nullable=False),
    Column("username", Text),
    Column("role", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("auth_epoch", BigInteger, nullable=False),
    Column("granted_scope", Text, nullable=False),
    Column("audiences", Text, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("secret_digest", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("rotated_at", BigInteger, nullable=False),
    Column("used_at", BigInteger, nullable=False),
    Column("idle_expires_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    Column("revoked_because", Text),
    Column("user_agent", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("methods", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    # How many live sessions the subject had when this one was opened: answered by the statement that opens it.
    Column("others", Integer, nullable=False),
    # Room for the next version of a row beside it.
    postgresql_with={"fillfactor": 70},
)
# Live sessions of a subject. The idle expiry never passes the absolute one, so it alone tells what is live. With the
# last column, which is always null here, SQLite counts them without a look at the rows.
Index(
    "sessions_live_by_client",
    sessions.c.subject,
    sessions.c.client_id,
    sessions.c.idle_expires_at,
    sessions.c.revoked_at,
    sqlite_where=sessions.c.revoked_at.is_(None),
    info={"only": "sqlite"},
)
# PostgreSQL writes a row anew where it stands if no index holds what changed: so none holds what a refresh changes.
Index(
    "sessions_of_subject",
    sessions.c.subject,
    sessions.c.client_id,
    postgresql_where=sessions.c.revoked_at.is_(None),
    info={"only": "postgresql"},
)
# Sessions that were ended, for what a crash left out of the ledger.
Index(
    "sessions_ended",
    sessions.c.revoked_at,
    sqlite_where=sessions.c.revoked_at.is_not(None),
    postgresql_where=sessions.c.revoked_at.is_not(None),
)

# Keys that users make for their own programs.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey("users.id"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("key_digest", LargeBinary, nullable=False, unique=True),
    Column("key_hint", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("audiences", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

# At most one link to a new password for each user: a newer one replaces it.
reset_tokens = Table(
    "reset_tokens",
    metadata,
    Column("user_id", Text, ForeignKey("users.id"), primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("expires_at", BigInteger, nullable=False, index=True),
)

# Failures by bucket: an account, a network, or an account as seen from a network that knows it.
throttles = Table(
    "throttles",
    metadata,
    Column("bucket", LargeBinary, primary_key=True),
    Column("failures", BigInteger, nullable=False),
    Column("counted_at", BigInteger, nullable=False, index=True),
    Column("closed_until", BigInteger, nullable=False),
)

# Networks from which an account was logged into, by keyed digest of both.
familiar = Table(
    "familiar",
    metadata,
    Column("bucket", LargeBinary, primary_key=True),
    Column("until", BigInteger, nullable=False, index=True),
)

# A new row gets the number after the newest, which is never deleted: so none is used twice.
events = Table(
    "events",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("client_id", Text, nullable=False),
    Column("session_id", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("user_agent", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("detail", Text, nullable=False),
)
# No index but the number: every login would pay for it. Filters read from the newest on, on a thread of their own.

# Every session that is opened is on record, by the statement that opens it.
SESSION_OPENED = """
CREATE TRIGGER IF NOT EXISTS session_opened AFTER INSERT ON sessions BEGIN
    INSERT INTO events (
        at, kind, outcome, actor, subject, client_id, session_id, address, user_agent, request_id, detail
    ) VALUES (
        NEW.created_at, 'login', 'success', NEW.subject, NEW.subject, NEW.client_id, NEW.id, NEW.address,
        NEW.user_agent, NEW.request_id, NEW.methods
    );
END
"""

# Mail that waits to be sent.
notices = Table(
    "notices",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    # So that a number is never used twice, even if nothing waits.
    sqlite_autoincrement=True,
)

# What was called and how long it took: sums by UTC day, added to once a second.
usage = Table(
    "usage",
    metadata,
    Column("day", Integer, primary_key=True),
    Column("route", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("plan", Text, primary_key=True),
    Column("status", Integer, primary_key=True),
    Column("calls", BigInteger, nullable=False),
)
latencies = Table(
    "latencies",
    metadata,
    Column("day", Integer, primary_key=True),
    Column("route", Text, primary_key=True),
    Column("bucket", Integer, primary_key=True),
    Column("calls", BigInteger, nullable=False),
)
# Units that callers spent, by which quotas are kept: one caller's days stand together.
charges = Table(
    "charges",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("day", Integer, primary_key=True),
    Column("route", Text, primary_key=True),
    Column("units", BigInteger, nullable=False),
    Index("charges_by_day", "day"),
)
# When the buckets of callers will be full again, and what of them is out on lease.
allowances = Table(
    "allowances",
    metadata,
    Column("caller", Text, primary_key=True),
    Column("full_at", BigInteger, nullable=False),
    Column("leased", BigInteger, nullable=False),
    Column("leased_until", BigInteger, nullable=False),
)
# What guards have taken ahead and not accounted for yet.
allowance_leases = Table(
    "allowance_leases",
    metadata,
    Column("id", Text, primary_key=True),
    Column("guard", Text, nullable=False),
    Column("caller", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("day", Integer, nullable=False),
    Column("units", BigInteger, nullable=False),
    Column("plan", Text, nullable=False),
    Column("until", BigInteger, nullable=False, index=True),
)
predictions = Table(
    "predictions",
    metadata,
    Column("day", Integer, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
)

revocations = Table(
    "revocations",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False, index=True),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("purpose", Text, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("alg", Text, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("active_from", BigInteger, nullable=False),
    Column("withdrawn_at", BigInteger),
    # Two processes that make the same key at once meet here, and one of them reads the other's.
    UniqueConstraint("purpose", "issuer", "ordinal"),
)
