"""/me/keys, and what a key may do."""

from collections.abc import Callable
from typing import Any

import pytest

from harness import Clock, Service, bearer


async def new_key(service: Service, token: str, **more: Any) -> dict[str, Any]:
    answer = await service.http.post("/me/keys", headers=bearer(token), json={"name": "scoring", **more})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_a_key_is_shown_once_and_listed_by_its_beginning(service: Service) -> None:
    token = (await service.registered_login())["access_token"]
    made = await new_key(service, token)
    assert made["key"].startswith("awu_")
    listed = (await service.get("/me/keys", token)).json()["keys"]
    assert [key["id"] for key in listed] == [made["id"]]
    assert "key" not in listed[0]
    assert made["key"].startswith(listed[0]["hint"])


async def test_a_key_is_a_bearer_credential_and_logs_in(service: Service) -> None:
    login = await service.registered_login()
    key = (await new_key(service, login["access_token"]))["key"]
    assert (await service.get("/me", key)).json()["id"] == login["user_id"]
    assert (await service.get("/predict", key)).status_code == 200
    session = (await service.http.post("/login", json={"client_key": key})).json()
    assert (session["user_id"], session["scope"]) == (login["user_id"], "predict")
    assert (await service.get("/me", session["access_token"])).json()["id"] == login["user_id"]
    assert (await service.refresh(session["refresh_token"])).status_code == 200


async def test_a_key_never_changes_its_account_or_administers(service: Service) -> None:
    admin = await service.new_admin()
    key = (await new_key(service, admin))["key"]
    session = (await service.http.post("/login", json={"client_key": key})).json()["access_token"]
    for credential in (key, session):
        assert (await service.get("/me", credential)).json()["role"] == "admin"
        assert (await service.get("/admin/plans", credential)).status_code == 403
        assert (await service.get("/me/keys", credential)).status_code == 403
        made = await service.http.post("/me/keys", headers=bearer(credential), json={"name": "x"})
        assert made.status_code == 403
    for scope in ("admin", "account", "predict admin"):
        refused = await service.http.post("/me/keys", headers=bearer(admin), json={"name": "x", "scope": scope})
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")


async def test_a_key_has_the_scope_it_was_given_as_far_as_the_plan_permits(service: Service) -> None:
    admin = await service.new_admin()
    token = (await service.registered_login("eve", plan="premium"))["access_token"]
    key = (await new_key(service, token, scope="analytics"))["key"]
    assert (await service.get("/predict", key)).status_code == 403
    assert (await service.http.post("/login", json={"client_key": key})).json()["scope"] == "analytics"
    await service.http.patch("/users/eve", headers=bearer(admin), json={"plan": "free"})
    assert (await service.http.post("/login", json={"client_key": key})).json()["scope"] == ""
    assert (await service.get("/secure-data", key)).json()["scope"] == ""


async def test_a_deleted_key_ends_its_sessions_and_nothing_else(service: Service) -> None:
    login = await service.registered_login()
    made = await new_key(service, login["access_token"])
    session = (await service.http.post("/login", json={"client_key": made["key"]})).json()
    gone = await service.http.delete(f"/me/keys/{made['id']}", headers=bearer(login["access_token"]))
    assert gone.json() == {"status": "deleted"}
    for credential in (made["key"], session["access_token"]):
        assert (await service.get("/me", credential)).status_code == 401
    assert (await service.refresh(session["refresh_token"])).status_code == 400
    assert (await service.http.post("/login", json={"client_key": made["key"]})).status_code == 401
    assert (await service.get("/me", login["access_token"])).status_code == 200


async def test_another_users_key_is_as_unknown_as_none(service: Service) -> None:
    made = await new_key(service, (await service.registered_login("ada"))["access_token"])
    eve = (await service.registered_login("eve"))["access_token"]
    answers = [
        await service.http.delete(f"/me/keys/{ident}", headers=bearer(eve)) for ident in (made["id"], "key_none")
    ]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].json()["detail"] == answers[1].json()["detail"]
    assert (await service.get("/me", made["key"])).status_code == 200


async def test_a_key_expires_with_its_sessions(service: Service, clock: Clock) -> None:
    token = (await service.registered_login())["access_token"]
    key = (await new_key(service, token, days=1))["key"]
    clock.advance(86_000)
    session = (await service.http.post("/login", json={"client_key": key})).json()
    clock.advance(500)
    assert (await service.get("/me", key)).status_code == 401
    assert (await service.get("/me", session["access_token"])).status_code == 401
    assert (await service.refresh(session["refresh_token"])).status_code == 400


