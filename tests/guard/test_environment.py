"""A guard that the environment configures: every variable has its effect, every mistake stops the start."""

import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from authwright.domain.errors import Unauthenticated, Unavailable
from authwright.domain.secrets import CLIENT_KEY_PREFIX, new_key
from authwright.guard.asgi import EnvironmentGuard
from authwright.guard.environment import read_environment
from authwright.guard.status import Status
from guarded import refused, until
from harness import bearer
from scripted import API, Answer, Scripted, begun, scripted, session

NEEDED = {"AUTHWRIGHT_ISSUER": "https://auth.example.com", "AUTHWRIGHT_AUDIENCE": API}


@pytest.fixture
async def issuer() -> AsyncIterator[Scripted]:
    async with scripted() as made:
        yield made


async def hello(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def protected(issuer: Scripted, monkeypatch: pytest.MonkeyPatch, **variables: str) -> EnvironmentGuard:
    given = {"AUTHWRIGHT_ISSUER": issuer.base, "AUTHWRIGHT_AUDIENCE": API}
    for name, value in (given | {f"AUTHWRIGHT_GUARD_{name}": value for name, value in variables.items()}).items():
        monkeypatch.setenv(name, value)
    return EnvironmentGuard(hello)


def http_of(app: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://api")


def test_nothing_but_issuer_and_audience_is_needed() -> None:
    settings = read_environment(NEEDED)
    assert (settings.on_stale, settings.max_staleness, settings.accept_keys) == ("introspect", 5.0, False)
    assert (settings.scopes, settings.open_paths, settings.metrics_path) == (frozenset(), (), None)
    assert "awk_" not in repr(read_environment({**NEEDED, "AUTHWRIGHT_GUARD_KEY": new_key(CLIENT_KEY_PREFIX)}))


def test_a_key_may_stand_in_a_file(tmp_path: Path) -> None:
    key = new_key(CLIENT_KEY_PREFIX)
    (tmp_path / "key").write_text(key + "\n")
    assert read_environment({**NEEDED, "AUTHWRIGHT_GUARD_KEY_FILE": str(tmp_path / "key")}).key == key


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("ISSUER", "", "AUTHWRIGHT_ISSUER is needed"),
        ("AUDIENCE", "", "AUTHWRIGHT_AUDIENCE is needed"),
        ("GUARD_SCOPE", "predict", "AUTHWRIGHT_GUARD_SCOPE is not a setting"),
        ("GUARD_ON_STALE", "never", "introspect, allow or refuse"),
        ("GUARD_MAX_STALENESS", "soon", "a number of seconds"),
        ("GUARD_METRICS_PATH", "/", "a path below /"),
        ("GUARD_METRICS_PATH", "metrics", "a path below /"),
        ("GUARD_METRICS_PATH", "/{any}", "a path below /"),
        ("GUARD_ACCEPT_KEYS", "yes", "AUTHWRIGHT_GUARD_ACCEPT_KEYS is true or false"),
        ("GUARD_LIMITS", "1", "AUTHWRIGHT_GUARD_LIMITS is true or false"),
        ("GUARD_KEY_FILE", "/nowhere", "cannot be read"),
    ],
)
def test_every_mistake_is_named_with_all_others(name: str, value: str, told: str) -> None:
    with pytest.raises(ValueError, match="AUTHWRIGHT_GUARD_OTHER is not a setting") as refusal:
        read_environment({**NEEDED, "AUTHWRIGHT_GUARD_OTHER": "x", f"AUTHWRIGHT_{name}": value})
    assert told in str(refusal.value)


@pytest.mark.parametrize("seconds", ["0.4", "301", "nan", "inf", "-1"])
def test_staleness_has_bounds(seconds: str) -> None:
    with pytest.raises(ValueError, match="max_staleness is"):
        read_environment({**NEEDED, "AUTHWRIGHT_GUARD_MAX_STALENESS": seconds}).guard()


