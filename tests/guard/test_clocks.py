"""Wall clocks that are hours wrong, of a server or of whoever wrote an ending: what was revoked stays revoked."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from authwright.domain.instant import Instant
from authwright.guard import Guard
from authwright.guard.guard import system_clock
from guarded import API, PASSWORD, Issuer, listening, refused, until
from harness import Clock, Service, open_service, production
from processes import free_port

HOURS = 7200


@pytest.fixture
def settings(tmp_path: Path) -> Any:
    port = free_port()
    return production(tmp_path, issuer=f"http://127.0.0.1:{port}", port=port, audiences=(API,), registration="open")


@contextlib.asynccontextmanager
async def serving(settings: Any, clock: Clock) -> AsyncIterator[Service]:
    async with open_service(clock=clock, settings=settings) as service, listening(service.app, settings.port):
        yield service


async def issuer_of(service: Service, settings: Any) -> Issuer:
    """With a user, and a key for guards."""
    await service.register("bholay", PASSWORD)
    _, key = await service.new_client("guard", scope=frozenset({"revocations"}))
    return Issuer(service, settings.issuer, key, settings.port)


async def hears_twice(guard: Guard) -> None:
    """Wait for two heartbeats, with which a guard forgets."""
    life = guard._life
    assert life is not None
    for _ in range(2):
        before = life.follower.as_of
        await until(lambda before=before: life.follower.as_of > before)


async def logged_out(service: Service, login: dict[str, Any]) -> None:
    answer = await service.http.post("/logout", json={"refresh_token": login["refresh_token"]})
    assert answer.status_code == 200


async def all_refused(guard: Guard, logins: list[dict[str, Any]]) -> bool:
    return all([await refused(guard, login["access_token"]) for login in logins])


async def test_r102_a_server_that_began_with_a_clock_hours_ahead_takes_no_revocation_back(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(Instant(system_clock() + HOURS * 1_000_000))
    async with serving(settings, clock) as service:
        feed = service.server.revoke.feed
        forget, forgot = feed.forget, asyncio.Event()

        def noted(now: Instant) -> None:
            forget(now)
            forgot.set()

        monkeypatch.setattr(feed, "forget", noted)
        # As it does first of all.
        await asyncio.wait_for(forgot.wait(), 5)
        clock.advance(-HOURS)
        issuer = await issuer_of(service, settings)
        async with issuer.guard() as guard:
            login = await issuer.login()
            await guard.verify(login["access_token"])
            await logged_out(service, login)
            await until(lambda: refused(guard, login["access_token"]))
            await hears_twice(guard)
            assert await refused(guard, login["access_token"])


async def test_r102_what_was_revoked_before_such_a_server_began_is_known_to_it(settings: Any) -> None:
    clock = Clock(system_clock())
    async with serving(settings, clock) as service:
        issuer = await issuer_of(service, settings)
        login = await issuer.login()
        await logged_out(service, login)
        # The newest entry is kept in any case: this one is not it.
        await logged_out(service, await issuer.login())
    ahead = Clock(Instant(clock() + HOURS * 1_000_000))
    async with serving(settings, ahead), issuer.guard() as guard:
        await until(lambda: guard.status.following)
        await hears_twice(guard)
        assert await refused(guard, login["access_token"])


async def test_r102_an_ending_written_by_a_clock_hours_behind_counts_with_every_server(settings: Any) -> None:
    clock = Clock(system_clock())
    async with serving(settings, clock) as service:
        issuer = await issuer_of(service, settings)
        behind = Clock(Instant(clock() - HOURS * 1_000_000))
        async with open_service(clock=behind, settings=settings) as other, issuer.guard() as guard:
            logins = [await issuer.login() for _ in range(2)]
            for login in logins:
                await guard.verify(login["access_token"])
                await logged_out(other, login)
            await until(lambda: all_refused(guard, logins))
            await hears_twice(guard)
            assert await all_refused(guard, logins)
    # Nor is it lost when the server begins anew.
    async with serving(settings, clock), issuer.guard() as guard:
        await until(lambda: guard.status.following)
        assert await all_refused(guard, logins)
