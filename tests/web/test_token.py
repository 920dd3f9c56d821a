"""/token: RFC 6749 to the letter; the password form for the built-in client alone."""

import base64

import pytest

from authwright.domain.event import COMMAND_LINE
from harness import Service, bearer, open_service


def basic(client_id: str, secret: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()}


async def key_session(service: Service) -> tuple[str, str, str]:
    """A client's id, its key, and a refresh token of a session made with the key."""
    client_id, key = await service.new_client()
    login = (await service.http.post("/login", json={"client_key": key})).json()
    return client_id, key, login["refresh_token"]


async def test_r37_errors_have_the_shape_and_codes_of_rfc_6749(service: Service) -> None:
    await service.register()
    table = [
        ({"grant_type": ""}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "invalid_request"),
        ({"grant_type": "refresh_token"}, 400, "invalid_request"),
        ({"grant_type": "authorization_code", "code": "x"}, 400, "unsupported_grant_type"),
        ({"grant_type": "client_credentials"}, 400, "unsupported_grant_type"),
        ({"grant_type": "password", "username": "bholay", "password": "wrong"}, 400, "invalid_grant"),
        ({"grant_type": "refresh_token", "refresh_token": "awr_x"}, 400, "invalid_grant"),
        ({"username": "bholay", "password": "test123", "scope": "everything"}, 400, "invalid_scope"),
        ({"username": "bholay", "password": "test123", "resource": "https://x.example"}, 400, "invalid_target"),
        (
            {"username": "bholay", "password": "test123", "client_id": "cli_x", "client_secret": "y"},
            401,
            "invalid_client",
        ),
    ]
    for form, status, error in table:
        answer = await service.http.post("/token", data=form)
        assert (answer.status_code, answer.json()["error"]) == (status, error), form
        assert answer.json().keys() == {"error", "error_description", "request_id"}
        assert answer.headers["content-type"] == "application/json"
        # RFC 6749 section 5.2: %x20-21 / %x23-5B / %x5D-7E
        assert all(c in " !" or "#" <= c <= "[" or "]" <= c <= "~" for c in answer.json()["error_description"])


async def test_r41_r42_clients_authenticate_by_basic_or_in_the_form(service: Service) -> None:
    client_id, key, token = await key_session(service)
    form = {"grant_type": "refresh_token", "refresh_token": token}
    first = await service.http.post("/token", data=form, headers=basic(client_id, key))
    assert first.status_code == 200
    again = {**form, "refresh_token": first.json()["refresh_token"], "client_id": client_id, "client_secret": key}
    assert (await service.http.post("/token", data=again)).status_code == 200


async def test_r40_two_ways_at_once_are_refused(service: Service) -> None:
    client_id, key, token = await key_session(service)
    form = {"grant_type": "refresh_token", "refresh_token": token}
    for more in ({"client_secret": key}, {"client_id": "cli_other"}):
        answer = await service.http.post("/token", data={**form, **more}, headers=basic(client_id, key))
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    "header",
    [
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic eDp5 ",
        "Basic eDp5=",
        "Basic eDp\n5",
        "Basic " + base64.b64encode(b"no-colon").decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
        "Basic " + base64.b64encode("cli_é:é".encode()).decode(),
        "Basic " + base64.b64encode(b"cli_x:y").decode().rstrip("=") + "=",
        "Bearer x",
        "Digest x",
    ],
)
async def test_r41_r49_basic_is_read_strictly_and_never_answers_500(service: Service, header: str) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": "awr_x"}
    answer = await service.http.post("/token", data=form, headers={"authorization": header.replace("\n", "")})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert answer.headers["www-authenticate"].startswith("Basic ")


async def test_r41_id_and_secret_are_form_encoded_inside_basic(service: Service) -> None:
    client_id, key, token = await key_session(service)
    encoded = {"authorization": "Basic " + base64.b64encode(f"{client_id.replace('_', '%5F')}:{key}".encode()).decode()}
    form = {"grant_type": "refresh_token", "refresh_token": token}
    assert (await service.http.post("/token", data=form, headers=encoded)).status_code == 200


