"""Log out once, and three APIs refuse the token that none of them asks the server about. Then the server is killed.

    .venv/bin/python examples/logout_everywhere/run.py

Starts `authwright dev` and three APIs on free ports of this machine, in a folder that is removed afterwards.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NAMES = ("predictions", "search", "billing")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(url: str, token: str = "", *, method: str = "GET", **form: str) -> tuple[int, Any]:
    """Status and JSON of the answer; with *form* of a POST."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    data = urllib.parse.urlencode(form).encode() if form else None
    request = urllib.request.Request(url, data, headers, method="POST" if form else method)  # noqa: S310 - a loopback URL made here
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - a loopback URL made here
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


def wait_for(url: str) -> None:
    for _ in range(200):
        try:
            ask(url)
            return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"{url} does not answer")


def say(text: str = "") -> None:
    print(text, flush=True)


def show(apis: dict[str, str], token: str, expected: int) -> None:
    """Ask each API until all answer *expected*, within a second, and print what changes."""
    begun, before = time.monotonic(), ""
    while True:
        answers = {name: ask(f"{url}/predict", token)[0] for name, url in apis.items()}
        line = "   ".join(f"{name}: {status}" for name, status in answers.items())
        if line != before:
            say(f"   {(time.monotonic() - begun) * 1000:4.0f} ms   {line}")
            before = line
        if set(answers.values()) == {expected}:
            return
        if time.monotonic() - begun > 1:
            sys.exit(f"not all answered {expected} within a second")


def main() -> None:
    port = free_port()
    issuer = f"http://127.0.0.1:{port}"
    apis = {name: f"http://127.0.0.1:{free_port()}" for name in NAMES}
    environment = {**os.environ, "ISSUER": issuer}
    started: list[subprocess.Popen[bytes]] = []

    def start(folder: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", *arguments]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, cwd=folder, env=environment, **quiet)
        started.append(process)
        return process

    with tempfile.TemporaryDirectory() as folder:
        try:
            server = start(folder, "authwright", "dev", "--port", str(port))
            for url in apis.values():
                listen = url.rpartition(":")[2]
                start(folder, "uvicorn", "api:app", "--app-dir", str(HERE), "--port", listen)
            for url in (f"{issuer}/health", *(f"{each}/openapi.json" for each in apis.values())):
                wait_for(url)
            tell(issuer, apis, server)
        finally:
            for process in started:
                process.kill()
                process.wait()


def tell(issuer: str, apis: dict[str, str], server: "subprocess.Popen[bytes]") -> None:
    account = {"username": "bholay", "password": "test123"}
    body, headers = json.dumps(account).encode(), {"content-type": "application/json"}
    request = urllib.request.Request(f"{issuer}/register", body, headers)  # noqa: S310 - a loopback URL made here
    urllib.request.urlopen(request, timeout=10).close()  # noqa: S310 - a loopback URL made here
    laptop, phone = (ask(f"{issuer}/login", **account)[1]["access_token"] for _ in range(2))

    say("1. Logged in on a laptop and on a phone. Three APIs verify both tokens by themselves:")
    show(apis, laptop, 200)
    show(apis, phone, 200)

    say("2. Logged out on the laptop. The same token again:")
    status, _ = ask(f"{issuer}/logout", laptop, method="POST")
    assert status == 200
    show(apis, laptop, 401)
    say("   and the phone's:")
    show(apis, phone, 200)

    say("3. The server is killed. The APIs go on, for they need it for nothing but news:")
    server.send_signal(signal.SIGKILL)
    server.wait()
    for _ in range(3):
        time.sleep(2)
        show(apis, phone, 200)
        show(apis, laptop, 401)
    say("   The phone's token passes until it expires, the laptop's stays refused.")


if __name__ == "__main__":
    main()
