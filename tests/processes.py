"""The installed command in a process of its own, on a free loopback port, in a folder of its own."""

import contextlib
import itertools
import os
import pty
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from authwright.config import new_secret_key
from forked import Forked
from issued import ISSUED

COMMAND = Path(sys.executable).parent / "authwright"


UNLIMITED = Path(__file__).with_name("unlimited.toml")


# Each process that runs tests has ports of its own, below those that the kernel gives to connections: nobody else takes
# one between this and its use. (Browsers refuse 10080.)
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 20
_PORTS = itertools.cycle(random.sample(range(11_000 + _WORKER * 1000, 12_000 + _WORKER * 1000), 1000))


def free_port() -> int:
    while True:
        port = next(_PORTS)
        with socket.socket() as probe:
            # What was used a moment ago may be used again.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


def environment(**more: str) -> dict[str, str]:
    """An environment with nothing of the project in it but *more*, and plans that limit nobody."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", "AUTHWRIGHT_PLANS": str(UNLIMITED), **more}


def run(folder: Path, *arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `authwright` in *folder* to its end."""
    with (
        tempfile.TemporaryFile("w+") as typed,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        typed.write(stdin)
        typed.seek(0)
        process = Forked(
            [str(COMMAND), *arguments], folder=folder, env=environment(**env), stdin=typed, stdout=out, stderr=err
        )
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        out.seek(0)
        err.seek(0)
        ended = subprocess.CompletedProcess(process.args, process.wait(), out.read(), err.read())
    ISSUED.note_text(ended.stdout)
    return ended


def at_a_terminal(folder: Path, *answers: str) -> tuple[int, str]:
    """`authwright init` with somebody who types *answers*: its exit status, and what the terminal showed."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [COMMAND, "init"], cwd=folder, env=environment(TERM="dumb"), stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
        shown = b""
        while True:
            try:
                shown += os.read(ours, 4096)
            except OSError:
                break
    os.close(ours)
    return process.returncode, shown.decode().replace("\r\n", "\n")


@dataclass
class Running:
    """A server process and where it answers."""

    process: Forked
    base: str
    folder: Path
    log: Path
    env: dict[str, str]
    """What it was told beside its arguments."""

    def http(self, **more: Any) -> httpx2.Client:
        def note(response: httpx2.Response) -> None:
            ISSUED.note_text(response.read().decode("utf-8", "replace"))

        return httpx2.Client(base_url=self.base, timeout=30, event_hooks={"response": [note]}, **more)

    def kill(self) -> None:
        """End it as a power cut would: the process, and all its workers."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Ask it to end, and wait."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        return self.process.returncode


def start(folder: Path, *arguments: str, port: int | None = None, ready: bool = True, **env: str) -> Running:
    """Start `authwright` *arguments* in *folder*, and wait until it answers."""
    port = port or free_port()
    log = folder / "server.log"
    command = [str(COMMAND), *arguments, "--port", str(port)]
    with log.open("a", encoding="utf-8") as out, Path(os.devnull).open() as nothing:
        process = Forked(command, folder=folder, env=environment(**env), stdin=nothing, stdout=out, stderr=out)
    running = Running(process, f"http://127.0.0.1:{port}", folder, log, env)
    if ready:
        wait_until_ready(running)
    return running


def assert_logouts_are_refused_everywhere(server: Running, form: dict[str, str], rounds: int) -> None:
    """Log in and out: every worker accepts a token before, and refuses it from the answer on."""
    # Connections of their own: the kernel spreads them over the workers, and each stays with its worker.
    spread = [server.http() for _ in range(12)]
    with server.http() as http:
        for _ in range(rounds):
            login = http.post("/login", data=form).json()
            bearer = {"Authorization": f"Bearer {login['access_token']}"}
            # Every worker has verified this token before, so it is in the table of each.
            assert {each.get("/me", headers=bearer).status_code for each in spread} == {200}
            assert http.post("/logout", headers=bearer).status_code == 200
            assert {each.get("/me", headers=bearer).status_code for each in spread} == {401}
            body = {"refresh_token": login["refresh_token"]}
            assert {each.post("/refresh-token", json=body).status_code for each in spread} == {400}
    for each in spread:
        each.close()


def wait_for(
    url: str,
    seconds: float = 20,
    process: subprocess.Popen[bytes] | None = None,
    *,
    host: str | None = None,
    but: int | None = None,
) -> None:
    """Return when something answers at *url*: what *process* does, while it lives. *but*: a status that is none."""
    headers = {} if host is None else {"host": host}
    deadline = time.monotonic() + seconds
    while True:
        try:
            if httpx2.get(url, headers=headers).status_code != but:
                return
        except httpx2.TransportError:
            pass
        assert time.monotonic() < deadline, f"{url} does not answer"
        assert process is None or process.poll() is None, f"ended before {url} answered"
        time.sleep(0.05)


@contextmanager
def program(
    log: Path, *command: str | Path, at: str, env: dict[str, str] | None = None, seconds: float = 20
) -> Iterator[subprocess.Popen[bytes]]:
    """Another program than ours, in the folder of its *log*, once something answers *at* a URL; ended afterwards, with
    all that it started."""
    with log.open("a") as out:
        process = subprocess.Popen(
            command, cwd=log.parent, env=env or environment(), stdout=out, stderr=out, start_new_session=True
        )
    try:
        try:
            wait_for(at, seconds, process)
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{log.read_text()}") from None
        yield process
    finally:
        _signal_group(process, signal.SIGTERM)
        try:
            process.wait(30)
            for member in _group(process.pid):
                assert _ends(member, 10), f"{command[0]} ended and left others behind"
        finally:
            _signal_group(process, signal.SIGKILL)
            process.wait()


def _signal_group(leader: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, number)


def _group(leader: int) -> list[int]:
    """The processes of a group, also those that ended and that nobody has waited for."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(") ")[2].split()[2]) == leader:
                members.append(int(stat.parent.name))
    return members


def _ends(process: int, seconds: float) -> bool:
    """Wait until a process that is not our child ends; whether it did."""
    try:
        watched = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], seconds)[0])
    finally:
        os.close(watched)


def wait_until_ready(running: Running, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    with httpx2.Client(base_url=running.base, timeout=2) as http:
        while time.monotonic() < deadline:
            if running.process.poll() is not None:
                raise AssertionError(f"ended with {running.process.returncode}:\n{running.log.read_text()}")
            try:
                if http.get("/readyz").status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            time.sleep(0.02)
    running.kill()
    raise AssertionError(f"not ready within {seconds} s:\n{running.log.read_text()}")


@contextmanager
def serving(folder: Path, *arguments: str, **options: Any) -> Iterator[Running]:
    """A running server that is ended afterwards."""
    running = start(folder, *arguments, **options)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.kill()


def production_environment(port: int, **more: str) -> dict[str, str]:
    """What `authwright serve` needs on a loopback address."""
    return {
        "SECRET_KEY": new_secret_key(),
        "AUTHWRIGHT_ISSUER": f"http://127.0.0.1:{port}",
        "AUTHWRIGHT_REGISTRATION": "open",
        **more,
    }
