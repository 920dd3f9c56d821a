"""The audit trail: sealed, verified, followed in order, forgotten; and what somebody with the database can do to it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from authwright.domain.event import COMMAND_LINE, Event, event
from authwright.domain.seal import FORGOTTEN, SEALED, read_seal
from authwright.services.audit import FORGET_SECONDS, GAP_SECONDS, MAX_GAP, Audit, Settled, Verdict
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
        return await self.audit.seal(self.service.clock)

    async def verdict(self) -> Verdict:
        return await self.audit.verify(self.service.clock())

    async def problems(self) -> list[str]:
        return list((await self.verdict()).problems)

    def restart(self) -> None:
        """All servers end, and begin anew: nothing is remembered but what is in the store."""
        self.audit.restart()
        self.other.restart()

    async def forget(self) -> int:
        self.steady.now += FORGET_SECONDS
        return await self.audit.forget(self.service.clock())

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
    verdict = await trail.verdict()
    assert (verdict.events, verdict.sealed, list(verdict.problems)) == (7, 6, [])
    key = trail.service.server.keyring.seal_key
    first, second = [read_seal(key, each) for each in await trail.kept(SEALED)]
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
        ("UPDATE events SET detail = 'gone' WHERE number = 5", "event 5 is a seal that was not made by this server"),
        (
            "UPDATE events SET detail = replace(detail, '1 4 4', '1 3 3') WHERE number = 5",
            "event 5 is a seal that was not made by this server",
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
    # Nobody waits for what nobody gave.
    far = events[0]._replace(number=10 + MAX_GAP + 1)
    steady.now *= 9
    assert [len(settled.leading([far], after=9)) for _ in range(2)] == [0, 0]
    assert settled._gaps == {}


async def test_one_process_seals_at_a_time(trail: Trail) -> None:
    await trail.happen(2)
    clock = trail.service.clock
    assert sorted(await asyncio.gather(trail.audit.seal(clock), trail.other.seal(clock))) == [0, 2]
    await trail.happen()
    assert await trail.other.seal(clock) == 0
    clock.advance(121)
    assert await trail.other.seal(clock) == 2
    assert await trail.problems() == []


async def test_old_events_are_forgotten_up_to_the_end_of_a_seal(trail: Trail) -> None:
    clock = trail.service.clock
    for day in range(40):
        await trail.happen(2, detail=f"day {day}")
        await trail.seal()
        clock.advance(DAY)
    before = len(await trail.kept())
    assert await trail.forget() > 0
    # Once an hour at most.
    assert await trail.audit.forget(clock()) == 0
    assert await trail.forget() == 0
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
    assert await trail.forget() > 0
    assert await trail.problems() == []
    assert len(await trail.kept()) < before
    # Somebody else who takes away the oldest ones has no key to say so with.
    oldest = (await trail.kept())[0]
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
        await trail.forget()
    # Half of it is there; it was given up all the same.
    assert await trail.problems() == []
    monkeypatch.undo()
    assert await trail.forget() == 15
    assert len(await trail.kept(FORGOTTEN)) == 1
    assert await trail.problems() == []


async def test_nothing_is_forgotten_unless_it_is_wanted_and_sealed(trail: Trail) -> None:
    clock = trail.service.clock
    await trail.happen(3)
    clock.advance(400 * DAY)
    assert await trail.forget() == 0
    await trail.seal()
    server, day = trail.service.server, clock()
    assert await Audit(server.store, server.keyring, days=0, time=trail.steady).forget(day) == 0
    # What happened so long ago is old, however late it was sealed; but that is remarked on.
    remarks = (await trail.verdict()).remarks
    assert "more than minutes after" in remarks[0]
    assert await trail.forget() == 3


async def test_what_is_forgotten_while_it_is_looked_at_is_no_problem(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    await trail.happen(8)
    await trail.seal()
    trail.service.clock.advance(40 * DAY)
    await trail.happen(2)
    await trail.seal()
    forgotten, asked = trail.audit._forgotten, []

    async def and_then_forget() -> Any:
        answer = await forgotten()
        if not asked:
            asked.append(True)
            # Not while the one that sealed has the claim.
            assert await trail.other.forget(trail.service.clock()) == 0
            trail.service.clock.advance(121)
            assert await trail.other.forget(trail.service.clock()) == 8
        return answer

    monkeypatch.setattr(trail.audit, "_forgotten", and_then_forget)
    assert await trail.problems() == []


async def test_a_seal_of_somebody_else_is_believed_by_nothing(trail: Trail) -> None:
    """Neither sealing nor forgetting goes on after it: it would sign for what was forged, and delete the rest."""
    for _ in range(3):
        await trail.happen(4)
        await trail.seal()
    last = (await trail.kept())[-1].number
    trail.sql("UPDATE events SET at = 0 WHERE number = 1")
    forged = f"1 {last} 1 0 {'0' * 64} {'f' * 64} {'f' * 64}"
    trail.sql(
        "INSERT INTO events (at, kind, outcome, actor, subject, client_id, session_id, address, user_agent, request_id,"
        f" detail) VALUES (0, 'events_sealed', 'success', 'system', '', '', '', '', '', '', '{forged}')"
    )
    await trail.happen()
    trail.restart()
    assert await trail.seal() > 0
    trail.service.clock.advance(400 * DAY)
    assert await trail.forget() == 0
    assert len(await trail.kept(FORGOTTEN)) == 0
    assert len(await trail.problems()) == 2


@pytest.mark.parametrize(
    "done",
    [
        "DELETE FROM events WHERE kind = 'events_sealed'",
        "UPDATE events SET kind = 'login' WHERE kind = 'events_sealed'",
    ],
)
async def test_what_was_sealed_is_never_sealed_again(trail: Trail, done: str) -> None:
    for _ in range(3):
        await trail.happen(4, detail="as it was")
        await trail.seal()
    trail.sql("UPDATE events SET detail = 'forged' WHERE number = 2")
    trail.sql(done)
    trail.restart()
    for _ in range(4):
        trail.steady.now += GAP_SECONDS
        await trail.happen()
        await trail.seal()
    assert any("their seals are gone" in problem or "does not follow" in problem for problem in await trail.problems())
    # Not even if the note of it is gone as well, while a server remembers.
    trail.sql("DELETE FROM facts WHERE name = 'events_head'")
    await trail.happen()
    await trail.seal()
    assert await trail.problems() != []


@pytest.mark.parametrize("number", [-7, 0])
async def test_events_with_numbers_that_nobody_gives_are_found(trail: Trail, number: int) -> None:
    await trail.happen(4)
    await trail.seal()
    trail.sql(f"UPDATE events SET number = {number} WHERE number = 4")
    assert any(f"event {number} has a number" in problem for problem in await trail.problems())


async def test_events_put_in_among_those_that_were_forgotten_are_found(trail: Trail) -> None:
    clock = trail.service.clock
    await trail.happen(4)
    await trail.seal()
    clock.advance(40 * DAY)
    await trail.happen(2)
    await trail.seal()
    assert await trail.forget() == 4
    await trail.happen()
    number = (await trail.kept())[-1].number
    trail.sql(f"UPDATE events SET number = 3 WHERE number = {number}")
    assert any("which were forgotten" in problem for problem in await trail.problems())


async def test_a_process_that_slept_with_a_seal_in_its_hand_does_no_harm(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    await trail.happen(4)
    events = trail.service.server.store.events
    append = events.append

    async def slowly(one: Event) -> None:
        monkeypatch.undo()
        trail.service.clock.advance(301)
        await trail.happen(2)
        assert await trail.other.seal(trail.service.clock) == 6
        await append(one)

    monkeypatch.setattr(events, "append", slowly)
    await trail.seal()
    for _ in range(2):
        trail.service.clock.advance(301)
        await trail.happen(2)
        await trail.seal()
        await trail.other.seal(trail.service.clock)
    assert await trail.problems() == []
    trail.sql("UPDATE events SET detail = 'forged' WHERE number = 5")
    assert await trail.problems() != []


@pytest.mark.parametrize(
    "done",
    [
        "UPDATE events SET detail = x'ff00' WHERE number = 2",
        "UPDATE events SET at = 'x' WHERE number = 2",
        "UPDATE events SET at = 9e300 WHERE number = 2",
        "UPDATE events SET kind = 'events_forgotten', detail = '4 \u00e9' WHERE number = 2",
        "UPDATE events SET detail = '1 9999999999999999999 1' || detail WHERE kind = 'events_sealed'",
        "UPDATE events SET number = 9223372036854775806 WHERE number = 2",
    ],
)
async def test_nothing_in_a_row_stops_the_search(trail: Trail, done: str) -> None:
    await trail.happen(4)
    await trail.seal()
    await trail.happen(2)
    trail.sql(done)
    assert await trail.problems() != []
    trail.restart()
    await trail.seal()
    assert await trail.forget() == 0
    assert await trail.problems() != []


@pytest.mark.parametrize("done", ["number > 4", "number > 0"])
async def test_a_trail_that_was_cut_off_is_found_by_its_note(trail: Trail, done: str) -> None:
    for _ in range(3):
        await trail.happen(3)
        await trail.seal()
    trail.sql(f"DELETE FROM events WHERE {done}")
    trail.restart()
    assert await trail.problems() != []
    trail.sql("DELETE FROM facts WHERE name = 'events_head'")
    # Who takes away everything leaves nothing to see.
    assert (await trail.problems() != []) == (done == "number > 4")


async def test_an_event_that_stops_the_sealing_is_found(trail: Trail) -> None:
    await trail.happen(2)
    await trail.seal()
    trail.sql("UPDATE events SET number = 300000, at = 9000000000000000000 WHERE number = 2")
    await trail.happen(2)
    trail.service.clock.advance(40 * DAY)
    await trail.happen(1)
    await trail.seal()
    found = await trail.problems()
    assert any("far ahead" in problem for problem in found)
    assert any("has not come" in problem for problem in found)


async def test_a_lease_that_never_ends_is_none(trail: Trail) -> None:
    await trail.happen()
    await trail.seal()
    trail.sql("UPDATE leases SET holder = 'somebody', until = 9223372036854775807")
    await trail.happen()
    assert await trail.seal() == 2


async def test_events_that_are_not_sealed_for_long_are_remarked_on(trail: Trail) -> None:
    await trail.happen()
    assert (await trail.verdict()).remarks == []
    trail.service.clock.advance(301)
    assert "1 events from number 1" in (await trail.verdict()).remarks[0]


async def test_an_export_ends_where_an_event_may_be_on_its_way(trail: Trail) -> None:
    await trail.happen(5)
    trail.sql("UPDATE events SET number = -3 WHERE number = 3")
    clock = trail.service.clock

    async def exported(after: int) -> list[int]:
        return [each.number async for each in trail.audit.export(clock(), after=after)]

    assert await exported(1) == [2]
    trail.sql("UPDATE events SET number = 3 WHERE number = -3")
    assert await exported(2) == [3, 4, 5]
    trail.sql("DELETE FROM events WHERE number = 3")
    clock.advance(GAP_SECONDS)
    assert await exported(1) == [2, 4, 5]


async def test_a_restore_takes_the_memory_of_what_was_after_it(trail: Trail) -> None:
    await trail.happen(4)
    await trail.seal()
    noted = await trail.service.server.store.facts.read("events_head")
    assert noted is not None
    await trail.happen(4)
    await trail.seal()
    trail.sql("DELETE FROM events WHERE number > 5")
    await trail.service.server.store.facts.replace("events_head", noted)
    trail.audit.restart()
    await trail.happen(2)
    assert await trail.seal() == 3
    assert await trail.problems() == []
