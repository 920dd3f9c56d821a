"""The guard of an API: verifies by itself, and knows within a moment what its issuer revoked."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from authwright.domain.errors import Unauthenticated, Unavailable
from authwright.domain.event import COMMAND_LINE
from authwright.domain.secrets import ClientId
from authwright.guard import Guard
from authwright.jose.encoding import b64url_decode
from authwright.jose.sign import Signer, SigningSecret
from guarded import API, Issuer, issuing, refused, until
from harness import bearer


@pytest.fixture
async def issuer(tmp_path: Path):  # type: ignore[no-untyped-def]
    async with issuing(tmp_path) as made:
        yield made


async def test_a_token_is_verified_here_and_a_logout_is_heard_of(issuer: Issuer) -> None:
    async with issuer.guard() as guard:
        login = await issuer.login()
        token = login["access_token"]
        principal = await guard.verify(token)
        assert (principal.username, principal.issuer, principal.scopes) == (
            "bholay",
            issuer.base,
            {"predict", "account"},
        )
        fetches = guard.status.key_fetches
        again = [await guard.verify(token) for _ in range(3)]
        assert again == [principal] * 3
        assert guard.recall(token) is principal
        body = {"refresh_token": login["refresh_token"]}
        begun = time.monotonic()
        assert (await issuer.service.http.post("/logout", json=body)).status_code == 200
        await until(lambda: refused(guard, token))
        assert time.monotonic() - begun < 1
        status = guard.status
        assert (status.key_fetches, status.introspections, status.following) == (fetches, 0, True)
        with pytest.raises(Unauthenticated):
            guard.check(principal)
        guard.check(await guard.verify(await issuer.token()))


async def test_r67_what_is_not_for_this_api_is_refused(issuer: Issuer) -> None:
    async with issuer.guard() as guard:
        other = await issuer.token(resource=issuer.base)
        login = await issuer.login()
        for wrong in (other, login["refresh_token"], login["access_token"][:-2], "", "a.b.c", "é", "x" * 20_000):
            with pytest.raises(Unauthenticated):
                await guard.verify(wrong)
        issuer.service.clock.advance(306)
        with pytest.raises(Unauthenticated, match="expired"):
            await guard.verify(login["access_token"])


async def test_everything_that_ends_a_login_ends_it_here(issuer: Issuer) -> None:
    service = issuer.service
    async with issuer.guard(accept_keys=True) as guard:
        await issuer.register("second")
        tokens = [await issuer.token(), await issuer.token()]
        kept = await issuer.token("second")
        full = await issuer.token(resource=issuer.base)
        for token in (*tokens, kept):
            await guard.verify(token)
        assert (await service.http.post("/logout?everywhere=true", headers=bearer(full))).status_code == 200
        await until(lambda: refused(guard, tokens[0]))
        assert await refused(guard, tokens[1])
        await guard.verify(kept)
        # A client that was disabled.
        client, key = await service.new_client()
        answer = await service.http.post("/login", json={"client_key": key, "resource": API})
        token = answer.json()["access_token"]
        assert (await guard.verify(token)).is_client
        await service.server.clients.disable(ClientId(client), origin=COMMAND_LINE, now=service.clock())
        await until(lambda: refused(guard, token))


async def test_a_withdrawn_key_beats_the_key_set_that_is_cached(issuer: Issuer) -> None:
    service = issuer.service
    async with issuer.guard() as guard:
        token = await issuer.token()
        kid = (await guard.verify(token)).key_id
        entry = await service.server.keyring.withdraw(kid, service.clock())
        begun = time.monotonic()
        await service.server.revoke.append(entry)
        await until(lambda: refused(guard, token))
        assert time.monotonic() - begun < 1
        # The one that took its place is known at once: the feed said that keys changed.
        await service.server.verify.load_keys(service.clock())
        fresh = await issuer.token()
        assert (await guard.verify(fresh)).key_id != kid


async def test_who_cannot_know_yet_answers_unavailable(issuer: Issuer) -> None:
    wrong = issuer.key[:-9] + ("a" if issuer.key[-9] != "a" else "b")
    with pytest.raises(ValueError, match="not a client key"):
        issuer.guard(key=wrong)
    _, key = await issuer.service.new_client("without the scope")
    token = await issuer.token()

    async def is_unavailable(**options: Any) -> None:
        async with issuer.guard(**options) as guard:
            begun = time.monotonic()
            with pytest.raises(Unavailable) as error:
                await guard.verify(token)
            assert 1.5 < time.monotonic() - begun < 4
            assert error.value.retry_after

    await asyncio.gather(is_unavailable(key=key), is_unavailable(key=None), is_unavailable(issuer="http://127.0.0.1:9"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "http://auth.example.com"},
        {"issuer": "ftp://127.0.0.1"},
        {"issuer": "https://auth.example.com/?a=b"},
        {"issuer": "https://auth.example.com#a"},
        {"issuer": "https://user@auth.example.com"},
        {"issuer": "https://"},
        {"issuer": "http://127.0.0.1.example.com"},
        {"issuer": ""},
        {"audience": ""},
        {"leeway": 121},
        {"on_stale": "pass"},
        {"shared_secrets": {"k": "c2hvcnQ"}},
    ],
)
def test_r79_a_guard_that_would_be_unsafe_is_not_made(wrong: dict[str, object]) -> None:
    good = {"issuer": "https://auth.example.com", "audience": API}
    Guard(**good)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        Guard(**{**good, **wrong})  # type: ignore[arg-type]


def test_a_guard_does_not_show_its_key() -> None:
    guard = Guard(issuer="https://auth.example.com", audience=API)
    assert repr(guard) == f"Guard(issuer='https://auth.example.com', audience='{API}')"


def test_a_guard_goes_on_in_another_event_loop(tmp_path: Path) -> None:
    async def subject(guard: Guard, token: str) -> str:
        return (await guard.verify(token)).subject

    async def twice() -> None:
        async with issuing(tmp_path) as issuer:
            guard, token = issuer.guard(), await issuer.token()

            def in_loops_of_their_own() -> set[str]:
                return {asyncio.run(subject(guard, token)) for _ in range(2)}

            assert len(await asyncio.to_thread(in_loops_of_their_own)) == 1

    asyncio.run(twice())


async def test_hs256_is_accepted_with_the_secret_of_this_audience_and_no_other(tmp_path: Path) -> None:
    other = "https://other.example.com"
    async with issuing(tmp_path, signing_alg="HS256", audiences=(API, other)) as issuer:
        keyring, now = issuer.service.server.keyring, issuer.service.clock()
        secrets = keyring.shared_secrets(API, now)
        assert keyring.jwks(now) == {"keys": []}
        token = await issuer.token()
        async with issuer.guard(shared_secrets=secrets) as guard:
            assert (await guard.verify(token)).username == "bholay"
            # Who can check the tokens of one API cannot make those of another.
            ((kid, secret),) = secrets.items()
            forged = Signer(SigningSecret(b64url_decode(secret), kid=kid), typ="at+jwt")
            claims = {"iss": issuer.base, "aud": other, "sub": "usr_1", "client_id": "c", "jti": "j"}
            seconds = now // 1_000_000
            made = forged.sign({**claims, "iat": seconds, "exp": seconds + 60})
            async with issuer.guard(audience=other, shared_secrets=keyring.shared_secrets(other, now)) as another:
                assert await refused(another, made)
            async with issuer.guard() as without:
                assert await refused(without, token)
