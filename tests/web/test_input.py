"""Bodies, forms and queries are read strictly, within bounds, and never repeated."""

import json
from collections.abc import AsyncIterator

import pytest

from harness import Service, bearer

JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
MARK = "sw0rdf1sh-zq"


@pytest.mark.parametrize(
    "extra",
    [
        {"role": "admin"},
        {"is_admin": True},
        {"is_active": True},
        {"email_verified": True},
        {"id": "usr_0Zr4Yq1mQ2u4b1kQq7c3xA"},
        {"user_id": "x"},
        {"tenant_id": 1},
        {"scopes": ["admin"]},
        {"created_at": 0},
        {"auth_epoch": 9},
        {"mfa": False},
        {MARK: MARK},
    ],
)
async def test_r177_cve_2025_61928_unknown_and_privileged_fields_are_refused(
    service: Service, extra: dict[str, object]
) -> None:
    answer = await service.http.post("/register", json={"username": "eve", "password": "test123", **extra})
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid_request")
    assert MARK not in answer.text
    assert (await service.http.post("/login", data={"username": "eve", "password": "test123"})).status_code == 401


@pytest.mark.parametrize("path", ["/login", "/refresh-token", "/register", "/logout", "/me/password", "/predict"])
async def test_r177_every_json_body_refuses_unknown_fields(service: Service, path: str) -> None:
    token = (await service.registered_login())["access_token"]
    answer = await service.http.post(path, json={"is_admin": True}, headers=bearer(token))
    assert answer.status_code == 422
    assert "is_admin" not in answer.text


@pytest.mark.parametrize(
    "value", [{"$gt": ""}, ["bholay"], 1, True, None, 1.5, {"$ne": None}, [{"$gt": ""}], ""], ids=json.dumps
)
async def test_operators_and_other_types_are_no_texts(service: Service, value: object) -> None:
    await service.register()
    for body in ({"username": value, "password": "test123"}, {"username": "bholay", "password": value}):
        answer = await service.http.post("/login", json=body)
        assert answer.status_code == 422, answer.text
    answer = await service.http.post("/login", content=b"username[$ne]=x&password[$ne]=x", headers=FORM)
    assert answer.status_code == 400


async def test_error_hygiene_what_was_sent_is_never_repeated(service: Service) -> None:
    token = (await service.registered_login())["access_token"]
    answers = [
        await service.http.post("/register", json={"username": "a b" + MARK, "password": MARK}),
        await service.http.post("/register", json={"email": MARK, "password": MARK}),
        await service.http.post("/register", json={"username": "x", "password": MARK[:3]}),
        await service.http.post("/register", json={"username": "x", "password": MARK, "plan": MARK}),
        await service.http.post("/register", json={"username": [MARK], "password": {MARK: MARK}}),
        await service.http.post("/login", json={"username": MARK, "password": MARK}),
        await service.http.post("/login", json={"client_key": MARK}),
        await service.http.post("/login", content=f'{{"a": "{MARK}'.encode(), headers=JSON),
        await service.http.post("/login", data={"username": MARK, "password": MARK, "scope": MARK}),
        await service.http.post("/token", data={"grant_type": MARK}),
        await service.http.post("/token", data={"grant_type": "refresh_token", "refresh_token": MARK}),
        await service.http.post("/token", data={"grant_type": "password", "username": MARK, "password": MARK}),
        await service.http.post("/refresh-token", json={"refresh_token": MARK, "resource": MARK}),
        await service.http.post(f"/logout?everywhere={MARK}", headers=bearer(token)),
        await service.http.get(f"/predict?sepal_length={MARK}&{MARK}=1", headers=bearer(token)),
        await service.http.get("/me", headers=bearer(MARK)),
        await service.http.get(f"/{MARK}"),
        await service.http.delete(f"/me/sessions/{MARK}", headers=bearer(token)),
        await service.http.get("/me", headers={"authorization": f"{MARK} x"}),
    ]
    for answer in answers:
        assert 400 <= answer.status_code < 500
        assert MARK not in answer.text + str(answer.headers), answer.request.url
        assert "input" not in answer.json()


