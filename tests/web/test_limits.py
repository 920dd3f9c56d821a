"""What a plan allows: rates, quotas, weights, calls at once; the same allowance for whatever a caller comes with."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from authwright.domain.client import Client
from authwright.domain.instant import after, isoformat
from authwright.domain.plan import Plans
from authwright.domain.user import User
from authwright.guard.principal import Principal
from harness import Clock, Service, bearer, open_service, production

ROW = {"sepal_length": 6.3, "sepal_width": 3.3, "petal_length": 6.0, "petal_width": 2.5}
PLANS = """
[free]
permissions = ["predict"]
rate = "60/minute"
quota = "100/day"
[slow]
permissions = ["predict", "analytics"]
rate = "5/hour"
burst = 2
concurrent = 2
quota = "20/month"
weights = { "/analytics/basic" = 2, "/analytics/full" = 3 }
"""


@pytest.fixture
async def limited(clock: Clock, tmp_path: Path) -> AsyncIterator[Service]:
    (tmp_path / "plans.toml").write_text(PLANS)
    async with open_service(clock=clock, plans=str(tmp_path / "plans.toml")) as opened:
        yield opened


async def statuses(service: Service, token: str, times: int, path: str = "/me") -> list[int]:
    return [(await service.get(path, token)).status_code for _ in range(times)]


def limits_of(answer: httpx2.Response) -> tuple[str, str]:
    return answer.headers["ratelimit-policy"], answer.headers["ratelimit"]


async def test_exactly_as_many_pass_as_the_plan_says(service: Service, clock: Clock) -> None:
    token = (await service.registered_login(plan="premium"))["access_token"]
    assert await statuses(service, token, 601) == [200] * 600 + [429]
    clock.advance(0.05)
    assert await statuses(service, token, 1) == [429]
    clock.advance(0.05)
    assert await statuses(service, token, 2) == [200, 429]
    clock.advance(2)
    assert await statuses(service, token, 21) == [200] * 20 + [429]


async def test_an_admin_is_not_limited_and_told_no_limits(service: Service) -> None:
    token = (await service.registered_login(plan="admin"))["access_token"]
    assert await statuses(service, token, 650) == [200] * 650
    assert "ratelimit" not in (await service.get("/me", token)).headers


async def test_every_answer_says_what_is_left(limited: Service, clock: Clock) -> None:
    clock.advance(-(clock.now // 1_000_000 % 86_400) + 43_200)
    token = (await limited.registered_login())["access_token"]
    policy = '"rate";q=60;w=60, "day";q=100;w=86400'
    assert limits_of(await limited.get("/me", token)) == (policy, '"rate";r=59;t=1, "day";r=99;t=43200')
    # Also one that is refused for something else, on a route with a parameter.
    answer = await limited.get("/users/usr_nobody", token)
    assert answer.status_code == 403
    assert limits_of(answer) == (policy, '"rate";r=58;t=2, "day";r=98;t=43200')
    await statuses(limited, token, 58)
    refused = await limited.get("/me", token)
    assert refused.status_code == 429
    assert refused.headers["ratelimit"].startswith('"rate";r=0;t=60')


async def test_a_refusal_names_the_limit_and_when_it_opens(limited: Service, clock: Clock) -> None:
    token = (await limited.registered_login())["access_token"]
    await statuses(limited, token, 60)
    answer = await limited.get("/me", token)
    opens = isoformat(after(clock.now, 1))
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    assert answer.json() == {
        "type": "urn:authwright:error:limit_exceeded",
        "title": "Too Many Requests",
        "status": 429,
        "detail": f"Your plan allows 60/minute; there is more from {opens} on.",
        "error": "limit_exceeded",
        "limit": "rate",
        "policy": "60/minute",
        "opens_at": opens,
        "violated-policies": ["rate"],
        "request_id": answer.headers["x-request-id"],
    }


async def test_a_days_quota_ends_and_begins_anew_at_midnight_utc(limited: Service, clock: Clock) -> None:
    clock.advance(86_400 - clock.now // 1_000_000 % 86_400 - 200)
    login = await limited.registered_login()
    assert await statuses(limited, login["access_token"], 60) == [200] * 60
    clock.advance(60)
    assert await statuses(limited, login["access_token"], 41) == [200] * 40 + [429]
    refused = (await limited.get("/me", login["access_token"])).json()
    assert (refused["limit"], refused["policy"]) == ("day", "100/day")
    assert refused["opens_at"].endswith("T00:00:00Z")
    clock.advance(140)
    assert (await limited.get("/me", login["access_token"])).status_code == 200


async def test_a_months_quota_holds_over_its_days(limited: Service, clock: Clock) -> None:
    token = (await limited.registered_login(plan="slow"))["access_token"]
    served = 0
    for _ in range(12):
        served += (await statuses(limited, token, 2)).count(200)
        clock.advance(3600)
        token = (await limited.login())["access_token"]
    assert served == 20
    refused = (await limited.get("/me", token)).json()
    assert (refused["limit"], refused["policy"]) == ("month", "20/month")
    assert refused["opens_at"].endswith("-01T00:00:00Z")


async def test_routes_and_rows_have_weights(limited: Service, clock: Clock) -> None:
    token = (await limited.registered_login(plan="slow"))["access_token"]
    # Two at once is all there is.
    assert (await limited.get("/analytics/basic", token)).status_code == 200
    assert (await limited.get("/me", token)).status_code == 429
    never = await limited.get("/analytics/full", token)
    assert never.status_code == 429
    assert "retry-after" not in never.headers
    assert never.json()["opens_at"] is None
    assert "less than this costs" in never.json()["detail"]


async def test_a_batch_of_twenty_rows_costs_twenty(service: Service) -> None:
    token = (await service.registered_login())["access_token"]
    for left in (40, 20, 0):
        answer = await service.http.post("/predict", json={"rows": [ROW] * 20}, headers=bearer(token))
        assert answer.status_code == 200
        assert f'"rate";r={left};' in answer.headers["ratelimit"]
    assert await statuses(service, token, 1) == [429]


async def test_a_batch_that_does_not_fit_is_not_computed(service: Service) -> None:
    token = (await service.registered_login())["access_token"]
    assert await statuses(service, token, 50) == [200] * 50
    answer = await service.http.post("/predict", json={"rows": [ROW] * 20}, headers=bearer(token))
    assert answer.status_code == 429
    # Asking cost one.
    assert '"rate";r=9;' in answer.headers["ratelimit"]
    assert answer.headers["retry-after"] == "10"


async def test_everything_that_a_caller_comes_with_spends_one_allowance(service: Service) -> None:
    first = await service.registered_login()
    second = await service.login()
    made = await service.http.post("/me/keys", json={"name": "notebook"}, headers=bearer(first["access_token"]))
    assert made.status_code == 201, made.text
    credentials = [first["access_token"], second["access_token"], made.json()["key"]]
    served = [(await service.get("/secure-data", credentials[turn % 3])).status_code for turn in range(59)]
    assert served == [200] * 59
    for credential in credentials:
        assert (await service.get("/secure-data", credential)).status_code == 429
        assert (await service.get("/forward-auth", credential)).status_code == 429
    # Somebody else is not concerned.
    await service.register("somebody")
    other = await service.login("somebody")
    assert (await service.get("/me", other["access_token"])).status_code == 200


async def test_a_client_has_an_allowance_of_its_own(service: Service) -> None:
    _, key = await service.new_client()
    login = (await service.http.post("/login", json={"client_key": key})).json()
    served = [(await service.get("/me", [key, login["access_token"]][turn % 2])).status_code for turn in range(61)]
    assert served == [200] * 60 + [429]


async def test_what_keeps_a_session_is_never_charged(service: Service) -> None:
    login = await service.registered_login()
    assert await statuses(service, login["access_token"], 61) == [200] * 60 + [429]
    refreshed = await service.refresh(login["refresh_token"])
    assert refreshed.status_code == 200
    assert (await service.http.get("/health")).status_code == 200
    assert (await service.login())["access_token"]
    assert (await service.logout(refreshed.json()["access_token"])).status_code == 200


async def test_proxies_are_told_and_nginx_in_words_it_knows(service: Service) -> None:
    token = (await service.registered_login())["access_token"]
    passed = await service.get("/forward-auth", token)
    assert passed.headers["ratelimit"] == '"rate";r=59;t=1, "day";r=999;t=' + passed.headers["ratelimit"].split("=")[-1]
    await statuses(service, token, 59, "/forward-auth")
    plain = await service.get("/forward-auth", token)
    assert (plain.status_code, plain.headers["retry-after"]) == (429, "1")
    nginx = await service.get("/forward-auth?proxy=nginx", token)
    told = [nginx.headers[name] for name in ("x-auth-status", "x-auth-reason", "retry-after")]
    assert (nginx.status_code, told) == (403, ["429", "limit_exceeded", "1"])


async def test_calls_at_once_are_bounded_and_end(limited: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    token = (await limited.registered_login(plan="slow"))["access_token"]
    going_on = asyncio.Event()
    find = limited.server.whoami.find

    async def slowly(principal: Principal) -> User | Client:
        await going_on.wait()
        return await find(principal)

    monkeypatch.setattr(limited.server.whoami, "find", slowly)
    calls = [asyncio.create_task(limited.get("/me", token)) for _ in range(2)]
    for _ in range(20):
        await asyncio.sleep(0)
    third = await limited.get("/me", token)
    assert (third.status_code, third.json()["limit"], third.headers["retry-after"]) == (429, "concurrent", "1")
    going_on.set()
    assert [(await call).status_code for call in calls] == [200, 200]
    # Both ended, so it is the rate that refuses now.
    assert (await limited.get("/me", token)).json()["limit"] == "rate"
    assert not limited.server.limits._running


async def test_a_plan_that_is_gone_is_refused_and_not_unlimited(limited: Service, tmp_path: Path) -> None:
    token = (await limited.registered_login(plan="slow"))["access_token"]
    admin = await limited.new_admin()
    (tmp_path / "plans.toml").write_text(PLANS.replace("[slow]", "[slower]"))
    assert limited.server.plan_file.look()
    answer = await limited.get("/me", token)
    assert (answer.status_code, answer.json()["error"]) == (403, "plan_not_available")
    assert (await limited.get("/forward-auth", token)).json()["error"] == "plan_not_available"
    names = [plan["name"] for plan in (await limited.get("/admin/plans", admin)).json()["plans"]]
    assert names == ["free", "premium", "admin", "slower"]


async def test_a_changed_plan_takes_effect_at_once(limited: Service, tmp_path: Path) -> None:
    token = (await limited.registered_login())["access_token"]
    assert await statuses(limited, token, 60) == [200] * 60
    file = tmp_path / "plans.toml"
    file.write_text(PLANS.replace("60/minute", "120/minute"))
    assert limited.server.plan_file.look()
    # What was a minute's worth still is one: sixty seconds of the new rate are taken.
    assert '"rate";q=120;w=60' in (await limited.get("/me", token)).headers["ratelimit-policy"]
    file.write_text(PLANS.replace("60/minute", "nonsense"))
    assert not limited.server.plan_file.look()
    assert '"rate";q=120;w=60' in (await limited.get("/me", token)).headers["ratelimit-policy"]
    file.unlink()
    assert not limited.server.plan_file.look()
    file.write_text(PLANS)
    assert limited.server.plan_file.look()
    assert '"rate";q=60;w=60' in (await limited.get("/me", token)).headers["ratelimit-policy"]


async def test_the_file_of_plans_is_followed(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authwright.services.plan_file.LOOK_SECONDS", 0.01)
    read = asyncio.Event()
    (tmp_path / "plans.toml").write_text(PLANS)
    async with open_service(clock=clock, plans=str(tmp_path / "plans.toml")) as service:
        become = service.server.plans.become

        def told(others: Plans) -> None:
            become(others)
            read.set()

        monkeypatch.setattr(service.server.plans, "become", told)
        (tmp_path / "plans.toml").write_text(PLANS + '[more]\npermissions = []\nrate = "1/day"\n')
        await asyncio.wait_for(read.wait(), 10)
        assert "more" in service.server.plans


async def test_a_quota_outlives_the_process(clock: Clock, tmp_path: Path) -> None:
    settings = production(tmp_path, issuer="http://127.0.0.1:8000", registration="open", password_min_length=8)
    served = 0
    for turn in range(3):
        async with open_service(clock=clock, settings=settings) as service:
            if not turn:
                await service.register(password="a password that nobody has")
            login = await service.login(password="a password that nobody has")
            for _ in range(8):
                served += (await statuses(service, login["access_token"], 60)).count(200)
                clock.advance(60)
                login = await service.login(password="a password that nobody has")
    assert served == 1000


async def test_a_user_whose_plan_was_changed_has_the_new_limits_after_a_refresh(service: Service) -> None:
    login = await service.registered_login()
    admin = await service.new_admin()
    assert await statuses(service, login["access_token"], 61) == [200] * 60 + [429]
    changed = await service.http.patch("/users/bholay", json={"plan": "premium"}, headers=bearer(admin))
    assert changed.status_code == 200
    assert (await service.get("/me", login["access_token"])).status_code == 401
    token = (await service.refresh(login["refresh_token"])).json()["access_token"]
    # A minute's worth is spent, in either plan; the rest of it grows back ten times as fast.
    assert '"rate";q=600;w=60' in (await service.get("/me", token)).headers["ratelimit-policy"]


async def test_the_store_is_away_and_rates_go_on_being_kept(
    service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from authwright.storage.port import StoreUnavailable

    token = (await service.registered_login())["access_token"]

    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(service.server.store.usage, "charged", away)
    assert await statuses(service, token, 61, "/secure-data") == [200] * 60 + [429]
    monkeypatch.undo()
    clock.advance(2)
    # And the quota counts what was spent meanwhile.
    assert '"day";r=939;' in (await service.get("/secure-data", token)).headers["ratelimit"]


async def test_metrics_count_what_was_refused_by_which_limit(limited: Service) -> None:
    token = (await limited.registered_login())["access_token"]
    await statuses(limited, token, 63)
    exposition = limited.server.metrics.exposition().decode()
    assert 'authwright_limited_total{limit="rate"} 3.0' in exposition


async def test_who_may_not_pass_pays_for_asking(service: Service) -> None:
    token = (await service.registered_login())["access_token"]
    answers = [await service.get("/forward-auth?scope=models:large", token) for _ in range(61)]
    assert [answer.status_code for answer in answers] == [403] * 60 + [429]
