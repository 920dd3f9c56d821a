"""The feed while the ledger cannot be read: nothing is said of it, and followers are let go."""

import json
import time
from pathlib import Path

import httpx2
import pytest

from authwright.storage.port import StoreUnavailable
from authwright.web import revocations
from guarded import issuing
from harness import bearer


async def test_a_server_without_its_ledger_sends_no_heartbeat_and_lets_its_followers_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("FRESH_SECONDS", 0.5), ("UNREADABLE_SECONDS", 2.0), ("HEARTBEAT_SECONDS", 0.2)):
        monkeypatch.setattr(revocations, name, seconds)

    async def away(_: int) -> None:
        raise StoreUnavailable("away")

    async with issuing(tmp_path) as issuer, httpx2.AsyncClient(base_url=issuer.base, timeout=10) as http:
        headers = {**bearer(issuer.key), "accept": "text/event-stream"}
        async with http.stream("GET", "/revocations", headers=headers) as answer:
            beats: list[float] = []
            quiet = 0.0
            async for line in answer.aiter_lines():
                if line.startswith("data: ") and "at_ms" in line:
                    assert json.loads(line[6:])["age_ms"] < 700
                    beats.append(time.monotonic())
                    if len(beats) == 3:
                        monkeypatch.setattr(issuer.service.server.store.ledger, "since", away)
                elif line.startswith(":"):
                    quiet = time.monotonic()
            ended = time.monotonic()
        assert beats[-1] < quiet
        assert 1 < ended - beats[-1] < 4
        asked = await http.get("/revocations", headers=bearer(issuer.key))
        assert asked.json()["age_ms"] > 1000
