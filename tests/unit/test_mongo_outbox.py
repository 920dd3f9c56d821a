"""MongoDB without transactions: wherever a process ends, the next one finishes what it began, once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from pymongo.errors import BulkWriteError, ExecutionTimeout, NotPrimaryError, OperationFailure

from authwright.domain.client import Client
from authwright.domain.event import COMMAND_LINE, Event, event
from authwright.domain.instant import after
from authwright.domain.secrets import Subject
from authwright.domain.session import Session
from authwright.domain.usage import Counted
from authwright.domain.user import User
from authwright.storage.mongo import MongoStore, mongo_store
from authwright.storage.mongo.database import Collection, Duplicate, MongoDatabase
from authwright.storage.mongo.numbers import Numbers
from authwright.storage.port import Ending, EventFilter, NameTaken, StoreUnavailable, UserFilter
from databases import drop_mongo_database, new_mongo_database
from records import HASH, NOW, client, name, secret, session, user


@pytest.fixture
async def url(mongo_server: str) -> AsyncIterator[str]:
    made = new_mongo_database(mongo_server)
    yield made
    await drop_mongo_database(made)


@pytest.fixture
async def store(url: str) -> AsyncIterator[MongoStore]:
    opened = mongo_store(url)
    await opened.open()
    yield opened
    await opened.close()


def ending(**more: Any) -> Ending:
    return Ending("password_changed", after(NOW, 5), after(NOW, 99), **more)


class Power:
    """Fails when *steps* more have been taken at the database, as a process does that ends there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: MongoStore) -> None:
        self.left: int | None = None
        answering = store._database.answering

        @contextmanager
        def counted() -> Iterator[None]:
            if self.left is not None:
                if not self.left:
                    raise StoreUnavailable("the process ended here")
                self.left -= 1
            with answering():
                yield

        monkeypatch.setattr(store._database, "answering", counted)

    async def cut_after(self, steps: int, work: Awaitable[Any]) -> bool:
        """Whether *work* came to its end all the same."""
        self.left = steps
        try:
            await work
        except StoreUnavailable:
            return False
        finally:
            self.left = None
        return True


Act = Callable[[MongoStore, User, Session, Client, Event], Awaitable[Any]]

ACTS: dict[str, Act] = {
    "a new password": lambda store, ada, held, scoring, done: store.users.replace_password(
        ada.id, old=HASH, new=HASH, epoch=1, now=NOW, ending=ending(), event=done
    ),
    "a changed user": lambda store, ada, held, scoring, done: store.users.change(
        replace(ada, auth_epoch=2, status="disabled"),
        epoch=1,
        gained=[name(f"{ada.id} anew")],
        lost=[name(ada.id)],
        ending=ending(),
        event=done,
    ),
    "a deletion": lambda store, ada, held, scoring, done: store.users.delete(
        ada.id, epoch=1, ending=ending(), event=done
    ),
    "a logout everywhere": lambda store, ada, held, scoring, done: store.users.raise_epoch(
        ada.id, now=NOW, ending=ending(), event=done
    ),
    "a logout": lambda store, ada, held, scoring, done: store.sessions.end(
        held.id, because="logout", now=NOW, ending=ending(), event=done
    ),
    "a withdrawn token": lambda store, ada, held, scoring, done: store.sessions.withdraw_token(
        f"token of {ada.id}", subject=Subject(ada.id), ending=ending(), event=done
    ),
}


