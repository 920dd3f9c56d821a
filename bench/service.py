"""The server: start, memory, logins, refreshes, an import, under load and under attack, beside a peer."""

import asyncio
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, redirect_stdout
from types import SimpleNamespace
from typing import NamedTuple

import argon2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from authwright.app import server as composition
from authwright.config import Settings
from bench import stuffing
from bench.figures import CORES, Figure, below, there
from bench.postgres import USERS, import_seconds, with_database
from bench.servers import Server, authwright, fastapi_users
from bench.wire import Connection, Request, drive_connections, get, post, post_form
from bench.yardstick import ROUNDS, SAID, TRIED, calmest, timed
from databases import own_postgres

CONNECTIONS = 16
EMAIL, PASSWORD = "bench@example.com", "a long and unusual passphrase"


def drive(server: Server, requests: list[Request], times: int) -> float:
    """CPU microseconds of *server* for each request, *times* of them on each connection, one outstanding on each."""
    before = server.cpu()
    drive_connections(server.base, requests, times)
    return (server.cpu() - before) / (len(requests) * times) * 1e6


@contextmanager
def connections(server: Server, count: int = CONNECTIONS) -> Iterator[list[Connection]]:
    made = [Connection(server.base) for _ in range(count)]
    try:
        yield made
    finally:
        for each in made:
            each.close()


def expect(answer: tuple[int, dict[str, str]]) -> dict[str, str]:
    if answer[0] not in (200, 201):
        raise RuntimeError(f"{answer[0]}: {answer[1]}")
    return answer[1]


def once(server: Server, method: str, path: str, *, body: object = None, form: object = None) -> dict[str, str]:
    """One request over a connection of its own; it must succeed."""
    with connections(server, 1) as (connection,):
        return expect(connection.request(method, path, body=body, form=form))


_CREATE = """
import asyncio, sys
from authwright.app.server import Server
from authwright.config import load_settings
from authwright.domain.event import COMMAND_LINE

async def main():
    server = Server(load_settings("serve"))
    await server.open()
    for number in range(int(sys.argv[1])):
        scope = frozenset(sys.argv[2].split()) or None
        made = await server.clients.create(
            name=f"bench {number}", scope=scope, origin=COMMAND_LINE, now=server.clock()
        )
        print(made.client_key)
    await server.close()

asyncio.run(main())
"""


def client_keys(server: Server, count: int, *, scope: str = "") -> list[str]:
    """The keys of *count* new clients with *scope*, or with what a client usually has."""
    environment = {**server.environment, "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", _CREATE, str(count), scope]
    made = subprocess.run(command, cwd=server.folder, env=environment, capture_output=True, check=True, text=True)
    return [line for line in made.stdout.splitlines() if line.startswith("awk_")]


def refreshing(tokens: list[str], number: int) -> Request:
    """A request that presents the refresh token of the answer before."""

    def request(answer: bytes | None) -> bytes:
        if answer is not None:
            tokens[number] = json.loads(answer)["refresh_token"]
        return post("/refresh-token", {"refresh_token": tokens[number]})

    return request


def always(raw: bytes) -> Request:
    """The same request every time."""
    return lambda _answer: raw


def bare_hashes(seconds: float) -> float:
    """Argon2id hashes a second with our parameters on as many threads as there are cores."""
    hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
    stored = hasher.hash(PASSWORD)
    until = time.perf_counter() + seconds

    def work(_: int) -> int:
        done = 0
        while time.perf_counter() < until:
            hasher.verify(stored, PASSWORD)
            done += 1
        return done

    with ThreadPoolExecutor(CORES) as pool:
        return sum(pool.map(work, range(CORES))) / seconds


@contextmanager
def storm(server: Server, path: str, seconds: float) -> Iterator[list[float]]:
    """Sixteen clients that log in as fast as they can, each to an account of its own; at the end, logins a second."""
    rates: list[float] = []
    forms = ({"username": f"{number}{EMAIL}", "password": PASSWORD} for number in range(CONNECTIONS))
    requests = [always(post_form(path, form)) for form in forms]

    def log_in() -> None:
        begun = time.perf_counter()
        good = drive_connections(server.base, requests, until=begun + seconds, strict=False)
        # The last answers come after that: they count, and so does the time they took.
        rates.append(good / (time.perf_counter() - begun))

    thread = threading.Thread(target=log_in)
    thread.start()
    yield rates
    thread.join()


class Probed(NamedTuple):
    """Latencies of another caller in milliseconds, and the most memory seen in MiB."""

    p99: float
    memory: float


