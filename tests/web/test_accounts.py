"""Routes of accounts: names that are one name, bearer tokens, sessions, both error families."""

import pytest
from sqlalchemy import text

from authwright.storage.sql.statements import compiled
from harness import Service, bearer


async def test_two_registrations_of_one_name_make_one_account(service: Service) -> None:
    await service.register("josé", email="User@Example.com")
    taken = [
        {"username": "JOSE\u0301"},
        {"username": "\uff4aos\u00e9"},
        {"email": "user@EXAMPLE.com"},
        {"username": "new", "email": "uſer@example.com"},
        {"username": "josé", "email": "new@example.com"},
    ]
    for names in taken:
        answer = await service.http.post("/register", json={"password": "test123", **names})
        assert (answer.status_code, answer.json()["error"]) == (409, "already_registered"), names
    assert (
        len({(await service.login(name))["user_id"] for name in ("JOSÉ", "user@example.com", "USER@example.com")}) == 1
    )


async def test_r159_that_a_name_is_taken_does_not_say_which_field(service: Service) -> None:
    await service.register("ada", email="ada@example.com")
    texts = set()
    for names in ({"username": "ada"}, {"email": "ada@example.com"}, {"username": "ada", "email": "x@example.com"}):
        answer = await service.http.post("/register", json={"password": "test123", **names})
        texts.add(answer.json()["detail"])
    assert len(texts) == 1


async def test_an_account_needs_a_name(service: Service) -> None:
    for names in ({}, {"username": None}, {"username": None, "email": None}):
        answer = await service.http.post("/register", json={"password": "test123", **names})
        assert (answer.status_code, answer.json()["error"]) == (422, "invalid_name")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_r70_the_scheme_has_no_case(service: Service, scheme: str) -> None:
    token = (await service.registered_login())["access_token"]
    assert (await service.http.get("/me", headers={"authorization": f"{scheme} {token}"})).status_code == 200


async def test_r69_tokens_in_queries_cookies_and_bodies_are_never_looked_at(service: Service) -> None:
    token = (await service.registered_login())["access_token"]
    assert (await service.http.get(f"/me?access_token={token}")).status_code == 401
    assert (await service.http.get("/me", headers={"cookie": f"access_token={token}"})).status_code == 401
    answer = await service.http.post("/me/password", json={"access_token": token})
    assert answer.status_code == 401


async def test_r67_r69_challenges_say_what_is_wrong_and_no_more(service: Service) -> None:
    none = await service.http.get("/me")
    assert none.headers["www-authenticate"] == 'Bearer realm="http://127.0.0.1:8000"'
    wrong = await service.http.get("/me", headers=bearer("x.y.z"))
    assert 'error="invalid_token"' in wrong.headers["www-authenticate"]
    token = (await service.registered_login())["access_token"]
    service.clock.advance(400)
    expired = await service.http.get("/me", headers=bearer(token))
    assert "expired" in expired.headers["www-authenticate"]
    basic = await service.http.get("/me", headers={"authorization": "Basic eDp5"})
    assert basic.status_code == 401
    narrow = (await service.login(scope="predict"))["access_token"]
    scope = await service.http.get("/me/sessions", headers=bearer(narrow))
    assert 'error="insufficient_scope", scope="account"' in scope.headers["www-authenticate"]
    assert scope.status_code == 403


async def test_r71_a_token_of_another_kind_is_no_access_token(service: Service) -> None:
    login = await service.registered_login()
    _, key = await service.new_client()
    for token in (login["refresh_token"], key[:-1], login["access_token"].split(".")[1], ""):
        assert (await service.http.get("/me", headers=bearer(token))).status_code == 401
    for token in (login["access_token"], key):
        assert (await service.refresh(token)).status_code == 400


async def test_r59_a_user_lists_and_ends_its_sessions(service: Service) -> None:
    await service.register()
    one, two = await service.login(), await service.login()
    listed = (await service.get("/me/sessions", one["access_token"])).json()["sessions"]
    assert [each["current"] for each in listed].count(True) == 1
    assert all(each["address"] == "127.0.0.1" for each in listed)
    other = next(each["id"] for each in listed if not each["current"])
    path = f"/me/sessions/{other}"
    assert (await service.http.delete(path, headers=bearer(one["access_token"]))).status_code == 200
    assert (await service.get("/me", two["access_token"])).status_code == 401
    assert (await service.refresh(two["refresh_token"])).status_code == 400


