"""Failed logins are slowed down, over all paths, by account and network, and nobody is locked out by a stranger."""

import asyncio
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest

from authwright.domain.errors import Busy
from harness import Clock, Service, bearer, open_service

WRONG = {"username": "ada", "password": "wrong!"}


def from_network(service: Service, address: str) -> httpx2.AsyncClient:
    """A client of *service* that connects from *address*."""
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=service.app, client=(address, 40000)),
        base_url=service.server.settings.issuer,
    )


@pytest.fixture
async def served(clock: Clock, tmp_path: Any) -> Any:
    """A server in production, which others than this machine may call; `ada` logged in from 192.0.2.1."""
    from harness import production

    settings = production(
        tmp_path,
        issuer="https://auth.example.com",
        registration="open",
        password_min_length=8,
        registrations_per_hour=3,
        failed_logins_network=20,
    )
    async with open_service(clock=clock, settings=settings, peer="192.0.2.1") as service:
        # Cheap hashes are refused in production; the counters are what is tested here.
        from authwright.domain.passwords import HashProfile

        service.server.hashing.profile = HashProfile(32, 1, 1)
        await service.http.post("/register", json={"username": "ada", "password": "correct horse"})
        await service.login("ada", "correct horse")
        yield service


async def attempt(client: httpx2.AsyncClient, path: str = "/login", **form: str) -> int:
    return (await client.post(path, data={**WRONG, **form})).status_code


async def test_delays_grow_and_what_is_tried_meanwhile_is_neither_checked_nor_counted(
    served: Service, clock: Clock
) -> None:
    async with from_network(served, "198.51.100.7") as stranger:
        assert [await attempt(stranger) for _ in range(5)] == [401] * 5
        waits = []
        for _ in range(12):
            refused = await stranger.post("/login", data=WRONG)
            assert (refused.status_code, refused.json()["error"]) == (429, "too_many_attempts")
            waits.append(int(refused.headers["retry-after"]))
            # Neither checked, not even with the right password, nor counted: the delay does not grow by it.
            assert await attempt(stranger, password="correct horse") == 429
            clock.advance(waits[-1])
            assert await attempt(stranger) == 401
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]


async def test_r158_a_stranger_cannot_lock_out_a_network_that_is_familiar(served: Service) -> None:
    async with from_network(served, "198.51.100.7") as stranger:
        for _ in range(10):
            await attempt(stranger)
        assert await attempt(stranger, password="correct horse") == 429
    assert (await served.login("ada", "correct horse"))["token_type"] == "bearer"


async def test_a_network_is_familiar_for_thirty_days(served: Service, clock: Clock) -> None:
    clock.advance(31 * 86_400)
    async with from_network(served, "198.51.100.7") as stranger:
        for _ in range(6):
            await attempt(stranger)
    assert await attempt(served.http, password="correct horse") == 429


async def test_a_familiar_network_is_slowed_down_by_its_own_failures(served: Service) -> None:
    assert [await attempt(served.http) for _ in range(6)] == [401] * 5 + [429]
    # Others are not.
    async with from_network(served, "198.51.100.7") as other:
        assert await attempt(other, password="correct horse") == 200


async def test_a_right_password_forgets_the_failures(served: Service) -> None:
    for _ in range(3):
        assert [await attempt(served.http) for _ in range(4)] == [401] * 4
        assert await attempt(served.http, password="correct horse") == 200


async def test_cve_2026_9798_one_counter_over_all_paths(served: Service) -> None:
    token = (await served.login("ada", "correct horse"))["access_token"]
    change = {"current_password": "wrong!", "new_password": "something else"}
    statuses = [
        await attempt(served.http),
        await attempt(served.http, "/token"),
        (await served.http.post("/me/password", headers=bearer(token), json=change)).status_code,
        (await served.http.post("/login", json=WRONG)).status_code,
        (
            await served.http.patch("/me", headers=bearer(token), json={"username": "x", "current_password": "no"})
        ).status_code,
    ]
    assert statuses == [401, 400, 401, 401, 401]
    right = {"username": "ada", "password": "correct horse"}
    for path in ("/login", "/token"):
        refused = await served.http.post(path, data=right)
        assert (refused.status_code, refused.json()["error"]) == (429, "too_many_attempts")
        assert int(refused.headers["retry-after"]) >= 1
    change["current_password"] = "correct horse"
    assert (await served.http.post("/me/password", headers=bearer(token), json=change)).status_code == 429


async def test_r157_two_hundred_at_once_get_no_more_than_one_after_the_other(served: Service) -> None:
    async with from_network(served, "198.51.100.7") as stranger:
        statuses = await asyncio.gather(*(attempt(stranger) for _ in range(200)))
        assert statuses.count(401) == 5
        assert set(statuses) <= {401, 429, 503}
        assert await attempt(stranger, password="correct horse") == 429


async def test_r159_a_name_that_nobody_has_is_slowed_down_just_the_same(served: Service) -> None:
    async with from_network(served, "198.51.100.7") as stranger:
        for name in ("nobody", "no body", "nobody@example.com", "x" * 300, "me"):
            assert [await attempt(stranger, username=name) for _ in range(3)] == [401] * 3
    async with from_network(served, "198.51.100.8") as stranger:
        for name in ("nobody", "no body"):
            assert [await attempt(stranger, username=name) for _ in range(3)] == [401, 401, 429]


async def test_spellings_of_a_name_share_a_counter(served: Service) -> None:
    async with from_network(served, "198.51.100.7") as stranger:
        names = ("ada", "ADA", "Ada", "\N{FULLWIDTH LATIN SMALL LETTER A}da", "aDa", "adA")
        assert [await attempt(stranger, username=name) for name in names] == [401] * 5 + [429]


