"""storage.port.Events: a row for an act, in the step of the act, or none."""

from dataclasses import replace

import pytest

from authwright.config import new_secret_key
from authwright.domain.event import COMMAND_LINE, Origin, Outcome, event
from authwright.domain.instant import Instant, after
from authwright.domain.notice import notices_of
from authwright.domain.usage import day_of
from authwright.services.audit import FORGET_SECONDS, GAP_SECONDS, Audit
from authwright.services.keys import Keyring, KeyWrap
from authwright.storage.counter import CounterPage
from authwright.storage.port import EventFilter, NameTaken, Store
from records import HASH, NOW, client, name, secret, session, user

ALL = EventFilter()


async def kinds(store: Store) -> list[str]:
    return [each.kind for each in reversed(await store.events.list(ALL, before=None, most=100))]


async def test_an_event_comes_back_as_it_was_with_a_growing_number(store: Store) -> None:
    one = event("login", COMMAND_LINE, now=NOW, outcome="failure", detail="x")
    for _ in range(3):
        await store.events.append(one)
    found = await store.events.list(ALL, before=None, most=100)
    assert [each._replace(number=0) for each in found] == [one] * 3
    numbers = [each.number for each in found]
    assert numbers == sorted(set(numbers), reverse=True)
    assert [each.number for each in await store.events.list(ALL, before=numbers[0], most=1)] == [numbers[1]]


async def test_whatever_opens_a_session_is_on_record(store: Store) -> None:
    ada, scoring = user(), client()
    await store.users.add(ada, [])
    await store.clients.add(scoring)
    opened = await store.sessions.open(session(ada.id))
    with_key = await store.sessions.open_with_key(scoring.key_digest, session("", methods="key"))
    assert opened
    assert with_key
    second, first = await store.events.list(ALL, before=None, most=100)
    assert (first.kind, first.subject, first.session_id) == ("login", ada.id, opened.session.id)
    assert (first.request_id, first.detail, first.outcome) == (opened.session.request_id, "pwd", "success")
    assert (second.subject, second.client_id, second.actor) == (scoring.id, scoring.id, scoring.id)
    assert await store.sessions.open(session("usr_none")) is None
    assert await store.sessions.open_with_key(secret(9), session("")) is None
    assert len(await store.events.list(ALL, before=None, most=100)) == 2


async def test_whom_an_event_is_to_be_told_to_waits_until_it_was_sent(store: Store) -> None:
    ada = user()
    told = event("user_changed", Origin("192.0.2.7", actor=ada.id), now=NOW, subject=ada.id, detail="email")
    told = told._replace(tell=("a@example.com", "b@example.com"))
    await store.users.add(ada, [name("ada")])
    assert not await store.users.change(replace(ada, auth_epoch=2), epoch=7, gained=[], lost=[], event=told)
    assert await store.notices.list(after=0, most=9) == []
    assert await store.users.change(replace(ada, auth_epoch=2), epoch=1, gained=[], lost=[], event=told)
    assert await store.users.replace_password(ada.id, old=HASH, new=HASH, epoch=2, now=NOW, event=told) == 3
    waiting = await store.notices.list(after=0, most=9)
    assert [each._replace(number=0) for each in waiting] == [*notices_of(told), *notices_of(told)]
    numbers = [each.number for each in waiting]
    assert numbers == sorted(set(numbers))
    assert await store.notices.list(after=numbers[0], most=2) == waiting[1:3]
    for number in (*numbers[1:], numbers[1]):
        await store.notices.delete(number)
    assert await store.notices.list(after=0, most=9) == waiting[:1]
    assert [each.tell for each in await store.events.list(ALL, before=None, most=9)] == [(), ()]


async def test_an_act_that_changes_nothing_leaves_no_event(store: Store) -> None:
    ada = user()
    done = event("user_changed", COMMAND_LINE, now=NOW, subject=ada.id)
    await store.users.add(ada, [name("ada")], event=done)
    with pytest.raises(NameTaken):
        await store.users.add(user(), [name("ada")], event=done)
    renamed = replace(ada, username="Eve", auth_epoch=2)
    assert not await store.users.change(renamed, epoch=7, gained=[], lost=[], event=done)
    assert await store.users.replace_password(ada.id, old="x", new=HASH, epoch=1, now=NOW, event=done) is None
    assert not await store.sessions.end(session(ada.id).id, because="logout", now=NOW, event=done)
    assert await store.clients.set_status(client().id, "disabled", now=NOW, event=done) is None
    assert not await store.users.delete(user().id, epoch=1, event=done)
    assert await kinds(store) == ["user_changed"]
    assert await store.users.change(renamed, epoch=1, gained=[], lost=[], event=done)
    assert await kinds(store) == ["user_changed"] * 2