@pytest.mark.parametrize("act", ACTS)
async def test_an_act_that_is_cut_off_anywhere_is_finished_once_or_never_began(
    store: MongoStore, url: str, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    power = Power(monkeypatch, store)
    finished = began = 0
    for steps in range(40):
        ada, scoring = user(), client()
        await store.users.add(ada, [name(ada.id)])
        held = session(ada.id)
        assert await store.sessions.open(held)
        head = len(await store.ledger.since(0))
        done = event("user_changed", COMMAND_LINE, now=NOW, subject=ada.id, tell=(f"{ada.id}@example.com",))
        ended = await power.cut_after(steps, ACTS[act](store, ada, held, scoring, done))
        next_one = mongo_store(url)
        await next_one.open()
        # Twice, as two processes may.
        await next_one.settle()
        (found,) = [await next_one.sessions.find(held.id)]
        assert found
        entries = await next_one.ledger.since(head)
        events = await next_one.events.list(EventFilter(kind="user_changed", subject=ada.id), before=None, most=9)
        notices = [each for each in await next_one.notices.list(after=0, most=999) if ada.id in each.recipient]
        if act == "a withdrawn token":
            assert found.revoked_at is None
            whole = len(entries)
        else:
            whole = 0 if found.revoked_at is None else 1
        assert whole < 2
        assert [len(entries), len(events), len(notices)] == [whole] * 3
        assert await next_one.sessions.outdated() == []
        await next_one.close()
        began += whole
        if ended:
            assert whole
            finished += 1
            break
    assert finished
    assert 3 < began <= steps


async def test_of_many_tokens_withdrawn_at_once_each_is_written_once(
    store: MongoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = user()
    await store.users.add(ada, [name("ada")])
    append, appended = store.ledger.append, 0

    async def counted(*arguments: Any, **options: Any) -> int:
        nonlocal appended
        appended += 1
        return await append(*arguments, **options)

    monkeypatch.setattr(store.ledger, "append", counted)
    withdraw = store.sessions.withdraw_token
    await asyncio.gather(*(withdraw(str(n), subject=Subject(ada.id), ending=ending()) for n in range(30)))
    # Nobody writes what another one is about to write.
    assert appended == 30
    assert sorted(int(each.target) for each in await store.ledger.since(0)) == list(range(30))
    await store.settle()
    assert appended == 30


async def test_a_login_that_is_cut_off_is_recorded_or_gone(
    store: MongoStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    power = Power(monkeypatch, store)
    ada = user()
    await store.users.add(ada, [name("ada")])
    for steps in range(20):
        made = session(ada.id)
        ended = await power.cut_after(steps, store.sessions.open(made))
        await store.settle()
        events = await store.events.list(EventFilter(kind="login"), before=None, most=99)
        recorded = [each for each in events if each.session_id == made.id]
        assert len(recorded) == (await store.sessions.find(made.id) is not None)
        if ended:
            break
    assert ended
    # The password was changed while a login was cut off after it had stored its session.
    late = session(ada.id)
    assert not await power.cut_after(4, store.sessions.open(late))
    assert await store.sessions.find(late.id)
    assert await store.users.raise_epoch(ada.id, now=NOW) == 2
    await store.settle()
    assert await store.sessions.find(late.id) is None


async def test_what_an_earlier_change_left_is_carried_out_before_the_next_one(
    store: MongoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    power = Power(monkeypatch, store)
    ada = user()
    await store.users.add(ada, [name("ada")])
    old = session(ada.id)
    assert await store.sessions.open(old)
    renamed = replace(ada, username="Lovelace", auth_epoch=2)
    change = store.users.change(renamed, epoch=1, gained=[], lost=[], ending=ending(carry_over=True))
    assert not await power.cut_after(1, change)
    newer = session(ada.id, auth_epoch=2)
    assert await store.sessions.open(newer)
    assert await store.users.raise_epoch(ada.id, now=NOW, ending=ending(keep=old.id)) == 3
    kept = await store.sessions.find(old.id)
    assert kept
    assert (kept.revoked_at, kept.auth_epoch, kept.username) == (None, 3, "Lovelace")
    ended = await store.sessions.find(newer.id)
    assert ended
    assert ended.revoked_at == after(NOW, 5)
    assert [each.epoch for each in await store.ledger.since(0)] == [2, 3]


async def test_usage_that_is_cut_off_anywhere_is_counted_once(
    store: MongoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    power, stored = Power(monkeypatch, store), 0
    counted = Counted()
    for route in ("/a", "/b"):
        counted.calls[1, route, "usr_1", "free", 200] = 1
    counted.latencies[1, "/a", 3] = 1
    counted.predictions[1, "setosa"] = 1
    for steps in (0, 1, 2, 3, 4, 9, 1, 9):
        # Once it is stored it is acknowledged, and counted by whoever comes next.
        stored += await power.cut_after(steps, store.usage.add(counted))
    await store.settle()
    await store.settle()
    assert sorted(await store.usage.totals(since_day=0)) == [(1, "/a", 200, stored), (1, "/b", 200, stored)]
    assert await store.usage.latencies(since_day=0) == [("/a", 3, stored)]
    assert await store.usage.predictions(since_day=0) == [(1, "setosa", stored)]
    assert 3 <= stored < 8


async def test_names_and_key_ids_that_look_like_fields_are_texts(store: MongoStore) -> None:
    ada = user(username="$email", email="$$ROOT@example.com")
    await store.users.add(ada, [name("ada")])
    changed = replace(ada, username="$password_hash", plan="$role", auth_epoch=2)
    assert await store.users.change(changed, epoch=1, gained=[], lost=[])
    assert await store.users.find(ada.id) == changed
    odd = client(name="$key_digest")
    await store.clients.add(odd)
    assert await store.clients.replace_key(odd.id, digest=secret(4), hint="$name", now=NOW) == 2
    found = await store.clients.find(odd.id)
    assert found
    assert (found.name, found.key_hint) == ("$key_digest", "$name")
    opened = session(ada.id, auth_epoch=2, username="$plan")
    assert await store.sessions.open(opened)
    done = event("logout", COMMAND_LINE, now=NOW, detail="$status", subject=ada.id)
    assert await store.users.raise_epoch(ada.id, now=NOW, ending=ending(keep=opened.id), event=done) == 3
    assert (await store.events.list(EventFilter(kind="logout"), before=None, most=1))[0].detail == "$status"
    kept = await store.sessions.find(opened.id)
    assert kept
    assert kept.username == "$password_hash"


async def test_a_refresh_is_one_command(store: MongoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = user()
    await store.users.add(ada, [name("ada")])
    made = session(ada.id)
    assert await store.sessions.open(made)
    power = Power(monkeypatch, store)
    given = {"presented": secret(1), "successor": secret(2), "client": None, "now": NOW, "idle_expires_at": NOW}
    assert await power.cut_after(1, store.sessions.rotate(made.id, generation=1, **given))  # type: ignore[arg-type]
    assert (await store.sessions.find(made.id))._replace(secret_digest=b"").generation == 2  # type: ignore[union-attr]


async def test_a_release_that_comes_to_nothing_is_taken_back(store: MongoStore) -> None:
    eve, ada = user(), user()
    await store.users.add(eve, [name("eve")])
    assert await store.users.delete(eve.id, epoch=1)
    await store.users.add(ada, [name("ada")])
    wanted = replace(ada, username="eve", auth_epoch=2)
    assert not await store.users.change(wanted, epoch=7, gained=[name("eve")], lost=[], released=[name("eve")])
    assert await store.users.owners([name("eve"), name("free")]) == {name("eve"): None}
    with pytest.raises(NameTaken):
        await store.users.add(user(), [name("eve")])
    assert await store.users.change(wanted, epoch=1, gained=[name("eve")], lost=[], released=[name("eve")])
    assert await store.users.owners([name("eve"), name("ada")]) == dict.fromkeys([name("eve"), name("ada")], ada.id)


async def test_who_repeats_what_was_cut_off_is_answered_when_all_of_it_is_done(
    store: MongoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    power = Power(monkeypatch, store)
    ada = user()
    await store.users.add(ada, [name("ada")])
    one, two = session(ada.id), session(ada.id)
    for each in (one, two):
        assert await store.sessions.open(each)
    assert not await power.cut_after(1, store.sessions.end(one.id, because="logout", now=NOW, ending=ending()))
    assert not await store.sessions.end(one.id, because="logout", now=NOW, ending=ending())
    assert [each.target for each in await store.ledger.since(0)] == [one.id]
    disabled = replace(ada, status="disabled", auth_epoch=2)
    change = store.users.change(disabled, epoch=1, gained=[], lost=[], ending=ending())
    assert not await power.cut_after(1, change)
    # Who asks now finds a disabled user, and may tell somebody so.
    assert await store.users.find_by_name(name("ada")) == disabled
    assert [each.target for each in await store.ledger.since(1)] == [ada.id]
    ended = await store.sessions.find(two.id)
    assert ended
    assert ended.revoked_at is not None


async def test_whoever_settles_does_not_take_back_a_login_that_was_confirmed_meanwhile(
    store: MongoStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    power = Power(monkeypatch, store)
    ada = user()
    await store.users.add(ada, [name("ada")])
    made = session(ada.id)
    # Stored, and not confirmed: another process looks at it now.
    assert not await power.cut_after(3, store.sessions.open(made))
    (seen,) = await store.sessions._sessions.find({"_id": made.id})
    other = mongo_store(url)
    await other.open()
    renamed = replace(ada, username="Lovelace", auth_epoch=2)
    assert await store.users.change(renamed, epoch=1, gained=[], lost=[], ending=ending(carry_over=True))
    assert await other.sessions._confirm(made, seen)
    await other.close()
    kept = await store.sessions.find(made.id)
    assert kept
    assert kept.auth_epoch == 2


async def test_a_counter_that_fell_behind_loses_no_event_and_no_notice(store: MongoStore) -> None:
    done = event("logout", COMMAND_LINE, now=NOW, tell=("a@example.com",))
    for _ in range(5):
        await store.events.append(done)
    for counter in ("events", "notices"):
        await store._database.collection("counters").change({"_id": counter}, {"$set": {"last": 2}})
    ada = user()
    await store.users.add(ada, [name("ada")], event=done)
    await store.users.add_many([(user(), [name(f"n{n}")], done) for n in range(3)])
    assert len(await store.events.list(EventFilter(), before=None, most=99)) == 9
    assert [each.number for each in await store.notices.list(after=0, most=99)] == [1, 2, 3, 4, 5, 6]


async def test_an_address_of_somebody_else_is_not_released_and_a_cursor_may_be_of_somebody_who_is_gone(
    store: MongoStore,
) -> None:
    gone, ada = user(), user(created_at=after(NOW, 1), updated_at=after(NOW, 1))
    await store.users.add(gone, [name("gone")])
    await store.users.add(ada, [name("ada")])
    assert await store.users.delete(gone.id, epoch=1)
    both = [name("gone"), name("ada")]
    with pytest.raises(NameTaken):
        await store.users.add(user(), both, released=both)
    assert await store.users.owners(both) == {name("gone"): None, name("ada"): ada.id}
    assert await store.users.list(UserFilter(), after=gone.id, most=9) == [ada]


FAILURES = {
    "a concern that was not met": BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64}]}),
    "a cursor that is gone": OperationFailure("secret", 43),
    "no primary": OperationFailure("secret", 133),
    "not the primary": NotPrimaryError("secret"),
    "too long": ExecutionTimeout("secret", 50),
    "an error of a service": OperationFailure("secret", 8000),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_what_the_server_could_not_do_is_no_answer_and_tells_nothing(store: MongoStore, name: str) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        with store._database.answering():
            raise FAILURES[name]
    assert "secret" not in str(caught.value)


async def test_a_fault_of_ours_is_seen_and_a_taken_name_is_no_failure(store: MongoStore) -> None:
    with pytest.raises(OperationFailure):
        await store._database.collection("users").find({"$nonsense": 1})
    with pytest.raises(Duplicate):
        with store._database.answering():
            raise BulkWriteError({"writeErrors": [{"code": 11000}], "writeConcernErrors": []})


async def test_an_url_that_is_none_and_a_store_that_is_not_open_are_named() -> None:
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        await mongo_store("mongodb://x:99999/").open()
    with pytest.raises(StoreUnavailable, match="InvalidURI"):
        await mongo_store("mongodb://a:b:c@x/").open()
    with pytest.raises(StoreUnavailable, match="not open"):
        await Collection(MongoDatabase("mongodb://x", connections=1), "users").first({})


@pytest.mark.parametrize("answer", [None, NotPrimaryError("gone")])
async def test_who_is_cancelled_ends_although_the_driver_lost_it(answer: Exception | None) -> None:
    """`asyncio.wait_for` of CPython 3.11 drops a cancellation that comes together with the answer."""
    database = MongoDatabase("mongodb://127.0.0.1/never", connections=1)
    asked = asyncio.Event()
    asks = 0

    async def ask() -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if answer is not None:
                raise answer from None

    async def go_on() -> None:
        nonlocal asks
        while True:
            asks += 1
            try:
                with database.answering():
                    await ask()
            except StoreUnavailable:
                await asyncio.sleep(0)

    task = asyncio.create_task(go_on())
    await asked.wait()
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
    assert asks == 1


async def test_who_was_cancelled_before_may_still_tidy_up() -> None:
    database = MongoDatabase("mongodb://127.0.0.1/never", connections=1)
    begun, tidied = asyncio.Event(), False

    async def work() -> None:
        nonlocal tidied
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            with database.answering():
                await asyncio.sleep(0)
            tidied = True

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert tidied


async def test_the_first_numbers_of_all_are_given_once_to_many_at_once(url: str) -> None:
    for round_ in range(3):
        stores = [mongo_store(url) for _ in range(4)]
        for each in stores:
            await each.open()
        taken = await asyncio.gather(*(Numbers(each._database, f"new{round_}").take() for each in stores * 10))
        assert len(set(taken)) == 40
        for each in stores:
            await each.close()
