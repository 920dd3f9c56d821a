"""Guards spend the allowance that the issuer keeps: one for a fleet, and none is unlimited while it is away."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI, Security

from authwright.domain.allowance import Rate
from authwright.domain.errors import LimitExceeded, PlanNotAvailable, Unauthenticated, Unavailable
from authwright.guard import Guard
from authwright.guard import fastapi as guard_fastapi
from authwright.guard.asgi import GuardMiddleware
from authwright.guard.limits import Limits
from authwright.guard.principal import Principal
from authwright.storage.port import StoreUnavailable
from guarded import PASSWORD, Issuer, issuing, until
from harness import bearer


@pytest.fixture
async def issuer(tmp_path: Path) -> AsyncIterator[Issuer]:
    async with issuing(tmp_path) as made:
        scope = frozenset({"revocations", "limits"})
        _, made.key = await made.service.new_client("scoring", scope=scope)
        yield made


@pytest.fixture
async def guard(issuer: Issuer) -> AsyncIterator[Guard]:
    async with issuer.guard(limits=True, accept_keys=True) as made:
        yield made


async def spent(guard: Guard, token: str, times: int, units: int = 1) -> int:
    """How many of so many calls, one after the other, may pass."""
    passed = 0
    for _ in range(times):
        principal = await guard.verify(token)
        try:
            await guard.spend(principal, token, units)
        except LimitExceeded:
            continue
        passed += 1
    return passed


async def usage(issuer: Issuer, name: str = "bholay") -> dict[str, Any]:
    login = await issuer.service.login(name, PASSWORD)
    used = (await issuer.service.get("/me/usage", login["access_token"])).json()
    return dict(next(iter(used["by_day"].values()), {}))


async def test_exactly_what_the_plan_allows_passes(issuer: Issuer, guard: Guard) -> None:
    token = await issuer.token()
    assert await spent(guard, token, 100) == 60
    principal = await guard.verify(token)
    with pytest.raises(LimitExceeded) as refused:
        await guard.spend(principal, token)
    assert (refused.value.limit, refused.value.policy, refused.value.retry_after) == ("rate", "60/minute", 1)
    # Not a question for each: a quarter each time, until single units are left.
    life = guard._life
    assert life is not None
    assert life.limits is not None
    assert life.limits.leases < 25


async def test_guards_and_the_issuer_share_one_allowance(issuer: Issuer, guard: Guard) -> None:
    token, own = await issuer.token(), await issuer.service.login("bholay", PASSWORD)
    async with issuer.guard(limits=True) as other:
        assert await spent(guard, token, 10) == 10
        assert await spent(other, token, 10) == 10
        await guard.close()
        await other.close()
        served = [(await issuer.service.get("/secure-data", own["access_token"])).status_code for _ in range(61)]
        # What they held and did not spend came back.
        assert served.count(200) == 40


async def test_usage_is_exactly_what_was_spent_with_the_guards_name(issuer: Issuer, guard: Guard) -> None:
    token = await issuer.token()
    assert await spent(guard, token, 7) == 7
    assert await spent(guard, token, 2, units=5) == 2
    await guard.close()
    assert await usage(issuer) == {"(scoring)": 17}


async def test_leases_that_ended_are_settled_by_themselves(
    issuer: Issuer, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authwright.guard.limits._SPENT_FOR", 0.01)
    token = await issuer.token()
    assert await spent(guard, token, 1) == 1

    async def settled() -> bool:
        return await usage(issuer) == {"(scoring)": 1}

    await until(settled)


async def test_a_hundred_at_once_get_what_there_is(issuer: Issuer, guard: Guard) -> None:
    token = await issuer.token()
    principal = await guard.verify(token)
    answers = await asyncio.gather(*(guard.spend(principal, token) for _ in range(100)), return_exceptions=True)
    assert answers.count(None) == 60
    assert all(isinstance(answer, LimitExceeded) for answer in answers if answer is not None)


async def test_what_is_charged_afterwards_is_refused_the_next_time(issuer: Issuer, guard: Guard) -> None:
    token = await issuer.token()
    principal = await guard.verify(token)
    await guard.spend(principal, token)
    guard.charge(principal, 55)
    assert await spent(guard, token, 10) == 4
    await guard.close()
    issuer.service.clock.advance(60)
    assert await usage(issuer) == {"(scoring)": 60}
    with pytest.raises(ValueError, match="not given back"):
        guard.charge(principal, -1)


async def test_no_plan_is_no_limit_and_all_is_counted(issuer: Issuer, guard: Guard) -> None:
    await issuer.service.new_admin("root-ada", PASSWORD)
    own = await issuer.service.login("root-ada", PASSWORD)
    patched = await issuer.service.http.patch(
        "/users/bholay", json={"plan": "admin"}, headers=bearer(own["access_token"])
    )
    assert patched.status_code == 200
    token = await issuer.token()
    assert await spent(guard, token, 700) == 700
    await guard.close()
    assert await usage(issuer) == {"(scoring)": 700}


async def test_a_client_key_spends_its_clients_allowance(issuer: Issuer, guard: Guard) -> None:
    _, key = await issuer.service.new_client("nightly")
    assert await spent(guard, key, 70) == 60


async def test_a_new_plan_is_kept_within_a_second(issuer: Issuer, guard: Guard) -> None:
    login = await issuer.login()
    assert await spent(guard, login["access_token"], 61) == 60
    await issuer.service.new_admin("root-ada", PASSWORD)
    own = await issuer.service.login("root-ada", PASSWORD)
    patched = await issuer.service.http.patch(
        "/users/bholay", json={"plan": "premium"}, headers=bearer(own["access_token"])
    )
    assert patched.status_code == 200

    async def ended() -> bool:
        try:
            await guard.verify(login["access_token"])
        except Unauthenticated:
            return True
        return False

    await until(ended, seconds=1)
    refreshed = (await issuer.service.refresh(login["refresh_token"])).json()
    assert (await guard.verify(refreshed["access_token"])).plan == "premium"
    # A minute's worth was spent by the old plan; by the new one ten units grow back in a second.
    issuer.service.clock.advance(1)
    forget_refusals(guard)
    assert 10 <= await spent(guard, refreshed["access_token"], 100) <= 20


def forget_refusals(guard: Guard) -> None:
    """As if a second had passed since anything was refused, or nobody answered."""
    life = guard._life
    assert life is not None
    assert life.limits is not None
    life.limits._away_until = float("-inf")
    for purse in life.limits._purses.values():
        purse.refused_until = float("-inf")


def away(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(issuer.service.server.lease, "lease", refuse)
    monkeypatch.setattr(issuer.service.server.lease, "settle", refuse)


async def test_while_the_issuer_is_away_a_caller_goes_on_at_the_pace_of_its_last_lease(
    issuer: Issuer, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await issuer.token()
    assert await spent(guard, token, 5) == 5
    away(issuer, monkeypatch)
    # What is left of the lease, and then so many in five seconds: never more.
    assert await spent(guard, token, 200) == 10 + 15
    monkeypatch.undo()
    forget_refusals(guard)
    assert await spent(guard, token, 1) == 1
    await guard.close()
    assert (await usage(issuer))["(scoring)"] == 31


async def test_or_it_is_refused(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    token = await issuer.token()
    async with issuer.guard(limits=True, on_limits_lost="refuse") as guard:
        assert await spent(guard, token, 5) == 5
        away(issuer, monkeypatch)
        principal = await guard.verify(token)
        for _ in range(10):
            await guard.spend(principal, token)
        with pytest.raises(Unavailable):
            await guard.spend(principal, token)


async def test_without_a_lease_of_before_nobody_is_let_in(
    issuer: Issuer, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    away(issuer, monkeypatch)
    token = await issuer.token()
    principal = await guard.verify(token)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await guard.spend(principal, token)


async def test_who_was_refused_stays_refused_while_the_issuer_is_away(
    issuer: Issuer, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await issuer.token()
    assert await spent(guard, token, 61) == 60
    away(issuer, monkeypatch)
    forget_refusals(guard)
    assert await spent(guard, token, 20) == 0


async def test_a_key_without_the_scope_limits_lets_nobody_in(issuer: Issuer) -> None:
    _, key = await issuer.service.new_client("follower", scope=frozenset({"revocations"}))
    token = await issuer.token()
    async with issuer.guard(limits=True, key=key) as guard:
        principal = await guard.verify(token)
        with pytest.raises(Unavailable):
            await guard.spend(principal, token)


async def test_a_key_that_was_made_before_the_api_was_named_says_so(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    own = (issuer.service.server.settings.issuer,)
    _, key = await issuer.service.new_client("early", scope=frozenset({"revocations", "limits"}), audiences=own)
    token = await issuer.token()
    async with issuer.guard(limits=True, key=key) as guard:
        principal = await guard.verify(token)
        with pytest.raises(Unauthenticated):
            await guard.spend(principal, token)
    assert f"was {guard.audience} among the server's audiences when this guard's key was made?" in caplog.text


async def test_a_plan_that_is_gone_is_refused(issuer: Issuer, guard: Guard) -> None:
    token = await issuer.token()
    issuer.service.server.plans._plans.pop("free")
    principal = await guard.verify(token)
    with pytest.raises(PlanNotAvailable):
        await guard.spend(principal, token)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"active": True},
        {"active": True, "lease": 1, "units": 1, "expires_in": 5},
        {"active": True, "lease": "x", "units": -1, "expires_in": 5},
        {"active": True, "lease": "x", "units": 0, "expires_in": 5},
        {"active": True, "lease": "x", "units": "9", "expires_in": 5},
        {"active": True, "lease": "x", "units": 1, "expires_in": 1e9},
        {"active": True, "lease": "x", "units": 1, "expires_in": float("nan")},
        {"active": True, "lease": "x", "units": 1},
        {"active": True, "refused": {}},
        {"active": True, "refused": "no"},
    ],
)
async def test_a_lease_that_makes_no_sense_lets_nobody_in(
    issuer: Issuer, guard: Guard, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    token = await issuer.token()
    principal = await guard.verify(token)
    life = guard._life
    assert life is not None

    async def lease(_: object) -> Any:
        return answer

    monkeypatch.setattr(life.issuer, "lease", lease)
    with pytest.raises((Unavailable, Unauthenticated)):
        await guard.spend(principal, token)


async def test_a_fastapi_app_answers_429_and_says_when(issuer: Issuer) -> None:
    guard = guard_fastapi.Guard(**issuer.options(limits=True))
    app = FastAPI()

    @app.get("/predict")
    async def predict(caller: Annotated[Principal, Security(guard, scopes=["predict"])]) -> str:
        return caller.subject

    @app.get("/train")
    async def train(
        caller: Annotated[Principal, Depends(guard.requires(cost=20))],
        again: Annotated[Principal, Security(guard, scopes=["predict"])],
    ) -> str:
        return caller.subject

    headers = bearer(await issuer.token())
    async with guard, httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://api") as http:
        assert [(await http.get("/train", headers=headers)).status_code for _ in range(2)] == [200, 200]
        served = [await http.get("/predict", headers=headers) for _ in range(25)]
    assert [each.status_code for each in served] == [200] * 20 + [429] * 5
    assert served[0].headers["ratelimit"] == '"rate";r=19, "day";r=959'
    assert served[-1].headers["ratelimit-policy"] == '"rate";q=60;w=60, "day";q=1000;w=86400'
    assert served[-1].headers["retry-after"] == "1"
    assert served[-1].json()["detail"].startswith("Your plan allows 60/minute")
    with pytest.raises(ValueError, match="costs 1"):
        guard.requires(cost=0)


async def test_the_middleware_answers_429_and_tells_what_is_left(issuer: Issuer, guard: Guard) -> None:
    async def hello(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    headers = bearer(await issuer.token())
    transport = httpx2.ASGITransport(app=GuardMiddleware(hello, guard=guard))
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as http:
        first = await http.get("/", headers=headers)
        assert first.headers["ratelimit-policy"] == '"rate";q=60;w=60, "day";q=1000;w=86400'
        assert first.headers["ratelimit"] == '"rate";r=59, "day";r=999'
        served = [(await http.get("/", headers=headers)).status_code for _ in range(60)]
        assert served == [200] * 59 + [429]
        refused = await http.get("/", headers=headers)
        assert (refused.json()["error"], refused.json()["limit"]) == ("limit_exceeded", "rate")


async def test_what_is_no_choice_is_refused_at_once(issuer: Issuer) -> None:
    with pytest.raises(ValueError, match="on_limits_lost"):
        issuer.guard(limits=True, on_limits_lost="allow")


async def test_without_limits_nothing_is_leased(issuer: Issuer) -> None:
    token = await issuer.token()
    async with issuer.guard() as guard:
        assert await spent(guard, token, 100) == 100
        guard.charge(await guard.verify(token), 5)
        assert guard.limit_headers(await guard.verify(token)) == {}
    assert await usage(issuer) == {}


async def test_what_is_charged_long_after_the_call_is_counted(issuer: Issuer, guard: Guard) -> None:
    token = await issuer.token()
    principal = await guard.verify(token)
    await guard.spend(principal, token)
    limits = limits_of(guard)
    for purse in limits._purses.values():
        purse.until = float("-inf")
    await limits.tidy()
    guard.charge(principal, 50)
    for purse in limits._purses.values():
        purse.used = float("-inf")
    await limits.tidy()
    await limits.tidy()
    await guard.close()
    assert await usage(issuer) == {"(scoring)": 51}


async def test_what_is_charged_at_the_very_end_is_counted(issuer: Issuer, guard: Guard) -> None:
    token = await issuer.token()
    principal = await guard.verify(token)
    await guard.spend(principal, token)
    guard.charge(principal, 9)
    await guard.close()
    assert await usage(issuer) == {"(scoring)": 10}


async def test_units_are_whole_and_none_is_given_back(issuer: Issuer, guard: Guard) -> None:
    token = await issuer.token()
    principal = await guard.verify(token)
    await guard.spend(principal, token)
    with pytest.raises(ValueError, match="not given back"):
        await guard.spend(principal, token, -1)
    await guard.spend(principal, token, 0)
    with pytest.raises(LimitExceeded) as refused:
        await guard.spend(principal, token, 1_000_001)
    assert refused.value.retry_after is None
    # Nobody else met any of it.
    await issuer.register("somebody")
    assert await spent(guard, await issuer.token("somebody"), 61) == 60


async def test_more_than_a_lease_accounts_for_is_accounted_for_by_several(issuer: Issuer, guard: Guard) -> None:
    await issuer.service.new_admin("root-ada", PASSWORD)
    own = await issuer.service.login("root-ada", PASSWORD)
    await issuer.service.http.patch("/users/bholay", json={"plan": "admin"}, headers=bearer(own["access_token"]))
    token = await issuer.token()
    principal = await guard.verify(token)
    await guard.spend(principal, token)
    guard.charge(principal, 1_500_000)
    await issuer.register("somebody")
    assert await spent(guard, await issuer.token("somebody"), 5) == 5
    limits = limits_of(guard)
    for _ in range(3):
        await limits.tidy(everything=True)
    assert await usage(issuer) == {"(scoring)": 1_500_001}


async def test_a_settlement_that_is_not_understood_is_lost_alone(
    issuer: Issuer, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = [await issuer.token()]
    for name in ("second", "third"):
        await issuer.register(name)
        tokens.append(await issuer.token(name))
    for token in tokens:
        assert await spent(guard, token, 2) == 2
    limits = limits_of(guard)
    limits._unsettled.insert(0, ("x", -1))
    await limits.tidy(everything=True)
    assert limits._unsettled == []
    for name in ("bholay", "second", "third"):
        assert await usage(issuer, name) == {"(scoring)": 2}


async def test_settlements_wait_while_the_issuer_is_away(
    issuer: Issuer, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await issuer.token()
    assert await spent(guard, token, 3) == 3
    limits = limits_of(guard)
    away(issuer, monkeypatch)
    await limits.tidy(everything=True)
    assert len(limits._unsettled) == 1
    limits._lost = False
    # Also when it goes with a lease, and that fails.
    assert await spent(guard, token, 1) == 1
    assert len(limits._unsettled) == 1
    monkeypatch.undo()
    forget_refusals(guard)
    limits._lost = False
    await limits.tidy(everything=True)
    await limits.tidy(everything=True)
    assert await usage(issuer) == {"(scoring)": 4}


async def test_who_does_not_call_any_more_is_forgotten(issuer: Issuer, guard: Guard) -> None:
    assert await spent(guard, await issuer.token(), 3) == 3
    limits = limits_of(guard)
    for purse in limits._purses.values():
        purse.used = float("-inf")
    await limits.tidy(everything=True)
    assert not limits._purses


async def test_a_large_call_that_is_refused_keeps_small_ones_from_nothing(issuer: Issuer, guard: Guard) -> None:
    token = await issuer.token()
    principal = await guard.verify(token)
    with pytest.raises(LimitExceeded):
        await guard.spend(principal, token, 61)
    assert await spent(guard, token, 61) == 60


async def test_more_callers_than_are_remembered_are_served_all_the_same(
    issuer: Issuer, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authwright.guard.limits.MOST_CALLERS", 1)
    await issuer.register("somebody")
    tokens = [await issuer.token(), await issuer.token("somebody")]
    passed = await asyncio.gather(*(spent(guard, token, 20) for token in tokens * 2))
    assert passed == [20] * 4
    assert limits_of(guard).leases < 100


async def test_somebody_elses_bad_token_is_not_mine(
    issuer: Issuer, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await issuer.token()
    principal = await guard.verify(token)
    limits = limits_of(guard)
    lease = limits._client.lease

    both = asyncio.Event()

    async def slowly(wanted: Any) -> Any:
        await both.wait()
        return await lease(wanted)

    monkeypatch.setattr(limits._client, "lease", slowly)
    # The same subject with a session that ended, of which this guard has not heard yet.
    bad = asyncio.create_task(guard.spend(principal, token + "x"))
    await asyncio.sleep(0)
    good = asyncio.create_task(guard.spend(principal, token))
    await asyncio.sleep(0)
    both.set()
    answers = await asyncio.gather(bad, good, return_exceptions=True)
    assert isinstance(answers[0], Unauthenticated)
    assert answers[1] is None


async def test_who_passes_twice_pays_once(issuer: Issuer, guard: Guard) -> None:
    async def hello(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    transport = httpx2.ASGITransport(app=GuardMiddleware(GuardMiddleware(hello, guard=guard), guard=guard))
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as http:
        headers = bearer(await issuer.token())
        assert [(await http.get("/", headers=headers)).status_code for _ in range(61)] == [200] * 60 + [429]


async def test_nobody_goes_on_faster_than_the_plan_while_the_issuer_is_away(
    issuer: Issuer, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await issuer.token()
    assert await spent(guard, token, 1) == 1
    away(issuer, monkeypatch)
    await spent(guard, token, 100)
    (purse,) = limits_of(guard)._purses.values()
    assert isinstance(purse.last, Rate)
    assert (purse.last.count, purse.last.seconds, purse.last.burst) == (60, 60, 15)


def limits_of(guard: Guard) -> Limits:
    life = guard._life
    assert life is not None
    assert life.limits is not None
    return life.limits
