"""/forward-auth: who may pass is told in headers, all of them; who may not is told why."""

import base64
import json
from pathlib import Path

import httpx2
import pytest

from authwright.storage.port import StoreUnavailable
from guarded import API, Issuer, issuing
from harness import bearer

IDENTITY = {f"x-auth-{name}" for name in ("subject", "client", "username", "plan", "roles", "scope", "status")}


@pytest.fixture
async def issuer(tmp_path: Path):  # type: ignore[no-untyped-def]
    async with issuing(tmp_path) as made:
        yield made


async def judged(issuer: Issuer, headers: dict[str, str], **policy: str) -> httpx2.Response:
    return await issuer.service.http.get("/forward-auth", headers=headers, params=policy)


async def test_who_may_pass_is_named_in_every_header(issuer: Issuer) -> None:
    own = await issuer.token(resource=issuer.base)
    client_id, key = await issuer.service.new_client("scoring")
    basic = {"authorization": "Basic " + base64.b64encode(f"x:{key}".encode()).decode()}
    for headers in (bearer(own), bearer(key), {"x-api-key": key}, basic):
        answer = await judged(issuer, headers, scope="predict", plan="free,premium")
        assert answer.status_code == 200, answer.text
        assert answer.headers.keys() >= IDENTITY
    assert answer.headers["x-auth-subject"] == answer.headers["x-auth-client"] == client_id
    assert (answer.headers["x-auth-plan"], answer.headers["x-auth-scope"]) == ("free", "predict")
    # Names with letters that headers cannot hold are percent-encoded; what there is not is told, too.
    await issuer.register("зоя")
    answer = await judged(issuer, bearer(await issuer.token("зоя", resource=issuer.base)))
    assert answer.headers["x-auth-username"] == "%D0%B7%D0%BE%D1%8F"


async def test_a_token_is_for_the_audience_that_the_proxy_names(issuer: Issuer) -> None:
    own, other = await issuer.token(resource=issuer.base), await issuer.token()
    assert (await judged(issuer, bearer(other))).status_code == 401
    assert (await judged(issuer, bearer(other), audience=API)).status_code == 200
    assert (await judged(issuer, bearer(own), audience=API)).status_code == 401
    assert (await judged(issuer, bearer(own), audience="https://unknown.example")).status_code == 503
    _, key = await issuer.service.new_client("here only", audiences=(issuer.base,))
    assert (await judged(issuer, bearer(key))).status_code == 200
    assert (await judged(issuer, bearer(key), audience=API)).status_code == 401


@pytest.mark.parametrize("nginx", [False, True])
async def test_refusals_and_what_nginx_can_pass_on(issuer: Issuer, nginx: bool) -> None:
    own = await issuer.token(resource=issuer.base)
    policy = {"proxy": "nginx"} if nginx else {}
    for headers, more, status, reason in (
        ({}, {}, 401, "invalid_token"),
        (bearer("x"), {}, 401, "invalid_token"),
        (bearer(own), {"scope": "analytics"}, 403, "insufficient_scope"),
        (bearer(own), {"plan": "premium,admin"}, 403, "forbidden"),
        ({**bearer(own), "x-api-key": "x"}, {}, 400, "invalid_request"),
        ({**bearer(own), "x-forwarded-uri": "/a/../b"}, {}, 400, "invalid_request"),
    ):
        answer = await judged(issuer, headers, **policy, **more)
        assert answer.json()["error"] == reason
        assert not {"x-auth-subject", "x-auth-plan"} & answer.headers.keys()
        if nginx:
            assert answer.status_code == (status if status in (401, 403) else 403)
            assert (answer.headers["x-auth-status"], answer.headers["x-auth-reason"]) == (str(status), reason)
        else:
            assert answer.status_code == status