async def test_r18_the_password_form_is_for_the_built_in_client_alone(service: Service) -> None:
    await service.register()
    client_id, key, _ = await key_session(service)
    form = {"grant_type": "password", "username": "bholay", "password": "test123"}
    answer = await service.http.post("/token", data=form, headers=basic(client_id, key))
    assert (answer.status_code, answer.json()["error"]) == (400, "unauthorized_client")
    # What Swagger UI and other public clients send.
    for headers in ({}, basic("", "")):
        assert (await service.http.post("/token", data=form, headers=headers)).status_code == 200
    assert (await service.http.post("/token", data={**form, "client_id": "cli_first_party"})).status_code == 200


async def test_r18_the_oauth21_profile_has_no_password_form(service: Service) -> None:
    async with open_service(clock=service.clock, profile="oauth21") as strict:
        await strict.register()
        form = {"username": "bholay", "password": "test123"}
        answer = await strict.http.post("/token", data={"grant_type": "password", **form})
        assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_grant_type")
        for answer in (await strict.http.post("/login", data=form), await strict.http.post("/login", json=form)):
            assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_grant_type")
        _, key = await strict.new_client()
        assert (await strict.http.post("/login", json={"client_key": key})).status_code == 200


async def test_r52_a_refresh_token_belongs_to_its_client(service: Service) -> None:
    login = await service.registered_login()
    client_id, key, token = await key_session(service)
    other_id, other_key = await service.new_client("other")
    form = {"grant_type": "refresh_token"}
    for refresh_token, headers in (
        (token, basic(other_id, other_key)),
        (token, {}),
        (login["refresh_token"], basic(client_id, key)),
    ):
        answer = await service.http.post("/token", data={**form, "refresh_token": refresh_token}, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert (
        await service.http.post("/token", data={**form, "refresh_token": login["refresh_token"]})
    ).status_code == 200
    answer = await service.http.post("/token", data={**form, "refresh_token": token}, headers=basic(client_id, key))
    assert answer.status_code == 200


async def test_r48_a_confidential_client_proves_itself_at_the_token_endpoint(service: Service) -> None:
    client_id, key, token = await key_session(service)
    form = {"grant_type": "refresh_token", "refresh_token": token}
    for credentials in ({"client_id": client_id}, {"client_id": client_id, "client_secret": ""}):
        answer = await service.http.post("/token", data={**form, **credentials})
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert (await service.http.post("/token", data=form)).json()["error"] == "invalid_grant"
    good = await service.http.post("/token", data={**form, "client_id": client_id, "client_secret": key})
    assert good.status_code == 200


async def test_refreshing_serves_first_party_and_client_key_sessions_without_a_client(service: Service) -> None:
    login = await service.registered_login()
    _, _, token = await key_session(service)
    for refresh_token in (login["refresh_token"], token):
        assert (await service.refresh(refresh_token)).status_code == 200


async def test_r32_tokens_are_never_cached(service: Service) -> None:
    await service.register()
    answer = await service.http.post("/token", data={"username": "bholay", "password": "test123"})
    assert answer.headers["cache-control"] == "no-store"
    assert (await service.get("/me", answer.json()["access_token"])).headers["cache-control"] == "no-store"


async def test_a_disabled_client_is_no_client(service: Service) -> None:
    client_id, key, token = await key_session(service)
    await service.server.clients.disable(client_id, origin=COMMAND_LINE, now=service.clock())  # type: ignore[arg-type]
    form = {"grant_type": "refresh_token", "refresh_token": token}
    answer = await service.http.post("/token", data=form, headers=basic(client_id, key))
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert (await service.http.get("/secure-data", headers=bearer(key))).status_code == 401


async def test_r39_the_order_of_scopes_and_parameters_means_nothing(service: Service) -> None:
    await service.register(plan="premium")
    pairs = [("username", "bholay"), ("password", "test123"), ("scope", "predict account"), ("grant_type", "password")]
    answers = []
    for order in (pairs, pairs[::-1], [*pairs[:2], ("scope", "account predict"), pairs[3]]):
        answers.append((await service.http.post("/token", data=dict(order))).json())
    assert [each["scope"] for each in answers] == ["account predict"] * 3
