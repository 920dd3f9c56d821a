"""The missions walk on every database."""

from collections.abc import AsyncIterator

import pytest

from authwright.config import new_secret_key
from databases import drop_postgres_database, new_postgres_database
from harness import Clock, Service, open_service


@pytest.fixture(params=["sqlite", "postgresql"])
async def service(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[Service]:
    """A development server."""
    if request.param == "sqlite":
        async with open_service(clock=clock) as opened:
            yield opened
        return
    server = request.getfixturevalue("postgres_server")
    url = await new_postgres_database(server)
    async with open_service(clock=clock, database_url=url, secret_key=new_secret_key()) as opened:
        yield opened
    await drop_postgres_database(server, url)
