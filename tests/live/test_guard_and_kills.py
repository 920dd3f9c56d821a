"""A guard and a server that is killed: an acknowledged logout reaches it, however soon the server died after it."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx2

from authwright.guard import Guard
from guarded import refused, until
from processes import free_port, production_environment, run, start

API = "https://api.example.com"
FORM = {"username": "ada", "password": "a long and unusual passphrase"}


async def test_acknowledged_logouts_reach_the_guard_although_the_server_died(tmp_path: Path) -> None:
    port = free_port()
    env = production_environment(port, AUTHWRIGHT_MODE="serve", AUTHWRIGHT_AUDIENCES=API)

    async def started() -> Any:
        return await asyncio.to_thread(start, tmp_path, "serve", port=port, **env)

    server = await started()
    try:
        made = await asyncio.to_thread(
            run, tmp_path, "clients", "create", "guard", "--scope", "revocations", "--json", **env
        )
        key = json.loads(made.stdout)["client_key"]
        async with httpx2.AsyncClient(base_url=server.base, timeout=20) as http:
            assert (await http.post("/register", json=FORM)).status_code == 201
            async with Guard(issuer=server.base, audience=API, key=key) as guard:
                kept = (await http.post("/login", data={**FORM, "resource": API})).json()["access_token"]
                for _ in range(4):
                    login = (await http.post("/login", data={**FORM, "resource": API})).json()
                    await guard.verify(login["access_token"])
                    await guard.verify(kept)
                    ended = await http.post("/logout", json={"refresh_token": login["refresh_token"]})
                    assert ended.status_code == 200
                    # At once: the feed had no time to tell.
                    server.kill()
                    await until(lambda: not guard.status.following)
                    # Tokens go on being verified while there is no server.
                    await guard.verify(kept)
                    begun = time.monotonic()
                    server = await started()
                    await until(lambda token=login["access_token"]: refused(guard, token), seconds=8)
                    await until(lambda: guard.status.following, seconds=8)
                    assert time.monotonic() - begun < 10
                    await guard.verify(kept)
    finally:
        if server.process.poll() is None:
            server.kill()