def probed(server: Server, path: str, me: str, token: str, seconds: float) -> Probed:
    """What a caller with a token meets while others log in."""
    latencies, memory = [], 0.0
    with storm(server, path, seconds), connections(server, 1) as (probe,):
        until = time.perf_counter() + seconds
        time.sleep(0.2)
        while time.perf_counter() < until - 0.2:
            begun = time.perf_counter()
            expect(probe.request("GET", me, token=token))
            latencies.append((time.perf_counter() - begun) * 1000)
            memory = max(memory, server.memory())
            time.sleep(0.005)
    latencies.sort()
    return Probed(latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))], memory)


def measure() -> list[Figure]:
    figures: list[Figure] = []
    starts = []
    for _ in range(ROUNDS):
        with authwright() as server:
            starts.append(server.started)
            time.sleep(0.5)
            idle = server.memory()
    figures.append(below("start to first answer", statistics.median(starts), 2, "s"))
    figures.append(below("resident memory of an idle worker, without the model", idle, 120, "MiB"))
    with ExitStack() as stack:
        ours, peer = stack.enter_context(authwright()), stack.enter_context(fastapi_users())
        form = {"username": EMAIL, "password": PASSWORD}
        logins = []
        for server, register, login in ((ours, "/register", "/login"), (peer, "/auth/register", "/auth/jwt/login")):
            for number in range(CONNECTIONS):
                with connections(server, 1) as (connection,):
                    account = {"email": f"{number}{EMAIL}", "password": PASSWORD}
                    expect(connection.request("POST", register, body=account))
            with connections(server, 1) as (connection,):
                expect(connection.request("POST", register, body={"email": EMAIL, "password": PASSWORD}))
            logins.append(once(server, "POST", login, form=form))
        token, peer_token = (login["access_token"] for login in logins)

        figures.append(there("`POST /refresh-token`, CPU", calmest(lambda: refreshes(ours, form)), 150))

        # A client for each connection and round: none comes to the hundred sessions at which others are ended.
        keys = client_keys(ours, CONNECTIONS * (TRIED + 1))

        def key_logins() -> float:
            used, keys[:CONNECTIONS] = keys[:CONNECTIONS], []
            return drive(ours, [always(post("/login", {"client_key": key})) for key in used], 90)

        figures.append(there("`POST /login` by client key, CPU", calmest(key_logins), 150))

        # So many logins later the first session is not one of the hundred that live.
        token = once(ours, "POST", "/login", form=form)["access_token"]
        mine, theirs = [], []
        for _ in range(ROUNDS):
            mine.append(drive(ours, [always(get("/me", token))] * CONNECTIONS, 200))
            theirs.append(drive(peer, [always(get("/users/me", peer_token))] * CONNECTIONS, 100))
        ratio = statistics.median(theirs) / statistics.median(mine)
        cost, beside_cost = statistics.median(mine), statistics.median(theirs)
        text = f"{ratio:.1f} x less ({cost:.0f} us; fastapi-users {beside_cost:.0f} us)"
        figures.append(Figure("`GET /me`, CPU beside fastapi-users", text, "at least 6 x less", ratio >= 6))

        shares, rates = [], []
        base = ours.memory()
        for _ in range(ROUNDS):
            before = bare_hashes(3)
            with storm(ours, "/login", 5) as measured:
                pass
            rates += measured
            shares.append(rates[-1] / ((before + bare_hashes(3)) / 2))
        share, rate = statistics.median(shares), statistics.median(rates)
        text = f"{share:.0%} ({rate:.0f} logins/s)"
        figures.append(Figure("logins beside bare Argon2id calls", text, "at least 90 %", share >= 0.9))
        token = once(ours, "POST", "/login", form=form)["access_token"]
        storms = [probed(ours, "/login", "/me", token, 6) for _ in range(3)]
        p99 = statistics.median(each.p99 for each in storms)
        beside = probed(peer, "/auth/jwt/login", "/users/me", peer_token, 10)
        text = f"{p99:.1f} ms (fastapi-users {beside.p99:.0f} ms)"
        figures.append(Figure("p99 of `GET /me` while 16 clients log in", text, "under 5 ms", p99 < 5))
        memory = max(each.memory for each in storms)
        most = base + CORES * 19 + 8
        text = f"{memory:.0f} MiB (before {base:.0f} MiB)"
        bound = f"under {most:.0f} MiB: before + {CORES} threads x 19 MiB + 8 MiB of buffers"
        figures.append(Figure("memory meanwhile", text, bound, memory < most))
    figures += on_postgres()
    figures.append(recorded())
    figures += stuffed()
    return figures


