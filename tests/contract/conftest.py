"""The stores that the one contract suite runs against. A test never asks which one it has."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from authwright.storage.port import Store
from authwright.storage.sql import sqlite_store
from databases import drop_postgres_database, new_postgres_database, store_at


@pytest.fixture(params=["sqlite-memory", "sqlite-file", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    url = f"sqlite:///{tmp_path}/store.db"
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        url = await new_postgres_database(server)
    opened = sqlite_store(None) if request.param == "sqlite-memory" else store_at(url)
    await opened.open()
    yield opened
    await opened.close()
    if request.param == "postgresql":
        await drop_postgres_database(server, url)
