"""The stores that the one contract suite runs against. A test never asks which one it has."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from authwright.storage.port import Store
from authwright.storage.sql import sqlite_store


@pytest.fixture(params=["sqlite-memory", "sqlite-file"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened = sqlite_store(None if request.param == "sqlite-memory" else tmp_path / "store.db")
    await opened.open()
    yield opened
    await opened.close()