async def test_somebody_elses_session_is_as_unknown_as_none(service: Service) -> None:
    ada = await service.registered_login("ada")
    eve = await service.registered_login("eve")
    (hers,) = (await service.get("/me/sessions", ada["access_token"])).json()["sessions"]
    answers = [
        await service.http.delete(f"/me/sessions/{ident}", headers=bearer(eve["access_token"]))
        for ident in (hers["id"], "A" * 30, "x")
    ]
    assert {(answer.status_code, answer.json()["detail"]) for answer in answers} == {(404, "There is nothing here.")}
    assert (await service.get("/me", ada["access_token"])).status_code == 200


async def test_an_expired_access_token_logs_out_with_the_refresh_token(service: Service) -> None:
    login = await service.registered_login()
    service.clock.advance(3600)
    assert (await service.logout(login["access_token"])).status_code == 401
    body = {"refresh_token": login["refresh_token"]}
    assert (await service.logout(login["access_token"], json=body)).status_code == 200
    assert (await service.refresh(login["refresh_token"])).status_code == 400
    again = await service.login()
    assert (await service.logout(json={"refresh_token": again["refresh_token"]})).status_code == 200
    assert (await service.get("/me", again["access_token"])).status_code == 401


async def test_an_invalid_credential_never_falls_through_to_another(service: Service) -> None:
    login = await service.registered_login()
    body = {"refresh_token": login["refresh_token"]}
    assert (await service.logout("forged", json=body)).status_code == 401
    assert (await service.refresh(login["refresh_token"])).status_code == 200


async def test_logging_out_everywhere_by_refresh_token_needs_a_current_one(service: Service) -> None:
    await service.register()
    one, two = await service.login(), await service.login()
    newer = (await service.refresh(one["refresh_token"])).json()["refresh_token"]
    newest = (await service.refresh(newer)).json()["refresh_token"]
    everywhere = {"params": {"everywhere": "true"}}
    spent = await service.logout(json={"refresh_token": one["refresh_token"]}, **everywhere)
    assert (spent.status_code, spent.json()["error"]) == (400, "invalid_grant")
    assert (await service.get("/me", two["access_token"])).status_code == 200
    assert (await service.logout(json={"refresh_token": newest}, **everywhere)).status_code == 200
    assert (await service.get("/me", two["access_token"])).status_code == 401


async def test_r163_a_password_change_needs_the_current_password(service: Service) -> None:
    login = await service.registered_login()
    body = {"current_password": "wrong", "new_password": "new-test123"}
    answer = await service.http.post("/me/password", json=body, headers=bearer(login["access_token"]))
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_credentials")
    weak = {"current_password": "test123", "new_password": "short"}
    answer = await service.http.post("/me/password", json=weak, headers=bearer(login["access_token"]))
    assert (answer.status_code, answer.json()["error"]) == (422, "weak_password")
    _, key = await service.new_client()
    client = (await service.http.post("/login", json={"client_key": key})).json()
    answer = await service.http.post("/me/password", json=body, headers=bearer(client["access_token"]))
    assert (answer.status_code, answer.json()["error"]) == (403, "insufficient_scope")


async def test_a_token_of_a_user_that_is_gone_answers_401(service: Service) -> None:
    login = await service.registered_login()
    await service.server.store._database.write(compiled(text("UPDATE users SET status = 'disabled'")), {})
    assert (await service.get("/me", login["access_token"])).status_code == 401


async def test_problem_details_are_those_of_rfc_9457(service: Service) -> None:
    answer = await service.http.post("/login", json={"username": "nobody", "password": "x"})
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem.keys() == {"type", "title", "status", "detail", "error", "request_id"}
    assert (problem["status"], problem["title"]) == (401, "Unauthorized")
    assert problem["type"] == "urn:authwright:error:invalid_credentials"
    for path, status, error in (("/nowhere", 404, "not_found"), ("/me", 405, "method_not_allowed")):
        answer = await service.http.put(path)
        assert (answer.status_code, answer.json()["error"]) == (status, error)
        assert answer.headers["content-type"] == "application/problem+json"
