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

SCHEMA_VERSION = 1

metadata = MetaData()

facts = Table(
    "facts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
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
    # How many live sessions the subject had when this one was opened: answered by the statement that opens it.
    Column("others", Integer, nullable=False),
)
# Live sessions of a subject. The idle expiry never passes the absolute one, so it alone tells what is live.
Index(
    "sessions_live",
    sessions.c.subject,
    sessions.c.idle_expires_at,
    sqlite_where=sessions.c.revoked_at.is_(None),
    postgresql_where=sessions.c.revoked_at.is_(None),
)
# Sessions that were ended, for what a crash left out of the ledger.
Index(
    "sessions_ended",
    sessions.c.revoked_at,
    sqlite_where=sessions.c.revoked_at.is_not(None),
    postgresql_where=sessions.c.revoked_at.is_not(None),
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
