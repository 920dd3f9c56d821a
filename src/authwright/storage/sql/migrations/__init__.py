"""Alembic's scripts: one for each version of the schema, in the order of their numbers."""
