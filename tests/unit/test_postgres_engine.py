"""storage.sql.postgres: one round trip for what is one statement, and what waits goes together."""

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import func, select

from authwright.domain.instant import after
from authwright.domain.session import Session
from authwright.storage.port import StoreUnavailable
from authwright.storage.sql import SqlStore, postgres, postgres_store
from authwright.storage.sql.statements import compiled
from databases import drop_postgres_database, new_postgres_database, own_postgres, pgbouncer
from records import NOW, secret, session, user


@pytest.fixture
async def store(postgres_server: str) -> AsyncIterator[SqlStore]:
    url = await new_postgres_database(postgres_server)
    opened = postgres_store(url)
    await opened.open()
    yield opened
    await opened.close()
    await drop_postgres_database(postgres_server, url)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was sent to the server."""
    sent: list[str] = []
    real = postgres._fetch

    async def counted(connection: Any, sql: str, *values: Any) -> Any:
        sent.append(sql)
        return await real(connection, sql, *values)

    monkeypatch.setattr(postgres, "_fetch", counted)
    return sent


def database(store: SqlStore) -> postgres.PostgresDatabase:
    opened = store._database
    assert isinstance(opened, postgres.PostgresDatabase)
    return opened


async def sessions(store: SqlStore, count: int) -> list[Session]:
    ada = user()
    await store.users.add(ada, [])
    made = [session(ada.id) for _ in range(count)]
    for each in made:
        await store.sessions.open(each)
    return made


async def rotate(store: SqlStore, made: Session, *, generation: int = 1) -> Session | None:
    return await store.sessions.rotate(
        made.id,
        generation=generation,
        presented=secret(generation),
        successor=secret(generation + 1),
        client=None,
        now=NOW,
        idle_expires_at=after(NOW, 1000),
    )


async def test_a_refresh_and_a_login_are_one_statement_each(store: SqlStore, statements: list[str]) -> None:
    (made,) = await sessions(store, 1)
    statements.clear()
    assert await rotate(store, made)
    assert len(statements) == 1
    assert await store.sessions.open(session(made.subject))
    assert len(statements) == 2


async def test_refreshes_that_wait_are_done_together(store: SqlStore, statements: list[str]) -> None:
    made = await sessions(store, 100)
    statements.clear()
    outcomes = await asyncio.gather(*(rotate(store, each) for each in made))
    assert [outcome and outcome.id for outcome in outcomes] == [each.id for each in made]
    # The first alone, and all others after it.
    assert len(statements) == 2


async def test_those_who_come_again_after_they_were_done_together_are_so_again(
    store: SqlStore, statements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slow the server is: nobody goes past the others here.
    monkeypatch.setattr(postgres, "STUCK_SECONDS", 60.0)
    made = await sessions(store, 16)
    statements.clear()

    async def again(session: Session) -> None:
        for generation in range(1, 11):
            assert await rotate(store, session, generation=generation)

    await asyncio.gather(*(again(each) for each in made))
    # A hundred and sixty refreshes. Where the first that comes again goes alone, every second statement is for one.
    assert len(statements) < 15


async def test_a_row_that_somebody_has_locked_keeps_only_those_waiting_who_want_it(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "STUCK_SECONDS", 0.0)
    locked, *others = await sessions(store, 9)
    other = await database(store).connect()
    async with other.transaction():
        await other.execute("SELECT 1 FROM sessions WHERE id = $1 FOR UPDATE", locked.id)
        stuck = asyncio.ensure_future(rotate(store, locked))
        async with asyncio.timeout(5):
            while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                pass
        outcomes = await asyncio.wait_for(asyncio.gather(*(rotate(store, each) for each in others)), 2)
        assert all(outcomes)
        assert not stuck.done()
    await other.close()
    assert await stuck


async def test_nobody_waits_behind_a_locked_row_until_somebody_else_comes(store: SqlStore) -> None:
    locked, *others = await sessions(store, 5)
    other = await database(store).connect()
    async with other.transaction():
        await other.execute("SELECT 1 FROM sessions WHERE id = $1 FOR UPDATE", locked.id)
        stuck = asyncio.ensure_future(rotate(store, locked))
        # Each comes as soon as the one before was answered, which by then nobody but the locked one waits for.
        for each in others:
            assert await asyncio.wait_for(rotate(store, each), 2)
        assert not stuck.done()
    await other.close()
    assert await stuck


async def test_nobody_waits_behind_two_locked_rows_however_many_there_are(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "MOST_TOGETHER", 4)
    locked, also_locked, *others = await sessions(store, 10)
    other = await database(store).connect()
    async with other.transaction():
        await other.execute("SELECT 1 FROM sessions WHERE id IN ($1, $2) FOR UPDATE", locked.id, also_locked.id)
        stuck = [asyncio.ensure_future(rotate(store, each)) for each in (locked, also_locked, *others[:3])]
        # Three go with the second that is locked, and wait as it does; five do not.
        outcomes = await asyncio.wait_for(asyncio.gather(*(rotate(store, each) for each in others[3:])), 2)
        assert all(outcomes)
        assert not any(each.done() for each in stuck)
    await other.close()
    assert all(await asyncio.gather(*stuck))


async def test_a_batch_that_is_ended_keeps_nobody_waiting(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await sessions(store, 4)
    lines = database(store)._lines
    first, *others = (asyncio.ensure_future(rotate(store, each)) for each in made)

    async def ended(*_: object) -> Any:
        raise asyncio.CancelledError

    monkeypatch.setattr(postgres.PostgresDatabase, "_answers", ended)
    outcomes = await asyncio.wait_for(asyncio.gather(first, *others, return_exceptions=True), 5)
    assert outcomes[0]
    assert [type(each) for each in outcomes[1:]] == [asyncio.CancelledError] * 3
    monkeypatch.undo()
    assert not any(line.waiting for line in lines.values())
    assert await rotate(store, (await sessions(store, 1))[0])


async def test_a_statement_that_fails_while_the_store_is_closed_is_told_so(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made,) = await sessions(store, 1)
    closing: list[asyncio.Task[None]] = []
    begun = asyncio.Event()
    close = asyncpg.Pool.close

    async def told(pool: Any) -> None:
        begun.set()
        await close(pool)

    async def refused(*_: object) -> Any:
        closing.append(asyncio.ensure_future(store.close()))
        await begun.wait()
        raise asyncpg.ReadOnlySQLTransactionError

    monkeypatch.setattr(asyncpg.Pool, "close", told)
    monkeypatch.setattr(postgres, "_fetch", refused)
    with pytest.raises(StoreUnavailable):
        await rotate(store, made)
    await asyncio.gather(*closing)


async def test_a_refresh_touches_no_index(store: SqlStore) -> None:
    (made,) = await sessions(store, 1)
    assert await rotate(store, made)
    other = await database(store).connect()
    async with asyncio.timeout(5):
        while not await other.fetchval("SELECT n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'sessions'"):
            await other.execute("SELECT pg_stat_force_next_flush()")
            await other.execute("SELECT pg_stat_clear_snapshot()")
            assert await rotate(store, (await sessions(store, 1))[0])
    await other.close()


async def test_who_went_away_stops_nobody_in_the_batch(store: SqlStore) -> None:
    made = await sessions(store, 10)
    asked = [asyncio.ensure_future(rotate(store, each)) for each in made]
    await asyncio.sleep(0)
    for each in asked[::2]:
        each.cancel()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(outcome, Session) for outcome in outcomes[1::2])
    assert await rotate(store, (await sessions(store, 1))[0])


async def test_a_server_that_is_gone_is_said_to_be_at_once_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "DOWN_SECONDS", 0.05)
    loop = asyncio.get_running_loop()
    with own_postgres() as server:
        store = postgres_store(server.url)
        await store.open()
        made = await sessions(store, 20)
        server.kill()
        begun = loop.time()
        outcomes = await asyncio.gather(*(rotate(store, each) for each in made), return_exceptions=True)
        assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
        assert loop.time() - begun < postgres.CONNECT_SECONDS
        server.start()
        for _ in range(500):
            if await _answers(store):
                break
            await asyncio.sleep(0.01)
        assert await rotate(store, made[0])
        await store.close()


async def _answers(store: SqlStore) -> bool:
    try:
        await store.ping()
    except StoreUnavailable:
        return False
    return True


@pytest.mark.program("pgbouncer")
async def test_behind_a_pooler_that_gives_every_transaction_another_connection(postgres_server: str) -> None:
    url = await new_postgres_database(postgres_server)
    with pgbouncer(url) as pooled:
        store = postgres_store(pooled)
        await store.open()
        made = await sessions(store, 60)
        outcomes = await asyncio.gather(*(rotate(store, each) for each in made for _ in range(2)))
        assert sum(outcome is not None for outcome in outcomes) == 60
        ended = await asyncio.gather(
            *(store.sessions.end(each.id, because="logout", now=NOW, event=None) for each in made)
        )
        assert all(ended)
        found = await asyncio.gather(*(store.sessions.find(each.id) for each in made))
        assert all(each is not None and each.revoked_at == NOW for each in found)
        assert await store.sessions.list_live(made[0].subject, now=NOW) == []
        await store.close()
    await drop_postgres_database(postgres_server, url)


async def test_who_waits_in_vain_for_a_busy_pool_closes_it_for_nobody_else(
    postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await new_postgres_database(postgres_server)
    store = postgres_store(url, connections=1)
    await store.open()
    monkeypatch.setattr(postgres, "CONNECT_SECONDS", 0.2)
    long = asyncio.ensure_future(store._database.read(compiled(select(func.pg_sleep(0.5))), {}))
    await asyncio.sleep(0.05)
    with pytest.raises(StoreUnavailable):
        await store.ping()
    await long
    await store.ping()
    await store.close()
    await drop_postgres_database(postgres_server, url)


async def test_who_is_cancelled_while_a_connection_is_made_leaves_nothing_behind(postgres_server: str) -> None:
    """The driver's own connect, cancelled in its fourth step, leaves an error that nobody gets."""
    left: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: left.append(str(context)))
    for steps in range(12):
        connecting = asyncio.create_task(postgres._connected(postgres_server, timeout=5))
        for _ in range(steps):
            await asyncio.sleep(0)
        connecting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await connecting).close()
        gc.collect()
    assert left == []


async def test_who_is_cancelled_while_a_server_does_not_answer_waits_no_longer() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            pass
        writer.close()

    before = asyncio.all_tasks()
    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await postgres._connected(f"postgresql://ada@127.0.0.1:{port}/x", timeout=1)
    assert time.monotonic() - begun < 0.8
    # What was begun ends by itself.
    _, unfinished = await asyncio.wait(asyncio.all_tasks() - before, timeout=10)
    assert not unfinished
    silent.close()
