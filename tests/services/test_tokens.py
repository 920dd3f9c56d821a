"""services.tokens: access tokens that are asked for together are signed together, and each for itself."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import UNSET

from authwright.domain.errors import InvalidTarget
from authwright.domain.session import Session
from authwright.jose import claims
from authwright.jose.encoding import b64url_decode
from authwright.services.tokens import Grant, Tokens
from authwright.storage.port import StoreUnavailable
from harness import Clock, Service, open_service
from records import session

AUDIENCES = ("https://one.example", "https://two.example")


@pytest.fixture
async def service(clock: Clock) -> AsyncIterator[Service]:
    async with open_service(clock=clock, audiences=AUDIENCES) as opened:
        yield opened


def part(token: str, number: int) -> dict[str, Any]:
    """The header (0) or the claims (1) of *token*."""
    read: dict[str, Any] = json.loads(b64url_decode(token.split(".")[number]))
    return read


async def test_every_token_is_written_so_that_a_guard_need_not_read_it_as_any_json(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked_for(_payload: bytes) -> dict[str, Any]:
        raise AssertionError("read as any JSON")

    monkeypatch.setattr(claims, "parse_json_object", asked_for)
    issuer = service.server.settings.issuer
    for changed in (
        {},
        {"username": "Zo\u00eb \u5b57 \U0001f511"},
        {"username": "a\"b\\c/d\x7f\u2028<>&'"},
        {"role": "admin", "auth_epoch": 0, "granted_scope": "predict"},
        {"client_id": "cli_1", "subject": "cli_1", "username": None},
        {"subject": "cli_1", "client_id": "https://client.example/metadata"},
    ):
        made = session(**{"subject": "usr_1", "audiences": (issuer,), **changed})
        grant = await asked(service, made)
        said = claims.read_access_claims(b64url_decode(grant.access_token.split(".")[1]))
        assert (said.sub, said.client_id, said.sid) == (made.subject, made.client_id, made.id)
        assert said.preferred_username == (UNSET if made.username is None else made.username)


def asked(service: Service, made: Session, **more: Any) -> "asyncio.Future[Grant]":
    return asyncio.ensure_future(service.server.tokens.issue(made, refresh_token=None, now=service.clock(), **more))


async def test_tokens_that_are_asked_for_together_are_signed_in_one_go_and_each_is_its_own(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    sign = Tokens._sign

    def counted(tokens: Tokens) -> None:
        counts.append(len(tokens._unsigned))
        sign(tokens)

    monkeypatch.setattr(Tokens, "_sign", counted)
    issuer = service.server.settings.issuer
    made = [session(f"usr_{number}", audiences=(issuer, *AUDIENCES)) for number in range(6)]
    resources = [None, *AUDIENCES] * 2
    grants = await asyncio.gather(
        *(asked(service, each, resource=resource) for each, resource in zip(made, resources, strict=True))
    )
    assert counts == [6]
    for each, resource, grant in zip(made, resources, grants, strict=True):
        claims = part(grant.access_token, 1)
        assert (claims["sub"], claims["sid"], claims["aud"]) == (each.subject, each.id, resource or issuer)
    assert (await asked(service, made[0])).session == made[0]
    assert counts == [6, 1]


async def test_of_tokens_that_are_asked_for_together_one_that_cannot_be_signed_fails_alone(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = service.server.keyring.signer

    def for_one_only(audience: str, now: Any) -> Any:
        if audience == AUDIENCES[1]:
            raise StoreUnavailable("its key cannot be read")
        return signer(audience, now)

    monkeypatch.setattr(service.server.keyring, "signer", for_one_only)
    made = session("usr_1", audiences=AUDIENCES)
    good, bad, gone, last = (
        asked(service, made, resource=resource) for resource in (AUDIENCES[0], AUDIENCES[1], *[AUDIENCES[0]] * 2)
    )
    refused = asked(service, made, resource="https://three.example")
    sign = Tokens._sign

    def after_one_has_gone(tokens: Tokens) -> None:
        gone.cancel()
        sign(tokens)

    monkeypatch.setattr(Tokens, "_sign", after_one_has_gone)
    outcomes = await asyncio.gather(good, bad, gone, last, refused, return_exceptions=True)
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Grant, StoreUnavailable, asyncio.CancelledError, Grant, InvalidTarget]


async def test_whatever_ends_the_signing_nobody_waits_for_ever(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Panic(BaseException):
        """What is raised where a library in another language gives up."""

    signer = service.server.keyring.signer

    def for_one_only(audience: str, now: Any) -> Any:
        if audience == AUDIENCES[1]:
            raise Panic
        return signer(audience, now)

    monkeypatch.setattr(service.server.keyring, "signer", for_one_only)
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))
    made = session("usr_1", audiences=AUDIENCES)
    all_asked = [asked(service, made, resource=AUDIENCES[number == 1]) for number in range(4)]
    outcomes = await asyncio.wait_for(asyncio.gather(*all_asked, return_exceptions=True), 5)
    assert [type(outcome) for outcome in outcomes] == [Grant] + [asyncio.CancelledError] * 3
    assert [type(each) for each in told] == [Panic]
    assert (await asked(service, made, resource=AUDIENCES[0])).access_token


async def test_a_key_that_is_withdrawn_while_a_token_waits_to_be_signed_does_not_sign_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = service.server
    (key,) = (await service.get("/.well-known/jwks.json")).json()["keys"]
    sign = Tokens._sign
    tasks = []

    async def late(tokens: Tokens) -> None:
        await server.revoke.append(await server.keyring.withdraw(key["kid"], service.clock()))
        sign(tokens)

    monkeypatch.setattr(Tokens, "_sign", lambda tokens: tasks.append(asyncio.ensure_future(late(tokens))))
    grant = await asked(service, session("usr_1", audiences=(server.settings.issuer,)))
    await asyncio.gather(*tasks)
    (successor,) = (await service.get("/.well-known/jwks.json")).json()["keys"]
    assert part(grant.access_token, 0)["kid"] == successor["kid"] != key["kid"]
