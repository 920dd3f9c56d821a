"""API keys, reset links, throttles, events and usage; which request opened a session."""

from alembic import op
from sqlalchemy import BigInteger, Column, ForeignKey, Integer, LargeBinary, Text, text

revision = "2"
down_revision = "1"


def upgrade() -> None:
    op.create_table(
        "leases",
        Column("name", Text, primary_key=True),
        Column("holder", Text, nullable=False),
        Column("until", BigInteger, nullable=False),
    )
    op.create_index("users_created", "users", ["created_at", "id"])
    op.add_column("sessions", Column("request_id", Text, nullable=False, server_default=""))
    live = text("revoked_at IS NULL")
    op.create_index(
        "sessions_live_by_client",
        "sessions",
        ["subject", "client_id", "idle_expires_at", "revoked_at"],
        sqlite_where=live,
        postgresql_where=live,
    )
    # An index that also tells clients apart stands in its place.
    op.drop_index("sessions_live", "sessions")
    op.create_table(
        "api_keys",
        Column("id", Text, primary_key=True),
        Column("user_id", Text, ForeignKey("users.id"), nullable=False),
        Column("name", Text, nullable=False),
        Column("key_digest", LargeBinary, nullable=False, unique=True),
        Column("key_hint", Text, nullable=False),
        Column("scope", Text, nullable=False),
        Column("audiences", Text, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("expires_at", BigInteger, nullable=False),
    )
    op.create_index("ix_api_keys_user_id", "api_keys", ["user_id"])
    op.create_table(
        "reset_tokens",
        Column("user_id", Text, ForeignKey("users.id"), primary_key=True),
        Column("digest", LargeBinary, nullable=False, unique=True),
        Column("expires_at", BigInteger, nullable=False),
    )
    op.create_index("ix_reset_tokens_expires_at", "reset_tokens", ["expires_at"])
    op.create_table(
        "throttles",
        Column("bucket", LargeBinary, primary_key=True),
        Column("failures", BigInteger, nullable=False),
        Column("counted_at", BigInteger, nullable=False),
        Column("closed_until", BigInteger, nullable=False),
    )
    op.create_index("ix_throttles_counted_at", "throttles", ["counted_at"])
    op.create_table(
        "familiar",
        Column("bucket", LargeBinary, primary_key=True),
        Column("until", BigInteger, nullable=False),
    )
    op.create_index("ix_familiar_until", "familiar", ["until"])
    op.create_table(
        "events",
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
    op.create_table(
        "usage",
        Column("day", Integer, primary_key=True),
        Column("route", Text, primary_key=True),
        Column("subject", Text, primary_key=True),
        Column("plan", Text, primary_key=True),
        Column("status", Integer, primary_key=True),
        Column("calls", BigInteger, nullable=False),
    )
    op.create_table(
        "latencies",
        Column("day", Integer, primary_key=True),
        Column("route", Text, primary_key=True),
        Column("bucket", Integer, primary_key=True),
        Column("calls", BigInteger, nullable=False),
    )
    op.create_table(
        "predictions",
        Column("day", Integer, primary_key=True),
        Column("label", Text, primary_key=True),
        Column("count", BigInteger, nullable=False),
    )
    if op.get_context().dialect.name == "sqlite":
        op.execute(_SESSION_OPENED)


# On PostgreSQL the statement that opens a session records it.
_SESSION_OPENED = """
CREATE TRIGGER session_opened AFTER INSERT ON sessions BEGIN
    INSERT INTO events (
        at, kind, outcome, actor, subject, client_id, session_id, address, user_agent, request_id, detail
    ) VALUES (
        NEW.created_at, 'login', 'success', NEW.subject, NEW.subject, NEW.client_id, NEW.id, NEW.address,
        NEW.user_agent, NEW.request_id, NEW.methods
    );
END
"""
