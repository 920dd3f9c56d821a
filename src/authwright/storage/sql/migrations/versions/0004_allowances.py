"""What callers spend: units by day, and how full their buckets are."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, Text

revision = "4"
down_revision = "3"


def upgrade() -> None:
    op.create_table(
        "charges",
        Column("subject", Text, primary_key=True),
        Column("day", Integer, primary_key=True),
        Column("route", Text, primary_key=True),
        Column("units", BigInteger, nullable=False),
    )
    op.create_index("charges_by_day", "charges", ["day"])
    op.create_table(
        "allowances",
        Column("caller", Text, primary_key=True),
        Column("full_at", BigInteger, nullable=False),
        Column("leased", BigInteger, nullable=False),
        Column("leased_until", BigInteger, nullable=False),
    )
    op.create_table(
        "allowance_leases",
        Column("id", Text, primary_key=True),
        Column("guard", Text, nullable=False),
        Column("caller", Text, nullable=False),
        Column("route", Text, nullable=False),
        Column("day", Integer, nullable=False),
        Column("units", BigInteger, nullable=False),
        Column("plan", Text, nullable=False),
        Column("until", BigInteger, nullable=False),
    )
    op.create_index("ix_allowance_leases_until", "allowance_leases", ["until"])
