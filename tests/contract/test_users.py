"""storage.port.Users: what every store promises of accounts."""

import asyncio
from dataclasses import replace

import pytest

from authwright.domain.instant import after
from authwright.domain.secrets import UserId
from authwright.storage.port import NameTaken, Store
from records import HASH, NOW, name, user

OTHER_HASH = HASH.replace("m=32", "m=64")


async def test_what_was_added_is_found_by_id_and_by_each_name_exactly(store: Store) -> None:
    ada = user(username="Ada \N{SNOWMAN}")
    await store.users.add(ada, [name("ada"), name("ada@example.com")])
    assert await store.users.find(ada.id) == ada
    assert await store.users.find_by_name(name("ada")) == ada
    assert await store.users.find_by_name(name("ada@example.com")) == ada
    assert await store.users.find_by_name(name("eve")) is None
    assert await store.users.find(UserId("usr_none")) is None


async def test_a_taken_name_refuses_the_whole_user(store: Store) -> None:
    ada, eve = user(), user()
    await store.users.add(ada, [name("ada")])
    with pytest.raises(NameTaken):
        await store.users.add(eve, [name("eve"), name("ada")])
    assert await store.users.find(eve.id) is None
    assert await store.users.find_by_name(name("eve")) is None


async def test_of_a_hundred_that_want_one_name_exactly_one_gets_it(store: Store) -> None:
    async def attempt(number: int) -> bool:
        try:
            await store.users.add(user(), [name("ada"), name(f"ada{number}@example.com")])
        except NameTaken:
            return False
        return True

    assert sum(await asyncio.gather(*map(attempt, range(100)))) == 1


async def test_a_password_is_replaced_once_and_raises_the_epoch(store: Store) -> None:
    ada = user()
    await store.users.add(ada, [name("ada")])
    later = after(NOW, 1)
    epochs = await asyncio.gather(
        *(store.users.replace_password(ada.id, old=HASH, new=OTHER_HASH, epoch=1, now=later) for _ in range(20))
    )
    assert sorted(epoch for epoch in epochs if epoch) == [2]
    found = await store.users.find(ada.id)
    assert found == replace(ada, password_hash=OTHER_HASH, auth_epoch=2, updated_at=later)
    for wrong in ({"old": HASH}, {"epoch": 1}, {"epoch": 3}):
        given = {"old": OTHER_HASH, "new": HASH, "epoch": 2, **wrong}
        assert await store.users.replace_password(ada.id, **given, now=later) is None  # type: ignore[arg-type]
    nobody = UserId("usr_none")
    assert await store.users.replace_password(nobody, old=HASH, new=HASH, epoch=1, now=later) is None
    eve = user(status="disabled")
    await store.users.add(eve, [name("eve")])
    assert await store.users.replace_password(eve.id, old=HASH, new=OTHER_HASH, epoch=1, now=later) is None


async def test_a_hash_is_upgraded_without_a_new_epoch_and_only_if_it_is_still_the_old_one(store: Store) -> None:
    ada = user()
    await store.users.add(ada, [name("ada")])
    assert await store.users.upgrade_hash(ada.id, old=HASH, new=OTHER_HASH, now=NOW)
    assert not await store.users.upgrade_hash(ada.id, old=HASH, new=OTHER_HASH, now=NOW)
    found = await store.users.find(ada.id)
    assert found is not None
    assert (found.password_hash, found.auth_epoch) == (OTHER_HASH, 1)


async def test_no_two_calls_get_the_same_epoch(store: Store) -> None:
    ada = user()
    await store.users.add(ada, [name("ada")])
    epochs = await asyncio.gather(*(store.users.raise_epoch(ada.id, now=NOW) for _ in range(50)))
    assert sorted(epoch or 0 for epoch in epochs) == list(range(2, 52))
    assert await store.users.raise_epoch(UserId("usr_none"), now=NOW) is None


async def test_every_format_of_hash_present_is_named(store: Store) -> None:
    assert await store.users.password_formats() == frozenset()
    await store.users.add(user(), [name("a")])
    await store.users.add(user(password_hash="$2b$04$" + "." * 53), [name("b")])
    assert await store.users.password_formats() == {"argon2id:32,1,1", "bcrypt:4"}
