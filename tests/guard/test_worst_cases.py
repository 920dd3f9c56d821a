"""The worst that can happen to a follower: a writer that does not commit, a server that dies half way, a restore.

(For the restore see test_lost_feed.py.)
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pymongo import AsyncMongoClient

from authwright.guard import Guard
from databases import a_database, drop_mongo_database, new_mongo_database
from guarded import API, PASSWORD, Issuer, issuing, refused, until
from held_open import held_open
from processes import environment, free_port, production_environment, program, run, start

DYING = Path(__file__).parents[1] / "dying.py"


@pytest.fixture(params=["sqlite-file", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """MongoDB is left out: without transactions no writer can hold one open."""
    async with a_database(request, tmp_path) as made:
        yield made


async def beats(guard: Guard) -> None:
    """Wait for a heartbeat that was sent after this was called."""
    life = guard._life
    assert life
    begun = life.follower._time()
    await until(lambda: life.follower.as_of > begun)


@pytest.mark.parametrize("how", ["COMMIT", "ROLLBACK"])
async def test_a_writer_that_is_held_open_leaves_no_gap_for_a_guard_that_follows(
    tmp_path: Path, url: str, how: str
) -> None:
    async with issuing(tmp_path, database_url=url) as issuer, issuer.guard() as guard:
        theirs, mine, kept = [await issuer.login() for _ in range(3)]
        session = (await guard.verify(theirs["access_token"])).session_id
        for login in (mine, kept):
            await guard.verify(login["access_token"])
        before = _number(guard)
        async with held_open(url, str(session)) as end:
            ending = asyncio.create_task(_logout(issuer, mine))
            await asyncio.wait([ending], timeout=0.2)
            # Neither has happened yet: nobody was told of the one, and no answer was given to the other.
            assert not ending.done()
            await beats(guard)
            assert _number(guard) == before
            for login in (theirs, mine, kept):
                assert not await refused(guard, login["access_token"])
            await end(how)
            assert await ending == 200
        await until(lambda: refused(guard, mine["access_token"]), seconds=1)
        assert await refused(guard, theirs["access_token"]) is (how == "COMMIT")
        assert not await refused(guard, kept["access_token"])
        assert _number(guard) == before + (2 if how == "COMMIT" else 1)
        # One that comes only now knows the same.
        async with issuer.guard() as late:
            assert [await refused(late, each["access_token"]) for each in (theirs, mine, kept)] == [
                how == "COMMIT",
                True,
                False,
            ]


def _number(guard: Guard) -> int:
    return int((guard.status.cursor or "..").split(".")[1])


async def _logout(issuer: Issuer, login: dict[str, Any]) -> int:
    answer = await issuer.service.http.post("/logout", json={"refresh_token": login["refresh_token"]})
    return answer.status_code


async def test_a_server_that_is_killed_between_session_and_ledger_ends_the_token_when_it_is_back(
    tmp_path: Path, mongo_server: str
) -> None:
    """On MongoDB, where they are two steps; the SQL stores do both in one transaction."""
    url, port = new_mongo_database(mongo_server), free_port()
    told = production_environment(port, AUTHWRIGHT_MODE="serve", AUTHWRIGHT_AUDIENCES=API, DATABASE_URL=url)
    base, form = f"http://127.0.0.1:{port}", {"username": "ada", "password": PASSWORD, "resource": API}
    dies = tmp_path / "dies"
    env = environment(**told, DYING=str(dies))
    try:
        with program(
            tmp_path / "dying.log", sys.executable, DYING, "serve", "--port", str(port), env=env, at=f"{base}/livez"
        ) as server:
            made = await asyncio.to_thread(
                run, tmp_path, "clients", "create", "guard", "--scope", "revocations", "--json", **told
            )
            guard = Guard(issuer=base, audience=API, key=json.loads(made.stdout)["client_key"])
            async with httpx2.AsyncClient(base_url=base, timeout=20) as http:
                registered = await http.post("/register", json={"username": "ada", "password": PASSWORD})
                assert registered.status_code == 201
                ended, kept = [(await http.post("/login", data=form)).json() for _ in range(2)]
                session = (await guard.verify(ended["access_token"])).session_id
                await guard.verify(kept["access_token"])
                dies.touch()
                with pytest.raises(httpx2.TransportError):
                    await http.post("/logout", json={"refresh_token": ended["refresh_token"]})
            await asyncio.to_thread(server.wait, 10)
        assert await _left_half(url, str(session))
        # Nobody was told of the end, and nothing says that it will not come.
        for login in (ended, kept):
            await guard.verify(login["access_token"])
        back = await asyncio.to_thread(start, tmp_path, "serve", port=port, **told)
        try:
            await until(lambda: refused(guard, ended["access_token"]), seconds=10)
            assert (await guard.verify(kept["access_token"])).username == "ada"
            async with httpx2.AsyncClient(base_url=base, timeout=20) as http:
                for login, status in ((ended, 400), (kept, 200)):
                    answer = await http.post("/refresh-token", json={"refresh_token": login["refresh_token"]})
                    assert answer.status_code == status
        finally:
            back.kill()
            await guard.close()
    finally:
        await drop_mongo_database(url)


async def _left_half(url: str, session: str) -> bool:
    """Whether *session* has ended and the ledger does not tell."""
    async with AsyncMongoClient[dict[str, Any]](url) as client:
        database = client.get_default_database()
        ended = await database["sessions"].find_one({"_id": session, "revoked_at": {"$ne": None}})
        entry = await database["revocations"].find_one({"target": session})
        return ended is not None and entry is None
