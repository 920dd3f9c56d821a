"""`kill -9` under load, keys that rotate under guards, refreshes that race: `make endurance`.

Clients note what they were told, once the whole answer was there; after every kill a checker holds the server to it.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from databases import MongoServer, PostgresServer, own_mongo, own_postgres
from processes import Running, free_port, production_environment, run, serving, start, wait_until_ready
from under_load import race_refreshes, rotate_under_load

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"
KINDS = ("sqlite", "postgresql", "mongodb")
CLIENTS = 4

# Cheap hashes, so that most of the time goes into writes, which is what the kills are to hit; and a grace period in
# which a refresh token whose answer was lost is still good when the server is back.
FAST = {
    "AUTHWRIGHT_ARGON2_MEMORY_KIB": "64",
    "AUTHWRIGHT_ARGON2_PASSES": "1",
    "AUTHWRIGHT_REFRESH_GRACE_SECONDS": "60",
    # A login that a kill cuts off stays counted as an attempt; here they all come from one network.
    "AUTHWRIGHT_FAILED_LOGINS_NETWORK": "100000",
}


def bearer(login: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {login['access_token']}"}


@dataclass
class Acknowledged:
    """What a client was told had happened."""

    users: dict[str, str] = field(default_factory=dict)
    live: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    rotations: int = 0

    def add(self, other: "Acknowledged") -> None:
        self.users |= other.users
        self.live |= other.live
        self.ended += other.ended
        self.keys |= other.keys
        self.rotations += other.rotations


def load(server: Running, until: threading.Event, worker: int, seed: int) -> Acknowledged:
    """Mixed registrations, logins, refreshes and logouts, until the connection breaks or the time is over."""
    chance = random.Random(seed * 100 + worker)
    noted = Acknowledged()
    number = 0
    with httpx2.Client(base_url=server.base, timeout=10) as http:
        while not until.is_set():
            number += 1
            user = f"user-{seed}-{worker}-{number}"
            try:
                _one_story(http, user, chance, noted)
            except httpx2.TransportError:
                return noted
    return noted


def _one_story(http: httpx2.Client, user: str, chance: random.Random, noted: Acknowledged) -> None:
    if http.post("/register", json={"username": user, "password": "test123"}).status_code == 201:
        noted.users[user] = "test123"
    login = http.post("/login", data={"username": user, "password": "test123"})
    if login.status_code != 200:
        # The database is away: not so many questions.
        time.sleep(0.02)
        return
    session = login.json()
    noted.live[user] = session
    for _ in range(chance.randrange(4)):
        # While a refresh is under way nothing is known: either token may be the current one afterwards,
        # and within the grace period both must work.
        refreshed = http.post("/refresh-token", json={"refresh_token": session["refresh_token"]})
        if refreshed.status_code == 200:
            session = refreshed.json()
            noted.live[user] = session
            noted.rotations += 1
    if chance.random() < 0.5:
        held = noted.live.pop(user)
        if http.post("/logout", headers=bearer(held)).status_code == 200:
            noted.ended.append(held)


def check(server: Running, noted: Acknowledged) -> None:
    """Every acknowledged act is still true, and no session has two branches."""
    with server.http() as http:
        for user, password in noted.users.items():
            login = http.post("/login", data={"username": user, "password": password})
            assert login.status_code == 200, (user, login.text)
        for user, session in noted.live.items():
            body = {"refresh_token": session["refresh_token"]}
            answers = [http.post("/refresh-token", json=body) for _ in range(2)]
            assert [answer.status_code for answer in answers] == [200, 200], (user, answers[0].text)
            # Whoever presents it once more gets the same successor.
            assert answers[0].json()["refresh_token"] == answers[1].json()["refresh_token"], user
        for session in noted.ended:
            assert http.get("/me", headers=bearer(session)).status_code == 401
            answer = http.post("/refresh-token", json={"refresh_token": session["refresh_token"]})
            assert answer.status_code == 400, answer.text
        published = {key["kid"] for key in http.get("/.well-known/jwks.json").json()["keys"]}
        assert noted.keys <= published


def killed_under_load(server: Running, seed: int, kill: Callable[[], None], **env: str) -> Acknowledged:
    """Load *server*, rotate its key sometimes, *kill* at some moment; what had been acknowledged by then."""
    chance = random.Random(seed)
    until = threading.Event()
    with ThreadPoolExecutor(CLIENTS) as pool:
        loads = [pool.submit(load, server, until, worker, seed) for worker in range(CLIENTS)]
        rotated = run(server.folder, "keys", "rotate", **env) if seed % 3 == 0 else None
        time.sleep(chance.uniform(0.05, 0.4))
        kill()
        if server.process.poll() is None:
            # Those who ask meanwhile are told that it is away.
            time.sleep(chance.uniform(0.05, 0.3))
        until.set()
        noted = Acknowledged()
        for each in loads:
            noted.add(each.result())
    if rotated is not None and rotated.returncode == 0:
        noted.keys.add(rotated.stdout.split()[1])
    return noted


@contextmanager
def _database(kind: str) -> Iterator[tuple[dict[str, str], PostgresServer | MongoServer | None]]:
    """What the server is to be told of its database, and the database's own server."""
    if kind == "sqlite":
        yield {}, None
        return
    with own_postgres(durable=True) if kind == "postgresql" else own_mongo(durable=True) as database:
        yield {"DATABASE_URL": database.url}, database


