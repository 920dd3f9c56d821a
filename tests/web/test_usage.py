"""/me/usage and /admin/usage: what was used, by whom, on which day, with what; exactly what was sent."""

import asyncio
import csv
import io
from pathlib import Path

import pytest

from harness import Clock, Service, bearer, open_service, production

ROW = {"sepal_length": 6.3, "sepal_width": 3.3, "petal_length": 6.0, "petal_width": 2.5}


async def test_totals_are_what_was_sent_also_after_a_restart(clock: Clock, tmp_path: Path) -> None:
    settings = production(tmp_path, issuer="http://127.0.0.1:8000", registration="open", password_min_length=8)
    password = "a password that nobody has"
    clock.advance(43_200 - clock.now // 1_000_000 % 86_400)
    for turn in range(2):
        async with open_service(clock=clock, settings=settings) as service:
            if not turn:
                await service.register(password=password)
            token = (await service.login(password=password))["access_token"]
            for _ in range(7):
                assert (await service.get("/me", token)).status_code == 200
            answer = await service.http.post("/predict", json={"rows": [ROW] * 20}, headers=bearer(token))
            assert answer.status_code == 200
        clock.advance(86_400)
    clock.advance(-86_400)
    async with open_service(clock=clock, settings=settings) as service:
        token = (await service.login(password=password))["access_token"]
        used = (await service.get("/me/usage", token)).json()
        days = [clock.now // 1_000_000 - 86_400, clock.now // 1_000_000]
        dates = [__import__("datetime").datetime.utcfromtimestamp(day).date().isoformat() for day in days]
        assert used["by_day"] == {day: {"/me": 7, "/predict": 20} for day in dates}
        assert used["total"] == 54
        assert used["left"] == {"day": 1000 - 27, "month": None}


async def test_one_who_used_up_a_quota_may_know_it(clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "plans.toml").write_text(
        '[free]\npermissions = []\nrate = "10/minute"\nquota = ["3/day", "50/month"]\n'
    )
    async with open_service(clock=clock, plans=str(tmp_path / "plans.toml")) as service:
        token = (await service.registered_login())["access_token"]
        assert [(await service.get("/me", token)).status_code for _ in range(4)] == [200, 200, 200, 429]
        used = await service.get("/me/usage?days=1", token)
        assert used.json()["left"] == {"day": 0, "month": 47}
        assert used.headers["ratelimit"].startswith('"rate";r=6;')
        # Its rate holds all the same.
        assert [(await service.get("/me/usage", token)).status_code for _ in range(7)] == [200] * 6 + [429]


async def test_the_one_who_sells_sees_everybody_page_by_page(service: Service) -> None:
    admin = await service.new_admin()
    everybody = {}
    for name in ("ada", "bob", "cyd"):
        login = await service.registered_login(name)
        everybody[name] = login["user_id"]
        for _ in range(3):
            await service.get("/secure-data", login["access_token"])
        assert (await service.get("/analytics/basic", login["access_token"])).status_code == 403
    rows, cursor = [], ""
    while True:
        page = (await service.get(f"/admin/usage?limit=2{cursor}", admin)).json()
        rows += page["usage"]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    of_users = [row for row in rows if row["id"] in everybody.values()]
    assert len(of_users) == 6
    for subject in everybody.values():
        of_one = {row["route"]: (row["calls"], row["units"]) for row in of_users if row["id"] == subject}
        assert of_one == {"/secure-data": (3, 3), "/analytics/basic": (1, 1)}
    of_ada = (await service.get("/admin/usage?user=ada", admin)).json()["usage"]
    assert {row["id"] for row in of_ada} == {everybody["ada"]}
    assert (await service.get("/admin/usage?user=nobody", admin)).status_code == 404


async def test_usage_is_exported_as_csv(service: Service) -> None:
    admin = await service.new_admin()
    login = await service.registered_login("ada")
    for _ in range(5):
        await service.get("/me", login["access_token"])
    headers = {**bearer(admin), "accept": "text/csv"}
    answer = await service.http.get("/admin/usage?user=ada", headers=headers)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    header, *rows = csv.reader(io.StringIO(answer.text))
    assert header == ["day", "id", "route", "calls", "units"]
    assert [row[1:] for row in rows] == [[login["user_id"], "/me", "5", "5"]]


@pytest.mark.parametrize(
    "query",
    [
        "since=2026-02-30",
        "since=yesterday",
        "limit=0",
        "limit=1001",
        "cursor=x",
        "cursor=W10",
        "since=2020-01-01",
        "since=2026-02-02&until=2026-02-01",
        "cursor=WyIxIiwgIiIsICIiXQ",
        "cursor=WzAsIlx1ZDgwMCIsIngiXQ",
        "cursor=WzAsIlx1MDAwMCIsIngiXQ",
        "cursor=WzEwMDAwMDAwMDAwMDAwMDAwMDAwMCwiIiwiIl0",
        "user=cli_%00",
        "what=1",
    ],
)
async def test_what_is_no_query_is_refused(service: Service, query: str) -> None:
    admin = await service.new_admin()
    assert (await service.get(f"/admin/usage?{query}", admin)).status_code in (400, 404, 422)


@pytest.mark.parametrize("days", ["0", "401", "x", "-1"])
async def test_days_are_bounded(service: Service, days: str) -> None:
    token = (await service.registered_login())["access_token"]
    assert (await service.get(f"/me/usage?days={days}", token)).status_code == 422


async def test_usage_of_others_is_for_administrators(service: Service) -> None:
    token = (await service.registered_login())["access_token"]
    assert (await service.get("/admin/usage", token)).status_code == 403
    assert (await service.http.get("/admin/usage")).status_code == 401
    assert (await service.http.get("/me/usage")).status_code == 401
    # Whatever is asked for, it is one's own.
    assert (await service.get("/me/usage?user=root-ada", token)).status_code == 422


async def happens(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    """Wait until what *owner* does regularly was begun and done once more."""
    does, done = getattr(owner, name), asyncio.Event()

    async def told() -> None:
        await does()
        done.set()

    monkeypatch.setattr(owner, name, told)
    await asyncio.wait_for(done.wait(), 20)


async def test_a_second_process_counts_into_the_same_quota(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers over one store: each stores what it counted, and reads what the other one did, by itself."""
    plans = tmp_path / "plans.toml"
    plans.write_text('[free]\npermissions = []\nrate = "1000/minute"\nquota = ["100/day", "1000/month"]\n')
    settings = production(
        tmp_path,
        issuer="http://127.0.0.1:8000",
        registration="open",
        password_min_length=8,
        workers=2,
        plans=str(plans),
    )
    password = "a password that nobody has"
    async with (
        open_service(clock=clock, settings=settings) as first,
        open_service(clock=clock, settings=settings) as second,
    ):
        await first.register(password=password)
        token = (await first.login(password=password))["access_token"]
        assert (await second.get("/me", token)).status_code == 200
        served = 1 + [(await first.get("/me", token)).status_code for _ in range(60)].count(200)
        assert served == 61
        await happens(monkeypatch, first.server.usage, "flush")
        await happens(monkeypatch, second.server.quotas, "_look")
        answer = await second.get("/me", token)
        served += answer.status_code == 200
        assert '"day";r=38;' in answer.headers["ratelimit"]
        served += [(await second.get("/me", token)).status_code for _ in range(60)].count(200)
        assert served == 100
        answer = await second.get("/me", token)
        assert (answer.json()["limit"], answer.headers["ratelimit"].partition('"month";r=')[2]) == ("day", "900")
