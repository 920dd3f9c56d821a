"""Processes of the `authwright` command, forked from one that has loaded it: that takes a fiftieth of the time of a new
interpreter. Each has arguments, an environment, a folder, files and signals of its own. The command as it is installed,
with an interpreter of its own, is run by tests/newcomer.py and by those tests that walk through the documentation.
"""

import array
import atexit
import gc
import importlib
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import IO, Any

_MOST = 1 << 20
_DESCRIPTORS = 4


class Forked:
    """A process of `authwright`, with the part of `subprocess.Popen` that tests use."""

    def __init__(
        self, command: list[str], *, folder: Path, env: dict[str, str], stdin: IO[Any], stdout: IO[Any], stderr: IO[Any]
    ) -> None:
        self._told, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        wanted = json.dumps([command, str(folder), env]).encode()
        files = array.array("i", [stdin.fileno(), stdout.fileno(), stderr.fileno(), theirs.fileno()])
        with theirs:
            _nursery().sendmsg([wanted], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
        self.args = command
        self.pid = int(self._told.recv(64))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._told.settimeout(timeout)
            try:
                self.returncode = int(self._told.recv(64))
            except TimeoutError:
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._told.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def _nursery() -> socket.socket:
    """Where processes are asked for; begun with the first one, and ended with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # So that every text is read and written as by the command itself.
    env = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    with theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            env={**env, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )

    def end() -> None:
        ours.close()
        process.wait(10)

    atexit.register(end)
    return ours


def _serve(asked: socket.socket) -> list[str]:
    """Fork what is asked for, until nobody can ask any more. Returns in the new processes: what they shall run."""
    # Nobody waits for those that watch.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        wanted, files, _, _ = socket.recv_fds(asked, _MOST, _DESCRIPTORS)
        if not wanted:
            os._exit(0)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            command, folder, env = json.loads(wanted)
            return _watched(command, Path(folder), env, files)
        for each in files:
            os.close(each)


def _watched(command: list[str], folder: Path, env: dict[str, str], files: list[int]) -> list[str]:
    """Fork the new process, in which this returns, and tell when and how it ended."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        for number, file in enumerate(files[:3]):
            os.dup2(file, number)
        os.closerange(3, max(files) + 1)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(env)
        time.tzset()
        assert isinstance(sys.stdout, io.TextIOWrapper)
        sys.stdout.reconfigure(line_buffering=os.isatty(1))
        return command
    told = socket.socket(fileno=files[3])
    for each in files[:3]:
        os.close(each)
    told.send(str(pid).encode())
    _, status = os.waitpid(pid, 0)
    told.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


if __name__ == "__main__":
    # A command finds no module of the tests.
    del sys.path[0]
    from authwright.cli import main

    for _name in ("cli.main", "app.routes", "storage.mongo", "storage.redis"):
        importlib.import_module(f"authwright.{_name}")
    # Collecting garbage must not touch, and thereby copy, what all of them share.
    gc.collect()
    gc.freeze()
    sys.argv = _serve(socket.socket(fileno=int(sys.argv[1])))
    main()
