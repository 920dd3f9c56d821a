"""services.keys: encrypted at rest, bound to their row, never replaced silently."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from authwright.config import new_secret_key
from authwright.domain.instant import Instant
from authwright.domain.keyring import PUBLISH_AHEAD
from authwright.jose.encoding import b64url_decode
from authwright.jose.keys import Algorithm
from authwright.jose.sign import PrivateKey, Signer
from authwright.services.keys import Keyring, KeyWrap, UnknownKeyId, UnreadableKey
from authwright.services.revoke import Revoke
from authwright.storage.counter import CounterPage
from authwright.storage.port import IncompatibleStore, StoreUnavailable
from authwright.storage.sql import SqlStore, sqlite_store
from harness import Clock, Service, failing_once, open_service

NOW = Instant(1_795_000_000_000_000)
SECRET = new_secret_key()
ISSUER = "https://a.example"


@pytest.fixture
async def store():  # type: ignore[no-untyped-def]
    made = sqlite_store(None)
    await made.open()
    yield made
    await made.close()


def keyring(
    store: SqlStore, secret: str = SECRET, previous: str = "", alg: Algorithm = "ES256", **more: Any
) -> Keyring:
    options: dict[str, Any] = {"issuer": ISSUER, "keep": 3605, "adopt": False, **more}
    return Keyring(store, CounterPage(None), alg=alg, wrap=KeyWrap(secret, previous), **options)


async def test_keys_are_made_once_and_read_afterwards(store: SqlStore) -> None:
    one, two = keyring(store), keyring(store)
    assert await one.load(NOW)
    assert not await one.load(NOW)
    await two.load(NOW)
    assert one.jwks(NOW) == two.jwks(NOW)


async def test_no_key_is_stored_in_the_clear(store: SqlStore) -> None:
    ring = keyring(store)
    await ring.load(NOW)
    rows = await store.keys.all()
    assert {row.purpose for row in rows} == {"sign", "refresh", "names"}
    for row in rows:
        material = KeyWrap(SECRET).unwrap(row)
        assert material not in row.wrapped
        assert str(row.wrapped) not in repr(row)


async def test_the_wrong_secret_stops_the_start_and_makes_no_new_key(store: SqlStore) -> None:
    await keyring(store).load(NOW)
    before = await store.keys.all()
    with pytest.raises(UnreadableKey) as refused:
        await keyring(store, new_secret_key()).load(NOW)
    assert SECRET not in str(refused.value)
    assert await store.keys.all() == before


async def test_the_wrong_secret_makes_no_key_for_another_issuer_either(store: SqlStore) -> None:
    await keyring(store).load(NOW)
    before = await store.keys.all()
    with pytest.raises(UnreadableKey):
        await keyring(store, new_secret_key(), issuer="https://b.example", adopt=True).load(NOW)
    assert await store.keys.all() == before
    await keyring(store, issuer="https://b.example", adopt=True).load(NOW)


async def test_a_row_cannot_be_passed_off_as_another(store: SqlStore) -> None:
    await keyring(store).load(NOW)
    wrap = KeyWrap(SECRET)
    for row in await store.keys.all():
        for changed in ({"id": "x"}, {"issuer": "https://b.example"}, {"alg": "EdDSA"}, {"purpose": "names"}):
            if getattr(row, next(iter(changed))) != next(iter(changed.values())):
                with pytest.raises(UnreadableKey):
                    wrap.unwrap(replace(row, **changed))  # type: ignore[arg-type]
        for broken in (b"", row.wrapped[:11], row.wrapped[:-1], row.wrapped[:-1] + bytes([row.wrapped[-1] ^ 1])):
            with pytest.raises(UnreadableKey):
                wrap.unwrap(replace(row, wrapped=broken))


async def test_rewrapping_moves_to_the_new_secret_and_changes_no_key(store: SqlStore) -> None:
    old = keyring(store)
    await old.load(NOW)
    new_secret = new_secret_key()
    both = keyring(store, new_secret, SECRET)
    await both.load(NOW)
    assert await both.rewrap(NOW) == 3
    alone = keyring(store, new_secret)
    await alone.load(NOW)
    assert alone.jwks(NOW) == old.jwks(NOW)
    with pytest.raises(UnreadableKey):
        await keyring(store).load(NOW)


async def test_another_issuer_is_refused_or_gets_keys_of_its_own(store: SqlStore) -> None:
    mine = keyring(store)
    await mine.load(NOW)
    with pytest.raises(IncompatibleStore):
        await keyring(store, issuer="https://b.example").load(NOW)
    other = keyring(store, issuer="https://b.example", adopt=True)
    await other.load(NOW)
    assert other.jwks(NOW) != mine.jwks(NOW)


@pytest.mark.parametrize("alg", ["RS256", "PS256", "EdDSA", "HS256"])
async def test_every_algorithm_signs_and_verifies_and_can_follow_another(service: Service, alg: Algorithm) -> None:
    old = await service.registered_login()
    ring = keyring(service.server.store, alg=alg)
    ring._wrap = service.server.keyring._wrap
    ring._issuer = service.server.settings.issuer
    await ring.rotate(service.clock(), ahead=0)
    await service.server.verify.load_keys(service.clock())
    new = await service.login()
    for login in (old, new):
        assert (await service.get("/me", login["access_token"])).status_code == 200
    assert len((await service.get("/.well-known/jwks.json")).json()["keys"]) == (1 if alg == "HS256" else 2)


async def test_r140_a_rotated_key_is_published_first_and_signs_later(service: Service) -> None:
    await service.register()
    old = (await service.get("/.well-known/jwks.json")).json()["keys"]
    await service.server.keyring.rotate(service.clock())
    await service.server.verify.load_keys(service.clock())
    both = (await service.get("/.well-known/jwks.json")).json()["keys"]
    assert [key["kid"] for key in both][:1] == [key["kid"] for key in old]
    assert len(both) == 2

    async def kid() -> str:
        import jwt

        return str(jwt.get_unverified_header((await service.login())["access_token"])["kid"])

    assert await kid() == both[0]["kid"]
    service.clock.advance(PUBLISH_AHEAD)
    before = await service.login()
    assert await kid() == both[1]["kid"]
    # An hour is the longest a token lives, two minutes the most that a guard overlooks.
    service.clock.advance(3720)
    await service.server.verify.load_keys(service.clock())
    assert [key["kid"] for key in (await service.get("/.well-known/jwks.json")).json()["keys"]] == [both[1]["kid"]]
    assert (await service.get("/me", before["access_token"])).status_code == 401


async def test_a_withdrawn_key_ends_its_tokens_at_once_and_another_signs(service: Service) -> None:
    login = await service.registered_login()
    (key,) = (await service.get("/.well-known/jwks.json")).json()["keys"]
    entry = await service.server.keyring.withdraw(key["kid"], service.clock())
    await service.server.revoke.append(entry)
    assert (await service.get("/me", login["access_token"])).status_code == 401
    refreshed = (await service.refresh(login["refresh_token"])).json()
    await service.server.verify.load_keys(service.clock())
    assert (await service.get("/me", refreshed["access_token"])).status_code == 200
    assert key["kid"] not in str((await service.get("/.well-known/jwks.json")).json())
    with pytest.raises(UnknownKeyId):
        await service.server.keyring.withdraw("none", service.clock())


@pytest.fixture
async def both(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Service, Service]]:
    """Two workers of one machine, which look at what the other changed with a request only."""
    monkeypatch.setattr("authwright.services.revoke.POLL_SECONDS", 3600)
    url = f"sqlite:///{tmp_path}/both.db"
    async with open_service(clock=clock, database_url=url) as one:
        async with open_service(clock=clock, database_url=url) as other:
            yield one, other


def called(monkeypatch: pytest.MonkeyPatch, thing: object, name: str) -> asyncio.Event:
    """Set when the method *name* of *thing* is called."""
    event, usual = asyncio.Event(), getattr(thing, name)

    async def told() -> Any:
        event.set()
        return await usual()

    monkeypatch.setattr(thing, name, told)
    return event


async def withdraw(service: Service) -> None:
    (key,) = (await service.get("/.well-known/jwks.json")).json()["keys"]
    await service.server.revoke.append(await service.server.keyring.withdraw(key["kid"], service.clock()))


async def test_no_worker_signs_with_a_key_that_was_withdrawn_on_another(both: tuple[Service, Service]) -> None:
    one, other = both
    login = await one.registered_login()
    await withdraw(one)
    assert await works_everywhere(both, await other.refresh(login["refresh_token"]))
    await withdraw(one)
    form = {"username": "bholay", "password": "test123"}
    assert await works_everywhere(both, await other.http.post("/login", data=form))


async def test_whoever_comes_while_the_new_key_is_read_waits_for_it(
    both: tuple[Service, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = both
    login = await one.registered_login()
    await withdraw(one)
    keys, reading, may_go_on = other.server.store.keys, asyncio.Event(), asyncio.Event()
    read = keys.all

    async def slowly() -> Any:
        reading.set()
        await may_go_on.wait()
        return await read()

    monkeypatch.setattr(keys, "all", slowly)
    looks = called(monkeypatch, other.server.revoke, "look")
    seen = asyncio.create_task(other.get("/me", login["access_token"]))
    await reading.wait()
    refreshed = asyncio.create_task(other.refresh(login["refresh_token"]))
    await looks.wait()
    may_go_on.set()
    assert (await seen).status_code == 401
    assert (await other.get("/me", (await refreshed).json()["access_token"])).status_code == 200


async def works_everywhere(both: tuple[Service, Service], answer: httpx2.Response) -> bool:
    token = answer.json()["access_token"]
    return {(await service.get("/me", token)).status_code for service in both} == {200}


async def test_a_key_that_is_withdrawn_while_a_refresh_is_under_way_does_not_sign_its_answer(
    both: tuple[Service, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = both
    login = await one.registered_login()
    sessions = other.server.store.sessions
    rotate = sessions.rotate

    async def and_meanwhile(*given: Any, **named: Any) -> Any:
        rotated = await rotate(*given, **named)
        await withdraw(one)
        return rotated

    monkeypatch.setattr(sessions, "rotate", and_meanwhile)
    assert await works_everywhere(both, await other.refresh(login["refresh_token"]))


async def test_what_was_read_before_a_key_was_withdrawn_does_not_come_last(
    both: tuple[Service, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = both
    login = await one.registered_login()
    keys, has_read, may_go_on = other.server.store.keys, asyncio.Event(), asyncio.Event()
    read = keys.all

    async def late() -> Any:
        rows = await read()
        if not has_read.is_set():
            has_read.set()
            await may_go_on.wait()
        return rows

    monkeypatch.setattr(keys, "all", late)
    told = called(monkeypatch, other.server.revoke, "on_key_withdrawn")
    looking = asyncio.create_task(other.server.look_around())
    await has_read.wait()
    await withdraw(one)
    refreshed = asyncio.create_task(other.refresh(login["refresh_token"]))
    await told.wait()
    may_go_on.set()
    await looking
    answers = [await refreshed, await other.http.post("/login", data={"username": "bholay", "password": "test123"})]
    for answer in answers:
        assert await works_everywhere((one, other), answer)


async def test_a_key_that_is_withdrawn_while_a_worker_starts_signs_nothing_there(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authwright.services.revoke.POLL_SECONDS", 3600)
    url = f"sqlite:///{tmp_path}/both.db"
    async with open_service(clock=clock, database_url=url) as one:
        login = await one.registered_login()
        start = Revoke.start

        async def late(self: Revoke, now: Instant) -> None:
            await withdraw(one)
            await start(self, now)

        monkeypatch.setattr(Revoke, "start", late)
        async with open_service(clock=clock, database_url=url) as other:
            assert await works_everywhere((one, other), await other.refresh(login["refresh_token"]))


async def test_without_the_key_in_its_place_nothing_is_signed(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SECRET_KEY was changed, and this worker was not started again before a key was withdrawn."""
    monkeypatch.setattr("authwright.services.revoke.POLL_SECONDS", 3600)
    old, new = {"secret_key": SECRET}, {"secret_key": new_secret_key(), "secret_key_previous": SECRET}
    url = f"sqlite:///{tmp_path}/both.db"
    async with open_service(clock=clock, database_url=url, **old) as stale:
        login = await stale.registered_login()
        async with open_service(clock=clock, database_url=url, **new) as fresh:
            await withdraw(fresh)
            assert (await stale.get("/me", login["access_token"])).status_code == 401
            assert (await stale.refresh(login["refresh_token"])).status_code == 503
            # It was spent, and whoever asks again within the time of grace gets the same.
            refreshed = await fresh.refresh(login["refresh_token"])
            assert (await fresh.get("/me", refreshed.json()["access_token"])).status_code == 200


