"""/users/ and PATCH /me: who may change what, and what a change does to sessions and names."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from authwright.domain.event import COMMAND_LINE
from harness import Clock, Service, bearer

Opener = Callable[..., AbstractAsyncContextManager[Service]]


async def change(service: Service, token: str, name: str, **what: Any) -> Any:
    return await service.http.patch(f"/users/{name}", headers=bearer(token), json=what)


@pytest.mark.parametrize("field", [{"role": "admin"}, {"plan": "admin"}, {"plan": "premium"}, {"is_active": True}])
@pytest.mark.parametrize("path", ["/users/eve", "/me"])
async def test_r177_nobody_raises_their_own_role_or_plan(service: Service, field: dict[str, Any], path: str) -> None:
    token = (await service.registered_login("eve"))["access_token"]
    body = {**field, "current_password": "test123"}
    refused = await service.http.patch(path, headers=bearer(token), json=body)
    assert refused.status_code == (422 if path == "/me" else 403)
    me = (await service.get("/me", token)).json()
    assert (me["role"], me["plan"]) == ("user", "free")


@pytest.mark.parametrize("field", ["id", "auth_epoch", "password_hash", "email_verified", "is_admin", "scopes"])
async def test_r177_unknown_fields_are_refused(service: Service, field: str) -> None:
    admin = await service.new_admin()
    await service.register("eve")
    assert (await change(service, admin, "eve", **{field: "x"})).status_code == 422
    created = await service.http.post("/users/", headers=bearer(admin), json={"username": "x", field: "x"})
    assert created.status_code == 422


async def test_an_admin_cannot_disable_or_demote_itself_over_http(service: Service) -> None:
    admin = await service.new_admin()
    for what in ({"is_active": False}, {"role": "user"}, {"plan": "free"}):
        assert (await change(service, admin, "root-ada", **what)).status_code == 403


async def test_r163_a_rename_needs_the_current_password_and_keeps_the_id(service: Service) -> None:
    login = await service.registered_login("ada")
    token = login["access_token"]
    for wrong in ({}, {"current_password": "wrong"}):
        refused = await service.http.patch("/me", headers=bearer(token), json={"username": "lovelace", **wrong})
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_credentials")
    good = {"username": "lovelace", "current_password": "test123"}
    changed = await service.http.patch("/me", headers=bearer(token), json=good)
    assert (changed.status_code, changed.json()["id"]) == (200, login["user_id"])
    # The token says the old name: it ends; the session goes on and says the new one.
    assert (await service.get("/me", token)).status_code == 401
    refreshed = (await service.refresh(login["refresh_token"])).json()
    me = (await service.get("/secure-data", refreshed["access_token"])).json()
    assert (me["user_id"], me["username"]) == (login["user_id"], "lovelace")
    assert (await service.login("lovelace"))["user_id"] == login["user_id"]


async def test_a_former_name_stays_reserved_until_an_admin_releases_it(service: Service) -> None:
    admin = await service.new_admin()
    await service.register("ada")
    assert (await change(service, admin, "ada", username="lovelace")).status_code == 200
    taken = await service.http.post("/register", json={"username": "Ada", "password": "test123"})
    assert (taken.status_code, taken.json()["error"]) == (409, "already_registered")
    assert (await service.http.get("/users/ada", headers=bearer(admin))).status_code == 404
    again = {"username": "ada", "password": "test123", "release_names": True}
    assert (await service.http.post("/users/", headers=bearer(admin), json=again)).status_code == 201
    # A name that somebody has is not released by this.
    again = {"username": "lovelace", "password": "test123", "release_names": True}
    assert (await service.http.post("/users/", headers=bearer(admin), json=again)).status_code == 409


async def test_r72_a_deleted_users_name_stays_reserved_and_its_id_is_gone(service: Service) -> None:
    login = await service.registered_login("ada", email="ada@example.com")
    token = login["access_token"]
    refused = await service.http.request("DELETE", "/users/ada", headers=bearer(token))
    assert refused.status_code == 401
    gone = await service.http.request(
        "DELETE", "/users/ada", headers=bearer(token), json={"current_password": "test123"}
    )
    assert gone.status_code == 200
    assert (await service.get("/secure-data", token)).status_code == 401
    assert (await service.refresh(login["refresh_token"])).status_code == 400
    wrong = await service.http.post("/login", data={"username": "ada", "password": "test123"})
    assert wrong.status_code == 401
    for body in ({"username": "ada"}, {"email": "ADA@example.com"}):
        assert (await service.http.post("/register", json={**body, "password": "test123"})).status_code == 409


async def test_r55_r174_disabling_ends_every_session_before_it_answers(service: Service) -> None:
    admin = await service.new_admin()
    logins = [await service.registered_login("eve"), await service.login("eve")]
    assert (await change(service, admin, "eve", is_active=False)).json()["is_active"] is False
    for login in logins:
        assert (await service.get("/secure-data", login["access_token"])).status_code == 401
        assert (await service.refresh(login["refresh_token"])).status_code == 400
    refused = await service.http.post("/login", data={"username": "eve", "password": "test123"})
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_credentials")
    assert (await change(service, admin, "eve", is_active=True)).status_code == 200
    assert (await service.refresh(logins[0]["refresh_token"])).status_code == 400
    await service.login("eve")


async def test_a_new_plan_is_in_the_next_token_and_older_tokens_end(service: Service) -> None:
    admin = await service.new_admin()
    login = await service.registered_login("eve")
    assert (await change(service, admin, "eve", plan="premium")).status_code == 200
    assert (await service.get("/secure-data", login["access_token"])).status_code == 401
    refreshed = (await service.refresh(login["refresh_token"])).json()
    assert refreshed["scope"] == "account analytics predict"


async def test_a_demoted_admin_has_no_admin_token_left(service: Service) -> None:
    admin = await service.new_admin()
    await service.http.post(
        "/users/", headers=bearer(admin), json={"username": "eve", "password": "test123", "role": "admin"}
    )
    login = await service.login("eve")
    assert (await service.get("/admin/plans", login["access_token"])).status_code == 200
    assert (await change(service, admin, "eve", role="user")).status_code == 200
    assert (await service.get("/admin/plans", login["access_token"])).status_code == 401
    token = (await service.refresh(login["refresh_token"])).json()["access_token"]
    assert (await service.get("/admin/plans", token)).status_code == 403


async def test_a_new_address_ends_the_other_sessions_and_keeps_this_one(service: Service) -> None:
    await service.register("eve", email="eve@example.com")
    one, other = await service.login("eve"), await service.login("eve")
    body = {"email": "new@example.com", "current_password": "test123"}
    assert (await service.http.patch("/me", headers=bearer(one["access_token"]), json=body)).status_code == 200
    assert (await service.refresh(other["refresh_token"])).status_code == 400
    assert (await service.refresh(one["refresh_token"])).status_code == 200


async def test_a_plan_that_does_not_exist_is_refused(service: Service) -> None:
    admin = await service.new_admin()
    await service.register("eve")
    assert (await change(service, admin, "eve", plan="gold")).json()["error"] == "unknown_plan"


async def test_the_last_name_cannot_be_taken_away(service: Service) -> None:
    admin = await service.new_admin()
    await service.register("eve")
    assert (await change(service, admin, "eve", username="")).json()["error"] == "invalid_name"


async def test_users_are_listed_page_by_page_filtered_and_searched(service: Service, clock: Clock) -> None:
    admin = bearer(await service.new_admin())
    for number in range(7):
        clock.advance(1)
        await service.register(
            f"user{number}", email=f"u{number}@example.com", plan="premium" if number % 2 else "free"
        )
    names, cursor = [], ""
    while True:
        query = {"limit": "3", **({"cursor": cursor} if cursor else {})}
        page = (await service.http.get("/users/", headers=admin, params=query)).json()
        names += [user["username"] for user in page["users"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert names == ["root-ada", *(f"user{number}" for number in range(7))]

    async def found(**query: str) -> list[str]:
        answer = await service.http.get("/users/", headers=admin, params=query)
        assert answer.status_code == 200, answer.text
        return [user["username"] for user in answer.json()["users"]]

    assert await found(plan="premium") == ["user1", "user3", "user5"]
    assert await found(role="admin") == ["root-ada"]
    assert await found(search="USER3") == await found(search="u3@EXAMPLE") == ["user3"]
    assert await found(search="%") == await found(search="' OR 1=1 --") == []
    assert await found(is_active="false") == []
    # A made-up cursor is no error and no injection: the list begins where such an id would stand.
    assert (await service.http.get("/users/", headers=admin, params={"cursor": "' OR 1=1"})).status_code == 200


async def test_r171_an_account_without_a_password_gets_a_link_that_sets_one_once(service: Service) -> None:
    admin = bearer(await service.new_admin())
    made = (await service.http.post("/users/", headers=admin, json={"username": "grace"})).json()
    url = made["reset_link"]["url"]
    assert url.startswith(f"{service.server.settings.issuer}/reset-password?token=awp_")
    token = url.partition("token=")[2]
    page = await service.http.get(url)
    assert (page.status_code, page.headers["referrer-policy"]) == (200, "no-referrer")
    assert "script" not in page.text
    weak = await service.http.post("/reset-password", data={"token": token, "new_password": "x"})
    assert weak.status_code == 422
    assert 'role="alert"' in weak.text
    done = await service.http.post("/reset-password", data={"token": token, "new_password": "test123"})
    assert (done.status_code, "can log in" in done.text) == (200, True)
    again = await service.http.post("/reset-password", json={"token": token, "new_password": "test456"})
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    await service.login("grace")


async def test_r160_r161_a_reset_link_is_short_lived_ends_sessions_and_earlier_links(
    service: Service, clock: Clock
) -> None:
    login = await service.registered_login("ada")
    user = await service.server.users.find("ada")
    links = [await service.server.passwords.reset_link(user, origin=COMMAND_LINE, now=clock()) for _ in range(2)]
    tokens = [link.url.partition("token=")[2] for link in links]
    assert tokens[1] not in repr(links[1])

    async def reset(token: str) -> int:
        body = {"token": token, "new_password": "test456"}
        return (await service.http.post("/reset-password", json=body)).status_code

    assert await reset(tokens[0]) == 400
    clock.advance(3601)
    assert await reset(tokens[1]) == 400
    fresh = await service.server.passwords.reset_link(user, origin=COMMAND_LINE, now=clock())
    assert await reset(fresh.url.partition("token=")[2]) == 200
    assert (await service.refresh(login["refresh_token"])).status_code == 400
    refused = await service.http.post("/login", data={"username": "ada", "password": "test123"})
    assert refused.status_code == 401


async def test_the_reset_page_escapes_what_the_link_says(service: Service) -> None:
    page = await service.http.get("/reset-password", params={"token": '"><script>alert(1)</script>'})
    assert "<script>" not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    # Browsers ask for an icon, which would be a 404: this page has an empty one, and may.
    assert '<link rel="icon" href="data:,">' in page.text
    assert "img-src data:" in policy


@pytest.mark.parametrize("way", ["password", "address", "everywhere", "disabled"])
async def test_r161_a_reset_link_is_void_once_the_account_was_secured(service: Service, clock: Clock, way: str) -> None:
    admin = await service.new_admin()
    token = (await service.registered_login("eve"))["access_token"]
    user = await service.server.users.find("eve")
    link = await service.server.passwords.reset_link(user, origin=COMMAND_LINE, now=clock())
    own = bearer(token)
    if way == "password":
        body = {"current_password": "test123", "new_password": "test456"}
        answer = await service.http.post("/me/password", headers=own, json=body)
    elif way == "address":
        body = {"current_password": "test123", "email": "eve@example.com"}
        answer = await service.http.patch("/me", headers=own, json=body)
    elif way == "everywhere":
        answer = await service.logout(token, params={"everywhere": "true"})
    else:
        await change(service, admin, "eve", is_active=False)
        answer = await change(service, admin, "eve", is_active=True)
    assert answer.status_code == 200
    reset = {"token": link.url.partition("token=")[2], "new_password": "test789"}
    assert (await service.http.post("/reset-password", json=reset)).status_code == 400


async def test_a_refused_change_releases_no_name(service: Service) -> None:
    admin = await service.new_admin()
    await service.register("eve")
    await service.register("ada")
    await change(service, admin, "eve", username="eva")
    refused = await change(service, admin, "ada", username="eve", plan="gold", release_names=True)
    assert refused.json()["error"] == "unknown_plan"
    refused = await change(service, admin, "ada", username="eve", email="root-ada@x", release_names=True)
    assert refused.json()["error"] == "invalid_name"
    taken = await service.http.post("/register", json={"username": "eve", "password": "test123"})
    assert taken.status_code == 409


async def test_roles_and_plans_are_on_record_from_what_to_what(service: Service) -> None:
    admin = await service.new_admin()
    await service.register("eve")
    await change(service, admin, "eve", role="admin", plan="premium", username="eva")
    (event,) = await service.events(admin, kind="user_changed")
    assert event["detail"] == "username role:user>admin plan:free>premium"


async def test_who_is_no_administrator_any_more_when_the_hash_is_made_creates_nobody(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = await service.new_admin()
    real = service.server.hashing.hash

    async def logged_out_meanwhile(prepared: str) -> str:
        await service.logout(admin)
        return await real(prepared)

    monkeypatch.setattr(service.server.hashing, "hash", logged_out_meanwhile)
    body = {"username": "mallory", "password": "test123", "role": "admin"}
    assert (await service.http.post("/users/", json=body, headers=bearer(admin))).status_code == 401
    monkeypatch.undo()
    assert (await service.http.post("/login", data={"username": "mallory", "password": "test123"})).status_code == 401
