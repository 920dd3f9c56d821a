"""What a guard makes of a feed that is wrong, late or breaks off: nothing known is lost, nothing old is new."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from authwright.domain.errors import Unauthenticated, Unavailable
from authwright.guard import jwks, revocations
from authwright.jose.encoding import b64url_decode
from authwright.jose.sign import PrivateKey, Signer
from guarded import until
from scripted import Answer, Scripted, Stream, begun, heard, scripted, session


@pytest.fixture
async def issuer() -> AsyncIterator[Scripted]:
    async with scripted() as made:
        yield made


async def ends(stream: Stream, issuer: Scripted, seconds: float = 3) -> Stream:
    """The next stream: the guard gave *stream* up."""
    return await asyncio.wait_for(issuer.streams.get(), seconds)


async def test_a_gap_makes_the_guard_begin_again(issuer: Scripted) -> None:
    async with issuer.guard() as guard:
        stream = await begun(issuer, guard)
        stream.entries(7, session(7))
        again = await ends(stream, issuer)
        assert again.cursor is None
        again.snapshot(7, session(6, "t"), session(7))
        again.heartbeat(7)
        await until(lambda: guard.status.cursor == "e.7.0")
        with pytest.raises(Unauthenticated):
            await guard.verify(issuer.token(sid="t"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": 6, "kind": "planet", "target": "x"},
        {"number": 6, "kind": "session", "target": ""},
        {"number": "6", "kind": "session", "target": "x"},
        {"number": 6, "kind": "session", "target": "x", "until": "soon"},
        "entry",
    ],
)
async def test_an_entry_that_cannot_be_read_must_not_pass_as_if_it_were(issuer: Scripted, wrong: Any) -> None:
    async with issuer.guard() as guard:
        stream = await begun(issuer, guard, session(5))
        stream.entries(6, wrong)
        again = await ends(stream, issuer)
        assert again.cursor is None
        # What was known is still known.
        with pytest.raises(Unauthenticated):
            await guard.verify(issuer.token())


@pytest.mark.parametrize("cursor", ["e.9.0", "f.5.0", "", "e.5", "e.x.0", None])
async def test_a_heartbeat_that_names_another_place_is_no_heartbeat(issuer: Scripted, cursor: Any) -> None:
    async with issuer.guard() as guard:
        stream = await begun(issuer, guard)
        stream.say("heartbeat", {"cursor": cursor, "age_ms": 0, "at_ms": 0, "forgotten_up_to": 0})
        await ends(stream, issuer)


async def test_entries_have_to_belong_to_their_cursor_and_store(issuer: Scripted) -> None:
    async with issuer.guard() as guard:
        stream = await begun(issuer, guard)
        stream.entries(8, session(6))
        stream = await ends(stream, issuer)
        stream.snapshot(6, session(6))
        stream.entries(7, session(7), epoch="other")
        stream = await ends(stream, issuer)
        stream.snapshot(3, session(9), epoch="third")
        await ends(stream, issuer)


async def test_an_older_snapshot_of_the_same_store_takes_nothing_back(issuer: Scripted) -> None:
    async with issuer.guard(max_staleness=1) as guard:
        stream = await begun(issuer, guard, session(5))
        stream.entries(6, {"number": 6, "kind": "planet", "target": "x"})
        for _ in range(2):
            stream = await ends(stream, issuer)
            stream.snapshot(4)
            stream.heartbeat(4)
        with pytest.raises(Unauthenticated):
            await guard.verify(issuer.token())
        # It is not taken for news either.
        await until(lambda: guard.status.staleness > 1)
        # Another store, restored from a backup, is something else.
        stream = await ends(stream, issuer)
        stream.snapshot(2, epoch="f")
        stream.heartbeat(2, epoch="f")
        await until(lambda: guard.status.cursor == "f.2.0")
        await guard.verify(issuer.token())


async def test_half_a_snapshot_is_none(issuer: Scripted) -> None:
    async with issuer.guard() as guard:
        stream = await begun(issuer, guard, session(5))
        await guard.verify(issuer.token(sid="t"))
        stream.close()
        stream = await ends(stream, issuer)
        stream.snapshot(9, session(6, "t"), epoch="f", more=True)
        stream.close()
        stream = await ends(stream, issuer)
        # Nothing of it was taken in, nothing was let go of, and it does not become a part of what follows.
        assert (stream.cursor, guard.status.revocations) == ("e.5.0", 1)
        stream.snapshot(9, session(7, "u"), epoch="f", more=True)
        stream.snapshot(9, session(8, "v"), epoch="f")
        stream.heartbeat(9, epoch="f")
        await until(lambda: guard.status.cursor == "f.9.0")
        assert guard.status.revocations == 2
        await guard.verify(issuer.token(sid="t"))
        for sid in ("u", "v"):
            with pytest.raises(Unauthenticated):
                await guard.verify(issuer.token(sid=sid))


async def test_what_the_server_says_of_its_age_counts(issuer: Scripted) -> None:
    async with issuer.guard() as guard:
        stream = await asyncio.wait_for(issuer.streams.get(), 5)
        stream.snapshot(5)
        stream.heartbeat(5, age_ms=1800)
        await until(lambda: guard.status.staleness < 100)
        assert 1.8 <= guard.status.staleness < 2.5


async def test_a_heartbeat_counts_for_when_it_was_sent(issuer: Scripted) -> None:
    async with issuer.guard() as guard:
        stream = await asyncio.wait_for(issuer.streams.get(), 5)
        stream.snapshot(5)
        sent = time.monotonic()
        stream.heartbeat(5, at=sent)
        await until(lambda: guard.status.staleness < 1)
        await until(lambda: guard.status.staleness > 1.2)
        # This one was held back for a second by somebody in between.
        await heard(guard, lambda: stream.heartbeat(5, at=sent + 0.2))
        assert 1.0 <= guard.status.staleness < 1.6
        stream.heartbeat(5)
        await until(lambda: guard.status.staleness < 0.5)


async def test_only_what_the_server_forgot_is_forgotten(issuer: Scripted) -> None:
    now = int(time.time())
    # Neither a clock of this machine that is hours ahead has a say in it, nor that of whoever wrote an entry.
    async with issuer.guard(leeway=0) as guard:
        lasting = {"number": 3, "kind": "key", "target": "k"}
        stream = await begun(issuer, guard, lasting, session(4, "old", until=now + 7200), session(5, until=now - 7200))
        assert guard.status.revocations == 3
        await heard(guard, lambda: stream.heartbeat(5, forgotten=3))
        assert guard.status.revocations == 3
        stream.heartbeat(5, forgotten=4)
        await until(lambda: guard.status.revocations == 2)
        # Of an issuer that has another server, which knows less, and was asked meanwhile.
        await heard(guard, lambda: stream.heartbeat(5, forgotten=0))
        assert guard.status.revocations == 2


async def test_a_server_that_lives_without_its_ledger_is_left(
    issuer: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "SILENT_SECONDS", 0.6)
    async with issuer.guard() as guard:
        stream = await begun(issuer, guard)
        for _ in range(30):
            stream.comment()
            await asyncio.sleep(0.05)
        again = await ends(stream, issuer, 1)
        assert again.cursor == "e.5.0"


async def test_streams_that_end_now_and_then_are_taken_up_at_once(issuer: Scripted) -> None:
    async with issuer.guard() as guard:
        stream = await begun(issuer, guard)
        gaps = []
        for _ in range(6):
            stream.heartbeat(5)
            await asyncio.sleep(0.05)
            stream.close()
            closed = time.monotonic()
            stream = await ends(stream, issuer)
            gaps.append(time.monotonic() - closed)
            stream.heartbeat(5)
        assert max(gaps) < 0.6


async def test_while_a_stream_that_was_held_back_is_tried_again_the_guard_goes_on_asking(
    issuer: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "ASK_SECONDS", 0.3)
    asked: list[float] = []
    number = 5

    async def on_ask(query: dict[str, list[str]]) -> Answer:
        asked.append(time.monotonic())
        await asyncio.sleep(0.1)
        entries = [session(number)] if query.get("cursor", [""])[0] < f"e.{number}" else []
        head = {"cursor": f"e.{number}.0", "snapshot": "cursor" not in query, "more": False, "entries": entries}
        return 200, {**head, "age_ms": 0, "waited_ms": 100, "forgotten_up_to": 0}

    issuer.on_ask = on_ask
    async with issuer.guard() as guard:
        # Nothing comes by the stream, ever: given up, tried again, given up.
        await until(lambda: guard.status.staleness < 1, seconds=8)
        for _ in range(2):
            await asyncio.wait_for(issuer.streams.get(), 8)
        assert max(later - earlier for earlier, later in itertools.pairwise(asked)) < 1
        number = 6
        await until(lambda: guard.status.cursor == "e.6.0", seconds=1)
        # One that speaks in time is trusted again, and the asking ends.
        stream = await asyncio.wait_for(issuer.streams.get(), 8)
        for _ in range(3):
            stream.heartbeat(6)
            await asyncio.sleep(0.05)
        await until(lambda: guard.status.following)
        await asyncio.sleep(0.3)
        before = len(asked)
        for _ in range(6):
            stream.heartbeat(6)
            await asyncio.sleep(0.1)
        assert len(asked) == before


async def test_redirects_are_not_followed(issuer: Scripted) -> None:
    async def elsewhere(*_: Any) -> Answer:
        return 302, {}

    issuer.on_keys = elsewhere
    async with issuer.guard() as guard:
        with pytest.raises(Unavailable):
            await guard.verify(issuer.token())
    assert issuer.answered("/elsewhere") == 0


async def test_r89_keys_older_than_a_day_are_not_used(issuer: Scripted) -> None:
    async with issuer.guard() as guard:
        stream = await begun(issuer, guard)
        await guard.verify(issuer.token())
        assert guard._life
        assert guard._life.jwks.fetched_at
        guard._life.jwks.fetched_at -= 24 * 3600 + 1
        await heard(guard, lambda: stream.heartbeat(5))
        with pytest.raises(Unavailable):
            await guard.verify(issuer.token())


async def test_keys_are_fetched_again_when_they_may_have_changed(
    issuer: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "LEAST_SECONDS", 0.2)
    monkeypatch.setattr(jwks, "USUAL_SECONDS", 0.2)
    async with issuer.guard() as guard:
        await begun(issuer, guard)
        await until(lambda: issuer.answered("/.well-known/jwks.json") >= 4)


async def test_what_changed_while_keys_were_fetched_is_fetched_again(issuer: Scripted) -> None:
    going_on, go = asyncio.Event(), asyncio.Event()
    usual = issuer.on_keys

    async def slow() -> Answer:
        going_on.set()
        await go.wait()
        return await usual()

    async with issuer.guard() as guard:
        stream = await begun(issuer, guard)
        issuer.on_keys = slow
        assert guard._life
        fetching = asyncio.create_task(guard._life.jwks.fetch())
        await going_on.wait()
        stream.entries(6, {"number": 6, "kind": "key", "target": "k"})
        await until(lambda: guard.status.cursor == "e.6.0")
        before = issuer.answered("/.well-known/jwks.json")
        go.set()
        assert await fetching
        await until(lambda: issuer.answered("/.well-known/jwks.json") > before)


async def test_a_worker_that_heard_of_a_new_key_last_keeps_nobody_out(issuer: Scripted) -> None:
    """It answers a guard that asks after the news; who comes with the new key is let in all the same, soon after."""
    usual, new = issuer.on_keys, PrivateKey.generate("ES256")
    answers = 0

    async def late() -> Answer:
        nonlocal answers
        answers += 1
        return await usual() if answers == 1 else (200, {"keys": [new.public.jwk()]})

    async with issuer.guard() as guard:
        stream = await begun(issuer, guard)
        issuer.on_keys = late
        stream.entries(6, {"number": 6, "kind": "key", "target": "k"})
        await until(lambda: guard._life is not None and new.kid in guard._life.jwks.keys)
        payload = issuer.token().split(".")[1]
        token = Signer(new, typ="at+jwt").sign(json.loads(b64url_decode(payload)))
        assert (await guard.verify(token)).subject == "usr_1"


async def test_whatever_goes_wrong_with_keys_the_feed_is_followed(
    issuer: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with issuer.guard() as guard:
        stream = await begun(issuer, guard)
        good = issuer.token()
        await guard.verify(good)

        def fails(_: bytes) -> None:
            raise RuntimeError("unforeseen")

        monkeypatch.setattr(jwks, "public_keys_from_jwks", fails)
        assert guard._life
        guard._life.jwks._document = None
        assert not await guard._life.jwks.fetch()
        stream.entries(6, session(6))
        await until(lambda: guard.status.revocations == 1)
        with pytest.raises(Unauthenticated):
            await guard.verify(good)


@pytest.mark.parametrize(
    "line", ["retry: 3000", "event: ping\ndata: 2026", "id: x", "data: [1]", "event: later\ndata: {}"]
)
async def test_what_somebody_in_between_adds_to_the_stream_says_nothing(issuer: Scripted, line: str) -> None:
    async with issuer.guard() as guard:
        stream = await begun(issuer, guard)
        stream.write(f"{line}\n\n".encode())
        await heard(guard, lambda: stream.heartbeat(5))
        stream.entries(6, session(6))
        await until(lambda: guard.status.revocations == 1)
        assert guard.status.following
        assert issuer.streams.empty()


async def test_an_event_that_is_no_json_makes_the_guard_begin_again(issuer: Scripted) -> None:
    async with issuer.guard() as guard:
        stream = await begun(issuer, guard)
        stream.write(b"event: entries\ndata: <html>\n\n")
        again = await ends(stream, issuer, 1)
        assert again.cursor == "e.5.0"


async def test_a_heartbeat_without_its_numbers_is_no_progress(issuer: Scripted) -> None:
    async with issuer.guard() as guard:
        stream = await asyncio.wait_for(issuer.streams.get(), 5)
        stream.snapshot(5, session(5))
        stream.say("heartbeat", {"cursor": "e.5.0", "age_ms": 0, "at_ms": 0})
        await ends(stream, issuer)
        # So it comes back the slower the more often this happens.
        assert guard.status.staleness == float("inf")


async def test_an_issuer_that_forgets_more_than_there_is_takes_nothing_back_that_lasts(issuer: Scripted) -> None:
    async with issuer.guard() as guard:
        stream = await begun(issuer, guard, {"number": 4, "kind": "key", "target": "k"}, session(5))
        stream.heartbeat(5, forgotten=2**63)
        await until(lambda: guard.status.revocations == 1)
        stream.entries(6, session(6))
        await until(lambda: guard.status.revocations == 2)
        await heard(guard, lambda: stream.heartbeat(6, forgotten=5))
        assert guard.status.revocations == 2