def endure(kind: str, folder: Path, *, kills: int, seed: int, tell: Callable[[str], None] = print) -> dict[str, int]:
    """Kill the server, and every other time its database if it has one, *kills* times; what was acknowledged in all.

    Raises AssertionError if anything of it is lost.
    """
    port, everything, slowest = free_port(), Acknowledged(), 0.0
    with _database(kind) as (settings, database):
        env = {**FAST, **settings}
        server = start(folder, "dev", port=port, **env)
        try:
            for round_ in range(kills):
                kill = server.kill if database is None or round_ % 2 == 0 else database.kill
                noted = killed_under_load(server, seed + round_, kill, **env)
                begun = time.monotonic()
                if kill == server.kill:
                    server = start(folder, "dev", port=port, ready=False, **env)
                else:
                    assert database is not None
                    database.start()
                    begun = time.monotonic()
                wait_until_ready(server)
                slowest = max(slowest, time.monotonic() - begun)
                check(server, noted)
                noted.live.clear()
                everything.add(noted)
                tell(
                    f"{kind}: {round_ + 1} of {kills}, {len(everything.users)} users, {everything.rotations} rotations"
                )
            check(server, everything)
            assert server.stop() in (0, -signal.SIGTERM)
        finally:
            if server.process.poll() is None:
                server.kill()
    return {
        "kills": kills,
        "registrations": len(everything.users),
        "rotations": everything.rotations,
        "logouts": len(everything.ended),
        "key rotations": len(everything.keys),
        "slowest return (ms)": round(slowest * 1000),
    }


def rotations() -> dict[str, int]:
    """Twenty key rotations while three guards verify a million tokens."""
    with tempfile.TemporaryDirectory() as folder:
        counted = asyncio.run(rotate_under_load(Path(folder), 1_000_000))
    assert counted["failed"] == counted["unknown"] == 0, counted
    return counted


def races() -> dict[str, int]:
    """A thousand rounds of a hundred refreshes of one token at once, over two processes."""
    port = free_port()
    env = production_environment(port, AUTHWRIGHT_MODE="serve", AUTHWRIGHT_LOG_LEVEL="warning")
    form = {"username": "ada", "password": "a long and unusual passphrase"}
    with tempfile.TemporaryDirectory() as folder:
        with serving(Path(folder), "serve", "--workers", "2", port=port, **env) as server, server.http() as http:
            assert http.post("/register", json=form).status_code == 201
            login = http.post("/login", data=form).json()
            return asyncio.run(race_refreshes(port, login, rounds=1000, at_once=100))


STORIES = {"kills": None, "rotations": rotations, "races": races}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="for each kind of database")
    parser.add_argument("--database", choices=KINDS, action="append", help="only this one (may be repeated)")
    parser.add_argument("--story", choices=STORIES, action="append", help="only this one (may be repeated)")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000) * 1000)
    parser.add_argument("--write", action="store_true", help=f"write the figures to {PAGE.name}")
    given = parser.parse_args()
    os.environ.pop("DATABASE_URL", None)
    wanted = given.story or list(STORIES)
    for name, story in STORIES.items():
        if story is not None and name in wanted:
            print(name, story(), flush=True)
    if "kills" not in wanted:
        return
    print(f"seed {given.seed}")
    rows = []
    for kind in given.database or KINDS:
        with tempfile.TemporaryDirectory() as folder:
            figures = endure(kind, Path(folder), kills=given.kills, seed=given.seed, tell=_overwrite)
        print()
        rows.append((kind, figures))
        print(kind, figures)
    if given.write:
        _write(rows)


def _overwrite(line: str) -> None:
    print(f"\r{line}", end="", file=sys.stderr, flush=True)


def _write(rows: list[tuple[str, dict[str, int]]]) -> None:
    names = list(rows[0][1])
    table = [f"| database | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
    table += [f"| {kind} | {' | '.join(f'{figures[name]:,}' for name in names)} |" for kind, figures in rows]
    text = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- figures -->\n", "<!-- end -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(before + begin + "\n".join(table) + "\n" + end + after, encoding="utf-8")


if __name__ == "__main__":
    main()
