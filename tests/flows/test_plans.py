"""A plan means something, on every database: `free` meets 429 exactly where it says, `premium` does not."""

from harness import Clock, Service, bearer

ROW = {"sepal_length": 6.3, "sepal_width": 3.3, "petal_length": 6.0, "petal_width": 2.5}


async def calls(service: Service, token: str, times: int, path: str = "/predict") -> list[int]:
    return [(await service.get(path, token)).status_code for _ in range(times)]


async def test_free_meets_429_exactly_where_its_plan_says_and_premium_does_not(service: Service, clock: Clock) -> None:
    free = (await service.registered_login("ada"))["access_token"]
    premium = (await service.registered_login("bob", plan="premium"))["access_token"]
    assert await calls(service, free, 62) == [200] * 60 + [429] * 2
    assert await calls(service, premium, 62) == [200] * 62
    clock.advance(5)
    # A call a second has grown back.
    assert await calls(service, free, 7) == [200] * 5 + [429] * 2
    assert (await service.get("/me", free)).json()["error"] == "limit_exceeded"


async def test_the_thousandth_call_of_a_day_is_the_last(service: Service, clock: Clock) -> None:
    clock.advance(86_400 - clock.now // 1_000_000 % 86_400 + 1)
    await service.register("ada")
    served = 0
    for _ in range(17):
        token = (await service.login("ada"))["access_token"]
        for rows in (20, 20, 20):
            answer = await service.http.post("/predict", json={"rows": [ROW] * rows}, headers=bearer(token))
            served += rows if answer.status_code == 200 else 0
            if answer.status_code != 200:
                # The call itself is paid for, its rows are not.
                assert answer.json()["limit"] == "day"
        clock.advance(60)
    assert served == 1000
    token = (await service.login("ada"))["access_token"]
    used = (await service.get("/me/usage", token)).json()
    assert used["left"] == {"day": 0, "month": None}
    assert used["total"] == 1000
    clock.advance(86_400)
    token = (await service.login("ada"))["access_token"]
    assert await calls(service, token, 1) == [200]


async def test_what_was_sent_is_what_was_used(service: Service) -> None:
    admin = await service.new_admin()
    login = await service.registered_login("ada", plan="premium")
    for path, times in (("/me", 3), ("/predict", 4), ("/secure-data", 5), ("/analytics/basic", 2)):
        assert await calls(service, login["access_token"], times, path) == [200] * times
    listed = (await service.get("/admin/usage?user=ada", admin)).json()["usage"]
    assert {row["route"]: (row["calls"], row["units"]) for row in listed} == {
        "/me": (3, 3),
        "/predict": (4, 4),
        "/secure-data": (5, 5),
        "/analytics/basic": (2, 2),
    }
    assert {row["id"] for row in listed} == {login["user_id"]}
    own = (await service.get("/me/usage", login["access_token"])).json()
    assert own["total"] == 14
