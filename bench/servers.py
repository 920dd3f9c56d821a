"""The servers that are measured, each a process of its own, and what the kernel says of them."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PEER_PYTHON = HERE.parent / ".venv-peer/bin/python"


@dataclass
class Server:
    """A running server; *started* is how many seconds it took to its first answer."""

    pid: int
    base: str
    folder: Path
    started: float
    environment: dict[str, str]

    def cpu(self) -> float:
        """CPU seconds that all threads of the process have used."""
        spent = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            try:
                spent += int((task / "schedstat").read_text().split()[0])
            except FileNotFoundError:
                continue
        return spent / 1e9

    def memory(self) -> float:
        """Resident memory in MiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise ProcessLookupError(self.pid)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _running(command: list[str], port: int, folder: Path, environment: dict[str, str], probe: str) -> Iterator[Server]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    begun = time.perf_counter()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env={**kept, **environment}, stdout=log, stderr=log)
    try:
        _wait(process, port, folder, probe)
        yield Server(process.pid, f"http://127.0.0.1:{port}", folder, time.perf_counter() - begun, environment)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, folder: Path, probe: str) -> None:
    from bench.wire import Connection

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError((folder / "log").read_text())
        try:
            connection = Connection(f"http://127.0.0.1:{port}")
            connection.request("GET", probe)
            connection.close()
        except OSError:
            time.sleep(0.005)
            continue
        return
    raise TimeoutError((folder / "log").read_text())


@contextmanager
def authwright(**more: str) -> Iterator[Server]:
    """`authwright serve`, one worker, SQLite in a file, hashes at their real cost, no log lines for good requests."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as name:
        environment = {
            "SECRET_KEY": secrets.token_urlsafe(32),
            "AUTHWRIGHT_MODE": "serve",
            "AUTHWRIGHT_ISSUER": f"http://127.0.0.1:{port}",
            "AUTHWRIGHT_REGISTRATION": "open",
            "AUTHWRIGHT_LOG_LEVEL": "warning",
            # All accounts are made, and all failures come, from one address here.
            "AUTHWRIGHT_REGISTRATIONS_PER_HOUR": "0",
            "AUTHWRIGHT_PLANS": str(HERE / "plans.toml"),
            **more,
        }
        command = [str(Path(sys.executable).parent / "authwright"), "serve", "--port", str(port)]
        with _running(command, port, Path(name), environment, "/livez") as server:
            yield server


@contextmanager
def fastapi_users() -> Iterator[Server]:
    """An app of fastapi-users as its documentation builds it: JWT strategy, SQLAlchemy, SQLite in a file, uvloop."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as name:
        command = [str(PEER_PYTHON), "-m", "uvicorn", "peer:app", "--app-dir", str(HERE), "--port", str(port)]
        options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
        with _running([*command, *options], port, Path(name), {}, "/openapi.json") as server:
            yield server
