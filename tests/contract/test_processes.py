"""The same promises between processes, on every store that outlives one."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from authwright.storage.counter import CounterPage
from databases import a_database, store_at

HERE = Path(__file__).parents[1]
PROCESSES = 4

WORK = """
import asyncio, json, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from records import *
from authwright.storage.port import NameTaken
from databases import store_at

async def main():
    store = store_at({url!r})
    await store.open()
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(await work(store)), flush=True)
    await store.close()

{work}
asyncio.run(main())
"""


def race(url: str, work: str) -> list[Any]:
    """What *work* returned in each of several processes that began together."""
    script = WORK.format(tests=str(HERE), url=url, work=work)
    running = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    try:
        for each in running:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        for each in running:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        return [json.loads(each.communicate(timeout=60)[0].splitlines()[-1]) for each in running]
    finally:
        for each in running:
            with each:
                each.kill()


@pytest.fixture(params=["sqlite-file", "postgresql", "mongodb"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """A store that outlives a process."""
    async with a_database(request, tmp_path) as made:
        yield made


async def test_one_registration_of_a_name_wins(url: str) -> None:
    outcomes = race(
        url,
        """
async def work(store):
    async def attempt(n):
        try:
            await store.users.add(user(), [name(f"name {n}")])
        except NameTaken:
            return 0
        return 1
    return [await attempt(n) for n in range(25)]
""",
    )
    assert [sum(wins) for wins in zip(*outcomes, strict=True)] == [1] * 25


async def test_one_rotation_of_a_secret_wins(url: str) -> None:
    store = store_at(url)
    await store.open()
    from records import name, session, user

    ada = user()
    await store.users.add(ada, [name("ada")])
    made = session(ada.id)
    assert await store.sessions.open(made)
    await store.close()
    outcomes = race(
        url,
        f"""
async def work(store):
    wins = []
    for step in range(1, 26):
        moved = await asyncio.gather(*(store.sessions.rotate(SessionId({made.id!r}), generation=step,
            presented=secret(step), successor=secret(step + 1), client=None, now=NOW,
            idle_expires_at=after(NOW, 1000)) for _ in range(5)))
        wins.append(sum(each is not None for each in moved))
        while (await store.sessions.find(SessionId({made.id!r}))).generation <= step:
            await asyncio.sleep(0)
    return wins
from authwright.domain.secrets import SessionId
from authwright.domain.instant import after
""",
    )
    assert [sum(wins) for wins in zip(*outcomes, strict=True)] == [1] * 25


async def test_the_ledger_has_no_gap_and_each_process_sees_none(url: str) -> None:
    outcomes = race(
        url,
        f"""
async def work(store):
    numbers, seen = [], 0
    for n in range(40):
        numbers.append(await store.ledger.append(revocation(str(n))))
        for entry in await store.ledger.since(seen):
            assert entry.number == seen + 1
            seen = entry.number
        assert seen >= numbers[-1]
    while seen < {40 * PROCESSES}:
        for entry in await store.ledger.since(seen):
            assert entry.number == seen + 1
            seen = entry.number
    return numbers
""",
    )
    numbers = sorted(number for each in outcomes for number in each)
    assert numbers == list(range(1, 40 * PROCESSES + 1))


async def test_processes_that_start_at_once_end_with_one_set_of_keys(url: str, tmp_path: Path) -> None:
    outcomes = race(
        url,
        f"""
from authwright.services.keys import Keyring, KeyWrap
from authwright.storage.counter import CounterPage
async def work(store):
    ring = Keyring(store, CounterPage(Path({str(tmp_path / "counter")!r})), issuer="https://a.example", alg="ES256",
        wrap=KeyWrap("s" * 43), keep=100, adopt=False)
    await ring.load(NOW)
    return [ring.jwks(NOW), ring.name_digest("ada").hex(), ring.refresh_tokens._current.hex()]
""",
    )
    assert all(outcome == outcomes[0] for outcome in outcomes)
    assert len(outcomes[0][0]["keys"]) == 1


async def test_the_counter_page_counts_every_raise_and_shows_it_at_once(tmp_path: Path) -> None:
    path = tmp_path / "page"
    page = CounterPage(path)
    outcomes = race(
        f"sqlite:///{tmp_path}/store.db",
        f"""
from authwright.storage.counter import CounterPage
async def work(store):
    page = CounterPage(Path({str(path)!r}))
    for n in range(1000):
        before = page.read()
        page.raise_()
        assert page.read() > before
    return page.read()
""",
    )
    assert page.read() == 1000 * PROCESSES == max(outcomes)
    assert path.stat().st_mode & 0o077 == 0
    page.close()
