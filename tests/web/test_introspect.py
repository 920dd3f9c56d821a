"""POST /introspect (RFC 7662): who may ask, what is told, and that it is what the store says now."""

import base64
from pathlib import Path
from typing import Any

import httpx2
import pytest

from authwright.domain.event import COMMAND_LINE
from authwright.domain.instant import after
from authwright.domain.revocation import Revocation
from authwright.domain.secrets import API_KEY_PREFIX, ClientId, new_key
from guarded import API, PASSWORD, Issuer, issuing
from harness import bearer, open_service


@pytest.fixture
async def issuer(tmp_path: Path):  # type: ignore[no-untyped-def]
    async with issuing(tmp_path) as made:
        yield made


async def ask(issuer: Issuer, token: str, headers: dict[str, str] | None = None, **form: str) -> httpx2.Response:
    chosen = bearer(issuer.key) if headers is None else headers
    return await issuer.service.http.post("/introspect", data={"token": token, **form}, headers=chosen)


async def told(issuer: Issuer, token: str) -> dict[str, Any]:
    answer = await ask(issuer, token)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return dict(answer.json())


async def test_an_active_token_is_told_with_its_claims(issuer: Issuer) -> None:
    login = await issuer.login()
    claims = await told(issuer, login["access_token"])
    assert (claims["active"], claims["iss"], claims["aud"]) == (True, issuer.base, API)
    assert (claims["sub"], claims["username"], claims["scope"]) == (login["user_id"], "bholay", "account predict")
    assert claims["exp"] - claims["iat"] == 300
    # For all audiences that the client has, and with any hint.
    other = await issuer.token(resource=issuer.base)
    assert (await ask(issuer, other, token_type_hint="refresh_token")).json()["aud"] == issuer.base


