"""Rules that hold for every answer: no redirect after a POST, texts that OAuth allows, links no request changes."""

import asyncio
import json
import re

import pytest

from authwright.domain import errors
from authwright.domain.event import COMMAND_LINE
from authwright.jose.encoding import b64url_decode
from authwright.web.endpoint import Brake
from harness import Service

# RFC 6749 section 5.2 and RFC 6750 section 3: no quotes, no backslash, ASCII alone.
_DESCRIPTION = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]+")


@pytest.mark.parametrize("path", ["/login", "/login/", "/token/", "/register/", "/reset-password/", "/users/"])
async def test_r10_nothing_redirects_after_a_post(service: Service, path: str) -> None:
    answer = await service.http.post(path, data={"username": "x", "password": "x"})
    assert answer.status_code >= 400
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    "sent",
    [
        {"grant_type": 'x"\\\N{SNOWMAN}'},
        {"grant_type": "refresh_token", "refresh_token": '"\\'},
        {"grant_type": "password", "username": '"', "password": "\\"},
        {"username": "a", "password": "b", "scope": '"\\'},
    ],
)
async def test_r21_a_description_holds_what_oauth_allows_and_nothing_that_was_sent(
    service: Service, sent: dict[str, str]
) -> None:
    answer = await service.http.post("/token", data=sent)
    assert answer.status_code == 400
    assert _DESCRIPTION.fullmatch(answer.json()["error_description"])
    assert _DESCRIPTION.fullmatch(answer.json()["error"])


def test_r21_every_usual_text_may_stand_in_a_challenge() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.Refusal)]
    assert len(kinds) > 20
    for kind in kinds:
        assert _DESCRIPTION.fullmatch(kind.default), kind


async def test_r63_an_access_token_says_what_it_is(service: Service) -> None:
    token = (await service.registered_login())["access_token"]
    header = json.loads(b64url_decode(token.split(".")[0]))
    assert (header["typ"], header["alg"]) == ("at+jwt", "ES256")


async def test_r162_a_reset_link_begins_with_the_issuer_whatever_a_request_says(service: Service) -> None:
    admin = await service.new_admin()
    host = {"authorization": f"Bearer {admin}", "host": "localhost:8000"}
    made = await service.http.post("/users/", headers=host, json={"username": "grace"})
    assert made.json()["reset_link"]["url"].startswith("http://127.0.0.1:8000/reset-password?token=")
    spoofed = {"authorization": f"Bearer {admin}", "host": "evil.example"}
    refused = await service.http.post("/users/", headers=spoofed, json={"username": "mary"})
    assert refused.status_code == 421
    user = await service.server.users.find("grace")
    link = await service.server.passwords.reset_link(user, origin=COMMAND_LINE, now=service.clock())
    assert link.url.startswith(service.server.settings.issuer + "/")


async def test_refused_answers_are_held_back_a_bounded_number_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authwright.web.endpoint.MOST_HELD", 2)
    brake = Brake(3600)
    held = [asyncio.create_task(brake.hold()) for _ in range(3)]
    await held[2]
    assert [task.done() for task in held] == [False, False, True]
    for task in held[:2]:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    # Their places are free again.
    again = asyncio.create_task(brake.hold())
    await asyncio.sleep(0)
    assert not again.done()
    again.cancel()
