"""/admin: clients, sessions, keys, events and plans."""

from pathlib import Path

import pytest

from harness import Clock, Service, bearer, open_service, production


async def test_clients_are_made_listed_given_a_new_key_and_disabled(service: Service) -> None:
    admin = bearer(await service.new_admin())
    made = await service.http.post("/admin/clients", headers=admin, json={"name": "scoring", "plan": "premium"})
    assert made.status_code == 201
    client, key = made.json()["client_id"], made.json()["client_key"]
    session = (await service.http.post("/login", json={"client_key": key})).json()
    listed = (await service.http.get("/admin/clients", headers=admin)).json()["clients"]
    assert [(each["client_id"], "client_key" in each) for each in listed] == [(client, False)]
    rotated = (await service.http.post(f"/admin/clients/{client}/rotate-key", headers=admin)).json()["client_key"]
    for old in (key, session["access_token"]):
        assert (await service.get("/me", old)).status_code == 401
    assert (await service.get("/me", rotated)).status_code == 200
    assert (await service.http.delete(f"/admin/clients/{client}", headers=admin)).json() == {"status": "disabled"}
    assert (await service.get("/me", rotated)).status_code == 401
    assert (await service.http.get(f"/admin/clients/{client}", headers=admin)).json()["status"] == "disabled"
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/rotate-key")):
        missing = await service.http.request(method, f"/admin/clients/cli_none{path}", headers=admin)
        assert missing.status_code == 404


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"plan": "gold"}, "unknown_plan"),
        ({"scope": "admin"}, "invalid_scope"),
        ({"audiences": ["https://unknown.example"]}, "invalid_target"),
        ({"name": "a\nb"}, "invalid_name"),
        ({"client_id": "cli_mine"}, "invalid_request"),
    ],
)
async def test_r23_a_client_gets_no_more_than_there_is(service: Service, wrong: dict[str, object], error: str) -> None:
    admin = bearer(await service.new_admin())
    refused = await service.http.post("/admin/clients", headers=admin, json={"name": "scoring", **wrong})
    assert refused.json()["error"] == error


async def test_sessions_of_one_and_of_all_are_listed_and_ended(service: Service) -> None:
    token = await service.new_admin()
    admin = bearer(token)
    eve = await service.registered_login("eve")
    await service.registered_login("ada")
    own = (await service.http.get("/admin/sessions", headers=admin, params={"user": "eve"})).json()["sessions"]
    assert [session["user_id"] for session in own] == [eve["user_id"]]
    seen, cursor = [], ""
    while cursor is not None:
        query = {"limit": "1", **({"cursor": cursor} if cursor else {})}
        page = (await service.http.get("/admin/sessions", headers=admin, params=query)).json()
        seen += page["sessions"]
        cursor = page["next"]
    assert len({session["id"] for session in seen}) == 3
    assert (await service.http.delete(f"/admin/sessions/{own[0]['id']}", headers=admin)).status_code == 200
    assert (await service.get("/me", eve["access_token"])).status_code == 401
    assert (await service.http.delete(f"/admin/sessions/{own[0]['id']}", headers=admin)).status_code == 404
    (ended,) = await service.events(token, kind="session_ended")
    assert (ended["subject"], ended["actor"] != eve["user_id"]) == (eve["user_id"], True)


async def test_users_keys_are_listed_and_deleted(service: Service) -> None:
    admin = bearer(await service.new_admin())
    eve = (await service.registered_login("eve"))["access_token"]
    key = (await service.http.post("/me/keys", headers=bearer(eve), json={"name": "scoring"})).json()
    for query in ({}, {"user": "eve"}):
        listed = (await service.http.get("/admin/keys", headers=admin, params=query)).json()["keys"]
        assert [each["id"] for each in listed] == [key["id"]]
    assert (await service.http.delete(f"/admin/keys/{key['id']}", headers=admin)).status_code == 200
    assert (await service.get("/me", key["key"])).status_code == 401


async def test_plans_are_shown_with_what_they_permit(clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "plans.toml").write_text('[team]\npermissions = ["predict"]\nrate = "90/minute"\nquota = "5k/month"\n')
    async with open_service(clock=clock, plans=str(tmp_path / "plans.toml")) as service:
        token = await service.new_admin()
        shown = (await service.get("/admin/plans", token)).json()
        team = {"rate": "90/minute", "burst": 90, "quota": {"month": 5000}, "concurrent": None, "weights": {}}
        assert {"name": "team", "permissions": ["predict"], **team} in shown["plans"]
        assert shown["default"] == "free"
        await service.register("eve", plan="team")
        assert (await service.login("eve"))["scope"] == "account predict"


async def test_in_production_too_admin_is_closed_to_everybody_else(clock: Clock, tmp_path: Path) -> None:
    settings = production(tmp_path, issuer="https://auth.example.com", registration="open")
    async with open_service(clock=clock, settings=settings) as service:
        await service.http.post("/register", json={"username": "eve", "password": "a long and unusual passphrase"})
        login = await service.login("eve", "a long and unusual passphrase")
        for path in ("/admin/clients", "/admin/sessions", "/admin/keys", "/admin/events", "/admin/plans", "/users/"):
            assert (await service.get(path, login["access_token"])).status_code == 403
            assert (await service.get(path)).status_code == 401
