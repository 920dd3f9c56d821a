"""Mission C, auth for API clients: walked over HTTP as it is written."""

from harness import Service, bearer


async def test_log_in_with_a_client_key(service: Service) -> None:
    client_id, client_key = await service.new_client()
    answer = await service.http.post("/login", json={"client_key": client_key})
    assert answer.status_code == 200
    assert answer.json().keys() >= {"access_token", "refresh_token", "user_id"}
    assert answer.json()["user_id"] == client_id


async def test_secure_data_needs_a_bearer_token(service: Service) -> None:
    _, client_key = await service.new_client()
    login = (await service.http.post("/login", json={"client_key": client_key})).json()
    assert (await service.get("/secure-data", login["access_token"])).status_code == 200
    refused = await service.get("/secure-data")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Bearer ")


async def test_me_answers_the_client_that_calls(service: Service) -> None:
    client_id, client_key = await service.new_client("nightly-scoring")
    login = (await service.http.post("/login", json={"client_key": client_key})).json()
    me = (await service.get("/me", login["access_token"])).json()
    assert me["id"] == client_id
    assert (me["kind"], me["username"], me["is_active"]) == ("client", "nightly-scoring", True)


async def test_refresh_answers_a_new_access_token_and_lives_longer(service: Service) -> None:
    _, client_key = await service.new_client()
    login = (await service.http.post("/login", json={"client_key": client_key})).json()
    service.clock.advance(login["expires_in"] + 60)
    assert (await service.get("/secure-data", login["access_token"])).status_code == 401
    refreshed = await service.refresh(login["refresh_token"])
    assert refreshed.status_code == 200
    assert refreshed.json()["access_token"] != login["access_token"]
    assert (await service.get("/secure-data", refreshed.json()["access_token"])).status_code == 200


async def test_after_logging_out_access_and_refresh_token_are_refused(service: Service) -> None:
    _, client_key = await service.new_client()
    login = (await service.http.post("/login", json={"client_key": client_key})).json()
    assert (await service.logout(login["access_token"])).status_code == 200
    refused = await service.http.get("/secure-data", headers=bearer(login["access_token"]))
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_token")
    again = await service.refresh(login["refresh_token"])
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
