"""storage.port.Users: what every store promises of accounts."""

import asyncio
from dataclasses import replace

import pytest

from authwright.domain.instant import after
from authwright.domain.secrets import UserId
from authwright.storage.port import NameTaken, Store, UserFilter
from records import HASH, NOW, name, secret, user

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


async def test_a_change_moves_names_and_keeps_the_old_ones_reserved(store: Store) -> None:
    ada = user()
    await store.users.add(ada, [name("ada")])
    renamed = replace(ada, username="Lovelace", plan="premium", auth_epoch=2)
    assert await store.users.change(renamed, epoch=1, gained=[name("lovelace")], lost=[name("ada")])
    assert await store.users.find(ada.id) == renamed
    assert await store.users.find_by_name(name("lovelace")) == renamed
    assert await store.users.find_by_name(name("ada")) is None
    with pytest.raises(NameTaken):
        await store.users.add(user(), [name("ada")])
    # Let go of in the step that takes them, and only if nobody has them.
    with pytest.raises(NameTaken):
        await store.users.add(user(), [name("ada"), name("lovelace")], released=[name("ada"), name("lovelace")])
    with pytest.raises(NameTaken):
        await store.users.add(user(), [name("ada")])
    await store.users.add(user(), [name("ada")], released=[name("ada")])


async def test_of_a_hundred_changes_of_one_epoch_exactly_one_is_made(store: Store) -> None:
    ada = user()
    await store.users.add(ada, [name("ada")])
    wanted = [replace(ada, username=f"ada{number}", auth_epoch=2) for number in range(100)]
    made = await asyncio.gather(*(store.users.change(each, epoch=1, gained=[], lost=[]) for each in wanted))
    assert made.count(True) == 1
    assert await store.users.find(ada.id) == wanted[made.index(True)]


async def test_of_a_hundred_that_want_one_name_by_a_change_exactly_one_gets_it(store: Store) -> None:
    users = [user() for _ in range(100)]
    for number, each in enumerate(users):
        await store.users.add(each, [name(f"user{number}")])

    async def attempt(number: int) -> bool:
        wanted = replace(users[number], username="prize", auth_epoch=2)
        try:
            return await store.users.change(wanted, epoch=1, gained=[name("prize")], lost=[name(f"user{number}")])
        except NameTaken:
            return False

    made = await asyncio.gather(*(attempt(number) for number in range(100)))
    assert made.count(True) == 1
    losers = [number for number in range(100) if not made[number]]
    assert await store.users.find_by_name(name(f"user{losers[0]}")) == users[losers[0]]


async def test_a_deleted_user_is_gone_and_its_names_are_not(store: Store) -> None:
    ada = user(auth_epoch=7)
    await store.users.add(ada, [name("ada"), name("ada@example.com")])
    assert await store.users.offer_reset(ada.id, secret(1), expires_at=after(NOW, 100))
    assert not await store.users.delete(ada.id, epoch=ada.auth_epoch + 1)
    assert await store.users.delete(ada.id, epoch=ada.auth_epoch)
    assert not await store.users.delete(ada.id, epoch=ada.auth_epoch)
    assert await store.users.find(ada.id) is None
    for text in ("ada", "ada@example.com"):
        with pytest.raises(NameTaken):
            await store.users.add(user(), [name(text)])


async def test_a_reset_token_is_spent_once_and_replaces_the_one_before(store: Store) -> None:
    ada = user()
    await store.users.add(ada, [])
    for number in (1, 2):
        assert await store.users.offer_reset(ada.id, secret(number), expires_at=after(NOW, 100))
    assert not await store.users.offer_reset(UserId("usr_none"), secret(3), expires_at=after(NOW, 100))
    assert await store.users.find_by_reset(secret(1), now=NOW) is None
    assert await store.users.find_by_reset(secret(2), now=after(NOW, 100)) is None
    assert await store.users.find_by_reset(secret(2), now=NOW) == ada
    spend = [store.users.reset_password(ada.id, secret(2), new=OTHER_HASH, now=NOW) for _ in range(50)]
    epochs = await asyncio.gather(*spend)
    assert sorted(epochs, key=str) == [2, *[None] * 49]
    changed = await store.users.find(ada.id)
    assert changed
    assert changed.password_hash == OTHER_HASH


async def test_a_disabled_users_reset_token_is_not_spent(store: Store) -> None:
    eve = user(status="disabled")
    await store.users.add(eve, [])
    assert await store.users.offer_reset(eve.id, secret(1), expires_at=after(NOW, 100))
    assert await store.users.reset_password(eve.id, secret(1), new=OTHER_HASH, now=NOW) is None


async def test_users_are_listed_in_order_by_all_conditions(store: Store) -> None:
    made = [
        user(username=f"Name{n}", email=None, plan=("free", "premium")[n % 2], created_at=after(NOW, n // 3))
        for n in range(9)
    ]
    for each in made:
        await store.users.add(each, [])
    ordered = sorted(made, key=lambda each: (each.created_at, each.id))
    assert await store.users.list(UserFilter(), after=None, most=4) == ordered[:4]
    assert await store.users.list(UserFilter(), after=ordered[3].id, most=9) == ordered[4:]
    premium = UserFilter(plan="premium", role="user", status="active", search="nAmE")
    assert await store.users.list(premium, after=None, most=9) == [each for each in ordered if each.plan == "premium"]
    assert await store.users.list(UserFilter(search="name_"), after=None, most=9) == []
