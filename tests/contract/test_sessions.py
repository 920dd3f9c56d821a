"""storage.port.Sessions: what every store promises of logins."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from authwright.domain.client import FIRST_PARTY
from authwright.domain.event import COMMAND_LINE, event
from authwright.domain.instant import Instant, after
from authwright.domain.secrets import ClientId, SessionId, Subject
from authwright.domain.session import EndReason, Session
from authwright.domain.user import User
from authwright.storage.port import Ending, EventFilter, Store
from records import HASH, NOW, client, name, secret, session, user


async def stored_user(store: Store, **changed: object) -> User:
    made = user(**changed)
    await store.users.add(made, [name(made.id)])
    return made


async def opened(store: Store, subject: str, **changed: object) -> Session:
    made = session(subject, **changed)
    answer = await store.sessions.open(made)
    assert answer is not None
    assert answer.session == made
    return made


def rotation(of: Session, step: int = 1, **changed: object) -> dict[str, object]:
    return {
        "generation": step,
        "presented": secret(step),
        "successor": secret(step + 1),
        "client": None,
        "now": after(NOW, 10),
        "idle_expires_at": after(NOW, 1010),
        **changed,
    }


async def rotate(store: Store, of: Session, step: int = 1, **changed: object) -> Session | None:
    return await store.sessions.rotate(of.id, **rotation(of, step, **changed))  # type: ignore[arg-type]


async def test_what_was_opened_is_found_exactly(store: Store) -> None:
    ada = await stored_user(store)
    made = await opened(store, ada.id, granted_scope="predict", user_agent="\N{SNOWMAN}", methods="pwd otp")
    assert await store.sessions.find(made.id) == made
    assert await store.sessions.find(SessionId("none")) is None


async def test_a_session_opens_only_for_an_active_subject_at_its_epoch(store: Store) -> None:
    ada = await stored_user(store)
    disabled = await stored_user(store, status="disabled")
    for refused in (
        session(ada.id, auth_epoch=2),
        session(ada.id, auth_epoch=0),
        session(disabled.id),
        session("usr_nobody"),
    ):
        assert await store.sessions.open(refused) is None
        assert await store.sessions.find(refused.id) is None
    await store.users.raise_epoch(ada.id, now=NOW)
    assert await store.sessions.open(session(ada.id)) is None
    assert await store.sessions.open(session(ada.id, auth_epoch=2)) is not None


async def test_opening_tells_how_many_live_sessions_there_were(store: Store) -> None:
    ada, eve = await stored_user(store), await stored_user(store)
    await opened(store, eve.id)
    ended, expired = await opened(store, ada.id), await opened(store, ada.id, idle_expires_at=NOW)
    await store.sessions.end(ended.id, because="logout", now=NOW)
    assert expired.idle_expires_at == NOW
    counts = []
    for _ in range(3):
        answer = await store.sessions.open(session(ada.id))
        assert answer is not None
        counts.append(answer.others)
    assert counts == [0, 1, 2]


async def test_a_client_key_opens_a_session_in_one_step(store: Store) -> None:
    scoring = client()
    await store.clients.add(scoring)
    draft = session("", client_id="", methods="key", username=None)
    answer = await store.sessions.open_with_key(scoring.key_digest, draft)
    assert answer is not None
    expected = draft._replace(
        subject=Subject(scoring.id),
        client_id=scoring.id,
        username="scoring",
        role="user",
        plan="premium",
        auth_epoch=1,
        granted_scope="analytics predict",
        audiences=scoring.audiences,
    )
    assert answer.session == expected == await store.sessions.find(draft.id)
    assert await store.sessions.open_with_key(secret(9), session("")) is None
    await store.clients.set_status(scoring.id, "disabled", now=NOW)
    assert await store.sessions.open_with_key(scoring.key_digest, session("")) is None
    assert await store.sessions.open(session(scoring.id, client_id=scoring.id)) is None


async def test_of_many_logins_by_key_at_once_each_gets_its_own_session_or_nothing(store: Store) -> None:
    known = [client(name=f"client {number}") for number in range(40)]
    for each in known:
        await store.clients.add(each)
    await store.clients.set_status(known[3].id, "disabled", now=NOW)
    keys = [each.key_digest for each in known] * 2 + [secret(99)]
    drafts = [session("", client_id="", username=None, user_agent=f"agent {number}") for number in range(len(keys))]
    answers = await asyncio.gather(*map(store.sessions.open_with_key, keys, drafts))
    for number, (draft, answer) in enumerate(zip(drafts, answers, strict=True)):
        if number % 40 == 3 or number == 80:
            assert answer is None
            assert await store.sessions.find(draft.id) is None
        else:
            assert answer is not None
            assert answer.session == await store.sessions.find(draft.id)
            assert (answer.session.id, answer.session.user_agent) == (draft.id, draft.user_agent)
            assert (answer.session.subject, answer.session.username) == (known[number % 40].id, f"client {number % 40}")


async def test_a_rotation_moves_the_session_one_generation_on(store: Store) -> None:
    made = await opened(store, (await stored_user(store)).id)
    moved = await rotate(store, made)
    assert moved == made._replace(
        generation=2,
        secret_digest=secret(2),
        rotated_at=after(NOW, 10),
        used_at=after(NOW, 10),
        idle_expires_at=after(NOW, 1010),
    )
    assert await store.sessions.find(made.id) == moved
    assert await rotate(store, made) is None
    assert await rotate(store, made, 2) is not None


async def test_r56_cve_2026_1035_of_a_hundred_rotations_of_one_secret_exactly_one_wins(store: Store) -> None:
    made = await opened(store, (await stored_user(store)).id)
    for step in (1, 2, 3):
        outcomes = await asyncio.gather(*(rotate(store, made, step) for _ in range(100)))
        winners = [outcome for outcome in outcomes if outcome is not None]
        assert len(winners) == 1
        assert winners[0].generation == step + 1


async def test_of_many_rotations_at_once_each_gets_its_own_session_or_nothing(store: Store) -> None:
    ada = await stored_user(store)
    made = [await opened(store, ada.id) for _ in range(40)]
    await store.sessions.end(made[0].id, because="logout", now=NOW)
    asked = [each for each in made for _ in range(3)]
    outcomes = await asyncio.gather(*(rotate(store, each, 1) for each in asked))
    for position, each in enumerate(made):
        moved = [outcome for outcome in outcomes[position * 3 : position * 3 + 3] if outcome is not None]
        assert [(outcome.id, outcome.generation) for outcome in moved] == ([(each.id, 2)] if position else [])


async def test_of_rotations_at_once_the_wrong_ones_alone_are_refused(store: Store) -> None:
    ada = await stored_user(store)
    wrong: list[dict[str, object]] = [
        {"presented": secret(7)},
        {"generation": 2},
        {"client": ClientId("cli_other")},
        {"now": after(NOW, 1000)},
    ]
    made = [await opened(store, ada.id) for _ in range(3 * len(wrong))]
    refused = [(each, changed) for each, changed in zip(made, wrong * 3, strict=True)]
    right = [(each, {"client": FIRST_PARTY if number % 2 else None}) for number, each in enumerate(made)]
    # Each session twice: what is wrong of the one must not count for the other.
    asked = refused[: len(wrong)] + right + refused[len(wrong) :]
    outcomes = await asyncio.gather(*(rotate(store, each, **changed) for each, changed in asked))
    for (each, changed), outcome in zip(asked, outcomes, strict=True):
        if changed in wrong:
            assert outcome is None
        else:
            assert outcome == each._replace(
                generation=2,
                secret_digest=secret(2),
                rotated_at=after(NOW, 10),
                used_at=after(NOW, 10),
                idle_expires_at=after(NOW, 1010),
            )


async def test_a_rotation_needs_the_right_secret_generation_client_and_a_living_session(store: Store) -> None:
    ada = await stored_user(store)
    made = await opened(store, ada.id)
    assert await rotate(store, made, presented=secret(7)) is None
    assert await rotate(store, made, generation=2) is None
    assert await rotate(store, made, client=ClientId("cli_other")) is None
    assert await rotate(store, made, now=made.idle_expires_at) is None
    assert await store.sessions.rotate(SessionId("none"), **rotation(made)) is None  # type: ignore[arg-type]
    assert await store.sessions.find(made.id) == made
    assert await rotate(store, made, client=FIRST_PARTY) is not None


async def test_r54_the_idle_expiry_never_passes_the_absolute_one(store: Store) -> None:
    made = await opened(store, (await stored_user(store)).id)
    moved = await rotate(store, made, idle_expires_at=after(NOW, 9999))
    assert moved is not None
    assert moved.idle_expires_at == made.expires_at


async def test_an_ended_session_stays_ended(store: Store) -> None:
    made = await opened(store, (await stored_user(store)).id)
    assert await store.sessions.end(made.id, because="logout", now=after(NOW, 1))
    assert not await store.sessions.end(made.id, because="reuse", now=after(NOW, 2))
    assert not await store.sessions.end(SessionId("none"), because="logout", now=NOW)
    assert await rotate(store, made) is None
    found = await store.sessions.find(made.id)
    assert found is not None
    assert (found.revoked_at, found.revoked_because) == (after(NOW, 1), "logout")


async def test_of_an_ending_and_rotations_that_race_none_revives_the_session(store: Store) -> None:
    ada = await stored_user(store)
    for _ in range(20):
        made = await opened(store, ada.id)
        await asyncio.gather(
            rotate(store, made), store.sessions.end(made.id, because="logout", now=NOW), rotate(store, made)
        )
        found = await store.sessions.find(made.id)
        assert found is not None
        assert found.revoked_at is not None
        assert await rotate(store, found, found.generation) is None


async def test_ending_all_ends_older_epochs_and_lifts_the_one_that_is_kept(store: Store) -> None:
    ada, eve = await stored_user(store), await stored_user(store)
    kept, one, two = [await opened(store, ada.id) for _ in range(3)]
    others = await opened(store, eve.id)
    epoch = await store.users.raise_epoch(ada.id, now=NOW)
    assert epoch == 2
    newer = await opened(store, ada.id, auth_epoch=2)
    count = await store.sessions.end_all(
        Subject(ada.id), below_epoch=2, keep=kept.id, because="password_changed", now=NOW
    )
    assert count == 2
    alive = {each.id: each for each in await store.sessions.list_live(Subject(ada.id), now=NOW)}
    assert set(alive) == {kept.id, newer.id}
    assert alive[kept.id].auth_epoch == 2
    assert (await store.sessions.find(others.id)) == others
    for each in (one, two):
        found = await store.sessions.find(each.id)
        assert found is not None
        assert found.revoked_because == "password_changed"
    assert await store.sessions.end_all(Subject(ada.id), below_epoch=2, keep=None, because="disabled", now=NOW) == 0


async def test_nobody_keeps_a_session_that_is_not_theirs_or_has_ended(store: Store) -> None:
    ada, eve = await stored_user(store), await stored_user(store)
    hers, ended = await opened(store, eve.id), await opened(store, ada.id)
    await store.sessions.end(ended.id, because="logout", now=NOW)
    for keep in (hers.id, ended.id):
        await store.sessions.end_all(Subject(ada.id), below_epoch=5, keep=keep, because="disabled", now=NOW)
    assert await store.sessions.find(hers.id) == hers
    found = await store.sessions.find(ended.id)
    assert found is not None
    assert (found.revoked_because, found.auth_epoch) == ("logout", 1)


async def test_the_least_recently_used_sessions_make_room(store: Store) -> None:
    ada = await stored_user(store)
    made = [await opened(store, ada.id, used_at=after(NOW, number)) for number in range(5)]
    ended = await store.sessions.end_excess(Subject(ada.id), client=FIRST_PARTY, most=3, now=NOW)
    assert set(ended) == {made[0].id, made[1].id}
    alive = await store.sessions.list_live(Subject(ada.id), now=NOW)
    assert [each.id for each in alive] == [made[4].id, made[3].id, made[2].id]
    assert await store.sessions.end_excess(Subject(ada.id), client=FIRST_PARTY, most=3, now=NOW) == []


async def test_what_a_crash_left_out_is_found(store: Store) -> None:
    ada, scoring = await stored_user(store), client()
    await store.clients.add(scoring)
    await opened(store, ada.id)
    await store.sessions.open_with_key(scoring.key_digest, session(""))
    assert await store.sessions.outdated() == []
    await store.users.replace_password(ada.id, old=HASH, new=HASH, epoch=1, now=NOW)
    await store.clients.set_status(scoring.id, "disabled", now=NOW)
    assert set(await store.sessions.outdated()) == {(ada.id, 2), (scoring.id, 2)}
    for subject, epoch in await store.sessions.outdated():
        await store.sessions.end_all(subject, below_epoch=epoch, keep=None, because="disabled", now=NOW)
    assert await store.sessions.outdated() == []


async def test_sessions_that_were_ended_lately_are_found(store: Store) -> None:
    ada = await stored_user(store)
    early, late, alive = [await opened(store, ada.id) for _ in range(3)]
    await store.sessions.end(early.id, because="logout", now=NOW)
    await store.sessions.end(late.id, because="reuse", now=after(NOW, 5))
    assert list(await store.sessions.ended_since(after(NOW, 1))) == [(late.id, ada.id, 1)]
    assert {each.session_id for each in await store.sessions.ended_since(NOW)} == {early.id, late.id}
    assert alive.revoked_at is None


async def test_what_the_store_cannot_hold_hurts_nobody_else(store: Store) -> None:
    ada = await stored_user(store)
    clients = [client(name="first"), client(name="second"), client(name="third")]
    for each in clients:
        await store.clients.add(each)
    drafts = [session("", user_agent=agent) for agent in ("pytest", "\ud800", "pytest")]
    logins = [
        asyncio.ensure_future(store.sessions.open_with_key(each.key_digest, draft))
        for each, draft in zip(clients, drafts, strict=True)
    ]
    broken: list[asyncio.Future[object]] = [
        logins.pop(1),
        asyncio.ensure_future(store.users.add(user(username="\ud800"), [name("broken")])),
        asyncio.ensure_future(store.sessions.end(SessionId("none"), because="logout", now=Instant(2**70))),
    ]
    made = await opened(store, ada.id)
    for failing in broken:
        with pytest.raises((UnicodeError, OverflowError)):
            await failing
    assert all(await asyncio.gather(*logins))
    assert await store.sessions.find(drafts[1].id) is None
    assert await store.sessions.find(made.id) == made
    assert await store.users.find_by_name(name("broken")) is None


async def test_a_login_and_a_change_of_the_account_that_race_leave_no_session_behind(store: Store) -> None:
    ada = await stored_user(store)
    epoch = 1
    for _ in range(20):

        async def change() -> int:
            raised = await store.users.raise_epoch(ada.id, now=NOW)
            assert raised is not None
            await store.sessions.end_all(
                Subject(ada.id), below_epoch=raised, keep=None, because="password_changed", now=NOW
            )
            return raised

        _, raised, _ = await asyncio.gather(
            store.sessions.open(session(ada.id, auth_epoch=epoch)),
            change(),
            store.sessions.open(session(ada.id, auth_epoch=epoch)),
        )
        assert await store.sessions.list_live(Subject(ada.id), now=Instant(NOW)) == []
        epoch = raised


def ending(because: EndReason = "changed", **more: Any) -> Ending:
    return Ending(because, after(NOW, 5), after(NOW, 99), **more)


async def test_sessions_are_carried_over_in_the_step_of_the_change(store: Store) -> None:
    ada = await stored_user(store)
    old, ended = await opened(store, ada.id), await opened(store, ada.id)
    await store.sessions.end(ended.id, because="logout", now=NOW)
    changed = replace(ada, username="Lovelace", role="admin", plan="premium", auth_epoch=2)
    assert await store.users.change(changed, epoch=1, gained=[], lost=[], ending=ending(carry_over=True))
    found = await store.sessions.find(old.id)
    assert found == old._replace(username="Lovelace", role="admin", plan="premium", auth_epoch=2)
    (entry,) = await store.ledger.since(0)
    assert (entry.kind, entry.target, entry.epoch, entry.reason) == ("subject", ada.id, 2, "changed")
    assert (entry.at, entry.until) == (after(NOW, 5), after(NOW, 99))


async def test_a_session_that_an_earlier_change_was_to_end_is_not_carried_over(store: Store) -> None:
    ada = await stored_user(store)
    old = await opened(store, ada.id)
    # As a crash between two writes would leave it.
    await store.users.raise_epoch(ada.id, now=NOW)
    changed = replace(ada, plan="premium", auth_epoch=3)
    assert await store.users.change(changed, epoch=2, gained=[], lost=[], ending=ending(carry_over=True))
    found = await store.sessions.find(old.id)
    assert found
    assert found.revoked_at == after(NOW, 5)


@pytest.mark.parametrize("kept", [True, False])
async def test_sessions_end_in_the_step_that_raises_the_epoch(store: Store, kept: bool) -> None:
    ada = await stored_user(store)
    one, two = await opened(store, ada.id), await opened(store, ada.id)
    token = secret(9)
    await store.users.offer_reset(ada.id, token, expires_at=after(NOW, 100))
    keep = one.id if kept else None
    end = ending("password_changed", keep=keep)
    epoch = await store.users.replace_password(
        ada.id, old=ada.password_hash, new=HASH + "x", epoch=1, now=NOW, ending=end
    )
    assert epoch == 2
    live = await store.sessions.list_live(Subject(ada.id), now=after(NOW, 6))
    assert [(each.id, each.auth_epoch) for each in live] == ([(one.id, 2)] if kept else [])
    assert [each.epoch for each in await store.ledger.since(0)] == [2]
    assert await store.users.find_by_reset(token, now=NOW) is None
    found = await store.sessions.find(two.id)
    assert found
    assert found.revoked_because == "password_changed"


async def test_a_reset_a_deletion_and_a_client_end_sessions_in_one_step(store: Store) -> None:
    ada, eve, scoring = await stored_user(store), await stored_user(store), client()
    await store.clients.add(scoring)
    sessions = [await opened(store, ada.id), await opened(store, eve.id)]
    with_key = await store.sessions.open_with_key(scoring.key_digest, session("", methods="key"))
    assert with_key
    sessions.append(with_key.session)
    token = secret(9)
    await store.users.offer_reset(ada.id, token, expires_at=after(NOW, 100))
    assert await store.users.reset_password(ada.id, token, new=HASH, now=NOW, ending=ending("password_reset"))
    assert await store.users.delete(eve.id, epoch=eve.auth_epoch, ending=ending("deleted"))
    assert await store.clients.set_status(scoring.id, "disabled", now=NOW, ending=ending("disabled"))
    found = [await store.sessions.find(each.id) for each in sessions]
    assert [each and each.revoked_because for each in found] == ["password_reset", "deleted", "disabled"]
    assert [(each.target, each.epoch) for each in await store.ledger.since(0)] == [
        (ada.id, 2),
        (eve.id, 2),
        (scoring.id, 2),
    ]


async def test_one_session_ends_with_its_entry_and_a_repeat_adds_none(store: Store) -> None:
    ada = await stored_user(store)
    one = await opened(store, ada.id)
    for first in (True, False):
        assert await store.sessions.end(one.id, because="logout", now=NOW, ending=ending("logout")) is first
    (entry,) = await store.ledger.since(0)
    assert (entry.kind, entry.target) == ("session", one.id)


async def test_one_access_token_is_withdrawn_with_its_event_and_its_session_goes_on(store: Store) -> None:
    ada, scoring = await stored_user(store), client()
    await store.clients.add(scoring)
    one = await opened(store, ada.id)
    told = [event("token_revoked", COMMAND_LINE, now=NOW, subject=each) for each in (ada.id, scoring.id)]
    withdraw = store.sessions.withdraw_token
    assert await withdraw("t1", subject=Subject(ada.id), ending=ending("revoked"), event=told[0])
    assert await withdraw("t2", subject=Subject(scoring.id), ending=ending("revoked"), event=told[1])
    # Of somebody who is gone all tokens are withdrawn.
    assert not await withdraw("t3", subject=Subject("usr_gone"), ending=ending("revoked"), event=told[0])
    assert [(each.kind, each.target, each.number) for each in await store.ledger.since(0)] == [
        ("token", "t1", 1),
        ("token", "t2", 2),
    ]
    recorded = await store.events.list(EventFilter(kind="token_revoked"), before=None, most=9)
    assert [each.subject for each in recorded] == [scoring.id, ada.id]
    assert await store.sessions.find(one.id) == one


async def test_nothing_is_written_for_a_change_that_came_too_late(store: Store) -> None:
    ada = await stored_user(store)
    one = await opened(store, ada.id)
    await store.users.raise_epoch(ada.id, now=NOW)
    assert not await store.users.change(
        replace(ada, plan="x", auth_epoch=2), epoch=1, gained=[], lost=[], ending=ending()
    )
    assert await store.ledger.since(0) == []
    assert await store.sessions.find(one.id) == one


async def test_sessions_of_somebody_who_is_gone_are_found_again(store: Store) -> None:
    ada = user()
    await store.users.add(ada, [])
    await store.sessions.open(session(ada.id))
    assert await store.sessions.outdated() == []
    await store.users.delete(ada.id, epoch=ada.auth_epoch)
    assert await store.sessions.outdated() == [(ada.id, 2)]


async def test_live_sessions_of_all_are_listed_page_by_page(store: Store) -> None:
    users = [user() for _ in range(5)]
    opened = []
    for each in users:
        await store.users.add(each, [])
        opened.append(session(each.id))
        await store.sessions.open(opened[-1])
    await store.sessions.end(opened[0].id, because="logout", now=NOW)
    live = sorted(opened[1:], key=lambda each: each.id)
    assert await store.sessions.list_all(now=NOW, after=None, most=3) == live[:3]
    assert await store.sessions.list_all(now=NOW, after=live[2].id, most=3) == live[3:]
    assert await store.sessions.list_all(now=after(NOW, 1000), after=None, most=3) == []


async def test_old_sessions_are_forgotten_in_batches_and_live_ones_never(store: Store) -> None:
    ada = user()
    await store.users.add(ada, [])
    live = session(ada.id, idle_expires_at=after(NOW, 4000))
    opened = [session(ada.id) for _ in range(6)]
    for each in (live, *opened):
        await store.sessions.open(each)
    for each in opened[:3]:
        await store.sessions.end(each.id, because="logout", now=NOW)
    # Three ended now, three expire after a thousand seconds, one goes on.
    assert await store.sessions.forget(before=NOW, most=10) == 0
    assert await store.sessions.forget(before=after(NOW, 1), most=2) == 2
    assert await store.sessions.forget(before=after(NOW, 1001), most=10) == 4
    assert await store.sessions.forget(before=after(NOW, 1001), most=10) == 0
    assert await store.sessions.find(live.id) == live
