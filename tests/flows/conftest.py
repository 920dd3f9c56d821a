"""The missions walk on every database."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from authwright.config import new_secret_key
from databases import a_database
from harness import Clock, Service, open_service


@pytest.fixture(params=["sqlite", "postgresql", "mongodb"])
async def service(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> AsyncIterator[Service]:
    """A development server."""
    if request.param == "sqlite":
        async with open_service(clock=clock) as opened:
            yield opened
        return
    async with a_database(request, tmp_path) as url:
        async with open_service(clock=clock, database_url=url, secret_key=new_secret_key()) as opened:
            yield opened
