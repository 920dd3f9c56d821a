"""services.refresh: exactly one successor, theft ends the session, mistakes cost nothing."""

import asyncio
import time
from typing import Any

import pytest

from authwright.domain.errors import InvalidGrant, InvalidScope, InvalidTarget
from authwright.domain.event import COMMAND_LINE
from authwright.domain.secrets import ClientId, SessionId
from authwright.storage.sql import sqlite as engine
from harness import Service


async def refresh(service: Service, token: str, **more: str) -> dict[str, object]:
    asked: dict[str, Any] = {"client": None, "origin": COMMAND_LINE, "now": service.clock(), **more}
    grant = await service.server.refresh.refresh(token, **asked)
    return {"refresh_token": grant.refresh_token, "access_token": grant.access_token, "scope": grant.scope}


async def test_r56_r58_a_hundred_at_once_get_the_same_successor(service: Service) -> None:
    token = (await service.registered_login())["refresh_token"]
    for _ in range(3):
        answers = await asyncio.gather(*(refresh(service, token) for _ in range(100)))
        assert len({answer["refresh_token"] for answer in answers}) == 1
        assert len({answer["access_token"] for answer in answers}) == 100
        token = str(answers[0]["refresh_token"])


async def test_r58_a_lost_answer_can_be_asked_for_again_within_the_grace_period_only(service: Service) -> None:
    first = (await service.registered_login())["refresh_token"]
    second = (await refresh(service, first))["refresh_token"]
    service.clock.advance(9)
    assert (await refresh(service, first))["refresh_token"] == second
    service.clock.advance(1)
    with pytest.raises(InvalidGrant):
        await refresh(service, first)
    with pytest.raises(InvalidGrant):
        await refresh(service, str(second))


async def test_r58_asking_again_never_extends_the_grace_period(service: Service) -> None:
    first = (await service.registered_login())["refresh_token"]
    await refresh(service, first)
    for _ in range(3):
        service.clock.advance(3)
        await refresh(service, first)
    service.clock.advance(1)
    with pytest.raises(InvalidGrant):
        await refresh(service, first)


async def test_r51_cve_2026_1035_reuse_ends_the_session_and_its_access_tokens(service: Service) -> None:
    login = await service.registered_login()
    first = login["refresh_token"]
    second = str((await refresh(service, first))["refresh_token"])
    third = await refresh(service, second)
    with pytest.raises(InvalidGrant):
        await refresh(service, first)
    with pytest.raises(InvalidGrant):
        await refresh(service, str(third["refresh_token"]))
    for token in (login["access_token"], str(third["access_token"])):
        assert (await service.get("/me", token)).status_code == 401


async def test_r52_another_clients_token_is_refused_and_stays_usable(service: Service) -> None:
    token = (await service.registered_login())["refresh_token"]
    with pytest.raises(InvalidGrant):
        await service.server.refresh.refresh(
            token, client=ClientId("cli_other"), origin=COMMAND_LINE, now=service.clock()
        )
    moved = await refresh(service, token)
    # In the grace period, too: the wrong client neither gets the successor nor ends anything.
    with pytest.raises(InvalidGrant):
        await service.server.refresh.refresh(
            token, client=ClientId("cli_other"), origin=COMMAND_LINE, now=service.clock()
        )
    await refresh(service, str(moved["refresh_token"]))


async def test_r33_r53_scope_narrows_the_access_token_only(service: Service) -> None:
    token = (await service.registered_login(plan="premium"))["refresh_token"]
    narrow = await refresh(service, token, scope="predict")
    assert narrow["scope"] == "predict"
    wide = await refresh(service, str(narrow["refresh_token"]))
    assert wide["scope"] == "account analytics predict"


async def test_r52_asking_for_too_much_leaves_the_token_unspent(service: Service) -> None:
    token = (await service.registered_login())["refresh_token"]
    with pytest.raises(InvalidScope):
        await refresh(service, token, scope="admin")
    with pytest.raises(InvalidTarget):
        await refresh(service, token, resource="https://unknown.example")
    service.clock.advance(60)
    await refresh(service, token)


async def test_r54_sessions_end_when_idle_and_in_any_case(service: Service) -> None:
    settings = service.server.settings
    token = (await service.registered_login())["refresh_token"]
    elapsed = 0
    while elapsed + settings.session_idle_seconds - 1 < settings.session_seconds:
        service.clock.advance(settings.session_idle_seconds - 1)
        elapsed += settings.session_idle_seconds - 1
        token = str((await refresh(service, token))["refresh_token"])
    service.clock.advance(settings.session_seconds - elapsed)
    with pytest.raises(InvalidGrant):
        await refresh(service, token)
    idle = (await service.login())["refresh_token"]
    service.clock.advance(settings.session_idle_seconds)
    with pytest.raises(InvalidGrant):
        await refresh(service, idle)


async def test_an_access_token_never_outlives_its_session(service: Service) -> None:
    login = await service.registered_login()
    token = login["refresh_token"]
    settings = service.server.settings
    step = settings.session_idle_seconds - 1
    for _ in range(settings.session_seconds // step):
        service.clock.advance(step)
        token = str((await refresh(service, token))["refresh_token"])
    service.clock.advance(settings.session_seconds % step - 60)
    grant = await service.server.refresh.refresh(token, client=None, origin=COMMAND_LINE, now=service.clock())
    assert grant.expires_in == 60


async def test_a_rollback_of_the_store_is_refused_but_ends_nothing(service: Service) -> None:
    login = await service.registered_login()
    tokens = service.server.keyring.refresh_tokens
    ahead = tokens.encode(tokens.successor(tokens.decode(login["refresh_token"])))
    with pytest.raises(InvalidGrant) as refused:
        await refresh(service, ahead)
    assert refused.value.detail == "rollback"
    session = await service.server.store.sessions.find(tokens.decode(ahead).session_id)
    assert session is not None
    assert session.revoked_at is None
    await refresh(service, login["refresh_token"])


async def test_a_forged_token_is_refused_without_a_look_at_the_store(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = (await service.registered_login())["refresh_token"]
    monkeypatch.setattr(engine.SqliteDatabase, "_opened", None)
    for forged in (token[:-1] + ("A" if token[-1] != "A" else "B"), "awr_" + "A" * 132, token[4:], ""):
        with pytest.raises(InvalidGrant):
            await refresh(service, forged)


async def test_one_statement_besides_the_commit(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    token = (await service.registered_login())["refresh_token"]
    _, key = await service.new_client()
    real, statements = engine._taken, []

    def counted(*statement: Any) -> Any:
        statements.append(statement)
        return real(*statement)

    monkeypatch.setattr(engine, "_taken", counted)
    assert (await service.refresh(token)).status_code == 200
    assert len(statements) == 1
    assert (await service.http.post("/login", json={"client_key": key})).status_code == 200
    assert len(statements) == 2


async def test_r57_what_was_revoked_is_refused_by_a_server_that_starts_later(service: Service) -> None:
    login = await service.registered_login()
    await service.logout(login["access_token"])
    from authwright.domain.revocation import Revocations
    from authwright.services.feed import Feed
    from authwright.services.metrics import Metrics
    from authwright.services.revoke import Revoke
    from authwright.storage.counter import CounterPage

    later = Revoke(
        service.server.store,
        CounterPage(None),
        Revocations(),
        Feed(time.monotonic, matters=4000),
        Metrics(),
    )
    await later.start(service.clock())
    session_id = service.server.keyring.refresh_tokens.decode(login["refresh_token"]).session_id
    assert later.revocations.ended(SessionId(session_id))
