"""Mail that waits to be sent."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, Text

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
    op.execute("INSERT INTO facts (name, value) VALUES ('usable_since', '3')")
    # Alembic's own table has the version from here on.
    op.execute("DELETE FROM facts WHERE name = 'schema_version'")
