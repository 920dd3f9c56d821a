"""Mission E, stateless JWT authentication: FastAPI's own scheme against our tokens, verified without a database."""

from pathlib import Path
from typing import Annotated

import httpx2
import jwt
import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer

from authwright.jose.encoding import b64url_decode, parse_json_object
from authwright.storage.port import StoreUnavailable
from authwright.storage.sql import sqlite as engine
from harness import ORIGIN, Service, bearer


def protected_api(jwks: dict[str, object]) -> FastAPI:
    """An API of somebody else: FastAPI's OAuth2PasswordBearer, PyJWT, and the published keys. It has no database."""
    app = FastAPI()
    keys = jwt.PyJWKSet.from_dict(jwks)

    @app.get("/whoami")
    def whoami(token: Annotated[str, Depends(OAuth2PasswordBearer(tokenUrl=f"{ORIGIN}/token"))]) -> dict[str, str]:
        try:
            key = keys[jwt.get_unverified_header(token)["kid"]]
            claims = jwt.decode(
                token, key, algorithms=["ES256"], issuer=ORIGIN, audience=ORIGIN, options={"verify_exp": False}
            )
        except (jwt.InvalidTokenError, KeyError):
            raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"}) from None
        return {"user": claims["preferred_username"]}

    return app


@pytest.mark.parametrize("endpoint", ["/token", "/login"])
async def test_oauth2_password_bearer_works_against_token_and_login(service: Service, endpoint: str) -> None:
    await service.register()
    form = {"grant_type": "password", "username": "bholay", "password": "test123"}
    token = (await service.http.post(endpoint, data=form)).json()["access_token"]
    jwks = (await service.get("/.well-known/jwks.json")).json()
    transport = httpx2.ASGITransport(app=protected_api(jwks))
    async with httpx2.AsyncClient(transport=transport, base_url="http://api.example") as api:
        assert (await api.get("/whoami", headers=bearer(token))).json() == {"user": "bholay"}
        assert (await api.get("/whoami")).status_code == 401
        assert (await api.get("/whoami", headers=bearer(token[:-4] + "AAAA"))).status_code == 401


async def test_protected_routes_verify_without_asking_the_database(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The plan has no quota: what is left of one is read from the database once a caller, which is not verifying.
    token = (await service.registered_login(plan="admin"))["access_token"]

    def submit(*_: object) -> None:
        raise AssertionError("the database was asked")

    monkeypatch.setattr(engine.SqliteDatabase, "_opened", submit)
    assert (await service.get("/secure-data", token)).status_code == 200
    assert (await service.get("/secure-data", token + "x")).status_code == 401
    assert (await service.get("/.well-known/jwks.json")).status_code == 200
    assert (await service.get("/livez")).status_code == 200


async def test_a_caller_with_a_quota_is_verified_and_served_while_the_database_is_away(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = (await service.registered_login())["access_token"]

    def away(*_: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(engine.SqliteDatabase, "_opened", away)
    answer = await service.get("/secure-data", token)
    assert answer.status_code == 200
    # Its rate, which is counted in memory, and its quota, of which nothing is known, are kept all the same.
    assert answer.headers["ratelimit"].startswith('"rate";r=59;')
    assert '"day";r=999;' in answer.headers["ratelimit"]
    assert (await service.get("/secure-data", token + "x")).status_code == 401


async def test_the_payload_is_readable_and_holds_nothing_secret(service: Service) -> None:
    password = "a password nobody else has"
    await service.register(password=password)
    login = await service.login(password=password)
    user = await service.server.store.users.find(login["user_id"])
    assert user is not None
    payload = b64url_decode(login["access_token"].split(".")[1])
    names = "iss sub aud exp iat jti client_id sid scope roles plan auth_epoch preferred_username"
    assert sorted(parse_json_object(payload)) == sorted(names.split(" "))
    for secret in (password, user.password_hash, login["refresh_token"]):
        assert secret.encode() not in payload


def test_header_payload_and_signature_are_taught_with_the_projects_own_tokens() -> None:
    page = Path(__file__).parents[2] / "docs/explanation/tokens.md"
    text = page.read_text(encoding="utf-8")
    for word in ("header", "payload", "signature", "at+jwt", "awr_"):
        assert word in text
