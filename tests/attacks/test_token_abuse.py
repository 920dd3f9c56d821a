"""Section by section what attackers send as a bearer token, over HTTP: each is 401 (or 431), soon, and never 500."""

import base64
import json
import time

import pytest

from authwright.jose.encoding import b64url_encode
from authwright.jose.sign import PrivateKey, Signer
from harness import Service, bearer
from tokens import encoded

UNTERMINATED = b"[" * 17 + b'"' + b'\\"' * 1000


def parts(token: str) -> tuple[dict[str, object], dict[str, object], str]:
    head, body, signature = token.split(".")
    return (
        json.loads(base64.urlsafe_b64decode(head + "==")),
        json.loads(base64.urlsafe_b64decode(body + "==")),
        signature,
    )


def abuses(token: str) -> dict[str, str]:
    head, claims, signature = parts(token)
    raw_head, raw_body, _ = token.split(".")
    admin = encoded({**claims, "roles": ["admin"], "scope": "account admin"})
    stranger = PrivateKey.generate("ES256")
    psychic = b64url_encode(bytes(64))
    twice = json.dumps(head)[:-1].encode() + b"," + json.dumps(head)[1:].encode()
    return {
        "none": f"{encoded({**head, 'alg': 'none'})}.{admin}.",
        "none with a signature": f"{encoded({**head, 'alg': 'none'})}.{admin}.{signature}",
        "changed claims": f"{raw_head}.{admin}.{signature}",
        "psychic signature": f"{raw_head}.{admin}.{psychic}",
        "stripped": f"{raw_head}.{raw_body}",
        "empty signature": f"{raw_head}.{raw_body}.",
        "five parts": f"{raw_head}.{raw_body}.{signature}.{signature}.{signature}",
        "JSON serialization": json.dumps({"protected": raw_head, "payload": raw_body, "signature": signature}),
        "stranger's key, our kid": _resigned(stranger, {**head}, claims),
        "stranger's key in the header": _resigned(stranger, {**head, "jwk": stranger.public.jwk()}, claims),
        "stranger's own": Signer(stranger, typ="at+jwt").sign(claims),
        "traversal": f"{encoded({**head, 'kid': '../../../dev/null'})}.{admin}.{signature}",
        "injection": f"{encoded({**head, 'kid': chr(39) + ' OR 1=1 --'})}.{admin}.{signature}",
        "long kid": f"{encoded({**head, 'kid': 'k' * 3000})}.{admin}.{signature}",
        "crit": f"{encoded({**head, 'crit': ['exp']})}.{admin}.{signature}",
        "b64": f"{encoded({**head, 'b64': False, 'crit': ['b64']})}.{admin}.{signature}",
        "duplicate alg": f"{encoded(twice)}.{admin}.{signature}",
        "padding": f"{raw_head}=.{raw_body}.{signature}",
        "case": token.swapcase(),
        "dots": "." * 10_000,
        "deep": f"{encoded(b'[' * 2000)}.{raw_body}.{signature}",
        "unterminated": f"{encoded(UNTERMINATED)}.{raw_body}.{signature}",
        "large": f"{raw_head}.{'A' * 20_000}.{signature}",
        "basic": "dXNlcjpwYXNz",
        "empty": "",
    }


def _resigned(key: PrivateKey, head: dict[str, object], claims: dict[str, object]) -> str:
    signed = f"{encoded(head)}.{encoded(claims)}"
    return f"{signed}.{b64url_encode(key.sign(signed.encode()))}"


@pytest.mark.parametrize("name", abuses("e30.e30.x"))
async def test_section_3_7_token_abuse_is_refused_soon_and_says_nothing(service: Service, name: str) -> None:
    token = (await service.registered_login())["access_token"]
    abuse = abuses(token)[name]
    begun = time.process_time()
    answer = await service.http.get("/me", headers=bearer(abuse))
    assert time.process_time() - begun < 0.25
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")
    assert abuse[:40] not in answer.text or len(abuse) < 8
    assert (await service.get("/me", token)).status_code == 200


async def test_r71_no_credential_of_one_kind_is_taken_for_another(service: Service) -> None:
    login = await service.registered_login()
    _, key = await service.new_client()
    kinds = {"access token": login["access_token"], "refresh token": login["refresh_token"], "client key": key}
    for kind, value in kinds.items():
        spent = await service.http.post("/token", data={"grant_type": "refresh_token", "refresh_token": value})
        verdicts = {
            "access token": (await service.get("/secure-data", value)).status_code,
            "refresh token": spent.status_code,
            "client key": (await service.http.post("/login", json={"client_key": value})).status_code,
        }
        good = {name for name, status in verdicts.items() if status == 200}
        # A key is presented as it is, or logged in with; either way as a key.
        assert good <= ({kind, "access token"} if kind == "client key" else {kind}), kind
