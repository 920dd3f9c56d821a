"""/allowance: guards spend the allowances of callers, and one that was broken into can take little."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from authwright.storage.port import StoreUnavailable
from harness import Clock, Service, bearer, open_service, production

API, OTHER_API, ISSUER = "https://api.example.com", "https://other.example.com", "http://127.0.0.1:8000"
PASSWORD = "a password that nobody has"


@pytest.fixture
async def service(clock: Clock, tmp_path: Path) -> AsyncIterator[Service]:
    (tmp_path / "plans.toml").write_text(
        '[free]\npermissions = ["predict"]\nrate = "60/minute"\nquota = "100/day"\n'
        '[team]\npermissions = ["predict"]\nrate = "600/minute"\nconcurrent = 7\nquota = "100/day"\n'
        '[bulk]\npermissions = ["predict"]\nrate = "unlimited"\nquota = "100000M/month"\n'
        '[daily]\npermissions = ["predict"]\nrate = "60/minute"\nquota = "1000/day"\n'
        '[small]\npermissions = ["predict"]\nrate = "unlimited"\nquota = "100/day"\n'
    )
    settings = production(
        tmp_path,
        issuer=ISSUER,
        registration="open",
        password_min_length=8,
        audiences=(API, OTHER_API),
        plans=str(tmp_path / "plans.toml"),
    )
    async with open_service(clock=clock, settings=settings) as opened:
        yield opened


async def new_guard(service: Service, name: str = "scoring", **more: Any) -> str:
    scope = frozenset({"limits", "revocations"})
    _, key = await service.new_client(name, **{"scope": scope, "audiences": (ISSUER, API), **more})
    return key


async def caller(
    service: Service, name: str = "bholay", audience: str = API, plan: str | None = None
) -> dict[str, Any]:
    await service.register(name, PASSWORD)
    if plan is not None:
        await service.new_admin("root-ada", PASSWORD)
        admin = (await service.login("root-ada", PASSWORD))["access_token"]
        changed = await service.http.patch(f"/users/{name}", json={"plan": plan}, headers=bearer(admin))
        assert changed.status_code == 200
    return await service.login(name, PASSWORD, resource=audience)


async def lease(service: Service, guard: str | None, token: str, **more: Any) -> dict[str, Any]:
    body = {"token": token, "audience": API, **more}
    answer = await service.http.post("/allowance/lease", json=body, headers=bearer(guard))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def settle(service: Service, guard: str, *settlements: tuple[str, int]) -> list[bool]:
    body = {"settlements": [{"lease": lease_id, "spent": spent} for lease_id, spent in settlements]}
    answer = await service.http.post("/allowance/settle", json=body, headers=bearer(guard))
    assert answer.status_code == 200, answer.text
    return list(answer.json()["settled"])


async def usage(service: Service, name: str = "bholay") -> dict[str, Any]:
    own = await service.login(name, PASSWORD)
    return dict((await service.get("/me/usage", own["access_token"])).json())


async def test_a_quarter_of_what_is_left_is_leased_and_single_units_when_it_is_scarce(service: Service) -> None:
    guard, login = await new_guard(service), await caller(service)
    first = await lease(service, guard, login["access_token"])
    assert {name: first[name] for name in ("active", "units", "expires_in", "plan", "rate", "left")} == {
        "active": True,
        "units": 15,
        "expires_in": 5.0,
        "plan": "free",
        "rate": {"count": 60, "seconds": 60, "burst": 60},
        "left": {"rate": 45, "day": 85},
    }
    units = [first["units"]]
    while (answer := await lease(service, guard, login["access_token"])).get("units"):
        units.append(answer["units"])
    assert units[:4] == [15, 11, 8, 6]
    assert units[-3:] == [1, 1, 1]
    assert sum(units) == 60
    assert answer["refused"] == {
        "error": "limit_exceeded",
        "detail": answer["refused"]["detail"],
        "limit": "rate",
        "policy": "60/minute",
        "opens_at": answer["refused"]["opens_at"],
        "violated-policies": ["rate"],
        "retry_after": 1,
    }


async def test_a_fleet_and_the_server_itself_spend_one_allowance(service: Service, clock: Clock) -> None:
    first, second = await new_guard(service, "first"), await new_guard(service, "second")
    login = await caller(service)
    own = (await service.login("bholay", PASSWORD))["access_token"]
    held = [await lease(service, guard, login["access_token"]) for guard in (first, second)]
    assert [each["units"] for each in held] == [15, 11]
    served = [(await service.get("/secure-data", own)).status_code for _ in range(60)]
    assert served.count(200) == 60 - 15 - 11
    # What was not spent comes back to all, at once.
    assert await settle(service, first, (held[0]["lease"], 5)) == [True]
    served = [(await service.get("/secure-data", own)).status_code for _ in range(60)]
    assert served.count(200) == 10


async def test_what_was_not_spent_comes_back_once(service: Service) -> None:
    guard, login = await new_guard(service), await caller(service)
    held = await lease(service, guard, login["access_token"])
    answers = await asyncio.gather(*(settle(service, guard, (held["lease"], 3)) for _ in range(10)))
    assert sorted(answers) == [[False]] * 9 + [[True]]
    assert (await lease(service, guard, login["access_token"]))["left"] == {"rate": 60 - 3 - 14, "day": 100 - 3 - 14}
    assert await settle(service, guard, (held["lease"], 0), ("unknown", 1)) == [False, False]


async def test_no_guard_settles_what_another_one_leased(service: Service) -> None:
    guard, other = await new_guard(service), await new_guard(service, "other")
    login = await caller(service)
    held = await lease(service, guard, login["access_token"])
    assert await settle(service, other, (held["lease"], 0)) == [False]
    assert await settle(service, guard, (held["lease"], 0)) == [True]


async def test_what_was_spent_is_recorded_with_the_guards_name(service: Service) -> None:
    guard, login = await new_guard(service), await caller(service)
    held = await lease(service, guard, login["access_token"])
    assert await settle(service, guard, (held["lease"], 4)) == [True]
    used = await usage(service)
    assert list(used["by_day"].values()) == [{"(scoring)": 4}]
    assert used["left"] == {"day": 96, "month": None}


async def test_more_than_was_leased_is_charged_afterwards_and_a_burst_at_most(service: Service, clock: Clock) -> None:
    guard, login = await new_guard(service), await caller(service)
    held = await lease(service, guard, login["access_token"])
    assert await settle(service, guard, (held["lease"], 1_000_000)) == [True]
    assert "refused" in await lease(service, guard, login["access_token"])
    clock.advance(60)
    # 15 that were leased and a burst of 60.
    assert (await usage(service))["left"] == {"day": 25, "month": None}


async def test_a_lease_that_is_not_settled_counts_as_spent_and_ends(service: Service, clock: Clock) -> None:
    guard, login = await new_guard(service), await caller(service)
    held = await lease(service, guard, login["access_token"])
    clock.advance(4.9)
    assert (await lease(service, guard, login["access_token"]))["left"]["rate"] == 45 - 11
    clock.advance(60)
    # Too late for the rate, which has grown back; the day's quota is another thing.
    assert await settle(service, guard, (held["lease"], 0)) == [True]
    assert (await lease(service, guard, login["access_token"]))["left"]["rate"] == 45


async def test_the_lease_of_before_is_settled_in_one_go(service: Service) -> None:
    guard, login = await new_guard(service), await caller(service)
    held = await lease(service, guard, login["access_token"])
    again = await lease(service, guard, login["access_token"], settle={"lease": held["lease"], "spent": 1})
    assert (again["units"], again["left"]) == (14, {"rate": 60 - 1 - 14, "day": 100 - 1 - 14})


async def test_so_many_as_are_needed_or_none(service: Service) -> None:
    guard, login = await new_guard(service), await caller(service)
    assert (await lease(service, guard, login["access_token"], units=61))["refused"]["retry_after"] is None
    assert (await lease(service, guard, login["access_token"], units=40))["units"] == 40
    assert (await lease(service, guard, login["access_token"], units=40))["refused"]["limit"] == "rate"


async def test_quotas_bound_leases_too(service: Service, clock: Clock) -> None:
    guard, login = await new_guard(service), await caller(service)
    taken = 0
    for _ in range(4):
        while units := (answer := await lease(service, guard, login["access_token"])).get("units"):
            taken += units
        clock.advance(61)
    assert taken == 100
    assert answer["refused"]["limit"] == "day"


async def test_an_unlimited_plan_has_leases_without_number_and_is_counted(service: Service) -> None:
    guard = await new_guard(service)
    await service.register("boss", PASSWORD)
    await service.new_admin("root-ada", PASSWORD)
    login = await service.login("root-ada", PASSWORD, resource=API)
    own = await service.login("root-ada", PASSWORD)
    patched = await service.http.patch("/users/boss", json={"plan": "admin"}, headers=bearer(own["access_token"]))
    assert patched.status_code == 200
    login = await service.login("boss", PASSWORD, resource=API)
    held = await lease(service, guard, login["access_token"])
    assert (held["units"], held["left"], held.get("rate")) == (None, {}, None)
    assert await settle(service, guard, (held["lease"], 12_345)) == [True]
    assert list((await usage(service, "boss"))["by_day"].values()) == [{"(scoring)": 12_345}]


async def test_a_lease_needs_a_live_token_for_an_api_of_the_guard(service: Service) -> None:
    guard = await new_guard(service)
    login = await caller(service)
    elsewhere = await service.login("bholay", PASSWORD, resource=OTHER_API)
    own = await service.login("bholay", PASSWORD)
    for token in (elsewhere["access_token"], own["access_token"], "x", login["access_token"] + "x", guard[:-1]):
        assert await lease(service, guard, token) == {"active": False}
    # A guard of which two APIs know, and which asks for neither.
    assert (await lease(service, guard, own["access_token"], audience=None))["active"]
    assert (await lease(service, guard, login["access_token"]))["active"]
    assert (await service.logout(own["access_token"], params={"everywhere": "true"})).status_code == 200
    assert await lease(service, guard, login["access_token"]) == {"active": False}


async def test_a_client_key_is_a_callers_credential_too(service: Service) -> None:
    guard = await new_guard(service)
    _, key = await service.new_client("nightly", scope=frozenset({"predict"}), audiences=(API,))
    assert (await lease(service, guard, key))["units"] == 15


async def test_r99_only_guards_lease_and_settle(service: Service) -> None:
    login = await caller(service)
    own = await service.login("bholay", PASSWORD)
    follower = await new_guard(service, "follower", scope=frozenset({"revocations"}))
    calls = (
        ("/allowance/lease", {"token": login["access_token"]}),
        ("/allowance/settle", {"settlements": [{"lease": "x", "spent": 0}]}),
    )
    for path, body in calls:
        assert (await service.http.post(path, json=body)).status_code == 401
        for credential, status in ((own["access_token"], 403), (login["access_token"], 401), (follower, 403)):
            answer = await service.http.post(path, json=body, headers=bearer(credential))
            assert (answer.status_code, path) == (status, path)


@pytest.mark.parametrize(
    "body",
    [
        {"token": "x", "units": 0},
        {"token": "x", "units": -5},
        {"token": "x", "units": 1.5},
        {"token": "x", "units": True},
        {"token": "x", "units": 10**9},
        {"token": ""},
        {"token": "x", "settle": {"lease": "x", "spent": -1}},
        {"token": "x", "caller": "usr_1"},
        {},
    ],
)
async def test_r177_charges_are_never_negative_and_nothing_else_is_taken(service: Service, body: Any) -> None:
    guard = await new_guard(service)
    answer = await service.http.post("/allowance/lease", json=body, headers=bearer(guard))
    assert answer.status_code == 422
    spent = {"settlements": [{"lease": "x", "spent": -1}]}
    assert (await service.http.post("/allowance/settle", json=spent, headers=bearer(guard))).status_code == 422
    many = {"settlements": [{"lease": "x", "spent": 0}] * 101}
    assert (await service.http.post("/allowance/settle", json=many, headers=bearer(guard))).status_code == 422


async def test_a_plan_that_is_gone_has_no_leases(service: Service, tmp_path: Path) -> None:
    guard, login = await new_guard(service), await caller(service)
    held = await lease(service, guard, login["access_token"])
    free = service.server.plans._plans.pop("free")
    assert (await lease(service, guard, login["access_token"]))["refused"]["error"] == "plan_not_available"
    assert await settle(service, guard, (held["lease"], 1)) == [True]
    service.server.plans._plans["free"] = free


async def test_a_hundred_leases_at_once_give_out_what_there_is(service: Service) -> None:
    guard, login = await new_guard(service), await caller(service)
    answers = await asyncio.gather(*(lease(service, guard, login["access_token"]) for _ in range(100)))
    assert sum(answer.get("units") or 0 for answer in answers) == 60


@pytest.mark.parametrize("plan", ["team", "small"])
async def test_leases_at_once_never_pass_a_quota(service: Service, plan: str) -> None:
    guard, login = await new_guard(service), await caller(service, plan=plan)
    answers = await asyncio.gather(*(lease(service, guard, login["access_token"]) for _ in range(60)))
    assert sum(answer.get("units") or 0 for answer in answers) == 100
    # All of it comes back.
    await settle(service, guard, *((answer["lease"], 0) for answer in answers if "lease" in answer))
    assert (await usage(service))["left"] == {"day": 100, "month": None}


async def test_a_lease_that_fails_takes_nothing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    guard, login = await new_guard(service), await caller(service)

    async def away(_: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(service.server.store.allowance_leases, "add", away)
    answer = await service.http.post("/allowance/lease", json={"token": login["access_token"]}, headers=bearer(guard))
    assert answer.status_code == 503
    assert (await usage(service))["left"] == {"day": 100, "month": None}


async def test_no_lease_is_larger_than_a_guard_takes(service: Service) -> None:
    guard, login = await new_guard(service), await caller(service, plan="bulk")
    assert (await lease(service, guard, login["access_token"]))["units"] == 1_000_000


async def test_charging_more_again_and_again_is_bounded_over_time(service: Service, clock: Clock) -> None:
    """A guard that was broken into: 1 unit leased and all it can charged, every second for 20 seconds."""
    guard, login = await new_guard(service), await caller(service, plan="daily")
    for _ in range(20):
        answer = await lease(service, guard, login["access_token"])
        if "lease" in answer:
            await settle(service, guard, (answer["lease"], 1_000_000))
        clock.advance(1)
    clock.advance(120)
    # A burst, as much again that was charged, and what grew back.
    assert 1000 - 60 - 60 - 20 <= (await usage(service))["left"]["day"] < 1000 - 100


async def test_what_comes_back_the_next_day_is_of_the_month(clock: Clock, tmp_path: Path) -> None:
    clock.advance(86_400 - clock.now // 1_000_000 % 86_400 - 2)
    (tmp_path / "plans.toml").write_text('[free]\npermissions = []\nrate = "60/minute"\nquota = "1000/month"\n')
    settings = production(
        tmp_path, issuer=ISSUER, registration="open", password_min_length=8, plans=str(tmp_path / "plans.toml")
    )
    async with open_service(clock=clock, settings=settings) as service:
        guard = await new_guard(service, audiences=(ISSUER,))
        login = await caller(service, audience=ISSUER)
        held = await lease(service, guard, login["access_token"], audience=ISSUER)
        clock.advance(3)
        # Seen on the new day before it comes back.
        assert (await service.get("/me", login["access_token"])).status_code == 200
        assert await settle(service, guard, (held["lease"], 5)) == [True]
        answer = await service.get("/me", login["access_token"])
        assert '"month";r=993' in answer.headers["ratelimit"]


async def test_a_lease_that_is_settled_too_late_takes_nothing_of_another_one(service: Service, clock: Clock) -> None:
    guard, login = await new_guard(service), await caller(service)
    first = await lease(service, guard, login["access_token"])
    clock.advance(5)
    second = await lease(service, guard, login["access_token"])
    assert await settle(service, guard, (first["lease"], 0)) == [True]
    stored = service.server.rates._alone._allowances[login["user_id"]]
    assert stored.leased == second["units"]
