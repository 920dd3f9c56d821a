"""services.revoke, logout and password: an ending is whole, whatever happens in the middle of it."""

import asyncio
import time
from typing import Any

import pytest
from sqlalchemy import text

from authwright.domain.event import COMMAND_LINE
from authwright.domain.revocation import Revocations
from authwright.domain.secrets import Subject
from authwright.services.feed import Feed
from authwright.services.metrics import Metrics
from authwright.services.revoke import Revoke
from authwright.storage.counter import CounterPage
from authwright.storage.port import StoreUnavailable
from authwright.storage.sql.statements import compiled
from harness import Service, bearer, failing_once

CHANGE = {"current_password": "test123", "new_password": "new-test123"}


async def alive(service: Service, login: dict[str, Any]) -> tuple[bool, bool]:
    """Whether the access token and the refresh token of *login* are still good."""
    access = await service.get("/me", login["access_token"])
    return access.status_code == 200, (await service.refresh(login["refresh_token"])).status_code == 200


async def change(service: Service, login: dict[str, Any]) -> int:
    answer = await service.http.post("/me/password", json=CHANGE, headers=bearer(login["access_token"]))
    return answer.status_code


async def test_r55_a_changed_password_ends_all_other_sessions_and_keeps_this_one(service: Service) -> None:
    await service.register()
    mine, other = await service.login(), await service.login()
    answer = await service.http.post("/me/password", json=CHANGE, headers=bearer(mine["access_token"]))
    assert answer.status_code == 200
    assert await alive(service, other) == (False, False)
    assert await alive(service, mine) == (False, True)
    assert (await service.get("/me", answer.json()["access_token"])).status_code == 200
    assert (await service.http.post("/login", data={"username": "bholay", "password": "test123"})).status_code == 401
    await service.login(password="new-test123")


async def test_of_two_changes_at_once_one_wins(service: Service) -> None:
    await service.register()
    one, two = await service.login(), await service.login()
    assert sorted(await asyncio.gather(change(service, one), change(service, two))) in ([200, 401],)


@pytest.mark.parametrize("rounds", range(10))
async def test_a_logout_everywhere_wins_over_a_change_that_runs_beside_it(service: Service, rounds: int) -> None:
    await service.register()
    mine, other = await service.login(), await service.login()

    async def leave() -> int:
        for _ in range(rounds):
            await asyncio.sleep(0)
        return (await service.logout(other["access_token"], params={"everywhere": "true"})).status_code

    changed, left = await asyncio.gather(change(service, mine), leave())
    assert left in (200, 401)
    if left == 200 and changed == 401:
        # The change was refused, so it must not have happened.
        await service.login()
    if left == 200:
        assert await alive(service, mine) == (False, False)


async def test_r55_logging_out_everywhere_ends_every_session_and_a_login_under_way(service: Service) -> None:
    await service.register()
    logins = [await service.login() for _ in range(5)]
    under_way = [asyncio.create_task(service.http.post("/login", data={"username": "bholay", "password": "test123"}))]
    await asyncio.sleep(0)
    await service.logout(logins[0]["access_token"], params={"everywhere": "true"})
    for login in logins:
        assert await alive(service, login) == (False, False)
    for answer in await asyncio.gather(*under_way):
        # Either it came first and was ended, or it came later and is good: never one that nobody ended.
        assert answer.status_code in (200, 401)
    epoch = (await service.server.store.users.find(logins[0]["user_id"])).auth_epoch  # type: ignore[union-attr]
    sessions = await service.server.store.sessions.list_live(Subject(logins[0]["user_id"]), now=service.clock())
    assert all(session.auth_epoch == epoch for session in sessions)


