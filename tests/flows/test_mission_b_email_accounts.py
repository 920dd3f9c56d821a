"""Mission B, accounts by e-mail address: walked over HTTP as it is written."""

import bcrypt

from authwright.config import Settings
from authwright.domain.event import COMMAND_LINE
from authwright.jose.encoding import b64url_decode, parse_json_object
from harness import Clock, Service, open_service

ACCOUNT = {"email": "user@example.com", "password": "strongpassword123"}


async def test_register_answers_the_account(service: Service) -> None:
    answer = await service.http.post("/register", json=ACCOUNT)
    assert answer.status_code == 201
    account = answer.json()
    assert account["id"].startswith("usr_")
    expected = {"email": "user@example.com", "is_active": True, "role": "user"}
    assert {name: account[name] for name in expected} == expected


async def test_log_in_with_the_password_form_and_ask_for_the_profile(service: Service) -> None:
    registered = (await service.http.post("/register", json=ACCOUNT)).json()
    # What `curl -d "username=...&password=..."` sends.
    answer = await service.http.post(
        "/login",
        content="username=user@example.com&password=strongpassword123",
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert answer.status_code == 200
    assert answer.json()["token_type"] == "bearer"
    me = await service.get("/me", answer.json()["access_token"])
    assert me.status_code == 200
    assert me.json() == registered
    assert me.json().keys() >= {"id", "email", "is_active", "role"}


async def test_health_answers_exactly_ok(service: Service) -> None:
    answer = await service.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_hs256_is_available_and_publishes_no_key(clock: Clock) -> None:
    async with open_service(clock=clock, signing_alg="HS256") as service:
        login = await service.registered_login()
        header = parse_json_object(b64url_decode(login["access_token"].split(".")[0]))
        assert header["alg"] == "HS256"
        assert (await service.get("/me", login["access_token"])).status_code == 200
        assert (await service.get("/.well-known/jwks.json")).json() == {"keys": []}


async def test_bcrypt_hashes_made_elsewhere_verify_and_are_upgraded(service: Service) -> None:
    elsewhere = bcrypt.hashpw(b"strongpassword123", bcrypt.gensalt(4)).decode()
    user = await service.server.register.create_with_hash(
        origin=COMMAND_LINE,
        username=None,
        email="user@example.com",
        password_hash=elsewhere,
        plan=None,
        now=service.clock(),
    )
    for _ in range(2):
        await service.login("user@example.com", "strongpassword123")
        stored = await service.server.store.users.find(user.id)
        assert stored is not None
        assert stored.password_hash.startswith("$argon2id$")


async def test_wish_roles_and_revocation(service: Service) -> None:
    admin = await service.server.register.create(
        origin=COMMAND_LINE,
        username="ada",
        email=None,
        password="test123",
        plan=None,
        now=service.clock(),
        role="admin",
    )
    login = await service.login("ada")
    assert (await service.get("/me", login["access_token"])).json() | {"role": "admin"} == (
        await service.get("/users/me", login["access_token"])
    ).json()
    assert admin.role == "admin"
    await service.logout(login["access_token"])
    assert (await service.get("/me", login["access_token"])).status_code == 401


def test_all_five_algorithms_can_be_configured() -> None:
    for alg in ("ES256", "RS256", "PS256", "EdDSA", "HS256"):
        assert Settings.dev(signing_alg=alg).signing_alg == alg