async def test_r7_r31_parameters_stand_once_and_empty_ones_count_as_absent(service: Service) -> None:
    await service.register()
    for twice in (
        "username=bholay&password=test123&username=bholay",
        "username=bholay&password=test123&password=x",
        "username=bholay&password=test123&scope=&scope=",
    ):
        for path in ("/login", "/token"):
            answer = await service.http.post(path, content=twice.encode(), headers=FORM)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    good = "username=bholay&password=test123&scope=&resource=&client_id=&client_secret=&unknown=1&grant_type="
    for path in ("/login", "/token"):
        assert (await service.http.post(path, content=good.encode(), headers=FORM)).status_code == 200
    token = (await service.login())["access_token"]
    row = "sepal_length=5&sepal_width=3&petal_length=1&petal_width=1"
    assert (await service.get(f"/predict?{row}", token)).status_code == 200
    assert (await service.get(f"/predict?{row}&petal_width=2", token)).status_code == 400


async def test_duplicate_json_members_are_refused(service: Service) -> None:
    await service.register()
    body = b'{"username":"bholay","password":"test123","password":"test123"}'
    assert (await service.http.post("/login", content=body, headers=JSON)).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'"x"',
        b"{",
        b"\xff",
        b'\xef\xbb\xbf{"username":"a","password":"b"}',
        b'{"username":"\\ud800","password":"b"}',
        b'{"username":NaN,"password":"b"}',
        b'{"a":' * 50_000,
        b"[" * 17 + b'"' + b'\\"' * 31_000,
        b'{"username":' + b"9" * 5000 + b"}",
    ],
    ids=range(12),
)
async def test_what_is_no_strict_json_object_is_400_at_once(service: Service, body: bytes) -> None:
    import time

    begun = time.process_time()
    answer = await service.http.post("/login", content=body, headers=JSON)
    assert answer.status_code in (400, 413)
    assert time.process_time() - begun < 0.5


