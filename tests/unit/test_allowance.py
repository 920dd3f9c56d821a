"""The arithmetic of rates: exact, whatever comes in which order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authwright.domain.allowance import (
    NEW,
    Allowance,
    Rate,
    charged,
    lease,
    opens_at,
    returned,
    room,
    settled,
    share,
    take,
)
from authwright.domain.instant import MICROSECONDS, Instant, after

NOW = Instant(1_795_000_000_000_000)
PREMIUM = Rate(600, 60, 600)

rates = st.builds(
    Rate,
    count=st.integers(1, 1000),
    seconds=st.sampled_from([1, 60, 3600, 86_400]),
    burst=st.integers(1, 1000),
)


def passed(allowance: Allowance, rate: Rate, now: Instant) -> tuple[Allowance, int]:
    """*allowance* when no single unit passes any more, and how many did."""
    count = 0
    while (taken := take(settled(allowance, rate, now), rate, 1, now)) is not None:
        allowance, count = taken, count + 1
    return allowance, count


@given(rate=rates)
def test_a_burst_passes_at_once_and_not_one_more(rate: Rate) -> None:
    allowance, count = passed(NEW, rate, NOW)
    assert count == rate.burst
    assert room(allowance, rate, NOW) == 0


@pytest.mark.parametrize("seconds", [0.1, 1, 7.35, 60, 61, 86_400])
def test_what_passes_over_time_is_what_grew_back(seconds: float) -> None:
    allowance, _ = passed(NEW, PREMIUM, NOW)
    _, count = passed(allowance, PREMIUM, after(NOW, seconds))
    assert count == min(600, int(seconds * 10))


@given(rate=rates, units=st.integers(1, 2000), spent=st.integers(0, 1000))
def test_it_opens_exactly_when_it_says(rate: Rate, units: int, spent: int) -> None:
    allowance = charged(settled(NEW, rate, NOW), rate, spent, NOW)
    opens = opens_at(allowance, rate, units)
    if opens is None:
        assert units > rate.burst
        return
    if opens <= NOW:
        assert take(allowance, rate, units, NOW) is not None
        return
    just_before = Instant(opens - 1)
    assert take(settled(allowance, rate, just_before), rate, units, just_before) is None
    assert take(settled(allowance, rate, opens), rate, units, opens) is not None


@given(rate=rates)
def test_rounding_is_never_to_the_callers_gain(rate: Rate) -> None:
    assert rate.interval * rate.count >= rate.seconds * MICROSECONDS
    assert rate.interval * rate.count < rate.seconds * MICROSECONDS + rate.count


steps = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(0, 30_000_000)),
        st.tuples(st.just("take"), st.integers(1, 20)),
        st.tuples(st.just("lease"), st.integers(1, 20)),
        st.tuples(st.just("return"), st.integers(0, 20)),
    ),
    max_size=60,
)


@given(rate=st.builds(Rate, count=st.integers(1, 100), seconds=st.just(60), burst=st.integers(1, 60)), steps=steps)
def test_leases_never_let_more_through_than_the_rate(rate: Rate, steps: list[tuple[str, int]]) -> None:
    """Whatever is taken, leased, returned in part, or lost: over any time no more than a burst and what grew back."""
    now, allowance, grants = NOW, NEW, 0
    out: list[tuple[int, Instant]] = []
    spent: list[tuple[Instant, int]] = []
    for verb, number in steps:
        if verb == "wait":
            now = Instant(now + number)
            out = [each for each in out if each[1] > now]
        state = settled(allowance, rate, now)
        if verb == "take" and (taken := take(state, rate, number, now)) is not None:
            allowance = taken
            spent.append((now, number))
        if verb == "lease" and (taken := lease(state, rate, number, now, after(now, 5))) is not None:
            allowance, grants = taken, grants + 1
            out.append((number, after(now, 5)))
        if verb == "return" and out:
            units, _ = out.pop(0)
            used = min(number, units)
            allowance = returned(state, rate, leased=units, unspent=units - used)
            spent.append((now, used))
    # What is still out may all be spent now.
    spent += [(now, units) for units, _ in out]
    for first in range(len(spent)):
        begun = spent[first][0]
        total = 0
        for at, units in spent[first:]:
            total += units
            assert total <= rate.burst + (at - begun) // rate.interval


def test_a_lease_that_is_not_returned_ends_and_its_units_grow_back() -> None:
    allowance = lease(settled(NEW, PREMIUM, NOW), PREMIUM, 150, NOW, after(NOW, 5))
    assert allowance is not None
    assert room(settled(allowance, PREMIUM, after(NOW, 4.9)), PREMIUM, after(NOW, 4.9)) == 450
    assert room(settled(allowance, PREMIUM, after(NOW, 5)), PREMIUM, after(NOW, 5)) == 500
    assert room(settled(allowance, PREMIUM, after(NOW, 15)), PREMIUM, after(NOW, 15)) == 600
    # Returned too late: nothing comes back twice.
    late = settled(allowance, PREMIUM, after(NOW, 5))
    assert returned(late, PREMIUM, leased=150, unspent=150) == late


def test_a_clock_that_was_set_back_costs_two_bursts_and_no_more() -> None:
    allowance, _ = passed(NEW, PREMIUM, after(NOW, 3600))
    back = settled(allowance, PREMIUM, NOW)
    assert room(back, PREMIUM, NOW) == 0
    assert room(settled(back, PREMIUM, after(NOW, 120)), PREMIUM, after(NOW, 120)) == 600


def test_what_was_spent_already_is_a_debt_of_a_burst_at_worst() -> None:
    allowance = charged(settled(NEW, PREMIUM, NOW), PREMIUM, 10_000, NOW)
    assert room(allowance, PREMIUM, NOW) == 0
    assert opens_at(allowance, PREMIUM, 1) == after(NOW, 60.1)


@pytest.mark.parametrize(("left", "least", "units"), [(600, 1, 150), (7, 1, 1), (3, 1, 1), (0, 1, 1), (600, 200, 200)])
def test_a_quarter_is_leased_and_single_units_when_they_are_scarce(left: int, least: int, units: int) -> None:
    assert share(left, least) == units
