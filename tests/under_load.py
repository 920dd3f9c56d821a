"""Two long stories that tests tell in short and `make endurance` in full: keys that change under guards, and refreshes
that race over processes.
"""

import asyncio
import contextlib
import json
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from authwright.domain.secrets import Subject
from authwright.guard import Guard, jwks, verifier
from authwright.jose.envelope import KeySet
from authwright.services import keys
from authwright.web.oauth import metadata
from guarded import API, Issuer, issuing

ROTATIONS = 20
# The schedule of keys in a small scale, with the proportions of the real one: 300 seconds for which a key set may be
# cached, and twice that from the publication of a key to its first signature.
MAX_AGE, AHEAD = 2, 4
BETWEEN = 0.4
"""Seconds from one rotation to the next at least: several keys are published, and not in use yet."""
AT_ONCE = 20
KEPT = 2000
"""Tokens that are verified once more later on, by a guard that has met other keys since."""


@contextlib.contextmanager
def _small_schedule(counted: dict[str, int]) -> Iterator[None]:
    """Keys live in seconds instead of minutes; signatures that are checked, and keys that are missed, are counted."""

    class Counting(KeySet):
        def open(self, token: str) -> Any:
            counted["signatures"] += 1
            return super().open(token)

    unknown_key = jwks.Jwks.unknown_key

    async def counting(self: jwks.Jwks) -> bool:
        counted["unknown"] += 1
        return await unknown_key(self)

    headers = ((b"cache-control", b"public, max-age=%d" % MAX_AGE), *metadata._HEADERS[1:])
    with (
        patch.object(metadata, "_HEADERS", headers),
        patch.object(keys, "PUBLISH_AHEAD", AHEAD),
        patch.object(jwks, "LEAST_SECONDS", 1),
        patch.object(verifier, "KeySet", Counting),
        patch.object(jwks.Jwks, "unknown_key", counting),
    ):
        yield


async def rotate_under_load(folder: Path, verifications: int) -> dict[str, int]:
    """Rotate the signing key 20 times while three guards, each with a schedule of its own for fetching keys, verify new
    tokens and older ones; what was verified and how often with its signature, what failed, and keys that were missed.
    """
    counted = dict.fromkeys(("verified", "signatures", "failed", "unknown", "fetched", "keys"), 0)
    kids: set[str] = set()
    kept: deque[tuple[int, str]] = deque(maxlen=KEPT)
    with _small_schedule(counted):
        async with issuing(folder) as issuer, contextlib.AsyncExitStack() as stack:
            guards = []
            for _ in range(3):
                guards.append(await stack.enter_async_context(issuer.guard()))
                # They began at different times, and fetch at different ones.
                await asyncio.sleep(MAX_AGE / 3)
            tokens = _tokens(issuer, kept)
            rotated, due = 0, time.monotonic()
            at = time.monotonic()
            # Until the last of the new keys is in use.
            lasts = ROTATIONS * BETWEEN + AHEAD + BETWEEN
            ends = due + lasts
            while time.monotonic() < ends or counted["verified"] < verifications or len(kids) <= ROTATIONS:
                # The clock stands still by itself, and is never behind when a key is published. When this whole process
                # stood still, guards missed their fetches: no key comes into use in a step that long.
                before, at = at, time.monotonic()
                issuer.service.clock.advance(min(at - before, BETWEEN))
                # However slow the machine is, the rotations are spread over the verifications.
                if (
                    rotated < ROTATIONS
                    and time.monotonic() >= due
                    and counted["verified"] >= (verifications * rotated / (ROTATIONS + AHEAD / BETWEEN))
                ):
                    await issuer.service.server.keyring.rotate(issuer.service.clock())
                    rotated, due = rotated + 1, time.monotonic() + BETWEEN
                if counted["verified"] > verifications * (1 - (ends - time.monotonic()) / lasts):
                    # No more than is wanted, and evenly.
                    await asyncio.sleep(0.01)
                    continue
                some = [await anext(tokens) for _ in range(AT_ONCE)]
                await asyncio.gather(*(_verify(guard, some, counted, kids) for guard in guards))
            counted["fetched"] = sum(guard.status.key_fetches for guard in guards)
    counted["keys"] = len(kids)
    return counted


async def _tokens(issuer: Issuer, kept: deque[tuple[int, str]]) -> AsyncIterator[str]:
    """Tokens of one session as the server signs them now, every fourth an older one."""
    service, server = issuer.service, issuer.service.server
    login = await issuer.login()
    (session,) = await server.store.sessions.list_live(Subject(login["user_id"]), now=service.clock())
    while True:
        now = service.clock()
        for _ in range(3):
            grant = await server.tokens.issue(session, refresh_token=None, now=now, resource=API)
            kept.append((now, grant.access_token))
            yield grant.access_token
        made, older = random.choice(kept)
        if made > now - 240 * 1_000_000:
            yield older


async def _verify(guard: Guard, tokens: list[str], counted: dict[str, int], kids: set[str]) -> None:
    for token in tokens:
        try:
            kids.add((await guard.verify(token)).key_id)
        except Exception:
            counted["failed"] += 1
        else:
            counted["verified"] += 1
        await asyncio.sleep(0)


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