@pytest.mark.parametrize("header", ["x-forwarded-uri", "x-original-uri", "x-original-url", "x-envoy-original-path"])
@pytest.mark.parametrize(
    "path",
    [
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public/%2E./admin",
        "//admin",
        "/public%2fadmin",
        "/public%5c..%5cadmin",
        "/public\\..\\admin",
        "/%252e%252e/admin",
        "/admin%00.css",
        "/public/..;/admin",
        "/.",
        "/public/..#/x",
        "/admin\x01",
        "relative/admin",
        "*",
        "/public/%c0%ae%c0%ae/admin",
        "/public/%C0%AF/admin",
        "/caf%e9",
    ],
)
async def test_cve_2026_33494_cve_2026_40575_ambiguous_paths(issuer: Issuer, header: str, path: str) -> None:
    token = await issuer.token(resource=issuer.base)
    assert (await judged(issuer, {**bearer(token), header: path})).status_code == 400
    assert (await judged(issuer, {**bearer(token), header: "/v1/a..b/.well-known/x?next=/../y"})).status_code == 200


@pytest.mark.parametrize(
    "policy", ["scope=", "scope=%20", "plan=", "plan=free,", "audience=", "proxy=", "scope", "scope=predict&plan="]
)
async def test_a_policy_that_is_there_but_empty_lets_nobody_pass(issuer: Issuer, policy: str) -> None:
    http, token = issuer.service.http, await issuer.token(resource=issuer.base)
    for path in (f"/forward-auth?{policy}", f"/forward-auth/{policy}/models"):
        assert (await http.get(path, headers=bearer(token))).status_code in (400, 422), path


UNKNOWN_AUDIENCE = "audience=https%3A%2F%2Funknown.example"


@pytest.mark.parametrize(
    ("policy", "meant"),
    [
        ("unknown=1", "422"),
        ("scope=", "400"),
        ("scope=a%22b", "400"),
        ("scope=%D0%B7", "400"),
        ("plan=free,,premium", "400"),
        ("plan=free&plan=premium", "400"),
        ("proxy=nginx", "400"),
        ("proxy=", "400"),
        ("%", "422"),
        ("a=%ff", "400"),
        (UNKNOWN_AUDIENCE, "503"),
    ],
)
async def test_nginx_gets_no_other_status_for_a_faulty_policy_either(issuer: Issuer, policy: str, meant: str) -> None:
    headers = bearer(await issuer.token(resource=issuer.base))
    for query in (f"proxy=nginx&{policy}", f"{policy}&proxy=nginx"):
        for path in (f"/forward-auth?{query}", f"/forward-auth/{query}/models"):
            answer = await issuer.service.http.get(path, headers=headers)
            assert (answer.status_code, answer.headers["x-auth-status"]) == (403, meant), path
            assert json.loads(answer.headers["x-auth-body"]) == answer.json()


async def test_a_policy_names_scopes_and_plans_with_spaces_or_commas(issuer: Issuer) -> None:
    http = issuer.service.http
    token = await issuer.token(resource=issuer.base)
    for policy, status in (
        ("scope=predict,account", 200),
        ("scope=predict%20account", 200),
        ("scope=predict,analytics", 403),
        ("plan=premium,free", 200),
        ("plan=premium+free", 200),
        ("plan=premium,admin", 403),
    ):
        assert (await http.get(f"/forward-auth?{policy}", headers=bearer(token))).status_code == status, policy


async def test_who_knows_only_basic_is_told_that_it_would_do(issuer: Issuer) -> None:
    bearer_only, both = f'Bearer realm="{issuer.base}"', f'Basic realm="{issuer.base}", charset="UTF-8"'
    wrong = {"authorization": "Basic " + base64.b64encode(b"x:awk_wrong").decode()}
    for headers, offered in (
        ({}, True),
        (wrong, True),
        ({"authorization": "Digest x"}, True),
        (bearer("x"), False),
        ({"x-api-key": "x"}, False),
        # A page in a browser: it would ask its user for a password.
        ({"sec-fetch-mode": "cors"}, False),
        ({"accept": "text/html,*/*;q=0.8"}, False),
        ({**wrong, "sec-fetch-mode": "navigate"}, False),
    ):
        for policy in ({}, {"proxy": "nginx"}):
            answer = await judged(issuer, headers, **policy)
            (challenge,) = answer.headers.get_list("www-authenticate")
            assert answer.status_code == 401
            assert challenge.startswith(bearer_only)
            assert challenge.endswith(f", {both}") is offered, headers


