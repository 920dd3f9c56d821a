"""A store is moved from each kind of database to each other one: all of it arrives, and sessions go on."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from authwright.config import new_secret_key
from authwright.domain.event import COMMAND_LINE, event
from authwright.domain.instant import after
from authwright.services.move import MoveFailed
from authwright.storage.port import EventFilter, IncompatibleStore, RecordKind
from databases import drop_mongo_database, drop_postgres_database, new_mongo_database, new_postgres_database
from harness import Clock, bearer, open_service

KINDS = ["sqlite", "postgresql", "mongodb"]
PAIRS = [(start, end) for start in KINDS for end in KINDS]


async def database(kind: str, request: pytest.FixtureRequest, file: Path) -> str:
    if kind == "postgresql":
        return await new_postgres_database(request.getfixturevalue("postgres_server"))
    if kind == "mongodb":
        return new_mongo_database(request.getfixturevalue("mongo_server"))
    return f"sqlite:///{file}"


async def drop(url: str, request: pytest.FixtureRequest) -> None:
    if url.startswith("postgresql"):
        await drop_postgres_database(request.getfixturevalue("postgres_server"), url)
    elif url.startswith("mongodb"):
        await drop_mongo_database(url)


@pytest.mark.parametrize(("start", "end"), PAIRS)
async def test_everything_arrives_and_sessions_go_on(
    tmp_path: Path, request: pytest.FixtureRequest, clock: Clock, start: str, end: str
) -> None:
    here, there = await database(start, request, tmp_path / "a.db"), await database(end, request, tmp_path / "b.db")
    secret = new_secret_key()
    told: Counter[RecordKind] = Counter()
    async with open_service(clock=clock, database_url=here, secret_key=secret) as service:
        ada = await service.registered_login("ada", email="ada@example.com")
        ended = await service.login("ada")
        assert (await service.logout(ended["access_token"])).status_code == 200
        made = await service.http.post("/me/keys", headers=bearer(ada["access_token"]), json={"name": "mine"})
        _, client_key = await service.new_client()
        # Names that stay reserved: of somebody who is gone, and of somebody who has another one now.
        await service.register("eve")
        await service.server.users.delete("eve", origin=COMMAND_LINE, now=clock())
        mal = await service.registered_login("mal")
        renamed = {"username": "malory", "current_password": "test123"}
        assert (await service.http.patch("/me", headers=bearer(mal["access_token"]), json=renamed)).status_code == 200
        await service.http.post("/login", data={"username": "ada", "password": "wrong"})
        user = await service.server.users.find("ada")
        link = await service.server.passwords.reset_link(user, origin=COMMAND_LINE, now=clock())
        waits = event("password_changed", COMMAND_LINE, now=clock(), subject=user.id, tell=("ada@example.com",))
        await service.server.store.events.append(waits)
        await service.get("/predict", ada["access_token"])
        await service.server.usage.flush()
        await service.server.move(there, tell=lambda kind, count: told.update({kind: count}))
        with pytest.raises(MoveFailed, match="not empty"):
            await service.server.move(there, tell=lambda kind, count: None)
        before = await service.server.store.events.list(EventFilter(), before=None, most=999)
        heads = [each.number for each in await service.server.store.ledger.since(0)]
    assert [told[kind] for kind in ("users", "names", "clients", "api_keys", "reset_tokens")] == [2, 5, 1, 1, 1]
    assert [told[kind] for kind in ("sessions", "notices", "keys")] == [3, 1, 3]
    assert (
        min(told[kind] for kind in ("events", "usage", "latencies", "predictions", "charges", "familiar", "throttles"))
        >= 1
    )
    assert told["facts"] >= 2
    async with open_service(clock=clock, database_url=there, secret_key=secret) as service:
        store = service.server.store
        assert await store.events.list(EventFilter(), before=None, most=999) == before
        assert [each.number for each in await store.ledger.since(0)] == heads
        refreshed = await service.refresh(ada["refresh_token"])
        assert refreshed.status_code == 200
        assert (await service.refresh(ended["refresh_token"])).status_code == 400
        # An access token from before is good, the one that was logged out stays refused.
        assert (await service.get("/me", ada["access_token"])).status_code == 200
        assert (await service.get("/me", ended["access_token"])).status_code == 401
        assert (await service.get("/me", made.json()["key"])).json()["email"] == "ada@example.com"
        assert (await service.http.post("/login", json={"client_key": client_key})).status_code == 200
        for taken in ("eve", "mal", "malory"):
            wanted = {"username": taken, "password": "test123"}
            assert (await service.http.post("/register", json=wanted)).status_code == 409
        spent = {"token": link.url.partition("token=")[2], "new_password": "test456"}
        assert (await service.http.post("/reset-password", json=spent)).status_code == 200
        # Numbers go on where they were.
        newest = (await store.events.list(EventFilter(), before=None, most=1))[0]
        assert newest.number > before[0].number
        assert (await store.ledger.since(0))[-1].number == heads[-1] + 1
        await store.events.append(waits)
        assert len({each.number for each in await store.notices.list(after=0, most=9)}) == 2
    await drop(here, request)
    await drop(there, request)


async def test_a_target_that_was_not_finished_is_not_opened(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = new_secret_key()
    async with open_service(clock=clock, database_url=f"sqlite:///{tmp_path}/a.db", secret_key=secret) as service:
        await service.register("ada")

        def stop(kind: RecordKind, count: int) -> None:
            if kind == "keys":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            await service.server.move(f"sqlite:///{tmp_path}/b.db", tell=stop)
    (tmp_path / "b.db").chmod(0o600)
    with pytest.raises(IncompatibleStore, match="did not finish"):
        async with open_service(clock=clock, database_url=f"sqlite:///{tmp_path}/b.db", secret_key=secret):
            pass


async def test_a_source_that_changes_meanwhile_is_noticed(tmp_path: Path, clock: Clock) -> None:
    async with open_service(clock=clock, database_url=f"sqlite:///{tmp_path}/a.db") as service:
        await service.register("ada")
        store, changed = service.server.store, False

        def change(kind: RecordKind, count: int) -> None:
            nonlocal changed
            if kind == "users" and not changed:
                changed = True
                connection = store._database._opened().writer._connection  # type: ignore[attr-defined]
                connection.execute(f"UPDATE users SET updated_at = {after(clock(), 1)}")

        with pytest.raises(MoveFailed, match="written to meanwhile"):
            await service.server.move(f"sqlite:///{tmp_path}/b.db", tell=change)
        with pytest.raises(MoveFailed, match="already"):
            await service.server.move(f"sqlite:///{tmp_path}/a.db", tell=change)


async def test_users_without_keys_and_links_are_moved_from_mongodb(
    tmp_path: Path, request: pytest.FixtureRequest, clock: Clock
) -> None:
    here, there = await database("mongodb", request, tmp_path), f"sqlite:///{tmp_path / 'b.db'}"
    kinds = []
    async with open_service(clock=clock, database_url=here, secret_key=new_secret_key()) as service:
        await service.registered_login("ada", email="ada@example.com")
        async with asyncio.timeout(30):
            await service.server.move(there, tell=lambda kind, count: kinds.append(kind))
    assert {"users", "sessions", "api_keys", "reset_tokens"} <= set(kinds)
    await drop(here, request)
