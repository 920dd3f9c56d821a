"""The stores that the one contract suite runs against. A test never asks which one it has."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from authwright.storage.port import Store
from authwright.storage.sql import sqlite_store
from databases import a_database, store_at


@pytest.fixture(params=["sqlite-memory", "sqlite-file", "postgresql", "mongodb"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "sqlite-memory":
        opened: Store = sqlite_store(None)
        await opened.open()
        yield opened
        await opened.close()
        return
    async with a_database(request, tmp_path) as url:
        opened = store_at(url)
        await opened.open()
        yield opened
        await opened.close()
