"""storage.port.ApiKeys: keys that users make."""

import asyncio

from authwright.domain.api_key import ApiKey
from authwright.domain.instant import after
from authwright.domain.secrets import ClientId, UserId, digest, new_api_key_id
from authwright.storage.port import Ending, Store
from records import NOW, secret, session, user


def api_key(user_id: UserId, number: int = 1) -> ApiKey:
    ident = new_api_key_id()
    given = frozenset({"predict"}), ("https://a.example",)
    return ApiKey(ident, user_id, f"key {number}", digest(ident.encode()), "awu_abcdef", *given, NOW, after(NOW, 100))


async def test_a_key_is_found_with_its_user(store: Store) -> None:
    ada = user()
    await store.users.add(ada, [])
    key = api_key(ada.id)
    assert await store.api_keys.add(key, epoch=1, most=5)
    assert await store.api_keys.find_by_digest(key.key_digest) == (key, ada)
    assert await store.api_keys.find_by_digest(secret(1)) is None


async def test_of_many_at_once_no_more_than_the_most_are_made(store: Store) -> None:
    ada = user()
    await store.users.add(ada, [])
    made = await asyncio.gather(*(store.api_keys.add(api_key(ada.id, n), epoch=1, most=5) for n in range(20)))
    assert made.count(True) == 5
    assert len(await store.api_keys.list(ada.id, after=None, most=100)) == 5


async def test_nobody_and_somebody_disabled_gets_no_key(store: Store) -> None:
    eve = user(status="disabled")
    await store.users.add(eve, [])
    assert not await store.api_keys.add(api_key(eve.id), epoch=1, most=5)
    assert not await store.api_keys.add(api_key(user().id), epoch=1, most=5)
    ada = user(auth_epoch=2)
    await store.users.add(ada, [])
    assert not await store.api_keys.add(api_key(ada.id), epoch=1, most=5)


async def test_a_session_needs_the_key_it_is_opened_with(store: Store) -> None:
    ada, eve = user(), user()
    await store.users.add(ada, [])
    await store.users.add(eve, [])
    key = api_key(ada.id)
    await store.api_keys.add(key, epoch=1, most=5)
    with_key = session(ada.id, client_id=ClientId(key.id))
    assert await store.sessions.open(with_key)
    assert await store.sessions.open(session(eve.id, client_id=ClientId(key.id))) is None
    assert await store.sessions.open(session(ada.id, client_id=ClientId(key.id), created_at=after(NOW, 100))) is None
    assert not await store.api_keys.delete(key.id, user_id=eve.id)
    ending = Ending("key_deleted", NOW, after(NOW, 9))
    assert await store.api_keys.delete(key.id, user_id=ada.id, ending=ending)
    ended = await store.sessions.find(with_key.id)
    assert ended
    assert (ended.revoked_at, ended.revoked_because) == (NOW, "key_deleted")
    (entry,) = await store.ledger.since(0)
    assert (entry.kind, entry.target, entry.until) == ("client", key.id, after(NOW, 9))
    assert not await store.api_keys.delete(key.id, user_id=ada.id)
    assert await store.api_keys.owner(key.id) is None
    assert await store.sessions.open(session(ada.id, client_id=ClientId(key.id))) is None


async def test_keys_go_with_their_user(store: Store) -> None:
    ada = user()
    await store.users.add(ada, [])
    key = api_key(ada.id)
    await store.api_keys.add(key, epoch=1, most=5)
    assert await store.users.delete(ada.id, epoch=ada.auth_epoch)
    assert await store.api_keys.find_by_digest(key.key_digest) is None
    assert await store.api_keys.list(None, after=None, most=5) == []


async def test_keys_of_all_are_listed_page_by_page(store: Store) -> None:
    users = [user(), user()]
    for each in users:
        await store.users.add(each, [])
    keys = [api_key(users[n % 2].id, n) for n in range(6)]
    for key in keys:
        await store.api_keys.add(key, epoch=1, most=5)
    ordered = sorted(keys, key=lambda key: key.id)
    assert await store.api_keys.list(None, after=None, most=4) == ordered[:4]
    assert await store.api_keys.list(None, after=ordered[3].id, most=4) == ordered[4:]