async def published(service: Service) -> list[str]:
    return [key["kid"] for key in (await service.get("/.well-known/jwks.json")).json()["keys"]]


@pytest.mark.parametrize("also", ["no request", "a logout", "keys cannot be read", "facts cannot be read"])
@pytest.mark.parametrize("told", ["keep_up", "ready"])
async def test_r140_a_key_made_on_one_worker_is_published_by_another_as_soon_as_it_follows_or_is_ready(
    both: tuple[Service, Service], monkeypatch: pytest.MonkeyPatch, told: str, also: str
) -> None:
    one, other = both
    login = await other.registered_login()
    await other.server.keep_up()
    # Nothing but the count that workers share tells of it from now on.
    other.server._look_around_due = math.inf
    made = await one.server.keyring.rotate(one.clock())
    if also == "a logout":
        # Its request reads the ledger to its end, which has nothing of new keys.
        assert (await other.logout(login["access_token"])).status_code == 200
    elif also != "no request":
        where = (other.server.store.keys, "all") if "keys" in also else (other.server.store.facts, "establish")
        failing_once(monkeypatch, *where)
        with pytest.raises(StoreUnavailable):
            await getattr(other.server, told)()
    await getattr(other.server, told)()
    assert made.id in await published(other)


async def test_r140_a_key_made_while_keys_are_read_is_read_the_next_time(
    both: tuple[Service, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = both
    await other.server.keep_up()
    other.server._look_around_due = math.inf
    read, made = other.server.store.keys.all, []

    async def and_then() -> Any:
        rows = await read()
        if not made:
            made.append(await one.server.keyring.rotate(one.clock()))
        return rows

    monkeypatch.setattr(other.server.store.keys, "all", and_then)
    other.server.counter.raise_()
    await other.server.keep_up()
    assert made[0].id not in await published(other)
    await other.server.keep_up()
    assert made[0].id in await published(other)


async def test_of_many_probes_one_reads_the_keys(
    both: tuple[Service, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = both
    asked, reads, all_asked = 0, 0, asyncio.Event()
    read, reload_keys = other.server.store.keys.all, other.server.verify.reload_keys

    async def counted(*arguments: Any, **options: Any) -> None:
        nonlocal asked
        asked += 1
        if asked == 50:
            all_asked.set()
        await reload_keys(*arguments, **options)

    async def late() -> Any:
        nonlocal reads
        reads += 1
        await all_asked.wait()
        return await read()

    monkeypatch.setattr(other.server.verify, "reload_keys", counted)
    monkeypatch.setattr(other.server.store.keys, "all", late)
    made = await one.server.keyring.rotate(one.clock())
    answers = await asyncio.gather(*(other.get("/readyz") for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert (asked, reads, made.id in await published(other)) == (50, 1, True)


async def test_r89_cve_2026_48524_a_flood_of_unknown_keys_is_one_read_until_something_changes(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    login, reads, read = await service.registered_login(), 0, service.server.store.keys.all
    await service.server.verify.load_keys(service.clock())

    async def counted() -> Any:
        nonlocal reads
        reads += 1
        return await read()

    monkeypatch.setattr(service.server.store.keys, "all", counted)
    claims: Any = json.loads(b64url_decode(login["access_token"].split(".")[1]))
    for expected in (1, 2):
        for _ in range(50):
            forged = Signer(PrivateKey.generate("ES256"), typ="at+jwt").sign({"sub": "usr_1"})
            assert (await service.get("/me", forged)).status_code == 401
            whole = Signer(PrivateKey.generate("ES256"), typ="at+jwt").sign(claims)
            assert (await service.http.post("/revoke", data={"token": whole})).status_code == 200
        assert reads == expected
        assert (await service.get("/me", login["access_token"])).status_code == 200
        service.server.counter.raise_()


async def test_r89_a_token_of_a_new_key_is_taken_whoever_sent_unknown_keys(
    both: tuple[Service, Service],
) -> None:
    one, other = both
    login = await one.registered_login()
    forged = Signer(PrivateKey.generate("ES256"), typ="at+jwt").sign({"sub": "usr_1"})
    assert (await other.get("/me", forged)).status_code == 401
    await one.server.keyring.rotate(one.clock(), ahead=0)
    # It reads the ledger, and no keys.
    await other.http.post("/login", data={"username": "bholay", "password": "test123"})
    fresh = (await one.refresh(login["refresh_token"])).json()
    assert (await other.get("/me", fresh["access_token"])).status_code == 200


async def test_a_server_whose_store_became_that_of_another_issuer_is_not_ready(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = service.server.store.keys.all

    async def of_another() -> Any:
        return [row if row.purpose == "names" else replace(row, issuer="https://other.example") for row in await read()]

    monkeypatch.setattr(service.server.store.keys, "all", of_another)
    monkeypatch.setattr(service.server.keyring, "_adopt", False)
    service.server.counter.raise_()
    assert (await service.get("/readyz")).status_code == 503


async def test_a_server_whose_keys_were_rewrapped_under_a_newer_secret_goes_on(service: Service) -> None:
    login = await service.registered_login()
    ring = keyring(service.server.store, new_secret_key())
    ring._wrap._all.append(service.server.keyring._wrap._current)
    await ring.rewrap(service.clock())
    service.server.counter.raise_()
    assert (await service.get("/me", login["access_token"])).status_code == 200
    assert (await service.login())["access_token"]


async def test_a_clock_that_was_set_back_leaves_logins_working(clock: Clock) -> None:
    async with open_service(clock=clock) as service:
        await service.register()
        clock.advance(-3600)
        await service.login()
