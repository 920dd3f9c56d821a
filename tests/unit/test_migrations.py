"""Migrations: from nothing and from every earlier version to what the code expects, by one process of many."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from pymongo import AsyncMongoClient
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from authwright.domain.instant import after
from authwright.storage.port import EventFilter, IncompatibleStore, OutdatedStore, Store, StoreUnavailable, UserFilter
from authwright.storage.sql import migrate
from authwright.storage.sql.tables import SCHEMA_VERSION, metadata
from databases import a_database, store_at
from harness import development, open_service, production
from records import HASH, NOW, name, secret, session, user


@pytest.fixture(params=["sqlite-file", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    async with a_database(request, tmp_path) as made:
        yield made


@pytest.fixture(params=["sqlite-file", "postgresql", "mongodb"])
async def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    async with a_database(request, tmp_path) as made:
        yield made


async def on(url: str, work: Any) -> Any:
    """What *work* returns, given a connection of SQLAlchemy to *url*."""
    if url.startswith("sqlite"):
        engine = create_engine(url)
        with engine.begin() as connection:
            done = work(connection)
        engine.dispose()
        return done
    asynchronous = create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url))
    async with asynchronous.begin() as connection:
        done = await connection.run_sync(work)
    await asynchronous.dispose()
    return done


def differences(connection: Connection) -> list[Any]:
    def concerned(found: Any, *_others: Any) -> bool:
        return found.info.get("only", connection.dialect.name) == connection.dialect.name

    options = {"include_object": concerned}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def trigger(connection: Connection) -> str | None:
    if connection.dialect.name != "sqlite":
        return None
    found = connection.execute(text("SELECT sql FROM sqlite_master WHERE type = 'trigger'")).scalar_one()
    return " ".join(str(found).split())


async def store_of_version(url: str, version: str) -> None:
    """Make what an earlier Authwright made in *url*, with a user and a session in it."""

    def make(connection: Connection) -> None:
        migrate.upgrade(connection, to=version)
        # Before Alembic kept the version, the facts did.
        connection.execute(text("DROP TABLE alembic_version"))
        connection.execute(text(f"INSERT INTO facts VALUES ('schema_version', '{version}')"))
        connection.execute(
            text(
                "INSERT INTO users (id, username, password_hash, password_format, role, plan, status, auth_epoch,"
                f" created_at, updated_at) VALUES ('usr_ada', 'Ada', '{HASH}', 'x', 'user', 'free', 'active', 1, 5, 5)"
            )
        )
        old = session("usr_ada", id="ses_old")._asdict() | {"others": 0, "audiences": "https://a.example"}
        if version == "1":
            del old["request_id"]
        names = ", ".join(old)
        connection.execute(
            text(f"INSERT INTO sessions ({names}) VALUES ({', '.join(f':{each}' for each in old)})"), old
        )

    await on(url, make)


async def test_migrations_end_in_the_tables_that_an_empty_store_gets(url: str, request: pytest.FixtureRequest) -> None:
    steps = await store_at(url).migrate()
    assert [step.partition(":")[0] for step in steps] == [str(each + 1) for each in range(SCHEMA_VERSION)]
    assert await on(url, differences) == []
    migrated = await on(url, trigger)
    other = url.replace("store.db", "other.db") if url.startswith("sqlite") else url
    if other != url:
        store = store_at(other)
        await store.open()
        await store.close()
        assert await on(other, differences) == []
        assert await on(other, trigger) == migrated
    store = store_at(url)
    await store.open()
    await store.close()
    assert await store.migrate(check=True) == []


@pytest.mark.parametrize("version", ["1", "2"])
async def test_an_earlier_store_waits_for_its_migration_and_keeps_what_it_has(url: str, version: str) -> None:
    await store_of_version(url, version)
    store: Store = store_at(url)
    with pytest.raises(OutdatedStore, match="authwright migrate"):
        await store.open()
    missing = [str(each) for each in range(int(version) + 1, SCHEMA_VERSION + 1)]
    for check in (True, True, False):
        steps = await store.migrate(check=check)
        assert [step.partition(":")[0] for step in steps] == missing
    assert await store.migrate() == []
    assert await on(url, differences) == []
    await store.open()
    old = await store.sessions.find(session("usr_ada", id="ses_old").id)
    assert old
    assert (old.subject, old.request_id) == ("usr_ada", "" if version == "1" else session("x").request_id)
    given: dict[str, Any] = {"presented": secret(1), "successor": secret(2), "now": NOW, "client": None}
    assert await store.sessions.rotate(old.id, generation=1, idle_expires_at=after(NOW, 9), **given)
    opened = await store.sessions.open(session("usr_ada"))
    assert opened
    newest = await store.events.list(EventFilter(), before=None, most=1)
    assert [event.session_id for event in newest] == [opened.session.id]
    await store.close()


async def test_of_many_that_migrate_at_once_one_does_it(url: str) -> None:
    await store_of_version(url, "1")
    done = await asyncio.gather(*(store_at(url).migrate() for _ in range(6)))
    assert sorted(map(len, done)) == [0] * 5 + [SCHEMA_VERSION - 1]
    assert await on(url, differences) == []


async def test_a_migration_that_has_to_wait_for_others_gives_up_and_leaves_all_as_it_was(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_SECONDS", 0.2)
    monkeypatch.setattr(migrate, "WAIT_SECONDS", 0.2)
    await store_of_version(url, "1")
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="locked"):
                await store_at(url).migrate()
    else:
        other = await asyncpg.connect(url)
        async with other.transaction():
            await other.execute("SELECT * FROM sessions")
            with pytest.raises(StoreUnavailable, match="lock timeout"):
                await store_at(url).migrate()
        await other.close()
    assert len(await store_at(url).migrate(check=True)) == SCHEMA_VERSION - 1
    assert len(await store_at(url).migrate()) == SCHEMA_VERSION - 1


async def test_a_newer_store_is_not_touched(any_url: str) -> None:
    store = store_at(any_url)
    await store.open()
    await store.facts.replace("usable_since", "98")
    await store.close()
    if any_url.startswith("mongodb"):
        async with AsyncMongoClient[dict[str, Any]](any_url) as client:
            await client.get_default_database().facts.update_one({"_id": "schema_version"}, {"$set": {"value": "99"}})
    else:
        await on(any_url, lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '99'")))
    for attempt in (store.open, store.migrate):
        with pytest.raises(IncompatibleStore, match="99"):
            await attempt()


async def test_a_newer_store_that_this_version_can_use_is_opened(any_url: str) -> None:
    store = store_at(any_url)
    await store.open()
    await store.facts.replace("usable_since", "1")
    await store.close()
    if any_url.startswith("mongodb"):
        async with AsyncMongoClient[dict[str, Any]](any_url) as client:
            await client.get_default_database().facts.update_one({"_id": "schema_version"}, {"$set": {"value": "99"}})
    else:
        await on(any_url, lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '99'")))
    # As the servers of the version before do while a new one is rolled out, and after a step back.
    await store.open()
    await store.users.add(user(), [name("ada")])
    await store.close()


async def test_a_backup_of_an_earlier_version_is_restored(tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    await store_of_version(f"sqlite:///{backup}", "2")
    async with open_service(settings=production(tmp_path, issuer="http://127.0.0.1:8000")) as service:
        assert await service.server.restore(backup) == 1
        await service.server.revoke.catch_up()
        assert [user.username for user in await service.server.users.list(UserFilter(), after=None, most=9)] == ["Ada"]
        assert (await service.http.get("/readyz")).status_code == 200


async def test_what_is_empty_is_only_looked_at_by_a_check(any_url: str, tmp_path: Path) -> None:
    store = store_at(any_url)
    assert len(await store.migrate(check=True)) >= 1
    assert not list(tmp_path.iterdir())
    assert len(await store.migrate()) >= 1
    if any_url.startswith("sqlite"):
        assert (tmp_path / "store.db").stat().st_mode & 0o077 == 0
    assert list(await store.migrate()) == []
    await store.open()
    await store.users.add(user(), [name("ada")])
    await store.close()


async def test_a_server_lives_and_is_not_ready_until_the_store_is_migrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authwright.app.server.MIGRATED_SECONDS", 0.05)
    settings = production(tmp_path, issuer="http://127.0.0.1:8000")
    await store_of_version(settings.database_url, "2")
    (tmp_path / "authwright.db").chmod(0o600)
    async with open_service(settings=settings) as service:
        assert (await service.http.get("/livez")).status_code == 200
        for path in ("/readyz", "/me", "/.well-known/jwks.json"):
            answer = await service.http.get(path)
            assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (503, True)
        assert len(await service.server.store.migrate()) == SCHEMA_VERSION - 2
        for _ in range(250):
            if (await service.http.get("/readyz")).status_code == 200:
                break
            await asyncio.sleep(0.02)
        assert (await service.http.get("/me")).status_code == 401


async def test_in_development_the_store_is_migrated_by_itself(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/authwright.db"
    await store_of_version(url, "1")
    (tmp_path / "authwright.db").chmod(0o600)
    async with open_service(settings=development(database_url=url)) as service:
        assert (await service.http.get("/readyz")).status_code == 200
