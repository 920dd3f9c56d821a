"""storage.port.Clients: what every store promises of API clients."""

import asyncio
from dataclasses import replace

from authwright.domain.instant import after
from authwright.domain.secrets import ClientId
from authwright.storage.port import Store
from records import NOW, client, secret

NOBODY = ClientId("cli_none")


async def test_what_was_added_is_found_by_id_and_by_key_exactly(store: Store) -> None:
    one, two = (
        client(),
        client(name="two", created_at=after(NOW, 1), scope=frozenset(), audiences=("https://a.example",)),
    )
    for each in (two, one):
        await store.clients.add(each)
    assert await store.clients.find(one.id) == one
    assert await store.clients.find_by_key(two.key_digest) == two
    assert list(await store.clients.all()) == [one, two]
    assert await store.clients.find(NOBODY) is None
    assert await store.clients.find_by_key(secret(0)) is None


async def test_a_new_key_replaces_the_old_one_and_raises_the_epoch(store: Store) -> None:
    made = client()
    await store.clients.add(made)
    later = after(NOW, 1)
    assert await store.clients.replace_key(made.id, digest=secret(1), hint="awk_xyz", now=later) == 2
    assert await store.clients.find_by_key(made.key_digest) is None
    assert await store.clients.find_by_key(secret(1)) == replace(
        made, key_digest=secret(1), key_hint="awk_xyz", auth_epoch=2, updated_at=later
    )
    assert await store.clients.replace_key(NOBODY, digest=secret(2), hint="", now=NOW) is None


async def test_a_status_raises_the_epoch(store: Store) -> None:
    made = client()
    await store.clients.add(made)
    assert await store.clients.set_status(made.id, "disabled", now=NOW) == 2
    assert await store.clients.set_status(made.id, "active", now=NOW) == 3
    assert await store.clients.set_status(NOBODY, "disabled", now=NOW) is None
    found = await store.clients.find(made.id)
    assert found is not None
    assert (found.status, found.auth_epoch) == ("active", 3)


async def test_no_two_calls_get_the_same_epoch(store: Store) -> None:
    made = client()
    await store.clients.add(made)
    epochs = await asyncio.gather(*(store.clients.raise_epoch(made.id, now=NOW) for _ in range(50)))
    assert sorted(epoch or 0 for epoch in epochs) == list(range(2, 52))
    assert await store.clients.raise_epoch(NOBODY, now=NOW) is None
