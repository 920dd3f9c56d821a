"""services.login: one cost and one answer for every failure; at most a hundred sessions; the account as it is now."""

import asyncio
from contextlib import ExitStack

import pytest
from sqlalchemy import text

from authwright.domain import passwords
from authwright.domain.secrets import Subject
from authwright.services import login as module
from authwright.storage.sql.statements import compiled
from harness import Service, bearer


async def attempt(service: Service, name: str, password: str) -> tuple[int, dict[str, object]]:
    answer = await service.http.post("/login", data={"username": name, "password": password})
    body = answer.json()
    body.pop("request_id", None)
    return answer.status_code, body


async def test_r159_every_failure_has_one_answer_and_costs_one_hash(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.register()
    real, hashes = passwords.verify_password, []

    def counted(password: str, stored: str) -> bool:
        hashes.append(passwords.hash_format(stored))
        return real(password, stored)

    monkeypatch.setattr(passwords, "verify_password", counted)
    await service.http.post("/register", json={"username": "off", "password": "test123"})
    await service.server.store._database.write(
        compiled(text("UPDATE users SET status = 'disabled' WHERE username = 'off'")), {}
    )
    answers = [
        await attempt(service, "bholay", "wrong-password"),
        await attempt(service, "nobody", "wrong-password"),
        await attempt(service, "nobody@example.com", "wrong-password"),
        await attempt(service, "\u202e not a name", "wrong-password"),
        await attempt(service, "off", "test123"),
        await attempt(service, "bholay", "x" * 5000),
        await attempt(service, "bholay", "\x07"),
    ]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0][0] == 401
    assert hashes == [service.server.hashing.profile.format] * len(answers)


async def test_the_least_recently_used_of_a_hundred_sessions_makes_room(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_SESSIONS", 5)
    await service.register()
    logins = []
    for _ in range(5):
        service.clock.advance(1)
        logins.append(await service.login())
    service.clock.advance(1)
    used = await service.refresh(logins[0]["refresh_token"])
    assert used.status_code == 200
    service.clock.advance(1)
    await service.login()
    alive = await service.server.store.sessions.list_live(Subject(logins[0]["user_id"]), now=service.clock())
    assert len(alive) == 5
    assert (await service.get("/me", logins[0]["access_token"])).status_code == 200
    assert (await service.get("/me", logins[1]["access_token"])).status_code == 401


async def test_r172_every_login_is_a_session_of_its_own(service: Service) -> None:
    await service.register()
    one, two = await service.login(), await service.login()
    await service.logout(one["access_token"])
    assert (await service.get("/me", two["access_token"])).status_code == 200


async def test_r177_scopes_at_login_narrow_and_never_widen(service: Service) -> None:
    await service.register(plan="premium")
    login = await service.login(scope="predict")
    assert login["scope"] == "predict"
    assert (await service.refresh(login["refresh_token"])).json()["scope"] == "predict"
    form = {"username": "bholay", "password": "test123", "scope": "admin"}
    refused = await service.http.post("/login", data=form)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")
    sessions = await service.http.get("/me/sessions", headers=bearer(login["access_token"]))
    assert (sessions.status_code, sessions.json()["error"]) == (403, "insufficient_scope")


async def test_a_client_gets_no_more_than_it_was_made_with(service: Service) -> None:
    _, key = await service.new_client(plan="premium", scope=frozenset({"predict"}))
    login = (await service.http.post("/login", json={"client_key": key})).json()
    assert login["scope"] == "predict"
    refused = await service.http.post("/login", json={"client_key": key, "scope": "analytics"})
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")


async def test_r65_r66_r123_a_token_is_for_one_audience_that_was_asked_for_and_granted(opened_service) -> None:  # type: ignore[no-untyped-def]
    api = "https://api.example.com"
    async with opened_service(audiences=(api,)) as service:
        await service.register()
        default = await service.login()
        assert (await service.get("/me", default["access_token"])).status_code == 200
        elsewhere = await service.login(resource=api)
        assert (await service.get("/me", elsewhere["access_token"])).status_code == 401
        # Granted for one, it stays with one; granted for all, a refresh may choose.
        refused = await service.refresh(elsewhere["refresh_token"], resource="http://127.0.0.1:8000")
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_target")
        chosen = await service.refresh(default["refresh_token"], resource=api)
        assert chosen.status_code == 200
        unknown = {"username": "bholay", "password": "test123", "resource": "https://unknown.example"}
        refused = await service.http.post("/login", data=unknown)
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_target")


async def test_a_full_queue_refuses_before_the_account_is_looked_up(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.register()
    monkeypatch.setattr(service.server.store.users, "find_by_name", None)
    places = service.server.settings.hash_queue // 4
    with ExitStack() as held:
        for _ in range(places):
            held.enter_context(service.server.hashing.place("127.0.0.1"))
        for name in ("bholay", "nobody"):
            answer = await service.http.post("/login", data={"username": name, "password": "x"})
            assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
            assert answer.headers["retry-after"] == "1"


async def test_places_are_given_back_when_a_caller_goes_away(service: Service) -> None:
    await service.register()
    form = {"username": "bholay", "password": "test123"}
    tasks = [asyncio.create_task(service.http.post("/login", data=form)) for _ in range(10)]
    await asyncio.sleep(0.005)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not service.server.hashing._taken.total()
    assert not service.server.hashing._held
