"""services.hashing: threads of its own, a bounded queue with shares, and times that tell nothing."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest

from authwright.domain import passwords
from authwright.domain.errors import Busy
from authwright.domain.passwords import HashProfile, hash_password, sample_hash
from authwright.services.hashing import NICENESS, Hashing, network_of

CHEAP = HashProfile(memory=32, passes=1)


@pytest.fixture
async def hashing():  # type: ignore[no-untyped-def]
    made = Hashing(profile=CHEAP, threads=1, places=16)
    await made.start()
    yield made
    made.stop()


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:0DB8:0:0:ffff::1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("unknown", "unknown"),
        ("", "unknown"),
        ("192.0.2.1, 10.0.0.1", "unknown"),
    ],
)
def test_r176_cve_2026_45364_networks_are_counted_by_64(address: str, network: str) -> None:
    assert network_of(address) == network


async def test_one_network_holds_at_most_a_quarter_of_the_places(hashing: Hashing) -> None:
    with ExitStack() as held:
        for number in range(4):
            held.enter_context(hashing.place(f"2001:db8::{number}"))
        with pytest.raises(Busy), hashing.place("2001:db8::ffff"):
            pass
        for number in range(12):
            held.enter_context(hashing.place(f"192.0.2.{number}"))
        with pytest.raises(Busy), hashing.place("198.51.100.1"):
            pass
        # Registrations have a share of their own, and so cannot keep anybody from logging in, or be kept.
        held.enter_context(hashing.place("198.51.100.1", "registration"))
    with hashing.place("2001:db8::1"):
        pass


async def test_an_office_behind_one_address_logs_in_at_once_and_leaves_room_for_others(hashing: Hashing) -> None:
    with ExitStack() as held:
        # Half of the share of those who are familiar, and what any network has of the other places.
        for number in range(6):
            held.enter_context(hashing.place("192.0.2.1", "familiar", account=f"user {number}"))
        with pytest.raises(Busy), hashing.place("192.0.2.1", "familiar", account="one more"):
            pass
        held.enter_context(hashing.place("198.51.100.1", "familiar", account="somewhere else"))


async def test_r158_strangers_who_try_an_account_take_no_place_from_where_it_is_familiar(hashing: Hashing) -> None:
    with ExitStack() as held:
        for number in range(4):
            held.enter_context(hashing.place(f"192.0.2.{number}", "login", account="ada"))
        with pytest.raises(Busy), hashing.place("192.0.2.9", "login", account="ada"):
            pass
        held.enter_context(hashing.place("198.51.100.1", "familiar", account="ada"))


async def test_a_library_that_gives_up_takes_no_thread_with_it(
    hashing: Hashing, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Panic(BaseException):
        pass

    def panic(*_: object) -> bool:
        raise Panic

    with monkeypatch.context() as patch:
        patch.setattr(passwords, "verify_password", panic)
        for _ in range(3):
            with pytest.raises(RuntimeError):
                await hashing.verify("x", None)
    assert not (await hashing.verify("x", None)).matched


async def test_who_went_away_is_not_hashed_for(hashing: Hashing, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    go_on = threading.Event()

    def slowly(password: str, _: str) -> bool:
        begun.append(password)
        go_on.wait(10)
        return False

    monkeypatch.setattr(passwords, "verify_password", slowly)
    first = asyncio.ensure_future(hashing.verify("first", None))
    second = asyncio.ensure_future(hashing.verify("second", None))
    for _ in range(5):
        await asyncio.sleep(0)
    second.cancel()
    go_on.set()
    await first
    await hashing.verify("third", None)
    assert begun == ["first", "third"]


async def test_the_threads_give_way_to_everything_else(hashing: Hashing) -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    if sys.platform == "linux":
        (on_thread, _) = await hashing._run(niceness)
        assert on_thread == NICENESS
        assert niceness() < NICENESS


async def test_the_event_loop_goes_on_while_passwords_are_hashed() -> None:
    slow = Hashing(profile=HashProfile(memory=65_536, passes=3), threads=1, places=16)
    await slow.start()
    turns = 0
    task = asyncio.create_task(slow.hash("password"))
    while not task.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 10
    slow.stop()


async def test_no_account_costs_as_much_as_one(hashing: Hashing) -> None:
    stored = hash_password("right", profile=CHEAP)
    assert (await hashing.verify("right", stored)).matched
    assert not (await hashing.verify("wrong", stored)).matched
    nobody = await hashing.verify("right", None)
    assert not nobody.matched
    assert nobody.seconds > 0


async def test_a_failure_answers_no_sooner_than_the_slowest_format_present(hashing: Hashing) -> None:
    await hashing.measure(frozenset({CHEAP.format}))
    assert hashing._slowest == 0
    await hashing.measure(frozenset({CHEAP.format, "bcrypt:8", "pbkdf2-sha256:1", "no such:1"}))
    sample = sample_hash("bcrypt:8")
    slow = await hashing.verify("x", sample)
    assert hashing._slowest >= 0.5 * slow.seconds > 0
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await hashing.even_out(0)
    assert loop.time() - begun >= 0.9 * hashing._slowest


async def test_a_stored_hash_that_is_not_understood_is_no_match_and_no_crash(hashing: Hashing) -> None:
    assert not (await hashing.verify("x", "garbage")).matched


async def test_after_stopping_there_are_no_hashes(hashing: Hashing) -> None:
    hashing.stop()
    with pytest.raises(Busy):
        await hashing.hash("x")


async def test_who_is_familiar_comes_before_all_that_wait(hashing_of_one_thread: Hashing) -> None:
    hashing, order = hashing_of_one_thread, []

    async def work(name: str, *, first: bool) -> None:
        await hashing.verify("x", None, first=first)
        order.append(name)

    strangers = [asyncio.create_task(work(f"stranger {n}", first=False)) for n in range(8)]
    await asyncio.sleep(0)
    known = asyncio.create_task(work("known", first=True))
    cancelled = asyncio.create_task(work("cancelled", first=True))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(*strangers, known)
    # One was at work, one was about to be, and who waits longest has every other turn.
    assert order.index("known") <= 3
    assert len(order) == 9
    # Everybody gave the turn back.
    assert hashing._free == 2


@pytest.fixture
async def hashing_of_one_thread() -> AsyncIterator[Hashing]:
    hashing = Hashing(profile=HashProfile(8192, 2, 1), threads=1, places=64)
    await hashing.start()
    yield hashing
    hashing.stop()
