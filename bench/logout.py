"""From logout to the last refusal: over guards in eight processes, and over a thousand that follow one server."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.figures import Figure, below, beside
from bench.servers import Server, authwright
from bench.service import client_keys, connections, expect, once
from bench.wire import Connection

API = "https://api.example.com"
GUARDS = 8
LOGOUTS = 1_000
CROWD = 1_000
CROWD_LOGOUTS = 20
ACCOUNT = {"username": "bench", "password": "a long and unusual passphrase"}

# A guarded API: accepts each token, says so, and notes when it first refused it. All processes of a machine read the
# same monotonic clock.
_GUARDED = """
import asyncio, sys, time
from authwright.domain.errors import Unauthenticated
from authwright.guard import Guard

async def main(issuer, key):
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=2**20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with Guard(issuer=issuer, audience="https://api.example.com", key=key) as guard:
        while line := await lines.readline():
            token = line.decode().strip()
            await guard.verify(token)
            print("accepted", flush=True)
            while True:
                try:
                    await guard.verify(token)
                except Unauthenticated:
                    break
                await asyncio.sleep(0.001)
            print(time.monotonic(), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""

# A thousand connections to the feed in one process; notes when each heard of an entry.
_CROWD = """
import asyncio, json, sys, time

async def follow(port, key, heard, ready):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
    head = f"GET /revocations HTTP/1.1\\r\\nHost: 127.0.0.1:{port}\\r\\nAuthorization: Bearer {key}\\r\\n"
    writer.write((head + "Accept: text/event-stream\\r\\n\\r\\n").encode())
    while line := await reader.readline():
        if line.startswith(b"event: heartbeat"):
            ready.add(id(reader))
        elif line.startswith(b"data: ") and b'"snapshot":false' in line:
            moment = time.monotonic()
            for entry in json.loads(line[6:])["entries"]:
                heard.setdefault(entry["target"], []).append(moment)

async def main(port, key, count):
    heard, ready = {}, set()
    tasks = [asyncio.create_task(follow(int(port), key, heard, ready)) for _ in range(int(count))]
    while len(ready) < int(count):
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    print(json.dumps({target: [len(moments), max(moments)] for target, moments in heard.items()}), flush=True)
    for task in tasks:
        task.cancel()

asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def children(script: str, count: int, *arguments: str) -> Iterator[list["subprocess.Popen[str]"]]:
    """*count* processes that run *script*."""
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen([sys.executable, "-c", script, *arguments], stdin=pipe, stdout=pipe, text=True)
        for _ in range(count)
    ]
    try:
        yield started
    finally:
        for child in started:
            child.kill()
            child.communicate()


def said(child: "subprocess.Popen[str]", line: str = "") -> str:
    """What *child* says next, after it was told *line*."""
    if child.stdin is None or child.stdout is None:
        raise RuntimeError("a child without pipes")
    if line:
        child.stdin.write(line + "\n")
        child.stdin.flush()
        return ""
    answer = child.stdout.readline().strip()
    if not answer:
        raise RuntimeError("a guard ended")
    return answer


def log_in(connection: Connection) -> dict[str, Any]:
    return expect(connection.request("POST", "/login", body={**ACCOUNT, "resource": API}))


def log_out(connection: Connection, login: dict[str, Any]) -> float:
    """End *login*; when that was asked for."""
    asked = time.monotonic()
    expect(connection.request("POST", "/logout", body={"refresh_token": login["refresh_token"]}))
    return asked


def over_guards(server: Server, key: str) -> list[Figure]:
    """Each login is accepted by every guard, then ended; how long until the last of them refused it."""
    waits = []
    with connections(server, 1) as (connection,), children(_GUARDED, GUARDS, server.base, key) as guards:
        for _ in range(LOGOUTS):
            login = log_in(connection)
            for guard in guards:
                said(guard, login["access_token"])
            for guard in guards:
                if (answer := said(guard)) != "accepted":
                    raise RuntimeError(answer)
            asked = log_out(connection, login)
            waits.append(max(float(said(guard)) for guard in guards) - asked)
    waits.sort()
    told = f"logout to last refusal, {GUARDS} guards in processes of their own, {len(waits):,} logouts"
    return [
        beside(f"{told}: median", statistics.median(waits) * 1000, "ms"),
        below("p99", waits[int(len(waits) * 0.99)] * 1000, 250, "ms"),
        below("slowest", waits[-1] * 1000, 1000, "ms"),
    ]


def over_a_crowd(server: Server, key: str) -> list[Figure]:
    """A thousand followers of one server: what they cost it, and how long until the last of them heard of a logout."""
    port = server.base.rpartition(":")[2]
    memory = server.memory()
    with children(_CROWD, 1, port, key, str(CROWD)) as (crowd,):
        said(crowd)
        grown = server.memory() - memory
        before, begun = server.cpu(), time.monotonic()
        time.sleep(10)
        idle = (server.cpu() - before) / (time.monotonic() - begun)
        asked = {}
        # Not opened before: the server ends a connection that asks for nothing within ten seconds.
        with connections(server, 1) as (connection,):
            for _ in range(CROWD_LOGOUTS):
                login = log_in(connection)
                sid = _claims(login["access_token"])["sid"]
                asked[sid] = log_out(connection, login)
                time.sleep(0.3)
        time.sleep(1)
        said(crowd, "tell")
        heard: dict[str, tuple[int, float]] = json.loads(said(crowd))
    counts = {heard.get(sid, (0, 0.0))[0] for sid in asked}
    waits = sorted(heard[sid][1] - moment for sid, moment in asked.items() if sid in heard)
    return [
        Figure(
            f"{CROWD:,} followers of one server: of {CROWD_LOGOUTS} logouts each heard by",
            f"{min(counts):,} to {max(counts):,}",
            f"{CROWD:,}",
            counts == {CROWD},
        ),
        below("logout to the last of them", waits[-1] * 1000, 1000, "ms"),
        below("CPU of the server while nothing happens", idle * 100, 50, "% of a core"),
        beside("memory they cost the server", grown, "MiB"),
    ]


def _claims(token: str) -> dict[str, Any]:
    from authwright.jose.encoding import b64url_decode

    return dict(json.loads(b64url_decode(token.split(".")[1])))


def section() -> tuple[str, list[Figure]]:
    """What is said above the table, and the table."""
    with authwright(AUTHWRIGHT_AUDIENCES=API) as server:
        once(server, "POST", "/register", body=ACCOUNT)
        (key,) = client_keys(server, 1, scope="revocations")
        figures = over_guards(server, key)
    with authwright(AUTHWRIGHT_AUDIENCES=API) as server:
        once(server, "POST", "/register", body=ACCOUNT)
        (key,) = client_keys(server, 1, scope="revocations")
        figures += over_a_crowd(server, key)
    return (
        "Server, guards and the caller share this machine. Time runs from the moment the logout is asked for, not from "
        "its answer.",
        figures,
    )
