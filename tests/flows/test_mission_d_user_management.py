"""Mission D, user management: walked over HTTP as it is written (on SQLite; PyMongo is a later issue)."""

import json
from pathlib import Path

from harness import Service, bearer
from processes import run


async def test_log_in_gives_a_jwt_and_log_out_ends_it(service: Service) -> None:
    token = (await service.registered_login())["access_token"]
    assert token.count(".") == 2
    assert (await service.get("/users/me", token)).status_code == 200
    assert (await service.logout(token)).status_code == 200
    assert (await service.get("/users/me", token)).status_code == 401


async def test_users_are_created_read_changed_and_deleted_by_an_admin(service: Service) -> None:
    admin = bearer(await service.new_admin())
    made = await service.http.post(
        "/users/", headers=admin, json={"username": "grace", "email": "grace@example.com", "password": "test123"}
    )
    assert made.status_code == 201
    assert (made.json()["role"], made.json()["plan"]) == ("user", "free")
    for name in ("grace", "GRACE", "grace@example.com", made.json()["id"]):
        assert (await service.http.get(f"/users/{name}", headers=admin)).json()["id"] == made.json()["id"]
    for method, change in (("PUT", {"plan": "premium"}), ("PATCH", {"email": "hopper@example.com"})):
        changed = await service.http.request(method, "/users/grace", headers=admin, json=change)
        assert changed.status_code == 200
    assert (changed.json()["plan"], changed.json()["email"]) == ("premium", "hopper@example.com")
    assert (await service.http.delete("/users/grace", headers=admin)).json() == {"status": "deleted"}
    assert (await service.http.get("/users/grace", headers=admin)).status_code == 404


async def test_each_is_allowed_only_what_the_role_allows(service: Service) -> None:
    await service.register("ada")
    eve = bearer((await service.registered_login("eve"))["access_token"])
    for method, path in (
        ("GET", "/users/"),
        ("POST", "/users/"),
        ("GET", "/users/ada"),
        ("PUT", "/users/ada"),
        ("PATCH", "/users/ada"),
        ("DELETE", "/users/ada"),
        ("GET", "/users/nobody"),
        ("GET", "/admin/clients"),
        ("GET", "/admin/events"),
    ):
        anonymous = await service.http.request(method, path, json={} if method in ("PUT", "PATCH", "POST") else None)
        assert anonymous.status_code == 401, (method, path)
        refused = await service.http.request(
            method, path, headers=eve, json={} if method in ("PUT", "PATCH", "POST") else None
        )
        assert (refused.status_code, refused.json()["error"]) == (403, "insufficient_scope"), (method, path)
        assert "'admin'" in refused.json()["detail"]
        assert 'scope="admin"' in refused.headers["www-authenticate"]
    own = await service.http.get("/users/eve", headers=eve)
    assert (own.status_code, own.json()["username"]) == (200, "eve")


def test_a_command_creates_users_in_the_database(tmp_path: Path) -> None:
    made = json.loads(run(tmp_path, "users", "create", "--username", "ada", "--json", stdin="test123\n", **DEV).stdout)
    listed = run(tmp_path, "users", "list", "--json", **DEV).stdout.splitlines()
    assert [json.loads(line)["id"] for line in listed] == [made["id"]]


DEV = {"AUTHWRIGHT_MODE": "dev"}
