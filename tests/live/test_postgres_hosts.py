"""Several PostgreSQL hosts in one URL: the store writes to the one that takes writes, and follows when that changes."""

import asyncio

import asyncpg

from authwright.storage.port import StoreUnavailable
from databases import PostgresServer, own_postgres, store_at


async def set_read_only(server: PostgresServer, value: str) -> None:
    """As a standby is, as far as a client can see: also in that connections end when a server's part changes."""
    connection = await asyncpg.connect(server.url)
    await connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()
    # The server reads it some time later; connections that are made before do so later still.
    while True:
        connection = await asyncpg.connect(server.url)
        is_so = await connection.fetchval("SHOW default_transaction_read_only") == value
        if is_so:
            others = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            await connection.execute(f"SELECT pg_terminate_backend(pid, 5000) {others}")
        await connection.close()
        if is_so:
            return


async def where(name: str, *servers: PostgresServer) -> list[bool]:
    """Which of *servers* has the fact *name*."""
    found = []
    for server in servers:
        connection = await asyncpg.connect(server.url)
        found.append(await connection.fetchval("SELECT count(*) FROM facts WHERE name = $1", name) == 1)
        await connection.close()
    return found


async def test_writes_go_to_the_host_that_takes_them_also_after_it_changed() -> None:
    with own_postgres() as one, own_postgres() as two:
        for server in (one, two):
            made = store_at(server.url)
            await made.open()
            await made.close()
        await set_read_only(one, "on")
        hosts = ",".join(server.url.partition("@")[2].partition("/")[0] for server in (one, two))
        store = store_at(f"postgresql://authwright@{hosts}/postgres")
        await store.open()
        await store.facts.establish("first", "x")
        assert await where("first", one, two) == [False, True]
        # The other one is promoted, and this one becomes a standby.
        await set_read_only(one, "off")
        await set_read_only(two, "on")
        async with asyncio.timeout(5):
            while True:
                try:
                    await store.facts.establish("second", "x")
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.05)
        assert await where("second", one, two) == [True, False]
        # It dies, and the other one takes writes again.
        await set_read_only(two, "off")
        one.kill()
        async with asyncio.timeout(5):
            while True:
                try:
                    await store.facts.establish("third", "x")
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.05)
        assert await where("third", two) == [True]
        await store.close()
        one.start()
