"""Commands that change signing keys, and guards of the running server: what leaked ends, and nobody else notices."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from authwright.guard import Guard
from guarded import refused, until
from processes import Running, free_port, production_environment, run, serving

API = "https://api.example.com"
FORM = {"username": "ada", "password": "a long and unusual passphrase"}


@dataclass
class Setup:
    server: Running
    environment: dict[str, str]
    http: httpx2.AsyncClient
    guards: list[Guard]

    async def token(self) -> str:
        answer = await self.http.post("/login", data={**FORM, "resource": API})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def command(self, *arguments: str) -> str:
        done = await asyncio.to_thread(run, self.server.folder, *arguments, **self.environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def states(self) -> dict[str, str]:
        rows: list[dict[str, Any]] = json.loads(await self.command("keys", "list", "--json"))
        return {row["kid"]: row["state"] for row in rows}

    async def all_accept(self, token: str) -> set[str]:
        """The key ids by which the guards verified *token*."""
        return {(await guard.verify(token)).key_id for guard in self.guards}


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    port = free_port()
    environment = production_environment(port, AUTHWRIGHT_MODE="serve", AUTHWRIGHT_AUDIENCES=API)
    with serving(tmp_path, "serve", "--workers", "2", port=port, **environment) as server:
        made = run(tmp_path, "clients", "create", "guard", "--scope", "revocations", "--json", **environment)
        key = json.loads(made.stdout)["client_key"]
        async with (
            httpx2.AsyncClient(base_url=server.base, timeout=20) as http,
            contextlib.AsyncExitStack() as stack,
        ):
            assert (await http.post("/register", json=FORM)).status_code == 201
            guards = [
                await stack.enter_async_context(Guard(issuer=server.base, audience=API, key=key)) for _ in range(3)
            ]
            made_setup = Setup(server, environment, http, guards)
            await made_setup.all_accept(await made_setup.token())
            yield made_setup


async def test_keys_withdraw_ends_a_leaked_key_at_every_guard_within_a_second(setup: Setup) -> None:
    (leaked,) = await setup.states()
    tokens = [await setup.token() for _ in range(5)]
    for token in tokens:
        assert await setup.all_accept(token) == {leaked}
    assert f"Withdrawn {leaked}." in await setup.command("keys", "withdraw", leaked)
    withdrawn = time.monotonic()
    for guard in setup.guards:
        for token in tokens:
            await until(lambda guard=guard, token=token: refused(guard, token), seconds=1)
    assert time.monotonic() - withdrawn < 1
    states = await setup.states()
    assert (states[leaked], sorted(states.values())) == ("withdrawn", ["active", "withdrawn"])
    # What is signed now passes at once, by a key that no guard had seen before.
    (fresh,) = await setup.all_accept(await setup.token())
    assert states[fresh] == "active"
    # A guard that begins now has it from its snapshot, and the key set has it no more.
    published = (await setup.http.get("/.well-known/jwks.json")).json()["keys"]
    assert [key["kid"] for key in published] == [fresh]
    await setup.guards[0].close()
    assert await refused(setup.guards[0], tokens[0])


async def test_keys_rotate_is_noticed_by_nobody(setup: Setup) -> None:
    (first,) = await setup.states()
    token = await setup.token()
    await setup.command("keys", "rotate")
    # Published, and not in use for as long as somebody may not have seen it.
    states = await setup.states()
    assert sorted(states.values()) == ["active", "next"]
    published = (await setup.http.get("/.well-known/jwks.json")).json()["keys"]
    assert {key["kid"] for key in published} == states.keys()
    for each in (token, await setup.token()):
        assert await setup.all_accept(each) == {first}
    # Even one that signs soon is fetched by every guard that meets it; those of before go on.
    await setup.command("keys", "rotate", "--now")
    newest: set[str] = set()

    async def signs_with_another() -> bool:
        # Two seconds later, when every worker publishes it: whichever a guard asks for it then, it is let in.
        newest.update(await setup.all_accept(await setup.token()))
        return not newest <= states.keys()

    await until(signs_with_another)
    assert await setup.all_accept(token) == {first}
