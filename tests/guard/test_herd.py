"""Many guards of one issuer: what happens to all of them at once does not make all of them ask at once."""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from authwright.guard import Guard, jwks, revocations
from authwright.guard.issuer import Issuer, IssuerAway, IssuerRefuses
from authwright.guard.jwks import Jwks
from guarded import until
from scripted import Answer, Scripted, Stream, begun, scripted
from tokens import key_pair

GUARDS = 50
KEYS = "/.well-known/jwks.json"


@pytest.fixture
async def issuer() -> AsyncIterator[Scripted]:
    async with scripted() as made:
        yield made


@contextlib.asynccontextmanager
async def following(issuer: Scripted) -> AsyncIterator[list[Guard]]:
    """GUARDS guards that all follow."""

    def on_follow(stream: Stream) -> None:
        stream.snapshot(5)
        stream.heartbeat(5)

    issuer.on_follow = on_follow
    async with contextlib.AsyncExitStack() as stack:
        guards = [await stack.enter_async_context(issuer.guard(max_staleness=60)) for _ in range(GUARDS)]
        await until(lambda: all(guard.status.following and guard.status.keys_age < 9 for guard in guards), 20)
        yield guards


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long was slept, but for the pauses that are always the same."""
    noted: list[float] = []
    sleep = asyncio.sleep

    async def noting(seconds: float) -> None:
        if seconds not in (0.01, 0.2, 1.0):
            noted.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", noting)
    return noted


def is_spread(pauses: list[float], most: float) -> bool:
    """Whether *pauses*, one of each guard, lie here and there between none and *most*."""
    quarters = [sum(part * most / 4 <= pause < (part + 1) * most / 4 for pause in pauses) for part in range(4)]
    return len(pauses) == GUARDS == sum(quarters) and min(quarters) > 0


async def test_guards_that_lose_their_stream_together_come_back_one_here_and_one_there(
    issuer: Scripted, slept: list[float]
) -> None:
    async with following(issuer):
        streams = [issuer.streams.get_nowait() for _ in range(issuer.streams.qsize())]
        assert len(streams) == GUARDS
        cursors: list[str | None] = []
        issuer.on_follow = lambda stream: cursors.append(stream.cursor)
        for stream in streams:
            stream.close()
        await until(lambda: len(cursors) == GUARDS)
        # Each goes on where it was.
        assert set(cursors) == {"e.5.0"}
        # Soon enough that a logout is still heard of within a second.
        assert is_spread(slept, revocations.FIRST_PAUSE)
        assert revocations.FIRST_PAUSE <= 0.4


async def test_guards_that_hear_of_a_withdrawn_key_together_fetch_one_here_and_one_there(
    issuer: Scripted, slept: list[float]
) -> None:
    async with following(issuer) as guards:
        for _ in range(issuer.streams.qsize()):
            issuer.streams.get_nowait().entries(6, {"number": 6, "kind": "key", "target": "k"})
        # Once each, and once more each for a worker of the issuer that heard of it last.
        await until(lambda: all(guard.status.key_fetches == 3 for guard in guards))
        assert issuer.answered(KEYS) == 3 * GUARDS
        assert is_spread(slept, jwks.NEWS_SECONDS)


async def pauses(monkeypatch: pytest.MonkeyPatch, *outcomes: Any, drawn: float = 1.0) -> list[float]:
    """How long a follower pauses after each of *outcomes*: what came of following, or that it knew more before that."""
    slept: list[float] = []
    follower = revocations.Follower(
        Issuer("http://127.0.0.1:1", key=None),
        revocations.Revocations(),
        time=time.monotonic,
        on_progress=lambda: None,
        on_keys=lambda: None,
    )
    left = iter(outcomes)

    async def once() -> None:
        outcome = next(left, asyncio.CancelledError())
        if outcome == "heard":
            follower.as_of = time.monotonic()
            outcome = IssuerAway("it ended")
        raise outcome

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(random, "random", lambda: drawn)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await follower._again_and_again(once)
    return slept


async def test_the_longer_an_issuer_is_away_the_less_often_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    away = IssuerAway("away")
    assert await pauses(monkeypatch, "heard", away, away, away, away, "heard", away) == [
        0.4,
        0.8,
        1.6,
        3.2,
        4,
        0.4,
        0.8,
    ]


async def test_every_pause_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    away = IssuerAway("away")
    assert await pauses(monkeypatch, away, away, drawn=0.5) == [0.4, 0.8]


async def test_an_issuer_that_refuses_is_left_alone_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    refuses = IssuerRefuses("no such key", status=401)
    assert await pauses(monkeypatch, refuses, refuses) == [10, 10]


async def test_a_stream_that_is_held_back_is_tried_again_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    held = revocations.HeldBack("silent")
    assert await pauses(monkeypatch, *[held] * 6) == [60, 120, 240, 480, 900, 900]


@pytest.mark.parametrize(
    ("drawn", "max_age", "due"), [(0.8, 300, 240), (1.0, 300, 300), (1.0, None, 300), (1.0, 1, 10), (1.0, 10**6, 3600)]
)
async def test_keys_are_fetched_again_at_a_time_that_is_drawn(
    monkeypatch: pytest.MonkeyPatch, drawn: float, max_age: int | None, due: float
) -> None:
    class Answering(Issuer):
        async def key_set(self) -> tuple[bytes, int | None]:
            return b'{"keys": []}', max_age

    def uniform(least: float, most: float) -> float:
        assert (least, most) == (0.8, 1.0) or least == 0.5
        return drawn

    monkeypatch.setattr(random, "uniform", uniform)
    made = Jwks(
        Answering("http://127.0.0.1:1", key=None), time=lambda: 1000.0, on_fetch=lambda: None, may_be_empty=True
    )
    assert await made.fetch()
    assert made._due == 1000 + due


async def test_r89_a_key_set_that_is_too_large_is_not_read_to_its_end(issuer: Scripted) -> None:
    async with issuer.guard() as guard:
        await begun(issuer, guard)
        good = issuer.token()
        await guard.verify(good)
        assert guard._life
        read: list[int] = []

        async def on_keys() -> Answer:
            return 200, {"keys": [], "padding": "x" * 10_000_000}

        issuer.on_keys = on_keys
        parse = jwks.public_keys_from_jwks

        def parsed(document: bytes) -> Any:
            read.append(len(document))
            return parse(document)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jwks, "public_keys_from_jwks", parsed)
            assert not await guard._life.jwks.fetch()
        # It was given up before anybody looked into it.
        assert read == []
        await guard.verify(good)


async def test_r89_a_key_set_that_takes_too_long_is_given_up(issuer: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "FETCH_SECONDS", 0.2)
    usual, go_on = issuer.on_keys, asyncio.Event()

    async def on_keys() -> Answer:
        await go_on.wait()
        return await usual()

    async with issuer.guard() as guard:
        await begun(issuer, guard)
        await guard.verify(issuer.token())
        issuer.on_keys = on_keys
        assert guard._life
        assert not await asyncio.wait_for(guard._life.jwks.fetch(), 1)
        go_on.set()
        assert await guard._life.jwks.fetch()
        await guard.verify(issuer.token())


async def test_r89_a_key_that_is_published_during_a_fetch_is_found_by_the_next(issuer: Scripted) -> None:
    usual, go_on, waiting = issuer.on_keys, asyncio.Event(), asyncio.Event()

    async def of_before() -> Answer:
        return 200, {"keys": [key_pair("EdDSA").public.jwk()]}

    async def of_before_and_late() -> Answer:
        issuer.on_keys = usual
        waiting.set()
        await go_on.wait()
        return await of_before()

    issuer.on_keys = of_before
    async with issuer.guard() as guard:
        await begun(issuer, guard)
        issuer.on_keys = of_before_and_late
        assert guard._life
        under_way = asyncio.create_task(guard._life.jwks.fetch())
        await waiting.wait()
        before = guard.status.key_fetches
        tokens = [issuer.token(jti=str(number)) for number in range(50)]
        verified = [asyncio.create_task(guard.verify(each)) for each in tokens]
        await asyncio.sleep(0)
        go_on.set()
        await under_way
        await asyncio.gather(*verified)
        # All of them by one fetch more.
        assert guard.status.key_fetches == before + 1


async def test_who_asks_for_revocations_lets_the_answer_wait_for_news(
    issuer: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authwright.guard.issuer.SILENT_SECONDS", 0.2)
    asked: list[tuple[float, dict[str, list[str]]]] = []

    async def on_ask(query: dict[str, list[str]]) -> Answer:
        wait = int(query["wait"][0])
        asked.append((time.monotonic(), query))
        # As a server that has nothing new, and a little late.
        await asyncio.sleep(wait + 0.3 if wait else 0)
        head = {"cursor": "e.5.0", "snapshot": "cursor" not in query, "more": False, "entries": []}
        return 200, {**head, "age_ms": 0, "waited_ms": wait * 1000, "forgotten_up_to": 0}

    issuer.on_ask = on_ask
    async with issuer.guard() as guard:
        await until(lambda: len(asked) >= 3, 8)
        assert not guard.status.following
        # The answer that came last counts.
        assert guard.status.staleness < 1
    assert [(query["wait"], query.get("cursor")) for _, query in asked[:3]] == [
        (["0"], None),
        (["2"], ["e.5.0"]),
        (["2"], ["e.5.0"]),
    ]
    assert [later - earlier > 2 for (earlier, _), (later, _) in itertools.pairwise(asked[:3])] == [False, True]
