"""Rates that several processes keep together: each `Shared` here is a process of its own, over one store."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authwright.domain.allowance import NEW, Allowance, Rate, room, settled
from authwright.domain.errors import Unavailable
from authwright.domain.instant import Instant, after
from authwright.domain.secrets import Subject
from authwright.services.rates import LEASE_SECONDS, SPEND_SECONDS, Alone, Rates, Shared, _spend
from authwright.storage.port import Replaced, Store, StoreUnavailable
from databases import a_database, store_at
from harness import Clock

ADA = Subject("usr_ada")
PREMIUM = Rate(600, 60, 600)
FREE = Rate(60, 60, 60)


@pytest.fixture(params=["sqlite", "postgresql", "mongodb"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with a_database(request, tmp_path) as url:
        opened = store_at(url)
        await opened.open()
        yield opened
        await opened.close()


def processes(store: Store, clock: Clock, count: int) -> list[Rates]:
    return [Rates(clock, Shared(store.allowances, clock, exact=False)) for _ in range(count)]


async def spend(rates: Rates, times: int, rate: Rate = PREMIUM) -> int:
    """How many of so many calls, one after the other, pass."""
    return sum([(await rates.take(ADA, rate, 1)).granted for _ in range(times)])


async def test_one_process_lets_exactly_the_rate_through(store: Store, clock: Clock) -> None:
    (rates,) = processes(store, clock, 1)
    assert await spend(rates, 700) == 600
    clock.advance(0.3)
    assert await spend(rates, 10) == 3
    clock.advance(60)
    assert await spend(rates, 700) == 600


async def test_processes_together_never_let_more_through_than_the_rate(store: Store, clock: Clock) -> None:
    """The worst overshoot that docs/explanation/plans.md states: none, however calls are spread."""
    three = processes(store, clock, 3)
    passed = 0
    for second in range(20):
        passed += sum(await asyncio.gather(*(spend(rates, 40) for rates in three)))
        assert passed <= 600 + 10 * second
        clock.advance(1)
        await asyncio.gather(*(rates._tidy() for rates in three))
    # Nor is anything lost: what one holds comes back to the others.
    assert passed >= 600 + 10 * 19 - 3


async def test_what_one_process_holds_is_returned_to_the_others(store: Store, clock: Clock) -> None:
    first, second = processes(store, clock, 2)
    assert await spend(first, 10) == 10
    stored = await store.allowances.read(ADA)
    assert stored is not None
    assert stored.leased > 0
    clock.advance(SPEND_SECONDS)
    await first._tidy()
    stored = await store.allowances.read(ADA)
    assert stored is not None
    assert stored.leased == 0
    # When within the lease its units were spent is not known: they count as spent at its end.
    assert 595 <= await spend(second, 700) <= 600


async def test_a_process_that_ends_returns_what_it_holds(store: Store, clock: Clock) -> None:
    first, second = processes(store, clock, 2)
    assert await spend(first, 10) == 10
    await first.close()
    assert await spend(second, 700) == 590


async def test_what_a_killed_process_held_comes_back_with_time(store: Store, clock: Clock) -> None:
    first, second = processes(store, clock, 2)
    assert await spend(first, 10) == 10
    stored = await store.allowances.read(ADA)
    assert stored is not None
    held = stored.leased
    assert 590 - held <= await spend(second, 700) <= 590
    clock.advance(LEASE_SECONDS + 60)
    assert await spend(second, 700) == 600


async def test_who_calls_now_and_then_costs_one_statement_a_call(store: Store, clock: Clock) -> None:
    (rates,) = processes(store, clock, 1)
    asked = count_calls(store)
    for _ in range(5):
        assert (await rates.take(ADA, FREE, 1)).granted
        clock.advance(2)
        await rates._tidy()
    # The first time somebody was looked for, and not found.
    assert asked() == {"read": 1, "replace": 5}


async def test_who_calls_often_costs_a_statement_now_and_then(store: Store, clock: Clock) -> None:
    (rates,) = processes(store, clock, 1)
    asked = count_calls(store)
    assert await spend(rates, 200) == 200
    assert asked()["replace"] <= 10


async def test_who_is_refused_costs_nothing_for_a_moment(store: Store, clock: Clock) -> None:
    (rates,) = processes(store, clock, 1)
    assert await spend(rates, 61, FREE) == 60
    asked = count_calls(store)
    assert await spend(rates, 1000, FREE) == 0
    assert asked() == {"read": 0, "replace": 0}
    taken = await rates.take(ADA, FREE, 1)
    assert taken.opens_at == after(clock.now, 1)


async def test_a_hundred_at_once_get_what_there_is(store: Store, clock: Clock) -> None:
    both = processes(store, clock, 2)
    answers = await asyncio.gather(*(both[turn % 2].take(ADA, FREE, 1) for turn in range(200)))
    assert sum(answer.granted for answer in answers) == 60


async def test_a_plan_that_changes_is_kept_at_once(store: Store, clock: Clock) -> None:
    (rates,) = processes(store, clock, 1)
    assert await spend(rates, 100) == 100
    slower = Rate(1, 60, 1)
    assert await spend(rates, 3, slower) == 0
    clock.advance(70)
    assert await spend(rates, 3, slower) == 1


async def test_a_guards_lease_is_of_the_same_bucket(store: Store, clock: Clock) -> None:
    first, second = processes(store, clock, 2)
    until = after(clock.now, LEASE_SECONDS)
    units, taken = await first.lease(ADA, PREMIUM, 1, until, most=1000)
    assert (units, taken.left) == (150, 450)
    assert await spend(second, 700) == 450
    assert (await first.lease(ADA, PREMIUM, 1, until, most=1000))[0] == 0
    await second.give_back(ADA, PREMIUM, leased=150, unspent=100)
    assert await spend(first, 700) == 100
    await second.charge(ADA, PREMIUM, 5000)
    # A burst that was not there is owed first.
    clock.advance(61)
    assert await spend(first, 700) == 10


class Faulty:
    """A store that answers when it is told to."""

    def __init__(self) -> None:
        self.answers = False
        self.hangs = False
        self.asked = 0
        self.stored: Allowance | None = None

    async def read(self, caller: Subject) -> Allowance | None:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if not self.answers:
            raise StoreUnavailable("away")
        return self.stored

    async def replace(self, caller: Subject, old: Allowance | None, new: Allowance) -> Replaced:
        await self.read(caller)
        self.stored = new
        return Replaced(True, new)

    async def forget(self, *, before: Instant, most: int) -> int:
        return 0


async def test_without_any_store_a_process_goes_by_itself_and_is_never_unlimited(clock: Clock) -> None:
    faulty = Faulty()
    rates = Rates(clock, Shared(faulty, clock, exact=True), Shared(faulty, clock, exact=False))
    assert await spend(rates, 700) == 600
    # Nobody waits again and again for who is away.
    assert faulty.asked == 2


async def test_a_store_that_hangs_is_waited_for_once(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authwright.services.rates.WAIT_SECONDS", 0.05)
    faulty = Faulty()
    faulty.hangs = True
    rates = Rates(clock, Shared(faulty, clock, exact=True))
    assert await spend(rates, 700) == 600
    assert faulty.asked == 1


async def test_a_store_that_is_back_is_asked_again(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authwright.services.rates.AWAY_SECONDS", 0.0)
    faulty = Faulty()
    rates = Rates(clock, Shared(faulty, clock, exact=True))
    assert await spend(rates, 5) == 5
    faulty.answers = True
    assert await spend(rates, 5) == 5
    assert faulty.stored is not None
    assert room(settled(faulty.stored, PREMIUM, clock.now), PREMIUM, clock.now) == 595


async def test_buckets_that_are_full_again_are_forgotten(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authwright.services.rates._LOOKED_AT_ONCE", 100)
    alone = Alone()
    for number in range(250):
        alone.take(Subject(f"usr_{number}"), FREE, 1, clock.now)
        clock.advance(0.01)
    assert alone.change(Subject("usr_1"), FREE, clock.now, lambda kept, _: (kept, kept)) != NEW
    for left in (240, 140, 100):
        # Some at a time; those of the last second have not grown back.
        alone.tidy(clock.now)
        assert len(alone) >= left - 100
    assert 95 <= len(alone) <= 105
    clock.advance(60)
    for _ in range(3):
        alone.tidy(clock.now)
    assert len(alone) == 0


async def test_who_does_not_call_any_more_is_forgotten(store: Store, clock: Clock) -> None:
    (rates,) = processes(store, clock, 1)
    assert await spend(rates, 10) == 10
    for _ in range(3):
        clock.advance(LEASE_SECONDS)
        await rates._tidy()
    assert len(rates) == 0


def count_calls(store: Store) -> Callable[[], dict[str, int]]:
    """From now on, how often each verb was called."""
    counts = {"read": 0, "replace": 0}
    allowances = store.allowances

    def counting(name: str) -> None:
        verb = getattr(allowances, name)

        async def counted(*given: object, **more: object) -> object:
            counts[name] += 1
            return await verb(*given, **more)

        setattr(allowances, name, counted)

    counting("read")
    counting("replace")
    return lambda: dict(counts)


async def test_many_changes_at_once_of_one_caller_are_nobody_elses_matter(store: Store, clock: Clock) -> None:
    rates, other = processes(store, clock, 2)
    until = after(clock.now, LEASE_SECONDS)

    async def guard(rates: Rates) -> None:
        for _ in range(5):
            units, _ = await rates.lease(ADA, PREMIUM, 1, until, most=10)
            if units:
                await rates.give_back(ADA, PREMIUM, leased=units, unspent=units)

    await asyncio.gather(*(guard(rates) for _ in range(30)), guard(other))
    assert all(shared.away_until == float("-inf") for shared in (*rates._shared, *other._shared))
    assert len(rates._alone) == 0
    assert await spend(rates, 700) == 600


async def test_changes_of_one_caller_are_stored_together(store: Store, clock: Clock) -> None:
    (rates,) = processes(store, clock, 1)
    counted, until = count_calls(store), after(clock.now, LEASE_SECONDS)
    leased = await asyncio.gather(*(rates.lease(ADA, PREMIUM, 1, until, most=10) for _ in range(30)))
    assert sum(units for units, _ in leased) == 300
    assert counted() == {"read": 1, "replace": 1}
    stored = await store.allowances.read(ADA)
    assert stored is not None
    assert stored.leased == 300


class Far(Faulty):
    """A store to which it is a long way."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = 0
        self.begun = asyncio.Event()

    async def way(self) -> None:
        """So many turns of the loop: the distance itself, and nothing that is waited for."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def read(self, caller: Subject) -> Allowance | None:
        await self.way()
        stored = self.stored
        await self.way()
        return stored

    async def replace(self, caller: Subject, old: Allowance | None, new: Allowance) -> Replaced:
        await self.way()
        if done := self.stored == old:
            self.stored = new
            self.changed += 1
            self.begun.set()
        await self.way()
        return Replaced(True, new) if done else Replaced(False, await self.read(caller))


async def test_who_has_much_to_do_lets_another_process_change_the_same_allowance(clock: Clock) -> None:
    far = Far()
    busy, other = (Rates(clock, Shared(far, clock, exact=False)) for _ in range(2))
    ready = asyncio.Event()

    async def charge_on() -> None:
        while not ready.is_set():
            await busy.charge(ADA, PREMIUM, 1)

    many = [asyncio.create_task(charge_on()) for _ in range(30)]
    await far.begun.wait()
    for _ in range(20):
        await other.charge(ADA, PREMIUM, 1)
    changed = far.changed
    ready.set()
    await asyncio.gather(*many)
    # The busy one makes four changes in a row; without that, hundreds before the other's next.
    assert changed <= 20 * 10


class Gated(Faulty):
    """A store that answers when the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = True
        self.reached, self.gate = asyncio.Event(), asyncio.Event()

    async def read(self, caller: Subject) -> Allowance | None:
        self.reached.set()
        await self.gate.wait()
        return await super().read(caller)


