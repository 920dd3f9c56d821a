"""The SQL adapter: statements written in SQLAlchemy Core, compiled once, run on the driver."""

from authwright.storage.sql.store import SqlStore, postgres_store, sqlite_store

__all__ = ["SqlStore", "postgres_store", "sqlite_store"]