@pytest.mark.parametrize(("on_stale", "active", "status"), [("refuse", True, 503), ("allow", False, 200)])
async def test_what_happens_when_nothing_is_heard_and_after_how_long(
    issuer: Scripted, monkeypatch: pytest.MonkeyPatch, on_stale: str, active: bool, status: int
) -> None:
    async def on_introspect(_: str) -> Answer:
        return issuer.introspection(active=active)

    issuer.on_introspect = on_introspect
    app = protected(issuer, monkeypatch, ON_STALE=on_stale, MAX_STALENESS="0.5")
    async with app._guard as guard, http_of(app) as http:
        await begun(issuer, guard)
        # The usual five seconds are far away.
        await until(lambda: guard.status.staleness > 0.6)
        assert (await http.get("/", headers=bearer(issuer.token()))).status_code == status


async def test_scopes_are_asked_for_and_open_paths_ask_for_nothing(
    issuer: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = protected(issuer, monkeypatch, SCOPES="predict, analytics", OPEN_PATHS="/health /ready", ON_STALE="allow")
    async with app._guard as guard, http_of(app) as http:
        await begun(issuer, guard)
        assert (await http.get("/", headers=bearer(issuer.token(scope="predict analytics")))).status_code == 200
        assert (await http.get("/", headers=bearer(issuer.token(scope="predict")))).status_code == 403
        assert [(await http.get(path)).status_code for path in ("/health", "/ready", "/other")] == [200, 200, 401]


async def test_what_the_guard_knows_of_itself_can_be_read_at_its_path_and_nowhere_else(
    issuer: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = protected(issuer, monkeypatch, METRICS_PATH="/guard/metrics", MAX_STALENESS="300")
    async with app._guard as guard, http_of(app) as http:
        await begun(issuer, guard, session(5))
        assert await refused(guard, issuer.token())
        answer = await http.get("/guard/metrics")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        told = {each.name: each.samples[0].value for each in text_string_to_metric_families(answer.text)}
        assert (told["authwright_guard_revocations"], told["authwright_guard_following"]) == (1, 1)
        assert told["authwright_guard_staleness_seconds"] <= guard.status.staleness
        # It grows, and does not only say that all is well.
        for _ in range(2):
            before = told["authwright_guard_staleness_seconds"]
            await until(lambda least=before + 0.2: guard.status.staleness > least)
            text = (await http.get("/guard/metrics")).text
            told = {each.name: each.samples[0].value for each in text_string_to_metric_families(text)}
            assert told["authwright_guard_staleness_seconds"] > before + 0.2
        for path in ("/guard/metrics/", "/guard//metrics", "/guard/%6detrics", "/metrics"):
            assert (await http.get(path)).status_code == 401


def test_a_status_is_exposed_as_it_is() -> None:
    status = Status(
        staleness=1.25,
        following=False,
        revocations=3,
        cursor=None,
        keys=2,
        keys_age=math.inf,
        key_fetches=5,
        introspections=6,
        alarms=7,
    )
    text = status.exposition(issuer="https://a.example", audience='odd "one"\\ \n two')
    samples = [each.samples[0] for each in text_string_to_metric_families(text)]
    assert {sample.name.removeprefix("authwright_guard_"): sample.value for sample in samples} == {
        "staleness_seconds": 1.25,
        "following": 0,
        "revocations": 3,
        "keys_age_seconds": math.inf,
        "key_fetches_total": 5,
        "introspections_total": 6,
        "alarms_total": 7,
    }
    for sample in samples:
        assert sample.labels == {"issuer": "https://a.example", "audience": 'odd "one"\\ \n two'}


async def test_a_key_is_a_credential_where_the_environment_says_so(
    issuer: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def on_introspect(_: str) -> Answer:
        return issuer.introspection()

    issuer.on_introspect = on_introspect
    key = new_key(CLIENT_KEY_PREFIX)
    app = protected(issuer, monkeypatch, ACCEPT_KEYS="true")
    async with app._guard as guard:
        await begun(issuer, guard)
        assert (await guard.verify(key)).subject == "usr_1"
    closed = protected(issuer, monkeypatch, ACCEPT_KEYS="false")
    async with closed._guard as guard:
        with pytest.raises((Unauthenticated, Unavailable)):
            await guard.verify(key)
