"""Mission A, auth for ML services (without analytics): walked over HTTP as it is written."""

import json

from authwright.jose.encoding import b64url_decode
from harness import Service


async def test_register_with_a_plan_and_the_password_is_stored_hashed(service: Service) -> None:
    answer = await service.http.post("/register", json={"username": "bholay", "password": "test123", "plan": "premium"})
    assert answer.status_code == 201
    assert (answer.json()["username"], answer.json()["plan"]) == ("bholay", "premium")
    user = await service.server.store.users.find(answer.json()["id"])
    assert user is not None
    assert user.password_hash.startswith("$argon2id$")
    assert "test123" not in user.password_hash


async def test_every_plan_can_be_chosen_in_development(service: Service) -> None:
    for plan in ("free", "premium", "admin"):
        assert (await service.register(f"user-{plan}", plan=plan))["plan"] == plan


async def test_token_answers_a_bearer_token_that_carries_name_plan_and_expiry(service: Service) -> None:
    await service.register(plan="premium")
    answer = await service.http.post("/token", data={"username": "bholay", "password": "test123"})
    assert answer.status_code == 200
    assert answer.json()["token_type"] == "bearer"
    payload = json.loads(b64url_decode(answer.json()["access_token"].split(".")[1]))
    assert (payload["preferred_username"], payload["plan"]) == ("bholay", "premium")
    assert payload["exp"] == payload["iat"] + answer.json()["expires_in"]


async def test_token_takes_the_form_with_its_grant_type_too(service: Service) -> None:
    await service.register()
    form = {"grant_type": "password", "username": "bholay", "password": "test123", "scope": "", "client_id": ""}
    assert (await service.http.post("/token", data=form)).status_code == 200


async def test_any_authenticated_user_gets_a_real_prediction(service: Service) -> None:
    token = (await service.registered_login(plan="free"))["access_token"]
    by_default = await service.get("/predict", token)
    assert by_default.status_code == 200
    row = by_default.json()["features"]
    same = await service.get("/predict", token, params=row)
    assert same.json()["probabilities"] == by_default.json()["probabilities"]
    changed = await service.get("/predict", token, params={**row, "petal_length": 6.5, "petal_width": 2.3})
    assert changed.json()["probabilities"] != by_default.json()["probabilities"]
    assert changed.json()["class"] == "virginica"
    assert (await service.get("/predict")).status_code == 401


async def test_wish_refresh_tokens(service: Service) -> None:
    await service.register()
    first = (await service.http.post("/token", data={"username": "bholay", "password": "test123"})).json()
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    second = await service.http.post("/token", data=form)
    assert second.status_code == 200
    assert second.json()["refresh_token"] != first["refresh_token"]
    assert (await service.get("/predict", second.json()["access_token"])).status_code == 200


async def test_analytics_by_plan_and_role_from_what_was_recorded(service: Service) -> None:
    tokens = {}
    for plan in ("free", "premium", "admin"):
        tokens[plan] = (await service.registered_login(f"{plan}-user", plan=plan))["access_token"]
    verdicts = {
        plan: [(await service.get(f"/analytics/{report}", token)).status_code for report in ("basic", "full")]
        for plan, token in tokens.items()
    }
    assert verdicts == {"free": [403, 403], "premium": [200, 403], "admin": [200, 200]}
    before = (await service.get("/analytics/basic", tokens["premium"])).json()
    for _ in range(3):
        predicted = (await service.get("/predict", tokens["free"])).json()["class"]
    after = (await service.get("/analytics/basic", tokens["premium"])).json()
    assert after["calls"]["by_route"]["/predict"] == before["calls"]["by_route"].get("/predict", 0) + 3
    (day,) = after["predictions"]["by_day"].values()
    assert day[predicted] == 3
    assert after["callers_by_plan"] == {"free": 1, "premium": 1, "admin": 1}
