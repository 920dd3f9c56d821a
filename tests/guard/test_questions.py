"""A guard that has to ask its issuer: what counts as an answer, who may pass without one, and how much it asks."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from authwright.domain.errors import Unauthenticated, Unavailable
from authwright.domain.secrets import API_KEY_PREFIX, CLIENT_KEY_PREFIX, new_key
from authwright.guard import Guard, questions
from authwright.guard import guard as module
from guarded import until
from scripted import Answer, Scripted, begun, scripted, session
from tokens import key_pair


@pytest.fixture
async def issuer() -> AsyncIterator[Scripted]:
    async with scripted() as made:
        yield made


@pytest.fixture
async def stale(issuer: Scripted) -> AsyncIterator[Guard]:
    async with issuer.guard(max_staleness=0.5) as guard:
        await begun(issuer, guard)
        await until(lambda: guard.status.staleness > 0.6)
        yield guard


def answering(issuer: Scripted, *answers: Answer, seconds: float = 0) -> list[str]:
    """Answer questions with *answers* in turn, the last of them for ever; what was asked about."""
    asked: list[str] = []

    async def on_introspect(token: str) -> Answer:
        asked.append(token)
        await asyncio.sleep(seconds)
        return answers[min(len(asked), len(answers)) - 1]

    issuer.on_introspect = on_introspect
    return asked


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 413, 421, 429])
async def test_an_issuer_that_refuses_the_guard_opens_no_door_and_is_left_alone(
    issuer: Scripted, stale: Guard, status: int
) -> None:
    asked = answering(issuer, (status, {}))
    for number in range(5):
        with pytest.raises(Unavailable):
            await stale.verify(issuer.token(jti=str(number)))
    assert len(asked) == 1
    assert stale.status.alarms == 0


@pytest.mark.parametrize(
    "answer",
    [
        (200, []),
        (200, {"active": True}),
        (200, {"active": True, "iss": "{base}", "aud": "https://api.example.com", "sub": 1}),
    ],
)
async def test_an_answer_that_makes_no_sense_opens_no_door(issuer: Scripted, stale: Guard, answer: Answer) -> None:
    status, content = answer
    if isinstance(content, dict) and "iss" in content:
        content = {**content, "iss": issuer.base}
    answering(issuer, (status, content))
    with pytest.raises((Unavailable, Unauthenticated)):
        await stale.verify(issuer.token())


async def test_a_word_for_another_issuer_or_audience_is_none(issuer: Scripted, stale: Guard) -> None:
    for number, claims in enumerate(
        ({"iss": "https://other.example"}, {"aud": "https://other.example"}, {"active": 1})
    ):
        answering(issuer, issuer.introspection(**claims))
        with pytest.raises(Unauthenticated):
            await stale.verify(issuer.token(jti=str(number)))


async def test_one_question_that_fails_decides_nothing_about_another_token(issuer: Scripted, stale: Guard) -> None:
    answering(issuer, (500, {}), (200, {"active": False}))
    await stale.verify(issuer.token(jti="whose question failed"))
    assert stale.status.alarms == 1
    with pytest.raises(Unauthenticated):
        await stale.verify(issuer.token(jti="revoked"))


async def test_the_issuers_word_is_good_for_a_second(
    issuer: Scripted, stale: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert module.VERDICT_SECONDS <= 1
    monkeypatch.setattr(module, "VERDICT_SECONDS", 60.0)
    asked = answering(issuer, issuer.introspection(), (200, {"active": False}))
    token = issuer.token()
    for _ in range(5):
        await stale.verify(token)
    assert len(asked) == 1
    monkeypatch.setattr(module, "VERDICT_SECONDS", 0.0)
    with pytest.raises(Unauthenticated):
        await stale.verify(token)
    assert len(asked) == 2


async def test_much_to_ask_at_once_opens_no_door(issuer: Scripted, stale: Guard) -> None:
    revoked = issuer.token(jti="revoked")
    good = issuer.introspection()

    async def on_introspect(token: str) -> Answer:
        await asyncio.sleep(0.15)
        return (200, {"active": False}) if token == revoked else good

    issuer.on_introspect = on_introspect
    crowd = [asyncio.create_task(stale.verify(issuer.token(jti=str(number)))) for number in range(600)]
    for _ in range(4):
        await asyncio.sleep(0.3)
        with pytest.raises((Unauthenticated, Unavailable)):
            await stale.verify(revoked)
    answers = await asyncio.gather(*crowd, return_exceptions=True)
    # Who had to wait too long is told so; nobody passed unasked.
    assert {type(answer).__name__ for answer in answers} == {"Principal", "TooManyQuestions"}
    assert stale.status.alarms == 0


async def test_when_nobody_answers_one_at_a_time_tries_again(issuer: Scripted, stale: Guard) -> None:
    asked = answering(issuer, (503, {}))
    for number in range(questions.AWAY_AFTER):
        await stale.verify(issuer.token(jti=str(number)))
    before = len(asked)
    await asyncio.gather(*(stale.verify(issuer.token(jti=f"more {number}")) for number in range(50)))
    assert len(asked) == before
    # The moment to try again has come.
    assert stale._life
    stale._life.questions._again_at = float("-inf")
    answering(issuer, issuer.introspection(), seconds=0.1)
    await asyncio.gather(*(stale.verify(issuer.token(jti=f"again {number}")) for number in range(50)))
    # It is back: from now on everything is asked about again.
    asked = answering(issuer, (200, {"active": False}))
    with pytest.raises(Unauthenticated):
        await stale.verify(issuer.token(jti="revoked"))
    assert len(asked) == 1


@pytest.mark.parametrize("status", [500, 502, 505, 507, 520, 521, 524, 530])
async def test_whatever_stands_before_an_issuer_that_is_away_ends_nobodys_work(
    issuer: Scripted, stale: Guard, status: int
) -> None:
    answering(issuer, (status, {}))
    await stale.verify(issuer.token())
    assert stale.status.alarms == 1


async def test_r67_a_key_that_is_gone_while_a_question_hangs_is_refused(issuer: Scripted, stale: Guard) -> None:
    hanging, go = asyncio.Event(), asyncio.Event()

    async def on_introspect(_: str) -> Answer:
        hanging.set()
        await go.wait()
        return issuer.introspection()

    async def other_keys() -> Answer:
        return 200, {"keys": [key_pair("EdDSA").public.jwk()]}

    issuer.on_introspect, issuer.on_keys = on_introspect, other_keys
    waiting = asyncio.create_task(stale.verify(issuer.token()))
    await hanging.wait()
    assert stale._life
    assert await stale._life.jwks.fetch()
    go.set()
    with pytest.raises(Unauthenticated):
        await waiting


@pytest.mark.parametrize("secrets", [{}, {"hs": "A" * 43}])
async def test_r89_a_key_set_without_any_key_is_a_fetch_that_failed(issuer: Scripted, secrets: dict[str, str]) -> None:
    async def none() -> Answer:
        return 200, {"keys": []}

    async with issuer.guard(shared_secrets=secrets) as guard:
        await begun(issuer, guard)
        await guard.verify(issuer.token())
        issuer.on_keys = none
        assert guard._life
        # Unless the issuer may have gone over to signing with secrets.
        assert await guard._life.jwks.fetch() is bool(secrets)
        assert guard.status.keys == 1


async def test_what_the_feed_tells_while_a_question_hangs_counts(issuer: Scripted) -> None:
    async with issuer.guard(max_staleness=0.5) as guard:
        stream = await begun(issuer, guard)
        await until(lambda: guard.status.staleness > 0.6)
        hanging, go = asyncio.Event(), asyncio.Event()

        async def on_introspect(_: str) -> Answer:
            hanging.set()
            await go.wait()
            return issuer.introspection()

        issuer.on_introspect = on_introspect
        asking = asyncio.create_task(guard.verify(issuer.token()))
        await hanging.wait()
        stream.entries(6, session(6))
        stream.heartbeat(6)
        await until(lambda: guard.status.revocations == 1)
        go.set()
        with pytest.raises(Unauthenticated):
            await asking


async def test_what_is_revoked_cannot_be_watched(issuer: Scripted) -> None:
    async with issuer.guard() as guard:
        stream = await begun(issuer, guard)
        token = issuer.token()
        principal = await guard.verify(token)
        stream.entries(6, session(6))
        await until(lambda: guard.status.revocations == 1)
        with pytest.raises(Unauthenticated):
            guard.watch(principal, token)


def known_key(issuer: Scripted, key: str, **claims: Any) -> list[str]:
    """*key* is good, any other is not; what was asked about."""
    asked: list[str] = []

    async def on_introspect(token: str) -> Answer:
        asked.append(token)
        return issuer.introspection(**claims) if token == key else (200, {"active": False})

    issuer.on_introspect = on_introspect
    return asked


async def test_a_key_is_asked_about_again_after_a_while(issuer: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEY_SECONDS", 60.0)
    key = new_key(CLIENT_KEY_PREFIX)
    asked = known_key(issuer, key)
    async with issuer.guard(accept_keys=True) as guard:
        await begun(issuer, guard)
        for _ in range(3):
            await guard.verify(key)
        assert len(asked) == 1
        monkeypatch.setattr(module, "KEY_SECONDS", 0.0)
        answering(issuer, (200, {"active": False}))
        with pytest.raises(Unauthenticated):
            await guard.verify(key)


async def test_a_key_that_has_expired_is_refused_whatever_was_said(issuer: Scripted) -> None:
    key = new_key(API_KEY_PREFIX)
    known_key(issuer, key, exp=int(time.time()) - 1)
    async with issuer.guard(accept_keys=True) as guard:
        await begun(issuer, guard)
        with pytest.raises(Unauthenticated):
            await guard.verify(key)


async def test_a_key_whose_word_is_older_than_the_feed_is_asked_about_again(issuer: Scripted) -> None:
    key = new_key(API_KEY_PREFIX)
    known_key(issuer, key)
    async with issuer.guard(accept_keys=True) as guard:
        stream = await begun(issuer, guard)
        await guard.verify(key)
        stream.entries(6, {"number": 6, "kind": "client", "target": "cli_1", "until": 2**33})
        await until(lambda: guard.status.revocations == 1)
        # The issuer is slower to know than the feed: what the feed says stands.
        with pytest.raises(Unauthenticated):
            await guard.verify(key)


@pytest.mark.parametrize(("policy", "seconds"), [("introspect", 1.0), ("allow", 10.0), ("refuse", None)])
async def test_what_a_route_does_when_nothing_is_heard_holds_for_keys(
    issuer: Scripted, policy: Any, seconds: float | None
) -> None:
    key = new_key(API_KEY_PREFIX)
    asked = known_key(issuer, key)
    async with issuer.guard(accept_keys=True, max_staleness=60) as guard:
        stream = await begun(issuer, guard)
        await guard.verify(key, on_stale=policy)
        assert len(asked) == 1
        life = guard._life
        assert life
        stream.close()
        await until(lambda: not guard.status.following)
        # A minute later.
        guard._calm_until = float("-inf")
        now = [life.questions._time()]
        life.questions._time = lambda: now[0]
        if seconds is None:
            with pytest.raises(Unavailable):
                await guard.verify(key, on_stale=policy)
            assert len(asked) == 1
            return
        # The word of before counts for as long as the route says, and then the issuer is asked.
        now[0] += seconds - 0.5
        await guard.verify(key, on_stale=policy)
        assert len(asked) == 1
        now[0] += 1
        await guard.verify(key, on_stale=policy)
        assert len(asked) == 2
        # Nobody but the issuer knows a key.
        now[0] += seconds + 1
        answering(issuer, (503, {}))
        with pytest.raises(Unavailable):
            await guard.verify(key, on_stale=policy)


async def test_a_key_is_asked_about_again_once_something_of_it_is_revoked(issuer: Scripted) -> None:
    key = new_key(CLIENT_KEY_PREFIX)
    asked = known_key(issuer, key, auth_epoch=1)
    async with issuer.guard(accept_keys=True) as guard:
        stream = await begun(issuer, guard)
        await guard.verify(key)
        await guard.verify(key)
        assert len(asked) == 1
        # As after a change of plan: the key goes on, with what it has now.
        stream.entries(6, {"number": 6, "kind": "subject", "target": "usr_1", "epoch": 2, "until": 2**33})
        await until(lambda: guard.status.revocations == 1)
        asked = known_key(issuer, key, auth_epoch=2, scope="predict analytics")
        assert (await guard.verify(key)).scopes == {"predict", "analytics"}
        await guard.verify(key)
        assert len(asked) == 1


async def test_keys_that_strangers_make_up_leave_room_for_good_ones(
    issuer: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEY_SECONDS", 0.1)
    monkeypatch.setattr(questions, "MOST_VERDICTS", 50)
    key = new_key(CLIENT_KEY_PREFIX)

    async def on_introspect(token: str) -> Answer:
        await asyncio.sleep(0.05)
        return issuer.introspection() if token == key else (200, {"active": False})

    issuer.on_introspect = on_introspect
    async with issuer.guard(accept_keys=True) as guard:
        await begun(issuer, guard)
        await guard.verify(key)
        crowd = [asyncio.create_task(guard.verify(new_key(CLIENT_KEY_PREFIX))) for _ in range(1000)]
        for _ in range(10):
            await asyncio.sleep(0.1)
            asked = time.monotonic()
            await guard.verify(key)
            assert time.monotonic() - asked < 1
        answers = await asyncio.gather(*crowd, return_exceptions=True)
        assert {type(answer) for answer in answers} <= {Unauthenticated, questions.TooManyQuestions}
        assert guard._life
        assert len(guard._life.questions._bad) <= 50
        assert len(guard._life.questions._good) == 1
