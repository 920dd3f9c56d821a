"""Accounts, clients, sessions, the ledger and keys."""

from alembic import op
from sqlalchemy import BigInteger, Column, ForeignKey, Integer, LargeBinary, Text, UniqueConstraint, text

revision = "1"
down_revision = None


def upgrade() -> None:
    op.create_table("facts", Column("name", Text, primary_key=True), Column("value", Text, nullable=False))
    op.create_table(
        "users",
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
        Column("password_format", Text, nullable=False),
    )
    op.create_index("ix_users_password_format", "users", ["password_format"])
    op.create_table(
        "names",
        Column("digest", LargeBinary, primary_key=True),
        Column("user_id", Text, ForeignKey("users.id")),
    )
    op.create_index("ix_names_user_id", "names", ["user_id"])
    op.create_table(
        "clients",
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
    op.create_table(
        "sessions",
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
        Column("others", Integer, nullable=False),
    )
    live = text("revoked_at IS NULL")
    op.create_index(
        "sessions_live", "sessions", ["subject", "idle_expires_at"], sqlite_where=live, postgresql_where=live
    )
    ended = text("revoked_at IS NOT NULL")
    op.create_index("sessions_ended", "sessions", ["revoked_at"], sqlite_where=ended, postgresql_where=ended)
    op.create_table(
        "revocations",
        Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
        Column("kind", Text, nullable=False),
        Column("target", Text, nullable=False),
        Column("epoch", BigInteger, nullable=False),
        Column("reason", Text, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("until", BigInteger, nullable=False),
    )
    op.create_index("ix_revocations_until", "revocations", ["until"])
    op.create_table(
        "keys",
        Column("id", Text, primary_key=True),
        Column("purpose", Text, nullable=False),
        Column("issuer", Text, nullable=False),
        Column("alg", Text, nullable=False),
        Column("ordinal", Integer, nullable=False),
        Column("wrapped", LargeBinary, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("active_from", BigInteger, nullable=False),
        Column("withdrawn_at", BigInteger),
        UniqueConstraint("purpose", "issuer", "ordinal"),
    )
