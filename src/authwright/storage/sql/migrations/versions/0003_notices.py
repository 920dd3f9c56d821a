"""Mail that waits to be sent; on PostgreSQL a refresh changes no index."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, Text, text

revision = "3"
down_revision = "2"


def upgrade() -> None:
    op.create_table(
        "notices",
        Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
        Column("at", BigInteger, nullable=False),
        Column("kind", Text, nullable=False),
        Column("detail", Text, nullable=False),
        Column("address", Text, nullable=False),
        Column("recipient", Text, nullable=False),
        sqlite_autoincrement=True,
        # Some stores got it before versions were kept by Alembic.
        if_not_exists=True,
    )
    if op.get_context().dialect.name == "postgresql":
        op.execute("ALTER TABLE sessions SET (fillfactor = 70)")
        op.create_index(
            "sessions_of_subject", "sessions", ["subject", "client_id"], postgresql_where=text("revoked_at IS NULL")
        )
        op.drop_index("sessions_live_by_client", "sessions")
    op.execute("INSERT INTO facts (name, value) VALUES ('usable_since', '3')")
    # Alembic's own table has the version from here on.
    op.execute("DELETE FROM facts WHERE name = 'schema_version'")
