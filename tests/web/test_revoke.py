"""POST /revoke (RFC 7009): what a client was given, it may give back."""

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from authwright.domain.revocation import Revocation
from authwright.jose.claims import MAX_LEEWAY
from guarded import API, PASSWORD, Issuer, issuing, refused, until
from harness import Clock, Service, bearer, open_service, production


def basic(client_id: str, secret: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()}


async def revoke(service: Service, token: str, headers: dict[str, str] | None = None, **form: str) -> httpx2.Response:
    return await service.http.post("/revoke", data={"token": token, **form}, headers=headers or {})


async def entries(service: Service) -> list[Revocation]:
    return list(await service.server.store.ledger.since(0))


async def good(service: Service, token: str) -> bool:
    return (await service.get("/me", token)).status_code == 200


async def test_r97_an_access_token_is_revoked_alone(service: Service) -> None:
    login = await service.registered_login()
    again = (await service.refresh(login["refresh_token"])).json()
    other = await service.login()
    answer = await revoke(service, login["access_token"])
    assert (answer.status_code, answer.json()) == (200, {})
    assert answer.headers["cache-control"] == "no-store"
    assert not await good(service, login["access_token"])
    # Its siblings of the same session go on, and so does the session.
    assert await good(service, again["access_token"])
    assert await good(service, other["access_token"])
    assert (await service.refresh(again["refresh_token"])).status_code == 200
    (entry,) = await entries(service)
    assert (entry.kind, entry.reason) == ("token", "revoked")


async def test_r97_a_refresh_token_takes_every_token_of_its_session_along(service: Service) -> None:
    login = await service.registered_login()
    again = (await service.refresh(login["refresh_token"])).json()
    other = await service.login()
    assert (await revoke(service, again["refresh_token"])).status_code == 200
    for token in (login["access_token"], again["access_token"]):
        assert not await good(service, token)
    assert (await service.refresh(again["refresh_token"])).status_code == 400
    assert await good(service, other["access_token"])


async def test_r97_a_spent_refresh_token_ends_its_session_too(service: Service) -> None:
    login = await service.registered_login()
    again = (await service.refresh(login["refresh_token"])).json()
    assert (await revoke(service, login["refresh_token"])).status_code == 200
    assert not await good(service, again["access_token"])


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_r98_a_repeat_is_answered_the_same_and_writes_nothing(service: Service, kind: str) -> None:
    login = await service.registered_login()
    for _ in range(3):
        assert (await revoke(service, login[kind])).status_code == 200
    assert len(await entries(service)) == 1


async def test_of_many_at_once_each_is_answered_after_the_token_is_dead(service: Service) -> None:
    login = await service.registered_login()

    async def revoke_and_look() -> bool:
        assert (await revoke(service, login["access_token"])).status_code == 200
        return await good(service, login["access_token"])

    assert not any(await asyncio.gather(*(revoke_and_look() for _ in range(10))))
    # One entry, and one event, however many asked.
    assert len(await entries(service)) == 1


async def test_r98_what_is_unknown_expired_or_made_up_is_no_error_and_changes_nothing(service: Service) -> None:
    login = await service.registered_login()
    access, refresh = login["access_token"], login["refresh_token"]
    for wrong in ("x", access[:-1], access + "A", access.swapcase(), refresh[:-1], "awr_" + "A" * 132):
        assert (await revoke(service, wrong)).status_code == 200
    service.clock.advance(300 + MAX_LEEWAY)
    assert (await revoke(service, access)).status_code == 200
    assert await entries(service) == []
    assert (await service.refresh(refresh)).status_code == 200


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "nonsense"])
async def test_r98_a_wrong_hint_hides_nothing(service: Service, hint: str) -> None:
    login = await service.registered_login()
    assert (await revoke(service, login["access_token"], token_type_hint=hint)).status_code == 200
    assert not await good(service, login["access_token"])
    assert (await revoke(service, login["refresh_token"], token_type_hint=hint)).status_code == 200
    assert (await service.refresh(login["refresh_token"])).status_code == 400


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_r98_the_token_of_another_client_is_refused_without_effect(service: Service, kind: str) -> None:
    users = await service.registered_login()
    mine_id, mine = await service.new_client("mine")
    other_id, other = await service.new_client("other")
    clients = (await service.http.post("/login", json={"client_key": mine})).json()
    for token, headers in (
        (clients[kind], {}),
        (clients[kind], basic(other_id, other)),
        (users[kind], basic(mine_id, mine)),
    ):
        answer = await revoke(service, token, headers)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert await entries(service) == []
    assert await good(service, clients["access_token"])
    assert await good(service, users["access_token"])
    # Its own client, by either way to authenticate.
    assert (await revoke(service, clients[kind], client_id=mine_id, client_secret=mine)).status_code == 200
    assert not await good(service, clients["access_token"])
    assert (await revoke(service, clients[kind], basic(mine_id, mine))).status_code == 200