@pytest.mark.parametrize(
    "what", ["password", "logout", "everywhere", "disable", "delete", "key", "reset", "plan", "token"]
)
async def test_what_the_store_refuses_did_not_happen_and_a_repeat_does_all_of_it(
    service: Service, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    admin = bearer(await service.new_admin())
    await service.register()
    mine, other = await service.login(), await service.login()
    own = bearer(mine["access_token"])
    key = (await service.http.post("/me/keys", headers=own, json={"name": "x"})).json()
    by_key = (await service.http.post("/login", json={"client_key": key["key"]})).json()
    user = await service.server.users.find("bholay")
    link = await service.server.passwords.reset_link(user, origin=COMMAND_LINE, now=service.clock())
    token = link.url.partition("token=")[2]
    passwords = {"current_password": "test123", "new_password": "test456"}
    requests: dict[str, tuple[str, str, dict[str, Any]]] = {
        "password": ("POST", "/me/password", {"headers": own, "json": passwords}),
        "logout": ("POST", "/logout", {"headers": bearer(other["access_token"])}),
        "everywhere": ("POST", "/logout?everywhere=true", {"headers": own}),
        "disable": ("PATCH", "/users/bholay", {"headers": admin, "json": {"is_active": False}}),
        "delete": ("DELETE", "/users/bholay", {"headers": admin}),
        "key": ("DELETE", f"/me/keys/{key['id']}", {"headers": own}),
        "reset": ("POST", "/reset-password", {"json": {"token": token, "new_password": "test456"}}),
        "plan": ("PATCH", "/users/bholay", {"headers": admin, "json": {"plan": "premium"}}),
        "token": ("POST", "/revoke", {"data": {"token": other["access_token"]}}),
    }
    method, path, sent = requests[what]
    submit = service.server.store._database._open.writer.submit  # type: ignore[union-attr]
    refused = []

    def refuse_the_change(steps: Any, **options: Any) -> Any:
        # The step that takes something away is let run; what belongs to it fails, and so must all of it.
        if any("INSERT INTO revocations" in statement.sqlite.sql for statement, _ in steps):
            refused.append(steps)
            steps = [*steps, (compiled(text("SELECT 1 FROM nowhere")), {})]
        return submit(steps, **options)

    with monkeypatch.context() as patch:
        patch.setattr(service.server.store._database._open.writer, "submit", refuse_the_change)
        answer = await service.http.request(method, path, **sent)
    assert refused
    assert answer.status_code == 503
    for login in (mine, other, by_key):
        assert (await service.get("/secure-data", login["access_token"])).status_code == 200
    assert (await service.http.request(method, path, **sent)).status_code == 200
    ended = {"logout": [other], "key": [by_key], "password": [other, by_key], "plan": [], "token": []}.get(
        what, [mine, other, by_key]
    )
    for login in ended:
        assert await alive(service, login) == (False, False)
    if what in ("plan", "token"):
        assert await alive(service, other) == (False, True)


async def test_a_change_that_a_crash_left_half_is_finished_at_the_next_start(service: Service) -> None:
    """As a store without transactions over several rows can be left."""
    await service.register()
    login = await service.login()
    await service.server.store.users.raise_epoch(login["user_id"], now=service.clock())
    await Revoke(
        service.server.store,
        CounterPage(None),
        Revocations(),
        Feed(time.monotonic, matters=4000),
        Metrics(),
    ).start(service.clock())
    await service.server.revoke.catch_up()
    assert await alive(service, login) == (False, False)


@pytest.mark.parametrize("way", ["start", "delete", "refresh"])
async def test_a_ledger_entry_that_was_lost_is_written_by_whoever_meets_the_session(service: Service, way: str) -> None:
    await service.register()
    mine, other = await service.login(), await service.login()
    sessions = (await service.get("/me/sessions", mine["access_token"])).json()["sessions"]
    victim = next(each["id"] for each in sessions if not each["current"])
    await service.server.store.sessions.end(victim, because="logout", now=service.clock())
    if way == "start":
        await service.server.revoke.start(service.clock())
    elif way == "delete":
        path = f"/me/sessions/{victim}"
        assert (await service.http.delete(path, headers=bearer(mine["access_token"]))).status_code == 404
    else:
        assert (await service.refresh(other["refresh_token"])).status_code == 400
    assert (await service.get("/me", other["access_token"])).status_code == 401


async def test_a_plan_change_beside_a_reset_rescues_no_session(service: Service) -> None:
    admin = bearer(await service.new_admin())
    for round_ in range(5):
        name = f"user{round_}"
        await service.register(name)
        login = await service.login(name)
        user = await service.server.users.find(name)
        link = await service.server.passwords.reset_link(user, origin=COMMAND_LINE, now=service.clock())
        body = {"token": link.url.partition("token=")[2], "new_password": "test456"}
        done, changed = await asyncio.gather(
            service.http.post("/reset-password", json=body),
            service.http.patch(f"/users/{name}", headers=admin, json={"plan": "premium"}),
        )
        assert done.status_code == 200
        assert changed.status_code in (200, 409)
        assert await alive(service, login) == (False, False)


async def test_repeated_endings_do_not_make_the_ledger_grow(service: Service) -> None:
    login = await service.registered_login()
    await service.logout(login["access_token"])
    head = service.server.revoke.revocations.head
    for _ in range(5):
        await service.logout(json={"refresh_token": login["refresh_token"]})
        await service.refresh(login["refresh_token"])
    assert service.server.revoke.revocations.head == head


async def test_a_caller_that_goes_away_leaves_nothing_half_ended(service: Service) -> None:
    login = await service.registered_login()
    session_id = service.server.keyring.refresh_tokens.decode(login["refresh_token"]).session_id
    task = asyncio.create_task(
        service.server.logout.session(session_id, subject=Subject(""), origin=COMMAND_LINE, now=service.clock())
    )
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await alive(service, login) == (False, False)


async def test_r55_a_disabled_client_and_a_rotated_key_end_what_was_there(service: Service) -> None:
    client_id, key = await service.new_client()
    login = (await service.http.post("/login", json={"client_key": key})).json()
    made = await service.server.clients.rotate_key(client_id, origin=COMMAND_LINE, now=service.clock())  # type: ignore[arg-type]
    assert await alive(service, login) == (False, False)
    assert (await service.http.post("/login", json={"client_key": key})).status_code == 401
    again = (await service.http.post("/login", json={"client_key": made.client_key})).json()
    await service.server.clients.disable(client_id, origin=COMMAND_LINE, now=service.clock())  # type: ignore[arg-type]
    assert await alive(service, again) == (False, False)
    assert (await service.http.post("/login", json={"client_key": made.client_key})).status_code == 401


async def test_without_the_ledger_nothing_is_accepted(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    login = await service.registered_login()
    service.server.counter.raise_()
    failing_once(monkeypatch, service.server.store.ledger, "since")
    answer = await service.get("/secure-data", login["access_token"])
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert (await service.get("/secure-data", login["access_token"])).status_code == 200


async def test_the_follower_survives_whatever_fails(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    from authwright.services import revoke as module

    monkeypatch.setattr(module, "POLL_SECONDS", 0)
    outcomes: list[Exception | None] = [ValueError("odd"), StoreUnavailable("away"), KeyError("x"), None]
    done = asyncio.Event()

    async def keep_up() -> None:
        outcome = outcomes.pop(0)
        service.server.counter.raise_()
        if outcome is not None:
            raise outcome
        done.set()

    following = asyncio.create_task(service.server.revoke.follow(service.clock, keep_up))
    await asyncio.wait_for(done.wait(), 5)
    following.cancel()


async def test_an_epoch_that_somebody_wrote_takes_back_no_revocation(service: Service) -> None:
    """Who can write to the database but has no key: `restore` withdraws every key with its new epoch."""
    login = await service.registered_login()
    assert (await service.logout(login["access_token"])).status_code == 200
    connection = service.server.store._database._opened().writer._connection
    connection.execute("DELETE FROM revocations")
    connection.execute("UPDATE sessions SET revoked_at = NULL")
    connection.execute("UPDATE facts SET value = 'ffff' WHERE name = 'store_epoch'")
    service.server.counter.raise_()
    await service.server.revoke.catch_up()
    assert (await service.get("/me", login["access_token"])).status_code == 401