async def test_the_limit_of_a_plan_is_told_whole_as_nginx_can_take_it(tmp_path: Path) -> None:
    plans = tmp_path / "plans.toml"
    plans.write_text('[free]\npermissions = ["predict"]\nrate = "3/hour"\n')
    async with issuing(tmp_path, plans=str(plans)) as issuer:
        headers = bearer(await issuer.token(resource=issuer.base))
        answers = [await judged(issuer, headers, scope="predict", proxy="nginx") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 403]
        told = json.loads(answers[-1].headers["x-auth-body"])
        assert (answers[-1].headers["x-auth-status"], told["limit"]) == ("429", "rate")
        assert told["title"] == "Too Many Requests"
        assert int(answers[-1].headers["retry-after"]) > 0
        assert '"rate";q=3;w=3600' in answers[-1].headers["ratelimit-policy"]


async def test_envoy_without_a_policy_is_not_envoy_with_none(issuer: Issuer) -> None:
    token = await issuer.token(resource=issuer.base)
    for path in ("/forward-auth//models", "/%66orward-auth/scope=analytics/models"):
        assert (await issuer.service.http.get(path, headers=bearer(token))).status_code in (400, 404)


@pytest.mark.parametrize("wrong", ["", "=", "eA", "eDp5=", "e Dp5", "eDp5%"])
async def test_basic_credentials_are_read_strictly(issuer: Issuer, wrong: str) -> None:
    assert (await judged(issuer, {"authorization": f"Basic {wrong}"})).status_code == 401


async def test_a_store_that_is_away_is_told_as_nginx_can_take_it(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("away")

    _, key = await issuer.service.new_client()
    monkeypatch.setattr(issuer.service.server.store.clients, "find_by_key", away)
    answer = await judged(issuer, bearer(key), proxy="nginx")
    assert (answer.status_code, answer.headers["x-auth-status"], answer.headers["retry-after"]) == (403, "503", "1")


async def test_envoy_has_the_policy_in_its_prefix(issuer: Issuer) -> None:
    http = issuer.service.http
    token, other = await issuer.token(resource=issuer.base), await issuer.token()
    for method in ("GET", "POST", "DELETE"):
        answer = await http.request(method, "/forward-auth/-/models/x?scope=nothing", headers=bearer(token))
        assert answer.status_code == 200
    narrow = "/forward-auth/scope=analytics&plan=free/models"
    assert (await http.get(narrow, headers=bearer(token))).status_code == 403
    # The query is the caller's own, and decides nothing.
    there = "audience=https%3A%2F%2Fapi.example.com"
    assert (await http.get(f"/forward-auth/-/models?{there}", headers=bearer(other))).status_code == 401
    assert (await http.get(f"/forward-auth/{there}/models", headers=bearer(other))).status_code == 200
    assert (await http.get("/forward-auth/-/%2e%2e/admin", headers=bearer(token))).status_code == 400
    assert (await http.get("/forward-auth/unknown=1/models", headers=bearer(token))).status_code == 422


async def test_a_logout_is_refused_here_from_the_answer_on(issuer: Issuer) -> None:
    login = await issuer.login(resource=issuer.base)
    assert (await judged(issuer, bearer(login["access_token"]))).status_code == 200
    await issuer.service.http.post("/logout", json={"refresh_token": login["refresh_token"]})
    assert (await judged(issuer, bearer(login["access_token"]))).status_code == 401