def on_postgres() -> list[Figure]:
    """PostgreSQL with its defaults, which wait for the disk."""
    form = {"username": EMAIL, "password": PASSWORD}
    with own_postgres(durable=True) as database:
        with authwright(DATABASE_URL=database.url) as server:
            with connections(server, 1) as (connection,):
                expect(connection.request("POST", "/register", body={"email": EMAIL, "password": PASSWORD}))
            both = with_database(server, database)
            cost = calmest(lambda: refreshes(both, form))
    # A store belongs to one issuer, which is another one here.
    with own_postgres(durable=True) as database:
        taken = import_seconds(database)
    what = "`POST /refresh-token` on PostgreSQL, CPU with the database's share"
    return [
        there(what, cost, 150),
        below(f"`users import` of {USERS:,} users with hashes on PostgreSQL", taken, 60, "s"),
    ]


def refreshes(server: Server, form: object) -> float:
    """CPU microseconds of a refresh, over one round of many."""
    held = [once(server, "POST", "/login", form=form)["refresh_token"] for _ in range(CONNECTIONS)]
    return drive(server, [refreshing(held, number) for number in range(CONNECTIONS)], 200)


def recorded() -> Figure:
    """What it costs a request to be recorded: counted in memory, and stored in its share of a batch."""

    async def cost() -> float:
        with tempfile.TemporaryDirectory() as folder:
            server = composition.Server(Settings.dev(database_url=f"sqlite:///{folder}/store.db"))
            await server.open()
            callers = [SimpleNamespace(subject=f"usr_{number:022}", plan="free") for number in range(200)]
            times = 20_000
            before = time.process_time()
            for number in range(times):
                scope = {"method": "GET", "authwright.caller": callers[number % len(callers)]}
                server.observe(scope, "/me", 200, 400_000 + number)
                if number % 1000 == 999:
                    await server.usage.flush()
            spent = time.process_time() - before
            await server.close()
            return spent / times * 1e6

    with redirect_stdout(io.StringIO()):
        measured = statistics.median(asyncio.run(cost()) for _ in range(ROUNDS))
    return below("recording a request (200 callers, 1,000 requests a second)", measured, 20, "us")


def stuffed() -> list[Figure]:
    """What a user meets while strangers try passwords, from one network and from five thousand."""
    figures: list[Figure] = []
    with authwright(FORWARDED_ALLOW_IPS="127.0.0.1") as server:
        token = stuffing.prepare(server)
        _, idle, token = stuffing.observe(server, token, 4)
        for networks, name in ((1, "one network"), (5000, "5,000 networks")):
            calm, token = stuffing.under_attack(server, token, networks=networks, seconds=8)
            answered = ", ".join(f"{count} x {status}" for status, count in sorted(calm.statuses.items()))
            text = f"{calm.login:.0f} ms ({answered} meanwhile)"
            what = f"slowest login of a user while strangers from {name} try passwords"
            figures.append(Figure(what, text, "under 1,000 ms", calm.login < 1000))
            text = f"{calm.refresh:.2f} ms (idle {idle:.2f} ms)"
            figures.append(
                Figure(
                    f"median `POST /refresh-token` meanwhile ({name})", text, "idle + 20 %", calm.refresh < idle * 1.2
                )
            )
    return figures


SECTION = """Medians of {rounds} rounds. For the CPU of refreshes and logins by key {tried} rounds were tried, and that
quarter counts in which the machine was least busy with others' work. CPU is that of all threads of the server process;
peers ran on the same machine in the same run; the load came over {connections} connections from it, too. A bare ES256
signature, of which each of these tokens needs one, took {signature:.0f} us of CPU. {said}"""


def bare_signature() -> float:
    """CPU microseconds of one ES256 signature without anything around it."""
    key, signing = ec.generate_private_key(ec.SECP256R1()), ec.ECDSA(hashes.SHA256())

    def many() -> None:
        for _ in range(500):
            key.sign(bytes(200), signing)

    return calmest(lambda: timed(many, 500))[0]


def section() -> tuple[str, list[Figure]]:
    """What is said above the table, and the table."""
    signature = bare_signature()
    said = SECTION.format(rounds=ROUNDS, tried=TRIED, connections=CONNECTIONS, signature=signature, said=SAID)
    return said, measure()