async def test_r36_r40_a_client_that_fails_to_authenticate_revokes_nothing(service: Service) -> None:
    login = await service.registered_login()
    client_id, key = await service.new_client()
    token = login["access_token"]
    cases: list[tuple[dict[str, str], dict[str, str], int, str]] = [
        (basic(client_id, key[:-1]), {}, 401, "invalid_client"),
        (basic("cli_nobody", key), {}, 401, "invalid_client"),
        (bearer(token), {}, 401, "invalid_client"),
        ({}, {"client_id": client_id}, 401, "invalid_client"),
        (basic(client_id, key), {"client_secret": key}, 400, "invalid_request"),
    ]
    for headers, form, status, error in cases:
        answer = await revoke(service, token, headers, **form)
        assert (answer.status_code, answer.json()["error"]) == (status, error), (headers, form)
    assert await good(service, token)


async def test_r31_only_a_form_by_post_is_read(service: Service) -> None:
    login = await service.registered_login()
    token = login["access_token"]
    assert (await service.http.get("/revoke", params={"token": token})).status_code == 405
    assert (await service.http.post("/revoke", json={"token": token})).status_code == 415
    assert (await service.http.post("/revoke", params={"token": token}, data={"a": "b"})).status_code == 400
    twice = {"content-type": "application/x-www-form-urlencoded"}
    assert (await service.http.post("/revoke", content=f"token={token}&token=x", headers=twice)).status_code == 400
    assert await good(service, token)


async def test_a_key_is_no_token_and_goes_on(service: Service) -> None:
    login = await service.registered_login()
    _, client_key = await service.new_client()
    made = (await service.http.post("/me/keys", headers=bearer(login["access_token"]), json={"name": "x"})).json()
    for key in (client_key, made["key"], client_key[:-1]):
        answer = await revoke(service, key)
        assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_token_type")
    assert await good(service, made["key"])
    # What an API key opened has no client that could authenticate.
    opened = (await service.http.post("/login", json={"client_key": made["key"]})).json()
    assert (await revoke(service, opened["access_token"])).status_code == 200
    assert not await good(service, opened["access_token"])
    assert (await revoke(service, opened["refresh_token"])).status_code == 200
    assert (await service.refresh(opened["refresh_token"])).status_code == 400


async def test_it_is_on_record_who_revoked_what(service: Service) -> None:
    admin = await service.new_admin()
    login = await service.registered_login()
    await revoke(service, login["access_token"], headers={"user-agent": "a client"})
    (told,) = await service.events(admin, kind="token_revoked")
    assert (told["subject"], told["client_id"], told["outcome"]) == (login["user_id"], "cli_first_party", "success")
    assert (told["user_agent"], told["address"]) == ("a client", "127.0.0.1")
    (entry,) = await entries(service)
    assert told["detail"] == entry.target


async def test_a_token_that_only_a_lenient_guard_takes_is_revoked_too(issuer: Issuer) -> None:
    token = await issuer.token()
    issuer.service.clock.advance(300 + MAX_LEEWAY - 10)
    async with issuer.guard(leeway=MAX_LEEWAY) as lenient:
        assert not await refused(lenient, token)
        assert (await revoke(issuer.service, token)).status_code == 200
        await until(lambda: refused(lenient, token), seconds=1)


async def test_a_token_for_an_api_that_is_configured_no_more_is_revoked_too(tmp_path: Path) -> None:
    settings = production(tmp_path, issuer="https://auth.example.com", audiences=(API,), registration="open")
    clock = Clock()
    async with open_service(clock=clock, settings=settings) as service:
        await service.register("bholay", PASSWORD)
        login = await service.login("bholay", PASSWORD, resource=API)
    async with open_service(clock=clock, settings=replace(settings, audiences=())) as service:
        assert (await revoke(service, login["access_token"])).status_code == 200
        assert [entry.kind for entry in await entries(service)] == ["token"]


@pytest.mark.parametrize("alg", ["HS256", "EdDSA"])
async def test_tokens_of_every_algorithm_are_revoked(alg: str, clock: Clock) -> None:
    async with open_service(clock=clock, signing_alg=alg, audiences=(API,)) as service:
        await service.register()
        for resource in ({}, {"resource": API}):
            login = await service.login(**resource)
            assert (await revoke(service, login["access_token"])).status_code == 200
        assert len(await entries(service)) == 2


@pytest.fixture
async def issuer(tmp_path: Path) -> AsyncIterator[Issuer]:
    async with issuing(tmp_path) as made:
        yield made


async def test_r97_r102_every_guard_refuses_that_token_and_no_other(issuer: Issuer) -> None:
    login = await issuer.login()
    token = login["access_token"]
    sibling = (await issuer.service.refresh(login["refresh_token"])).json()["access_token"]

    async def told() -> Any:
        return (await issuer.service.http.post("/introspect", data={"token": token}, headers=bearer(issuer.key))).json()

    async with issuer.guard() as guard:
        assert (await guard.verify(token)).session_id == (await guard.verify(sibling)).session_id
        assert (await told())["active"]
        assert (await revoke(issuer.service, token)).status_code == 200
        assert await told() == {"active": False}
        await until(lambda: refused(guard, token), seconds=1)
        assert not await refused(guard, sibling)
    # One that comes later has it from its snapshot.
    async with issuer.guard() as late:
        assert await refused(late, token)
        assert not await refused(late, sibling)