async def test_a_disabled_users_key_is_refused(service: Service) -> None:
    admin = await service.new_admin()
    key = (await new_key(service, (await service.registered_login("eve"))["access_token"]))["key"]
    await service.http.patch("/users/eve", headers=bearer(admin), json={"is_active": False})
    assert (await service.get("/me", key)).status_code == 401
    assert (await service.http.post("/login", json={"client_key": key})).status_code == 401


async def test_a_user_has_at_most_fifty_keys(service: Service) -> None:
    token = (await service.registered_login())["access_token"]
    for _ in range(50):
        await new_key(service, token)
    refused = await service.http.post("/me/keys", headers=bearer(token), json={"name": "one more"})
    assert refused.status_code == 403


@pytest.mark.parametrize("days", [0, 367, -1, 1.5, "30", True])
async def test_days_are_a_whole_number_of_at_most_a_year(service: Service, days: Any) -> None:
    token = (await service.registered_login())["access_token"]
    refused = await service.http.post("/me/keys", headers=bearer(token), json={"name": "x", "days": days})
    assert refused.status_code == 422


async def test_a_clients_key_is_a_bearer_credential_too(service: Service) -> None:
    client_id, key = await service.new_client()
    assert (await service.get("/me", key)).json()["id"] == client_id
    assert (await service.get("/users/", key)).status_code == 403
    logout = await service.logout(key)
    assert logout.status_code == 401


async def test_a_key_logs_nobody_out_everywhere_and_evicts_no_session(service: Service, clock: Clock) -> None:
    login = await service.registered_login()
    key = (await new_key(service, login["access_token"]))["key"]
    session = (await service.http.post("/login", json={"client_key": key})).json()
    for sent in (
        {"headers": bearer(session["access_token"])},
        {"json": {"refresh_token": session["refresh_token"]}},
        {"headers": bearer(key)},
    ):
        refused = await service.http.post("/logout?everywhere=true", **sent)
        assert (refused.status_code, refused.json()["error"]) == (403, "insufficient_scope")
    for _ in range(101):
        clock.advance(0.1)
        assert (await service.http.post("/login", json={"client_key": key})).status_code == 200
    assert (await service.get("/me", login["access_token"])).status_code == 200
    assert (await service.refresh(login["refresh_token"])).status_code == 200
    # Its own first session made room.
    assert (await service.refresh(session["refresh_token"])).status_code == 400


async def test_keys_survive_a_password_change_and_not_a_reset(service: Service, clock: Clock) -> None:
    login = await service.registered_login("ada")
    key = (await new_key(service, login["access_token"]))["key"]
    body = {"current_password": "test123", "new_password": "test456"}
    await service.http.post("/me/password", headers=bearer(login["access_token"]), json=body)
    assert (await service.get("/me", key)).status_code == 200
    user = await service.server.users.find("ada")
    from authwright.domain.event import COMMAND_LINE

    link = await service.server.passwords.reset_link(user, origin=COMMAND_LINE, now=clock())
    reset = {"token": link.url.partition("token=")[2], "new_password": "test789"}
    assert (await service.http.post("/reset-password", json=reset)).status_code == 200
    assert (await service.get("/me", key)).status_code == 401


async def test_r178_wrong_keys_are_on_record_until_the_door_closes(service: Service) -> None:
    admin = await service.new_admin()
    for _ in range(3):
        await service.get("/me", "awu_" + "x" * 51)
    assert [event["detail"] for event in await service.events(admin, kind="login", outcome="failure")] == [
        "key as bearer"
    ] * 3


async def test_a_token_made_for_less_makes_no_key_for_more(opened_service: Callable[..., Any]) -> None:
    async with opened_service(audiences=("https://api.example.com",)) as service:
        await service.register()
        narrow = await service.login(scope="account predict", resource=service.server.settings.issuer)
        made = await service.http.post("/me/keys", json={"name": "x"}, headers=bearer(narrow["access_token"]))
        assert made.json()["scope"] == "predict"
        login = {"client_key": made.json()["key"]}
        elsewhere = await service.http.post("/login", json={**login, "resource": "https://api.example.com"})
        assert elsewhere.json()["error"] == "invalid_target"
        assert (await service.http.post("/login", json=login)).json()["scope"] == "predict"
        narrower = await service.login(scope="account")
        refused = await service.http.post("/me/keys", json={"name": "x"}, headers=bearer(narrower["access_token"]))
        assert refused.json()["error"] == "invalid_scope"


async def test_the_record_says_whose_key_an_administrator_deleted(service: Service) -> None:
    login, admin = await service.registered_login(), await service.new_admin()
    made = (await service.http.post("/me/keys", json={"name": "x"}, headers=bearer(login["access_token"]))).json()
    await service.http.delete(f"/admin/keys/{made['id']}", headers=bearer(admin))
    (event,) = await service.events(admin, kind="api_key_deleted")
    assert event["subject"] == login["user_id"]
