"""storage.port.Keys and Facts: agreed on once, whoever comes first."""

import asyncio
from dataclasses import replace

from authwright.domain.instant import after
from authwright.storage.port import Store
from records import NOW, key_record


async def test_one_key_for_each_ordinal(store: Store) -> None:
    answers = await asyncio.gather(*(store.keys.add(key_record(f"k{n}")) for n in range(20)))
    assert sum(answers) == 1
    (kept,) = await store.keys.all()
    assert kept == key_record(kept.id)
    assert await store.keys.add(key_record("next", 2))
    assert await store.keys.add(key_record("other issuer", 1, "https://b.example"))
    assert [each.ordinal for each in await store.keys.all() if each.issuer == "https://a.example"] == [1, 2]


async def test_a_key_is_withdrawn_once_and_for_ever(store: Store) -> None:
    await store.keys.add(key_record("k"))
    assert await store.keys.withdraw("k", now=NOW)
    assert not await store.keys.withdraw("k", now=NOW)
    assert not await store.keys.withdraw("none", now=NOW)
    assert list(await store.keys.all()) == [replace(key_record("k"), withdrawn_at=NOW)]


async def test_a_wrapping_is_replaced_only_if_it_is_still_the_old_one(store: Store) -> None:
    await store.keys.add(key_record("k"))
    assert await store.keys.rewrap("k", old=b"wrapped", new=b"new")
    assert not await store.keys.rewrap("k", old=b"wrapped", new=b"newer")
    assert [each.wrapped for each in await store.keys.all()] == [b"new"]


async def test_the_first_value_of_a_fact_stays(store: Store) -> None:
    assert await store.facts.read("epoch") is None
    values = await asyncio.gather(*(store.facts.establish("epoch", str(n)) for n in range(20)))
    assert len(set(values)) == 1
    assert await store.facts.read("epoch") == values[0] == await store.facts.establish("epoch", "x")


async def test_one_holder_at_a_time_has_a_claim(store: Store) -> None:
    until = after(NOW, 60)
    answers = await asyncio.gather(*(store.facts.claim("cleanup", str(n), now=NOW, until=until) for n in range(20)))
    assert answers.count(True) == 1
    holder = str(answers.index(True))
    assert await store.facts.claim("cleanup", holder, now=NOW, until=until)
    assert await store.facts.claim("other", "x", now=NOW, until=until)
    assert not await store.facts.claim("cleanup", "x", now=NOW, until=until)
    assert await store.facts.claim("cleanup", "x", now=until, until=after(until, 60))