async def test_what_nobody_waits_for_any_more_is_not_stored(clock: Clock) -> None:
    gated = Gated()
    rates = Rates(clock, Shared(gated, clock, exact=True))
    until = after(clock.now, LEASE_SECONDS)
    gone = [
        asyncio.create_task(rates.lease(ADA, PREMIUM, 1, until, most=100)),
        asyncio.create_task(rates.charge(ADA, PREMIUM, 7)),
        asyncio.create_task(rates.take(ADA, PREMIUM, 9)),
    ]
    stays = asyncio.create_task(rates.charge(ADA, PREMIUM, 5))
    await gated.reached.wait()
    for task in gone:
        task.cancel()
    await asyncio.wait(gone)
    gated.gate.set()
    await stays
    (purse,) = rates._shared[0]._purses.values()
    while purse.working is not None:
        await asyncio.wait([purse.working])
    assert gated.stored is not None
    assert gated.stored.leased == 0
    assert room(settled(gated.stored, PREMIUM, clock.now), PREMIUM, clock.now) == 595


async def test_who_always_loses_is_told_so_and_the_store_is_not_away(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authwright.services.rates._GIVE_UP_SECONDS", 0.05)
    far = Far()
    rates = Rates(clock, Shared(far, clock, exact=True))

    async def lost(caller: Subject, old: Allowance | None, new: Allowance) -> Replaced:
        return Replaced(False, await far.read(caller))

    monkeypatch.setattr(far, "replace", lost)
    answers = await asyncio.gather(rates.charge(ADA, PREMIUM, 1), rates.take(ADA, PREMIUM, 1), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable, Unavailable]
    assert rates._shared[0].away_until == float("-inf")
    assert len(rates._alone) == 0


async def test_the_end_waits_for_no_store_that_hangs(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authwright.services.rates.WAIT_SECONDS", 0.05)
    gated = Gated()
    rates = Rates(clock, Shared(gated, clock, exact=False))
    hanging = asyncio.create_task(rates.charge(ADA, PREMIUM, 1))
    await gated.reached.wait()
    (purse,) = rates._shared[0]._purses.values()
    task = purse.working
    assert task is not None
    await rates.close()
    await asyncio.wait([task])
    assert task.cancelled()
    await hanging


async def test_the_end_returns_what_is_being_leased_as_well(clock: Clock) -> None:
    gated = Gated()
    gated.gate.set()
    rates = Rates(clock, Shared(gated, clock, exact=False))
    assert await spend(rates, 5) == 5
    assert gated.stored is not None
    assert gated.stored.leased > 0
    (purse,) = rates._shared[0]._purses.values()
    purse.hand = 0
    gated.gate.clear()
    gated.reached.clear()
    more = asyncio.create_task(spend(rates, 1))
    await gated.reached.wait()
    ending = asyncio.create_task(rates.close())
    # Tasks begin in their order: the end comes before those whom the gate wakes.
    gated.gate.set()
    await asyncio.gather(more, ending)
    assert gated.stored.leased == 0


async def test_after_a_change_that_took_long_nobody_stands_back_for_longer(clock: Clock) -> None:
    """Else callers would take a store for away that answers again."""
    far = Far()
    rates = Rates(clock, Shared(far, clock, exact=False))
    await rates.charge(ADA, PREMIUM, 1)
    (purse,) = rates._shared[0]._purses.values()
    purse.in_a_row, purse.took = 4, 10.0
    await rates.charge(ADA, PREMIUM, 1)
    assert far.changed == 2
    assert rates._shared[0].away_until == float("-inf")


async def test_a_clock_that_is_set_back_puts_nobody_off(store: Store, clock: Clock) -> None:
    (rates,) = processes(store, clock, 1)
    assert await spend(rates, 61, FREE) == 60
    clock.advance(-3600)
    assert await spend(rates, 61, FREE) == 0
    clock.advance(120)
    assert await spend(rates, 61, FREE) == 60
    await rates._tidy()
    clock.advance(-3600)
    await rates._tidy()
    assert len(rates) == 0


async def test_a_call_that_went_elsewhere_is_not_charged_again(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authwright.services.rates.WAIT_SECONDS", 0.02)
    monkeypatch.setattr("authwright.services.rates.AWAY_SECONDS", 0.0)
    faulty = Faulty()
    faulty.hangs = True
    rates = Rates(clock, Shared(faulty, clock, exact=True))
    assert await spend(rates, 5) == 5
    (purse,) = rates._shared[0]._purses.values()
    assert purse.working is not None
    purse.working.cancel()
    await asyncio.wait([purse.working])
    faulty.hangs, faulty.answers = False, True
    assert await spend(rates, 5) == 5
    assert faulty.stored is not None
    assert room(settled(faulty.stored, PREMIUM, clock.now), PREMIUM, clock.now) == 595


async def test_what_goes_wrong_for_one_caller_sends_nobody_elsewhere(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty = Faulty()
    faulty.answers = True
    rates = Rates(clock, Shared(faulty, clock, exact=True))

    async def broken(*_: object) -> None:
        raise OverflowError("too large for a column")

    monkeypatch.setattr(faulty, "replace", broken)
    with pytest.raises(OverflowError):
        await rates.take(ADA, PREMIUM, 1)
    assert rates._shared[0].away_until == float("-inf")
    assert len(rates._alone) == 0


@given(
    rate=st.builds(Rate, count=st.integers(1, 100), seconds=st.sampled_from([1, 60, 3600]), burst=st.integers(1, 50)),
    calls=st.lists(st.tuples(st.integers(-(10**8), 10**8), st.integers(1, 12)), max_size=40),
)
def test_the_short_way_in_memory_says_what_the_rule_says(rate: Rate, calls: list[tuple[int, int]]) -> None:
    alone, allowance, now = Alone(), NEW, Instant(1_795_000_000_000_000)
    for moved, units in calls:
        now = Instant(now + moved)
        allowance, taken = _spend(settled(allowance, rate, now), rate, units, now)
        assert alone.take(ADA, rate, units, now) == taken
