"""From logout to the last refusal: over guards in eight processes, and over a thousand of one server."""

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
CROWD_PROCESSES = 4
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

# A part of a thousand guards in one process; notes when each of them took in an entry, and asks each about every token.
_CROWD = """
import asyncio, contextlib, json, sys, time
from authwright.domain.errors import Unauthenticated
from authwright.guard import Guard
from authwright.guard.revocations import Follower

heard, take_in = {}, Follower._apply

def noting(self, entries, place):
    take_in(self, entries, place)
    moment = time.monotonic()
    for entry in entries:
        heard.setdefault(entry.target, []).append(moment)

Follower._apply = noting

async def main(issuer, key, count):
    async with contextlib.AsyncExitStack() as stack:
        guards = []
        for _ in range(int(count)):
            guard = Guard(issuer=issuer, audience="https://api.example.com", key=key)
            guards.append(await stack.enter_async_context(guard))
            # One after the other: each reads the certificates that it trusts.
            await asyncio.sleep(0.01)
        while not all(guard.status.following for guard in guards):
            await asyncio.sleep(0.05)
        print("ready", flush=True)
        ended = json.loads(await asyncio.to_thread(sys.stdin.readline))
        refusals = 0
        for guard in guards:
            for token in ended:
                try:
                    await guard.verify(token)
                except Unauthenticated:
                    refusals += 1
        moments = {target: [len(each), max(each)] for target, each in heard.items()}
        print(json.dumps([refusals, moments]), flush=True)
        await asyncio.to_thread(sys.stdin.readline)

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
    """A thousand guards of one server: what they cost it, and how long until the last of them heard of a logout."""
    memory = server.memory()
    with children(_CROWD, CROWD_PROCESSES, server.base, key, str(CROWD // CROWD_PROCESSES)) as crowd:
        for each in crowd:
            said(each)
        grown = server.memory() - memory
        before, begun = server.cpu(), time.monotonic()
        time.sleep(10)
        idle = (server.cpu() - before) / (time.monotonic() - begun)
        asked, ended = {}, []
        # Not opened before: the server ends a connection that asks for nothing within ten seconds.
        with connections(server, 1) as (connection,):
            for _ in range(CROWD_LOGOUTS):
                login = log_in(connection)
                sid = _claims(login["access_token"])["sid"]
                ended.append(login["access_token"])
                asked[sid] = log_out(connection, login)
                time.sleep(0.3)
        time.sleep(1)
        for each in crowd:
            said(each, json.dumps(ended))
        told = [json.loads(said(each)) for each in crowd]
    refusals = sum(part for part, _ in told)
    heard = {sid: [moments[sid] for _, moments in told if sid in moments] for sid in asked}
    counts = {sum(count for count, _ in parts) for parts in heard.values()}
    waits = [max(moment for _, moment in heard[sid]) - moment for sid, moment in asked.items() if heard[sid]]
    return [
        Figure(
            f"{CROWD:,} guards of one server: of {CROWD_LOGOUTS} logouts each heard by",
            f"{min(counts):,} to {max(counts):,}",
            f"{CROWD:,}",
            counts == {CROWD},
        ),
        below("logout to the last of them", max(waits) * 1000, 1000, "ms"),
        Figure(
            "refusals of these tokens by all of them afterwards",
            f"{refusals:,}",
            f"{CROWD * CROWD_LOGOUTS:,}",
            refusals == CROWD * CROWD_LOGOUTS,
        ),
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