async def test_r99_only_who_was_given_the_scope_may_ask(issuer: Issuer) -> None:
    token = await issuer.token()
    client_id, key = await issuer.service.new_client("without")
    every = await issuer.service.server.clients.all()
    guard_id = next(each.id for each in every if each.name == "guard")
    full = await issuer.token(resource=issuer.base)

    def basic(name: str, secret: str) -> dict[str, str]:
        return {"authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}

    assert (await ask(issuer, token, headers={})).status_code == 401
    assert (await ask(issuer, token, headers=bearer(key))).status_code == 403
    assert (await ask(issuer, token, headers=basic(client_id, key))).status_code == 403
    assert (await ask(issuer, token, headers=bearer(full))).status_code == 403
    assert (await ask(issuer, token, headers=basic(guard_id, key))).status_code == 401
    assert (await ask(issuer, token, headers=bearer(issuer.key), client_secret=issuer.key)).status_code == 400
    assert (await ask(issuer, token, headers=basic(guard_id, issuer.key))).json()["active"]
    form = {"client_id": guard_id, "client_secret": issuer.key}
    assert (await ask(issuer, token, headers={}, **form)).json()["active"]


async def test_r99_a_client_is_told_of_its_own_apis_only(issuer: Issuer) -> None:
    _, key = await issuer.service.new_client("other", scope=frozenset({"revocations"}), audiences=(issuer.base,))
    token, own = await issuer.token(), await issuer.token(resource=issuer.base)
    assert (await ask(issuer, token, headers=bearer(key))).json() == {"active": False}
    assert (await ask(issuer, own, headers=bearer(key))).json()["active"]


async def test_r100_r103_whatever_is_not_active_is_told_as_that_and_nothing_else(issuer: Issuer) -> None:
    login = await issuer.login()
    token = login["access_token"]
    for wrong in (
        token[:-1],
        token + "A",
        token.swapcase(),
        token.replace(".", ". ", 1),
        login["refresh_token"],
        "x",
        issuer.key[:-1],
    ):
        assert await told(issuer, wrong) == {"active": False}
    issuer.service.clock.advance(306)
    assert await told(issuer, token) == {"active": False}
    assert (await ask(issuer, "")).status_code == 400
    twice = await issuer.service.http.post(
        "/introspect",
        content="token=a&token=b",
        headers={**bearer(issuer.key), "content-type": "application/x-www-form-urlencoded"},
    )
    assert twice.status_code == 400


async def test_r101_r102_what_ends_a_token_ends_it_here_at_once(issuer: Issuer) -> None:
    service = issuer.service
    login = await issuer.login()
    assert (await told(issuer, login["access_token"]))["active"]
    await service.http.post("/logout", json={"refresh_token": login["refresh_token"]})
    assert await told(issuer, login["access_token"]) == {"active": False}
    client_id, key = await service.new_client()
    answer = await service.http.post("/login", json={"client_key": key, "resource": API})
    token = answer.json()["access_token"]
    assert (await told(issuer, token))["active"]
    claims = await told(issuer, key)
    assert (claims["active"], claims["client_id"], sorted(claims["aud"])) == (
        True,
        client_id,
        sorted([API, issuer.base]),
    )
    await service.server.clients.disable(ClientId(client_id), origin=COMMAND_LINE, now=service.clock())
    assert await told(issuer, token) == {"active": False}
    assert await told(issuer, key) == {"active": False}


async def own_key(issuer: Issuer) -> tuple[str, str, dict[str, str]]:
    """A key of bholay's, its id, and bholay's credential."""
    headers = bearer(await issuer.token(resource=issuer.base))
    made = await issuer.service.http.post("/me/keys", json={"name": "mine", "days": 3}, headers=headers)
    return made.json()["key"], (await told(issuer, made.json()["key"]))["jti"], headers


async def test_r101_a_users_key_is_told_until_it_is_deleted_or_its_user_disabled(issuer: Issuer) -> None:
    service = issuer.service
    key, key_id, headers = await own_key(issuer)
    claims = await told(issuer, key)
    assert (claims["username"], claims["scope"], key_id.startswith("key_")) == ("bholay", "predict", True)
    assert claims["aud"] == issuer.base
    await service.http.delete(f"/me/keys/{key_id}", headers=headers)
    assert await told(issuer, key) == {"active": False}
    key, _, _ = await own_key(issuer)
    now, origin = service.clock(), COMMAND_LINE
    await service.server.register.create(
        username="root-ada", email=None, password=PASSWORD, plan=None, role="admin", origin=origin, now=now
    )
    admin = await issuer.token("root-ada", resource=issuer.base)
    disabled = await service.http.patch("/users/bholay", json={"is_active": False}, headers=bearer(admin))
    assert disabled.status_code == 200, disabled.text
    assert await told(issuer, key) == {"active": False}


async def test_r99_a_client_is_told_of_a_key_for_its_own_apis_only(issuer: Issuer) -> None:
    _, both = await issuer.service.new_client("both")
    _, here = await issuer.service.new_client("here", scope=frozenset({"revocations"}), audiences=(issuer.base,))
    claims = (await ask(issuer, both, headers=bearer(here))).json()
    assert (claims["active"], claims["aud"]) == (True, issuer.base)
    _, there = await issuer.service.new_client("there", audiences=(API,))
    assert (await ask(issuer, there, headers=bearer(here))).json() == {"active": False}


async def test_r102_what_another_machine_wrote_is_known(issuer: Issuer) -> None:
    server, now = issuer.service.server, issuer.service.clock()
    login = await issuer.login()
    claims = await told(issuer, login["access_token"])
    # As another machine does it: into the store, and nothing in the memory that this machine's workers share.
    entry = Revocation("session", claims["sid"], 0, "logout", now, after(now, 3600))
    await server.store.ledger.append(entry)
    assert await told(issuer, login["access_token"]) == {"active": False}


async def test_wrong_tokens_close_no_door_for_who_asks(issuer: Issuer) -> None:
    for _ in range(150):
        assert await told(issuer, new_key(API_KEY_PREFIX)) == {"active": False}
    assert (await told(issuer, await issuer.token()))["active"]


async def test_it_is_open_in_development() -> None:
    async with open_service() as service:
        login = await service.registered_login()
        answer = await service.http.post("/introspect", data={"token": login["access_token"]})
        assert answer.json()["active"]
