"""One service, not five: where the five missions overlap, one endpoint serves all."""

from harness import Service, bearer

UNION = {"access_token", "token_type", "expires_in", "refresh_token", "scope", "user_id"}


async def test_login_takes_a_form_json_and_a_client_key_and_answers_alike(service: Service) -> None:
    await service.register(email="user@example.com")
    _, client_key = await service.new_client()
    answers = [
        await service.http.post("/login", data={"username": "bholay", "password": "test123"}),
        await service.http.post("/login", data={"username": "user@example.com", "password": "test123"}),
        await service.http.post("/login", json={"username": "bholay", "password": "test123"}),
        await service.http.post("/login", json={"username": "User@Example.COM", "password": "test123"}),
        await service.http.post("/login", json={"client_key": client_key}),
    ]
    for answer in answers:
        assert answer.status_code == 200
        assert answer.json().keys() == UNION
    assert len({answer.json()["user_id"] for answer in answers}) == 2


async def test_me_and_users_me_answer_for_whoever_calls(service: Service) -> None:
    user = await service.registered_login()
    _, client_key = await service.new_client()
    client = (await service.http.post("/login", json={"client_key": client_key})).json()
    for login in (user, client):
        me = (await service.get("/me", login["access_token"])).json()
        assert me == (await service.get("/users/me", login["access_token"])).json()
        assert me["id"] == login["user_id"]


async def test_both_spellings_of_a_path_answer_and_none_redirects(service: Service) -> None:
    token = (await service.registered_login())["access_token"]
    for path in ("/me", "/users/me", "/health", "/secure-data", "/.well-known/jwks.json"):
        for spelling in (path, f"{path}/"):
            answer = await service.http.get(spelling, headers=bearer(token), follow_redirects=False)
            assert answer.status_code == 200, spelling


async def test_the_main_job_from_registration_to_refusal(service: Service) -> None:
    login = await service.registered_login(plan="premium")
    assert (await service.get("/predict", login["access_token"])).status_code == 200
    refreshed = (await service.refresh(login["refresh_token"])).json()
    assert (await service.get("/predict", refreshed["access_token"])).status_code == 200
    assert (await service.logout(refreshed["access_token"])).status_code == 200
    for token in (login["access_token"], refreshed["access_token"]):
        assert (await service.get("/predict", token)).status_code == 401
    for token in (login["refresh_token"], refreshed["refresh_token"]):
        assert (await service.refresh(token)).status_code == 400