async def test_a_name_that_is_taken_takes_the_whole_change_back(store: Store) -> None:
    ada, eve = user(), user()
    done = event("user_changed", COMMAND_LINE, now=NOW)
    await store.users.add(ada, [name("ada")])
    await store.users.add(eve, [name("eve")])
    with pytest.raises(NameTaken):
        await store.users.change(
            replace(eve, username="Ada", auth_epoch=2), epoch=1, gained=[name("ada")], lost=[name("eve")], event=done
        )
    assert await store.users.find_by_name(name("eve")) == eve
    assert await kinds(store) == []


async def test_days_kinds_and_outcomes_are_counted(store: Store) -> None:
    days_and_outcomes: list[tuple[int, Outcome]] = [
        (0, "failure"),
        (0, "failure"),
        (1, "failure"),
        (1, "success"),
        (-9, "failure"),
    ]
    for days, outcome in days_and_outcomes:
        at = after(NOW, days * 86_400)
        await store.events.append(event("login", COMMAND_LINE, now=at, outcome=outcome))
    day = day_of(NOW)
    assert sorted(await store.events.count_by_day(since=NOW)) == [
        (day, "login", "failure", 2),
        (day + 1, "login", "failure", 1),
        (day + 1, "login", "success", 1),
    ]


async def test_events_are_followed_in_order_and_the_oldest_forgotten(store: Store) -> None:
    for turn in range(5):
        await store.events.append(event("login", COMMAND_LINE, now=after(NOW, -turn), detail=str(turn)))
    numbers = [each.number for each in await store.events.after(0, most=100)]
    assert numbers == sorted(numbers)
    following = await store.events.after(numbers[1], most=2)
    assert [(each.number, each.detail) for each in following] == [(numbers[2], "2"), (numbers[3], "3")]
    assert await store.events.after(numbers[-1], most=9) == []
    assert [await store.events.forget(through=numbers[2], most=2) for _ in range(3)] == [2, 1, 0]
    await store.events.append(event("logout", COMMAND_LINE, now=NOW))
    left = await store.events.after(0, most=100)
    assert [each.detail for each in left] == ["3", "4", ""]
    assert left[-1].number > numbers[-1]


async def test_nobody_holds_a_claim_for_ever(store: Store) -> None:
    """A claim that was written by hand, or by a clock of another century, is taken over."""
    assert await store.facts.claim("seal", "one", now=NOW, until=after(NOW, 60))
    assert not await store.facts.claim("seal", "two", now=NOW, until=after(NOW, 60))
    assert await store.facts.claim("seal", "one", now=NOW, until=after(NOW, 90_000))
    assert await store.facts.claim("seal", "two", now=NOW, until=after(NOW, 60))


async def test_a_trail_is_sealed_and_what_is_taken_out_of_it_is_found(store: Store) -> None:
    counter = CounterPage(None)
    wrap = KeyWrap(new_secret_key())
    keyring = Keyring(store, counter, issuer="https://x.example", alg="ES256", wrap=wrap, keep=300, adopt=False)
    await keyring.load(NOW)
    passed = [0.0]
    audit = Audit(store, keyring, days=30, time=lambda: passed[0])

    async def happen(now: Instant, times: int) -> None:
        for turn in range(times):
            await store.events.append(event("login", COMMAND_LINE, now=now, detail=f"{turn} \u00e9"))

    async def settle(now: Instant) -> int:
        sealed = await audit.seal(lambda: now)
        # Numbers may be left out.
        passed[0] += GAP_SECONDS
        return sealed + await audit.seal(lambda: now)

    await happen(NOW, 5)
    assert await settle(NOW) == 5
    later = after(NOW, 40 * 86_400)
    await happen(later, 3)
    assert await settle(later) == 4
    verdict = await audit.verify(later)
    assert (verdict.events, verdict.sealed, verdict.problems) == (10, 9, [])
    passed[0] += FORGET_SECONDS
    assert await audit.forget(later) == 5
    assert (await audit.verify(later)).problems == []
    (oldest,) = await store.events.after(0, most=1)
    assert await store.events.forget(through=oldest.number, most=9) == 1
    assert len((await audit.verify(later)).problems) == 1
