"""The audit trail: sealed, verified, followed in order, forgotten; and what somebody with the database can do to it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from authwright.domain.event import COMMAND_LINE, Event, event
from authwright.domain.seal import FORGOTTEN, SEALED, read_seal
from authwright.services.audit import GAP_SECONDS, Audit, Settled
from authwright.storage.port import EventFilter
from harness import Clock, Service, open_service

DAY = 86_400


@dataclass
class Steady:
    """Seconds that pass when the test says so."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Trail:
    service: Service
    audit: Audit
    steady: Steady
    other: Audit = field(init=False)

    def __post_init__(self) -> None:
        server = self.service.server
        self.other = Audit(server.store, server.keyring, days=30, time=self.steady)

    async def happen(self, times: int = 1, detail: str = "x") -> None:
        for _ in range(times):
            await self.service.server.store.events.append(
                event("login", COMMAND_LINE, now=self.service.clock(), detail=detail)
            )

    async def seal(self) -> int:
        return await self.audit.seal(self.service.clock())

    async def problems(self) -> list[str]:
        return list((await self.audit.verify()).problems)

    def sql(self, statement: str) -> None:
        """What somebody does who can write to the database, and has no key."""
        self.service.server.store._database._opened().writer._connection.execute(statement)

    async def kept(self, kind: Any = None) -> list[Event]:
        which = EventFilter(kind=kind)
        return list(reversed(await self.service.server.store.events.list(which, before=None, most=10_000)))


@pytest.fixture
async def trail(clock: Clock) -> AsyncIterator[Trail]:
    async with open_service(clock=clock) as service:
        steady = Steady()
        yield Trail(service, Audit(service.server.store, service.server.keyring, days=30, time=steady), steady)


async def test_events_are_sealed_once_and_found_as_they_were(trail: Trail) -> None:
    await trail.happen(3)
    assert await trail.seal() == 3
    # A seal alone is not sealed: there would be no end of it.
    assert await trail.seal() == 0
    await trail.happen(2)
    assert await trail.seal() == 3
    verdict = await trail.audit.verify()
    assert (verdict.events, verdict.sealed, list(verdict.problems)) == (7, 6, [])
    first, second = [read_seal(each.detail) for each in await trail.kept(SEALED)]
    assert first is not None
    assert second is not None
    assert (first[:3], second[:3], second.previous == first.digest) == ((1, 3, 3), (4, 6, 3), True)


