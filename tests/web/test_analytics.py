"""/analytics and /metrics: figures of what really happened."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from authwright.domain.instant import Instant
from authwright.domain.usage import bucket_bound, day_of, latency_bucket, quantile
from authwright.storage.port import StoreUnavailable
from harness import Clock, Service, bearer, open_service, production

Opener = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.mark.parametrize("microseconds", [0, 1, 7, 8, 9, 15, 16, 17, 100, 999, 1000, 12345, 10**6, 10**8])
def test_a_bucket_holds_its_latency_and_is_an_eighth_wide_at_most(microseconds: int) -> None:
    bucket = latency_bucket(microseconds)
    assert microseconds < bucket_bound(bucket) <= max(microseconds * 1.125 + 1, microseconds + 1)
    assert bucket == 0 or bucket_bound(bucket - 1) <= microseconds


def test_quantiles_are_read_off_the_histogram() -> None:
    histogram = [(latency_bucket(1000), 90), (latency_bucket(100_000), 9), (latency_bucket(5_000_000), 1)]
    for share, expected in ((0.5, 1000), (0.9, 1000), (0.95, 100_000), (0.99, 100_000), (1.0, 5_000_000)):
        found = quantile(histogram, share)
        assert found
        assert expected < found <= expected * 1.13
    assert quantile([], 0.5) is None


async def test_figures_survive_a_restart_and_belong_to_their_day(clock: Clock, tmp_path: Path) -> None:
    settings = {"database_url": f"sqlite:///{tmp_path}/store.db"}
    async with open_service(clock=clock, **settings) as service:
        token = (await service.registered_login(plan="admin"))["access_token"]
        await service.get("/predict", token)
    yesterday = clock.now
    clock.advance(86_400)
    async with open_service(clock=clock, **settings) as service:
        token = (await service.login())["access_token"]
        await service.get("/predict", token)
        await service.get("/predict", "wrong")
        report = (await service.get("/analytics/full", token)).json()
    assert [sum(day.values()) for day in report["predictions"]["by_day"].values()] == [1, 1]
    assert len(report["calls"]["by_day"]) == 2
    assert report["calls"]["by_route"]["/predict"] == 3
    assert report["calls"]["by_status"]["4xx"] == 1
    assert report["latency_ms"]["/predict"]["p50"] > 0
    assert day_of(clock.now) - day_of(yesterday) == 1


async def test_the_full_report_has_callers_failed_logins_and_revocations(service: Service) -> None:
    admin = await service.new_admin()
    login = await service.registered_login("eve")
    await service.get("/predict", login["access_token"])
    await service.get("/analytics/basic", login["access_token"])
    for _ in range(2):
        await service.http.post("/login", data={"username": "eve", "password": "wrong"})
    await service.logout(login["access_token"])
    report = (await service.get("/analytics/full", admin)).json()
    (eve,) = [caller for caller in report["callers"] if caller["id"] == login["user_id"]]
    assert eve == {"id": login["user_id"], "plan": "free", "calls": 3, "refused": 1, "predictions": 1}
    assert list(report["failed_logins"].values()) == [2]
    assert list(report["revocations"].values()) == [1]
    assert report["events"]["login failure"] == 2


async def test_what_cannot_be_stored_is_kept_for_the_next_time(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = (await service.registered_login(plan="premium"))["access_token"]
    await service.server.usage.flush()

    async def refuse(_: object) -> None:
        raise StoreUnavailable("away")

    await service.get("/predict", token)
    with monkeypatch.context() as patch:
        patch.setattr(service.server.store.usage, "add", refuse)
        with pytest.raises(StoreUnavailable):
            await service.server.usage.flush()
    report = (await service.get("/analytics/basic", token)).json()
    assert report["predictions"]["total"] == 1


async def test_a_flood_of_made_up_paths_makes_no_rows_of_its_own(service: Service) -> None:
    await service.server.usage.flush()
    for number in range(50):
        await service.get(f"/nothing/{number}")
        await service.http.request(f"M{number}", "/me")
    rows = await service.server.store.usage.totals(since_day=0)
    await service.server.usage.flush()
    more = await service.server.store.usage.totals(since_day=0)
    assert len(more) - len(rows) <= 3
    metrics = (await service.http.get("/metrics")).text
    assert "/nothing" not in metrics
    assert "M17" not in metrics


def value(text: str, sample: str) -> float:
    (line,) = [line for line in text.splitlines() if line.startswith(sample + " ")]
    return float(line.rpartition(" ")[2])


async def test_metrics_count_what_happens(service: Service, clock: Clock) -> None:
    login = await service.registered_login("eve")
    await service.http.post("/login", data={"username": "eve", "password": "wrong"})
    _, key = await service.new_client()
    await service.http.post("/login", json={"client_key": key})
    await service.http.post("/login", json={"client_key": "awk_wrong"})
    await service.refresh(login["refresh_token"])
    await service.refresh(login["refresh_token"])
    clock.advance(60)
    await service.refresh(login["refresh_token"])
    answer = await service.http.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    for sample, expected in {
        'authwright_logins_total{credential="password",outcome="success"}': 1,
        'authwright_logins_total{credential="password",outcome="failure"}': 1,
        'authwright_logins_total{credential="key",outcome="success"}': 1,
        'authwright_logins_total{credential="key",outcome="failure"}': 1,
        "authwright_access_tokens_issued_total": 4,
        'authwright_refreshes_total{outcome="rotated"}': 1,
        'authwright_refreshes_total{outcome="replay"}': 1,
        'authwright_refreshes_total{outcome="reuse"}': 1,
        "authwright_refresh_token_reuses_total": 1,
        'authwright_revocations_total{kind="session"}': 1,
        'authwright_http_requests_total{method="POST",route="/refresh-token",status="200"}': 2,
        'authwright_http_request_duration_seconds_count{route="/refresh-token"}': 3,
        "authwright_password_hash_queue": 0,
        "authwright_ledger_head": 1,
    }.items():
        assert value(answer.text, sample) == expected, sample


async def test_metrics_in_production_are_for_admins_and_the_token(clock: Clock, tmp_path: Path) -> None:
    token = "a-token-for-prometheus"
    settings = production(tmp_path, issuer="https://auth.example.com", registration="open", metrics_token=token)
    async with open_service(clock=clock, settings=settings) as service:
        assert (await service.get("/metrics")).status_code == 401
        assert (await service.get("/metrics", "a-token-for-prometheuz")).status_code == 401
        assert (await service.get("/metrics", token)).status_code == 200
        # The token opens nothing else.
        assert (await service.get("/admin/events", token)).status_code == 401
        password = "a long and unusual passphrase"
        admin = await service.new_admin(password=password)
        assert (await service.get("/metrics", admin)).status_code == 200
        await service.http.post("/register", json={"username": "eve", "password": password})
        eve = (await service.login("eve", password))["access_token"]
        assert (await service.get("/metrics", eve)).status_code == 403


async def test_metrics_are_for_admins_alone_where_there_is_no_token(clock: Clock, tmp_path: Path) -> None:
    settings = production(tmp_path, issuer="https://auth.example.com")
    async with open_service(clock=clock, settings=settings) as service:
        for token in (None, "", "x"):
            answer = await service.http.get("/metrics", headers=bearer(token))
            assert answer.status_code == 401
        assert service.server.clock() > Instant(0)
