"""services.cleanup: what no longer matters is forgotten, what does is not, by one process at a time."""

import asyncio
from typing import Any

import pytest

from authwright.domain.instant import Instant, after
from authwright.services.cleanup import Cleanup
from harness import Clock, Service


async def test_what_no_longer_matters_is_forgotten(service: Service, clock: Clock) -> None:
    store = service.server.store
    admin = await service.new_admin()
    login = await service.registered_login("eve")
    kept = await service.login("eve")
    await service.logout(login["access_token"])
    await service.logout(admin)
    user = await service.server.users.find("eve")
    from authwright.domain.event import COMMAND_LINE

    await service.server.passwords.reset_link(user, origin=COMMAND_LINE, now=clock())
    await service.http.post("/login", data={"username": "nobody", "password": "x"})
    await service.server.usage.flush()
    assert await service.server.cleanup.run(clock()) == 0
    clock.advance(8 * 86_400)
    # Two sessions that ended, one of two ledger entries (the newest stays), a reset token, two counters.
    assert await service.server.cleanup.run(clock()) == 2 + 1 + 1 + 2
    assert await service.server.cleanup.run(clock()) == 0
    assert (await service.refresh(login["refresh_token"])).status_code == 400
    assert (await service.refresh(kept["refresh_token"])).status_code == 200
    clock.advance(401 * 86_400)
    assert await service.server.cleanup.run(clock()) > 0
    assert list(await store.usage.totals(since_day=0)) == []
    # Events are for ever.
    events = await store.events.count_by_day(since=Instant(0))
    assert sum(row[3] for row in events) >= 6


async def test_one_process_at_a_time_cleans_up(service: Service, clock: Clock) -> None:
    login = await service.registered_login("eve")
    await service.logout(login["access_token"])
    clock.advance(8 * 86_400)
    other = Cleanup(service.server.store, lambda: 0)
    assert await service.server.store.facts.claim("cleanup", "x", now=clock(), until=after(clock(), 60))
    assert await other.run(clock()) == 0
    clock.advance(60)
    assert await other.run(clock()) > 0
    assert await service.server.cleanup.run(clock()) == 0


async def test_a_follower_whose_entries_were_forgotten_begins_anew(service: Service, clock: Clock) -> None:
    for name in ("ada", "eve", "grace"):
        await service.logout((await service.registered_login(name))["access_token"])
    server = service.server
    seen = server.revoke.revocations
    clock.advance(8 * 86_400)
    login = await service.login("eve")
    await service.logout(login["access_token"])
    await server.cleanup.run(clock())
    # As one that was away for a long time: it has seen the first entry only.
    seen.head = 1
    await server.revoke.catch_up()
    assert seen.head == 4
    assert (await service.get("/me", login["access_token"])).status_code == 401


async def test_a_clock_that_jumped_ahead_makes_it_forget_nothing_that_matters(
    service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Instant] = []
    ran = asyncio.Event()

    async def noted(now: Instant, **_: object) -> int:
        seen.append(now)
        ran.set()
        return 0

    monkeypatch.setattr("authwright.services.cleanup.EVERY_SECONDS", 0)
    monkeypatch.setattr(service.server.cleanup, "run", noted)
    begun = clock()
    task = asyncio.create_task(service.server.cleanup.run_regularly(clock))
    await asyncio.sleep(0)
    clock.advance(8 * 86_400)
    await ran.wait()
    task.cancel()
    # What has passed by the machine's own count, and not by the wall clock's.
    assert begun <= seen[-1] < after(begun, 3600)


async def test_r102_a_clock_that_is_days_ahead_from_the_beginning_deletes_no_revocation_that_matters(
    service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.register("ada")
    for _ in range(3):
        await service.logout((await service.login("ada"))["access_token"])
    server, ran = service.server, asyncio.Event()
    forget, feed = server.store.ledger.forget, server.revoke.feed

    async def noted(**options: Any) -> int:
        forgotten = await forget(**options)
        # Before that the older ones are asked for.
        if "through" in options:
            ran.set()
        return forgotten

    async def cleaned() -> list[int]:
        ran.clear()
        task = asyncio.create_task(server.cleanup.run_regularly(clock))
        await asyncio.wait_for(ran.wait(), 5)
        task.cancel()
        # The next one may begin.
        clock.advance(600)
        return [entry.number for entry in await server.store.ledger.snapshot()]

    monkeypatch.setattr("authwright.services.cleanup.EVERY_SECONDS", 0)
    monkeypatch.setattr(server.store.ledger, "forget", noted)
    # As a machine that begins with its clock days ahead.
    clock.advance(5 * 86_400)
    assert await cleaned() == [1, 2, 3]
    clock.advance(-5 * 86_400 + feed.matters)
    # By its own count of time, too, the first two can meet no token any more: a server that begins now reads them not.
    steady = feed._loop_time
    monkeypatch.setattr(feed, "_loop_time", lambda: steady() + feed.matters + 1)
    server.revoke.forget(clock())
    assert await cleaned() == [3]


async def test_processes_that_live_for_minutes_forget_the_ledger_too(service: Service, clock: Clock) -> None:
    await service.register("ada")
    for _ in range(3):
        await service.logout((await service.login("ada"))["access_token"])
    clock.advance(8 * 86_400)
    assert service.server.revoke.feed.forgotten == 0
    await service.server.cleanup.run(clock(), through=0)
    assert [entry.number for entry in await service.server.store.ledger.snapshot()] == [3]
