"""/admin/events: what happened is on record, once, with who and whom, and without secrets."""

from typing import Any

import pytest

from harness import Clock, Service, bearer


async def only(service: Service, admin: str, kind: str, **which: str) -> dict[str, Any]:
    found = await service.events(admin, kind=kind, **which)
    assert len(found) == 1, found
    return found[0]


async def test_r178_every_act_of_a_story_is_on_record(service: Service) -> None:
    admin = await service.new_admin("root-ada")
    root = bearer(admin)
    await service.register("eve")
    login = await service.login("eve")
    user = login["user_id"]
    token = login["access_token"]
    await service.http.post("/login", data={"username": "eve", "password": "wrong"})
    key = (await service.http.post("/me/keys", headers=bearer(token), json={"name": "x"})).json()
    await service.http.delete(f"/me/keys/{key['id']}", headers=bearer(token))
    rename = {"username": "eva", "current_password": "test123"}
    await service.http.patch("/me", headers=bearer(token), json=rename)
    token = (await service.refresh(login["refresh_token"])).json()["access_token"]
    change = {"current_password": "test123", "new_password": "test456"}
    token = (await service.http.post("/me/password", headers=bearer(token), json=change)).json()["access_token"]
    await service.logout(token)
    await service.login("eva", "test456")
    await service.http.patch("/users/eva", headers=root, json={"is_active": False})
    await service.http.patch("/users/eva", headers=root, json={"is_active": True})
    made = (await service.http.post("/users/", headers=root, json={"username": "grace"})).json()
    reset = {"token": made["reset_link"]["url"].partition("token=")[2], "new_password": "test789"}
    await service.http.post("/reset-password", json=reset)
    client = (await service.http.post("/admin/clients", headers=root, json={"name": "x"})).json()["client_id"]
    await service.http.post(f"/admin/clients/{client}/rotate-key", headers=root)
    await service.http.delete(f"/admin/clients/{client}", headers=root)
    await service.http.delete("/users/eva", headers=root)
    kinds = [event["kind"] for event in reversed(await service.events(admin, subject=user))]
    assert kinds == [
        "registered",
        "login",
        "api_key_created",
        "api_key_deleted",
        "user_changed",
        "password_changed",
        "logout",
        "login",
        "user_disabled",
        "user_enabled",
        "user_deleted",
    ]
    root_id = (await service.get("/me", admin)).json()["id"]
    assert (await only(service, admin, "user_disabled"))["actor"] == root_id
    assert (await only(service, admin, "password_changed"))["actor"] == user
    assert (await only(service, admin, "login", outcome="failure"))["subject"] == ""
    assert {event["kind"] for event in await service.events(admin, subject=client)} == {
        "client_created",
        "client_key_rotated",
        "client_disabled",
    }
    assert {event["kind"] for event in await service.events(admin, subject=made["id"])} == {
        "user_created",
        "reset_link_made",
        "password_reset",
    }
    created = (await service.events(admin, kind="user_created"))[-1]
    assert created["actor"] == "command"


async def test_an_event_names_the_request_and_where_it_came_from(service: Service) -> None:
    admin = await service.new_admin()
    await service.register("eve")
    form = {"username": "eve", "password": "test123"}
    answer = await service.http.post("/login", data=form, headers={"user-agent": "curl/8"})
    (event,) = await service.events(admin, subject=answer.json()["user_id"], kind="login")
    assert (event["address"], event["user_agent"]) == ("127.0.0.1", "curl/8")
    assert event["request_id"] == answer.headers["x-request-id"]
    assert event["client_id"] == "cli_first_party"


async def test_what_did_not_happen_is_not_on_record(service: Service) -> None:
    admin = await service.new_admin()
    token = (await service.registered_login("eve"))["access_token"]
    before = len(await service.events(admin))
    await service.http.patch("/users/eve", headers=bearer(admin), json={"username": "root-ada"})  # taken
    await service.http.patch("/users/eve", headers=bearer(admin), json={})  # nothing to change
    await service.http.delete("/me/keys/key_none", headers=bearer(token))
    await service.http.post("/register", json={"username": "eve", "password": "test123"})
    await service.http.post("/admin/clients/cli_none/rotate-key", headers=bearer(admin))
    assert len(await service.events(admin)) == before


async def test_reuse_of_a_refresh_token_is_on_record(service: Service, clock: Clock) -> None:
    admin = await service.new_admin()
    login = await service.registered_login("eve")
    await service.refresh(login["refresh_token"])
    clock.advance(60)
    assert (await service.refresh(login["refresh_token"])).status_code == 400
    event = await only(service, (await service.login("root-ada"))["access_token"], "refresh_reused")
    assert (event["subject"], event["outcome"]) == (login["user_id"], "failure")
    assert admin


async def test_events_are_paged_filtered_and_never_skip(service: Service, clock: Clock) -> None:
    admin = await service.new_admin()
    for number in range(5):
        clock.advance(1)
        await service.register(f"user{number}")
    admin = (await service.login("root-ada"))["access_token"]
    numbers, cursor = [], ""
    while cursor is not None:
        query = {"limit": "2", "kind": "registered", **({"cursor": str(cursor)} if cursor else {})}
        page = (await service.http.get("/admin/events", headers=bearer(admin), params=query)).json()
        numbers += [event["number"] for event in page["events"]]
        cursor = page["next"]
    assert len(numbers) == len(set(numbers)) == 5
    assert numbers == sorted(numbers, reverse=True)
    middle = (await service.events(admin, kind="registered"))[2]["at"]
    assert len(await service.events(admin, kind="registered", since=middle)) == 3
    assert len(await service.events(admin, kind="registered", until=middle)) == 2
    assert await service.events(admin, address="203.0.113.9") == []
    assert await service.events(admin, actor="' OR 1=1 --") == []


@pytest.mark.parametrize(
    "query", [{"kind": "sql"}, {"cursor": "0"}, {"cursor": "x"}, {"limit": "0"}, {"since": "2026-01-01"}, {"x": "1"}]
)
async def test_a_malformed_query_is_refused(service: Service, query: dict[str, str]) -> None:
    admin = await service.new_admin()
    assert (await service.http.get("/admin/events", headers=bearer(admin), params=query)).status_code == 422


async def test_r178_no_log_injection_by_what_is_sent(service: Service) -> None:
    admin = await service.new_admin()
    await service.register("eve")
    nasty = b"curl\x1b[2J\x85\xa0forged: line"
    form = {"username": "eve", "password": "wrong\r\nforged"}
    await service.http.post("/login", data=form, headers=[(b"user-agent", nasty)])
    await service.http.post("/login", data={"username": "eve", "password": "test123"}, headers=[(b"user-agent", nasty)])
    for event in await service.events(admin, kind="login"):
        assert event["user_agent"].isprintable()
        assert "forged" not in event["detail"]


async def test_r178_a_name_that_was_tried_is_not_on_record(service: Service) -> None:
    admin = await service.new_admin()
    for _ in range(2):
        await service.http.post("/login", data={"username": "hunter2-typed-here", "password": "x"})
    one, two = await service.events(admin, kind="login", outcome="failure")
    assert "hunter2" not in str(one)
    # Attempts on one name are told from attempts on another all the same.
    assert one["detail"] == two["detail"] != ""
