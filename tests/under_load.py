"""Two long stories that tests tell in short and `make endurance` in full: keys that change under guards, and refreshes
that race over processes.
"""

import asyncio
import json
import time
from collections import deque
from pathlib import Path
from typing import Any

from authwright.domain.keyring import JWKS_MAX_AGE, PUBLISH_AHEAD
from guarded import API, issuing

ROTATIONS = 20
STEP = 60


async def rotate_under_load(folder: Path, verifications: int) -> dict[str, int]:
    """Rotate the signing key 20 times while three guards, whose key sets are of different ages, verify tokens of all
    ages; what was verified, refused and fetched. Time is the issuer's clock, which is moved a minute at a time.
    """
    steps = ROTATIONS * (PUBLISH_AHEAD // STEP + 1)
    counted = {"verified": 0, "failed": 0, "fetched": 0, "unknown": 0, "keys": 0}
    async with issuing(folder) as issuer:
        service = issuer.service
        guards = [issuer.guard() for _ in range(3)]
        refresh_token = (await issuer.login())["refresh_token"]
        kids = set()
        for guard in guards:
            async with asyncio.timeout(5):
                await guard.verify(await issuer.token())
        began = [guard.status.key_fetches for guard in guards]
        # Each fetches its keys as old as it may let them become, at moments of its own.
        due = [service.clock() + (index + 1) * JWKS_MAX_AGE * 1_000_000 // 3 for index in range(3)]
        alive: deque[tuple[int, str]] = deque()
        for step in range(steps):
            if step % (PUBLISH_AHEAD // STEP + 1) == 0:
                await service.server.keyring.rotate(service.clock())
            answer = await service.http.post("/refresh-token", json={"refresh_token": refresh_token, "resource": API})
            assert answer.status_code == 200, answer.text
            refresh_token = answer.json()["refresh_token"]
            alive.append((service.clock() + 300_000_000, answer.json()["access_token"]))
            while alive[0][0] <= service.clock():
                alive.popleft()
            for index, guard in enumerate(guards):
                if service.clock() >= due[index]:
                    due[index] += JWKS_MAX_AGE * 1_000_000
                    assert guard._life
                    assert await guard._life.jwks.fetch()
                    counted["fetched"] += 1
                for number in range(-(-verifications // (steps * len(guards)))):
                    try:
                        principal = await guard.verify(alive[number % len(alive)][1])
                    except Exception:
                        counted["failed"] += 1
                    else:
                        counted["verified"] += 1
                        kids.add(principal.key_id)
            service.clock.advance(STEP)
        every = sum(guard.status.key_fetches for guard in guards) - sum(began)
        counted["unknown"] = every - counted["fetched"]
        counted["keys"] = len(kids)
        for guard in guards:
            await guard.close()
    return counted


class _Connection:
    """A connection that is kept, and one request at a time on it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        answered = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(answered.partition("content-length: ")[2].partition("\r\n")[0])
        return int(answered.split(" ")[1]), json.loads(await reader.readexactly(length))

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


async def race_refreshes(port: int, login: dict[str, Any], *, rounds: int, at_once: int) -> dict[str, int]:
    """Refresh one token *at_once* times at the same moment, *rounds* times over; then present one that is long spent.

    Raises AssertionError unless every round ends with one successor, the session lives, and the replay ends it.
    """
    connections = [_Connection(port) for _ in range(at_once)]
    token, spent = login["refresh_token"], [login["refresh_token"]]
    begun = time.monotonic()
    for _ in range(rounds):
        body = {"refresh_token": token}
        answers = await asyncio.gather(*(each.post("/refresh-token", body) for each in connections))
        statuses = {status for status, _ in answers}
        assert statuses == {200}, statuses
        successors = {answer["refresh_token"] for _, answer in answers}
        assert len(successors) == 1, f"{len(successors)} successors"
        token = successors.pop()
        spent.append(token)
    assert len(set(spent)) == rounds + 1
    status, answer = await connections[0].post("/refresh-token", {"refresh_token": token})
    assert status == 200, "the session ended"
    late, _ = await connections[0].post("/refresh-token", {"refresh_token": spent[-3]})
    after, _ = await connections[1].post("/refresh-token", {"refresh_token": answer["refresh_token"]})
    assert (late, after) == (400, 400), "a late replay did not end the session"
    for each in connections:
        each.close()
    return {"rounds": rounds, "refreshes": rounds * at_once, "seconds": round(time.monotonic() - begun)}