async def test_cve_2026_45364_one_network_over_many_accounts_and_addresses(served: Service) -> None:
    statuses = []
    for number in range(24):
        # One /64, and an address that is written in two ways.
        async with from_network(served, f"2001:db8:1:2:{number:x}::1") as stranger:
            statuses.append(await attempt(stranger, username=f"user{number}"))
    assert statuses == [401] * 20 + [429] * 4
    async with from_network(served, "2001:db8:1:3::1") as neighbour:
        assert await attempt(neighbour, username="user1") == 401


async def test_registration_is_throttled_by_network(served: Service, clock: Clock) -> None:
    async def register(client: httpx2.AsyncClient, name: str) -> int:
        body = {"username": name, "password": "a long passphrase"}
        return (await client.post("/register", json=body)).status_code

    # One was made in the fixture. Taken names count as well: the answer tells whether a name exists.
    assert [await register(served.http, name) for name in ("ada", "eve", "grace")] == [409, 201, 429]
    async with from_network(served, "198.51.100.7") as other:
        assert await register(other, "grace") == 201
    clock.advance(3601)
    assert await register(served.http, "mary") == 201


async def test_r36_wrong_keys_close_the_door_for_their_network_alone(served: Service) -> None:
    client_id, key = await served.new_client()
    async with from_network(served, "198.51.100.7") as stranger:
        statuses = [(await stranger.post("/login", json={"client_key": f"awk_{n}"})).status_code for n in range(21)]
        assert statuses == [401] * 20 + [429]
        assert (await stranger.get("/me", headers=bearer("awu_" + "x" * 51))).status_code == 429
        # Nobody guesses 256 bits: a program with an old key must not stop the others of its network.
        assert (await stranger.post("/login", json={"client_key": key})).status_code == 200
        assert (await stranger.get("/me", headers=bearer(key))).status_code == 200
    assert (await served.http.post("/login", json={"client_key": key})).status_code == 200
    assert client_id


async def test_r36_wrong_client_secrets_close_the_door_for_client_and_network(served: Service) -> None:
    client_id, key = await served.new_client()
    other_id, other_key = await served.new_client("other")
    refresh = (await served.http.post("/login", json={"client_key": key})).json()["refresh_token"]
    other = (await served.http.post("/login", json={"client_key": other_key})).json()["refresh_token"]

    async def spend(client: httpx2.AsyncClient, ident: str, secret: str, token: str) -> httpx2.Response:
        form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": ident, "client_secret": secret}
        return await client.post("/token", data=form)

    async with from_network(served, "198.51.100.7") as stranger:
        statuses = [(await spend(stranger, client_id, "wrong", refresh)).status_code for _ in range(21)]
        assert statuses == [401] * 20 + [429]
        assert (await spend(stranger, other_id, "wrong", other)).status_code == 401
        assert (await spend(stranger, other_id, other_key, other)).status_code == 200
    assert (await spend(served.http, client_id, "wrong", refresh)).status_code == 401
    assert (await spend(served.http, client_id, key, refresh)).status_code == 200


async def test_reset_tokens_cannot_be_guessed_at_will(served: Service) -> None:
    body = {"token": "awp_guess", "new_password": "a long passphrase"}
    statuses = [(await served.http.post("/reset-password", json=body)).status_code for _ in range(21)]
    assert statuses == [400] * 20 + [429]


async def test_the_counters_survive_a_restart(served: Service, clock: Clock) -> None:
    async with from_network(served, "198.51.100.7") as stranger:
        for _ in range(5):
            await attempt(stranger)
    async with open_service(clock=clock, settings=served.server.settings, peer="198.51.100.7") as again:
        assert await attempt(again.http, password="correct horse") == 429


async def test_a_new_name_is_counted_like_a_registration(served: Service) -> None:
    """Whether a name is taken is told there as well."""

    async def rename(name: str) -> int:
        token = (await served.login("ada", "correct horse"))["access_token"]
        body = {"email": f"{name}@example.com", "current_password": "correct horse"}
        return (await served.http.patch("/me", headers=bearer(token), json=body)).status_code

    # One was counted when the account was registered.
    assert [await rename(name) for name in ("eve", "grace", "mary")] == [200, 200, 429]


async def test_a_right_password_with_a_scope_that_is_not_is_counted_and_on_record(served: Service) -> None:
    form = {"username": "ada", "password": "correct horse", "scope": "nonsense"}
    async with from_network(served, "198.51.100.7") as stranger:
        for _ in range(5):
            assert (await stranger.post("/login", data=form)).status_code == 400
        assert (await stranger.post("/login", data=form)).status_code == 429
    from authwright.storage.port import EventFilter

    found = await served.server.store.events.list(EventFilter(kind="login", outcome="failure"), before=None, most=9)
    assert [event.detail for event in found] == ["scope or resource"] * 5


async def test_one_account_from_many_networks_does_not_fill_the_queue(served: Service) -> None:
    hashing = served.server.hashing
    with ExitStack() as stack:
        taken = 0
        for number in range(64):
            try:
                stack.enter_context(hashing.place(f"10.0.0.{number}", "familiar", account="mallory"))
            except Busy:
                continue
            taken += 1
        assert taken == 4
        # Those who are familiar fall back to the places of all where theirs are taken.
        for number in range(16):
            stack.enter_context(hashing.place(f"10.0.1.{number}", "familiar", account=f"user{number}"))
        assert (await served.login("ada", "correct horse"))["token_type"] == "bearer"
