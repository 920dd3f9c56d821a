"""storage.sql.sqlite: while another process holds the write lock the event loop goes on, also after giving up once."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from authwright.domain.instant import after
from authwright.domain.secrets import SessionId
from authwright.domain.session import Session
from authwright.storage.port import Opened, Store, StoreUnavailable
from authwright.storage.sql import sqlite as engine
from authwright.storage.sql import sqlite_store
from authwright.storage.sql.sessions import _ROTATE
from authwright.storage.sql.statements import GATHER_TURNS, Conflict
from records import NOW, client, name, secret, session, user


async def longest_pause(until: "asyncio.Future[object]") -> float:
    """The longest time in seconds for which the event loop did not turn."""
    loop = asyncio.get_running_loop()
    longest, last = 0.0, loop.time()
    while not until.done():
        await asyncio.sleep(0)
        longest, last = max(longest, loop.time() - last), loop.time()
    return longest


async def rotate(store: Store, ident: SessionId) -> Session | None:
    now, idle = after(NOW, 10), after(NOW, 1010)
    return await store.sessions.rotate(
        ident, generation=1, presented=secret(1), successor=secret(2), client=None, now=now, idle_expires_at=idle
    )


async def test_a_lock_that_is_held_costs_nobody_else_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUSY_SECONDS", 1.0)
    store = sqlite_store(tmp_path / "store.db")
    await store.open()
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    # The second time, too: giving up must not leave the connection waiting on the loop from then on.
    for _ in range(2):
        refused = asyncio.ensure_future(store.users.add(user(), [name("ada")]))
        assert await longest_pause(refused) < 0.5
        with pytest.raises(StoreUnavailable):
            await refused
    waiting = asyncio.ensure_future(store.users.add(user(), [name("ada")]))
    await asyncio.sleep(0)
    other.execute("ROLLBACK")
    await waiting
    assert await store.users.find_by_name(name("ada")) is not None
    other.close()
    await store.close()


async def test_a_write_in_no_hurry_is_stored_with_the_next_or_after_a_moment(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path / "store.db")
    await store.open()
    ada = user()
    await store.users.add(ada, [])
    statements: list[str] = []
    store._database._opened().writer._connection.set_trace_callback(statements.append)
    patient = asyncio.ensure_future(store.sessions.open(session(ada.id), hurry=False))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not statements
    urgent = asyncio.ensure_future(store.sessions.open(session(ada.id)))
    await asyncio.gather(patient, urgent)
    assert statements.count("COMMIT") == 1
    # Nobody else comes: it is stored all the same.
    assert await store.sessions.open(session(ada.id), hurry=False) is not None
    assert statements.count("COMMIT") == 2
    # Also where it came while another was being stored.
    urgent = asyncio.ensure_future(store.sessions.open(session(ada.id)))
    for _ in range(GATHER_TURNS):
        await asyncio.sleep(0)
    assert statements.count("BEGIN IMMEDIATE") == 3
    assert await store.sessions.open(session(ada.id), hurry=False) is not None
    assert (await urgent) is not None
    assert statements.count("COMMIT") == 4
    await store.close()


async def test_logins_and_refreshes_that_wait_together_are_one_statement_for_each_kind(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path / "store.db")
    await store.open()
    clients = [client(name=f"client {number}") for number in range(engine.MOST_GATHERED + 3)]
    for each in clients:
        await store.clients.add(each)
    statements: list[str] = []
    store._database._opened().writer._connection.set_trace_callback(statements.append)
    drafts = [session("", user_agent=f"agent {number}") for number in range(len(clients))]
    opened = await asyncio.gather(
        *(store.sessions.open_with_key(each.key_digest, draft) for each, draft in zip(clients, drafts, strict=True))
    )
    assert [answer and answer.session.id for answer in opened] == [draft.id for draft in drafts]
    # For each row that a trigger writes the statement is shown once more.
    begin, *inserts, commit = dict.fromkeys(statements)
    assert (begin, len(inserts), commit) == ("BEGIN IMMEDIATE", 2, "COMMIT")
    statements.clear()
    refreshed = await asyncio.gather(*(rotate(store, draft.id) for draft in drafts))
    assert [moved and moved.id for moved in refreshed] == [draft.id for draft in drafts]
    begin, *updates, commit = statements
    assert (begin, len(updates), commit) == ("BEGIN IMMEDIATE", 2, "COMMIT")
    await store.close()


async def test_of_logins_that_wait_together_one_that_conflicts_fails_alone(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path / "store.db")
    await store.open()
    clients = [client(name=f"client {number}") for number in range(4)]
    for each in clients:
        await store.clients.add(each)
    drafts = [session("") for _ in clients]
    drafts[2] = drafts[1]
    answers = await asyncio.gather(
        *(store.sessions.open_with_key(each.key_digest, draft) for each, draft in zip(clients, drafts, strict=True)),
        return_exceptions=True,
    )
    assert [isinstance(answer, Opened) for answer in answers] == [True, True, False, True]
    assert isinstance(answers[2], Conflict)
    found = await store.sessions.find(drafts[1].id)
    assert found is not None
    assert found.subject == clients[1].id
    await store.close()


async def test_of_logins_by_one_key_that_wait_together_each_counts_those_before_it(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path / "store.db")
    await store.open()
    scoring = client()
    await store.clients.add(scoring)
    answers = await asyncio.gather(*(store.sessions.open_with_key(scoring.key_digest, session("")) for _ in range(5)))
    assert sorted(answer.others for answer in answers if answer) == [0, 1, 2, 3, 4]
    await store.close()


async def test_a_write_of_nothing_and_one_without_its_parameters_stop_nobody(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path / "store.db")
    await store.open()
    database = store._database
    scoring = client()
    await store.clients.add(scoring)
    async with asyncio.timeout(5):
        assert await database.write_together() == []
        with pytest.raises(StoreUnavailable):
            await database.write(_ROTATE, {})
        assert await store.sessions.open_with_key(scoring.key_digest, session("")) is not None
    await store.close()