async def test_many_events_are_sealed_in_parts(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authwright.services.audit._AT_ONCE", 10)
    await trail.happen(35)
    # With the seals of the first three parts, which follow them.
    assert await trail.seal() == 35 + 3
    assert await trail.problems() == []


@pytest.mark.parametrize(
    ("done", "found"),
    [
        ("UPDATE events SET outcome = 'failure' WHERE number = 2", "events 1 to 4 are not those"),
        ("UPDATE events SET at = at + 1 WHERE number = 6", "events 5 to 8 are not those"),
        ("DELETE FROM events WHERE number = 3", "events 1 to 4 are not those"),
        ("DELETE FROM events WHERE number <= 4", "events 1 to 4 are not those"),
        ("DELETE FROM events WHERE number = 5", "the seal of events 5 to 8 does not follow"),
        ("UPDATE events SET detail = 'gone' WHERE number = 5", "event 5 is no seal"),
        (
            "UPDATE events SET detail = replace(detail, '1 4 4', '1 3 3') WHERE number = 5",
            "events 1 to 3 are not those",
        ),
        ("UPDATE events SET number = 40 WHERE number = 2", "events 1 to 4 are not those"),
        (
            "INSERT INTO events SELECT 41, at, 'events_forgotten', outcome, actor, subject, client_id, session_id,"
            " address, user_agent, request_id, '4 00' FROM events WHERE number = 1",
            "was not made by this server",
        ),
    ],
)
async def test_what_was_done_to_them_is_found(trail: Trail, done: str, found: str) -> None:
    for _ in range(3):
        await trail.happen(4 if not await trail.kept() else 3)
        await trail.seal()
    assert await trail.problems() == []
    trail.sql(done)
    assert any(found in problem for problem in await trail.problems()), await trail.problems()


async def test_events_that_come_late_are_waited_for_and_a_gap_is_passed_in_the_end(trail: Trail) -> None:
    await trail.happen(5)
    trail.sql("UPDATE events SET number = -3 WHERE number = 3")
    assert await trail.seal() == 2
    # It was on its way.
    trail.sql("UPDATE events SET number = 3 WHERE number = -3")
    assert await trail.seal() == 4
    assert await trail.problems() == []
    await trail.happen(3)
    trail.sql("DELETE FROM events WHERE number = 9")
    assert await trail.seal() == 2
    trail.steady.now += GAP_SECONDS - 1
    assert await trail.seal() == 0
    trail.steady.now += 1
    assert await trail.seal() == 2
    assert await trail.problems() == []


def test_a_gap_is_young_from_when_it_was_seen() -> None:
    steady = Steady()
    settled = Settled(steady)
    events = [event("login", COMMAND_LINE, now=Clock().now)._replace(number=number) for number in (4, 5, 7, 9)]
    assert len(settled.leading(events, after=3)) == 2
    steady.now = GAP_SECONDS
    # The one after it was not looked at before.
    assert len(settled.leading(events, after=3)) == 3
    steady.now *= 2
    assert len(settled.leading(events, after=3)) == 4
    assert settled.leading([], after=9) == []
    assert settled._gaps == {}


async def test_one_process_seals_at_a_time(trail: Trail) -> None:
    await trail.happen(2)
    now = trail.service.clock()
    assert sorted(await asyncio.gather(trail.audit.seal(now), trail.other.seal(now))) == [0, 2]
    await trail.happen()
    assert await trail.other.seal(now) == 0
    trail.service.clock.advance(301)
    assert await trail.other.seal(trail.service.clock()) == 2
    assert await trail.problems() == []


async def test_old_events_are_forgotten_up_to_the_end_of_a_seal(trail: Trail) -> None:
    clock = trail.service.clock
    for day in range(40):
        await trail.happen(2, detail=f"day {day}")
        await trail.seal()
        clock.advance(DAY)
    before = len(await trail.kept())
    assert await trail.audit.forget(clock()) > 0
    assert await trail.audit.forget(clock()) == 0
    days = {each.detail for each in await trail.kept() if each.kind == "login"}
    assert days == {f"day {day}" for day in range(10, 40)}
    # That it was done is on record, and what is left is whole.
    assert len(await trail.kept(FORGOTTEN)) == 1
    assert await trail.seal() > 0
    assert await trail.problems() == []
    for _ in range(10):
        clock.advance(DAY)
        await trail.happen()
        await trail.seal()
    assert await trail.audit.forget(clock()) > 0
    assert await trail.problems() == []
    assert len(await trail.kept()) < before
    # Somebody else who takes away the oldest ones has no key to say so with.
    (oldest, *_) = await trail.kept(SEALED)
    trail.sql(f"DELETE FROM events WHERE number <= {oldest.number + 4}")
    assert await trail.problems() != []


async def test_a_forgetting_that_was_cut_off_goes_on(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, events = trail.service.clock, trail.service.server.store.events
    await trail.happen(20)
    await trail.seal()
    clock.advance(40 * DAY)
    forget = events.forget

    async def cut_off(*, through: int, most: int) -> int:
        await forget(through=through, most=5)
        raise asyncio.CancelledError

    monkeypatch.setattr(events, "forget", cut_off)
    with pytest.raises(asyncio.CancelledError):
        await trail.audit.forget(clock())
    # Half of it is there; it was given up all the same.
    assert await trail.problems() == []
    monkeypatch.undo()
    assert await trail.audit.forget(clock()) == 15
    assert len(await trail.kept(FORGOTTEN)) == 1
    assert await trail.problems() == []


async def test_nothing_is_forgotten_unless_it_is_wanted_and_sealed(trail: Trail) -> None:
    clock = trail.service.clock
    await trail.happen(3)
    clock.advance(400 * DAY)
    assert await trail.audit.forget(clock()) == 0
    await trail.seal()
    server = trail.service.server
    assert await Audit(server.store, server.keyring, days=0, time=trail.steady).forget(clock()) == 0
    clock.advance(31 * DAY)
    assert await trail.audit.forget(clock()) == 3