async def test_r31_the_wrong_type_of_body_is_415_and_the_wrong_method_405(service: Service) -> None:
    good = b"username=bholay&password=test123"
    for path, content_type in (
        ("/token", "application/json"),
        ("/token", "multipart/form-data; boundary=x"),
        ("/token", ""),
        ("/login", "text/plain"),
        ("/register", "application/x-www-form-urlencoded"),
        ("/register", "application/json-patch+json"),
    ):
        answer = await service.http.post(path, content=good, headers={"content-type": content_type})
        assert (answer.status_code, answer.json()["error"]) == (415, "invalid_request"), (path, content_type)
    for path in ("/token", "/login", "/register", "/refresh-token"):
        answer = await service.http.get(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert (await service.http.get("/token?grant_type=password&username=bholay&password=test123")).status_code == 405


async def test_bodies_are_bounded_before_they_are_read(service: Service) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 16_384
            yield b" " * 16_384

    answer = await service.http.post("/register", content=endless(), headers=JSON)
    assert (answer.status_code, answer.json()["title"]) == (413, "Content Too Large")
    assert sent < 6 * 16_384
    answer = await service.http.post("/register", content=b" " * 65_537, headers=JSON)
    assert answer.status_code == 413
    answer = await service.http.post("/login", content=b"a=1&" * 33, headers=FORM)
    assert answer.status_code == 400
    for value in ("x", "-1", "1e3", "99999999999999999999"):
        answer = await service.http.post("/register", content=b"{}", headers={**JSON, "content-length": value})
        assert answer.status_code == 413


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, gzip", "zstd"])
async def test_an_encoded_body_is_refused_so_no_bomb_is_unpacked(service: Service, encoding: str) -> None:
    answer = await service.http.post("/register", content=b"x", headers={**JSON, "content-encoding": encoding})
    assert answer.status_code == 415


async def test_headers_are_bounded_and_security_relevant_ones_stand_once(service: Service) -> None:
    answer = await service.http.get("/health", headers={"x-filler": "x" * 40_000})
    assert (answer.status_code, answer.json()["error"]) == (431, "invalid_request")
    token = (await service.registered_login())["access_token"]
    twice = [("authorization", f"Bearer {token}"), ("authorization", "Bearer x")]
    for headers in (twice, twice[::-1]):
        assert (await service.http.get("/me", headers=headers)).status_code == 400
    for name in ("content-type", "content-length", "content-encoding"):
        headers = [("content-type", "application/json"), (name, "1"), (name, "2")]
        answer = await service.http.post("/login", content=b"{}", headers=headers)
        assert answer.status_code in (400, 413, 415)


async def test_r151_a_long_password_is_taken_and_one_beyond_the_limit_refused(service: Service) -> None:
    await service.register("long", "x" * 1024)
    await service.login("long", "x" * 1024)
    answer = await service.http.post("/register", json={"username": "longer", "password": "x" * 1025})
    assert (answer.status_code, answer.json()["error"]) == (422, "weak_password")
    assert (await service.http.post("/register", json={"username": "y", "password": "x" * 4097})).status_code == 422


async def test_predict_takes_a_batch_with_a_cap(service: Service) -> None:
    token = (await service.registered_login(plan="admin"))["access_token"]
    row = {"sepal_length": 6.3, "sepal_width": 3.3, "petal_length": 6.0, "petal_width": 2.5}
    answer = await service.http.post("/predict", json={"rows": [row] * 1000}, headers=bearer(token))
    assert answer.status_code == 200
    assert [each["class"] for each in answer.json()["predictions"]] == ["virginica"] * 1000
    for rows in ([row] * 1001, [], [{**row, "petal_width": -1}], [{**row, "petal_width": "2"}], [{}], None):
        answer = await service.http.post("/predict", json={"rows": rows}, headers=bearer(token))
        assert answer.status_code == 422
    for value in ("nan", "inf", "-1", "101", "", "abc"):
        query = {**{name: str(number) for name, number in row.items()}, "petal_width": value}
        assert (await service.get("/predict", token, params=query)).status_code == 422


@pytest.mark.parametrize(
    "value",
    ["' OR 1=1 --", '" OR ""="', "1; DROP TABLE users", "../../etc/passwd", "%00", "\x00", "${7*7}", "{{7*7}}"],
)
async def test_injections_in_any_field_are_just_wrong_values(service: Service, value: str) -> None:
    token = (await service.registered_login())["access_token"]
    answers = [
        await service.http.post("/login", json={"username": value, "password": value}),
        await service.http.post("/login", data={"username": value, "password": value, "scope": value}),
        await service.http.post("/login", json={"client_key": value}),
        await service.http.post("/token", data={"grant_type": "password", "client_id": value, "client_secret": value}),
        await service.http.post("/refresh-token", json={"refresh_token": value}),
        await service.http.post("/register", json={"username": value, "email": value, "password": value}),
        await service.http.get("/me", headers=bearer(value.replace("\x00", "0"))),
        await service.http.delete(f"/me/sessions/{value.replace(chr(0), '0')}", headers=bearer(token)),
    ]
    assert all(400 <= answer.status_code < 500 for answer in answers)
    assert (await service.get("/me", token)).status_code == 200


async def test_cve_ory_v26_errors_of_requests_at_once_do_not_mix(service: Service) -> None:
    import asyncio

    token = (await service.registered_login(plan="premium"))["access_token"]
    calls = []
    for number in range(100):
        calls.append(service.http.post("/login", json={"username": f"nobody{number}", "password": "x"}))
        calls.append(service.http.post("/register", json={"username": "x" * 100, "password": "test123"}))
        calls.append(service.http.get("/predict?sepal_length=x", headers=bearer(token)))
    answers = await asyncio.gather(*calls)
    ids = {answer.json()["request_id"] for answer in answers}
    assert len(ids) == len(answers)
    for answer in answers:
        assert answer.headers["x-request-id"] == answer.json()["request_id"]
        expected = {"/login": {"invalid_credentials", "temporarily_unavailable"}, "/register": {"invalid_name"}}
        assert answer.json()["error"] in expected.get(answer.request.url.path, {"invalid_request"})
