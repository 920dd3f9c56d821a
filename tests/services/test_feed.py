"""What guards follow: a snapshot, then every entry once and in order; a snapshot again when something was missed."""

import json
from typing import Any

import pytest

from authwright.domain.instant import Instant, after
from authwright.domain.revocation import FOREVER, Revocation
from authwright.services.feed import MOST_AT_ONCE, Cursor, CursorAhead, Feed, News, _mark, read_cursor
from records import NOW


def entry(number: int, **more: Any) -> Revocation:
    given = {"kind": "session", "target": f"s{number}", "epoch": 0, "reason": "logout", "at": NOW, **more}
    return Revocation(**{"until": after(NOW, 100), "number": number, **given})


def at(number: int, **more: Any) -> Cursor:
    """The cursor of a follower that has all up to `entry(number)`."""
    return Cursor("abc", number, _mark(entry(number, **more)))


MATTERS = 100


class Time:
    now = 5.0

    def __call__(self) -> float:
        return self.now


def forget(feed: Feed, seconds: float) -> None:
    """What it lets go of *seconds* after NOW, at which it began."""
    time = feed._loop_time
    assert isinstance(time, Time)
    time.now = Time.now + seconds
    feed.forget(after(NOW, seconds))


@pytest.fixture
def feed() -> Feed:
    made = Feed(Time(), matters=MATTERS)
    made.start("abc", [entry(3), entry(7)])
    return made


def numbers(news: News | None) -> list[int]:
    assert news is not None
    return [each["number"] for each in json.loads(news.encoded())["entries"]]


def test_who_knows_nothing_gets_a_snapshot(feed: Feed) -> None:
    for cursor in (None, Cursor("xyz", 9, "0"), at(6)):
        news = feed.after(cursor)
        assert news
        assert (news.snapshot, str(news.cursor), numbers(news)) == (True, str(at(7)), [3, 7])
    assert feed.after(at(7)) is None


def test_who_has_seen_more_elsewhere_is_not_set_back(feed: Feed) -> None:
    assert feed.is_behind(at(8))
    with pytest.raises(CursorAhead):
        feed.after(at(8))
    feed.apply([entry(8)])
    assert feed.after(at(8)) is None


def test_who_has_the_snapshot_gets_what_follows(feed: Feed) -> None:
    feed.apply([entry(8), entry(9)])
    news = feed.after(at(7))
    assert news
    assert (news.snapshot, str(news.cursor), numbers(news)) == (False, str(at(9)), [8, 9])
    assert numbers(feed.after(at(8))) == [9]


def test_much_comes_in_parts(feed: Feed) -> None:
    feed.apply([entry(number) for number in range(8, 8 + MOST_AT_ONCE + 5)])
    for cursor in (at(7), None):
        news = feed.after(cursor)
        assert news
        read = [(json.loads(piece), more) for piece, more in news.pieces()]
        assert [(part["more"], more) for part, more in read] == [(True, True), (False, False)]
        assert [len(part["entries"]) for part, _ in read] == [MOST_AT_ONCE, len(news.entries) - MOST_AT_ONCE]
        assert [each for part, _ in read for each in part["entries"]] == json.loads(news.encoded())["entries"]


def test_a_snapshot_is_put_together_once_for_all_who_want_it(feed: Feed) -> None:
    def snapshot() -> News:
        news = feed.after(None)
        assert news
        return news

    assert snapshot().entries is snapshot().entries
    feed.apply([entry(8)])
    assert numbers(snapshot()) == [3, 7, 8]
    feed.apply([entry(9, until=after(NOW, 200))])
    forget(feed, 150)
    assert numbers(snapshot()) == [9]


def test_who_missed_what_was_forgotten_gets_a_snapshot(feed: Feed) -> None:
    feed.apply([entry(8, until=after(NOW, 10)), entry(9), entry(10)])
    forget(feed, 50)
    # The oldest entries still matter, so nothing before them is let go of.
    assert numbers(feed.after(at(7))) == [8, 9, 10]
    forget(feed, 100)
    news = feed.after(at(7))
    assert news
    assert (news.snapshot, numbers(news)) == (True, [10])
    assert feed.after(at(10)) is None


def test_another_store_is_another_feed(feed: Feed) -> None:
    feed.start("def", [])
    news = feed.after(at(7))
    assert news
    assert (news.snapshot, news.entries, news.cursor.epoch) == (True, (), "def")


def test_an_entry_tells_what_a_guard_needs_and_rounds_its_time_up(feed: Feed) -> None:
    feed.apply(
        [
            entry(8, kind="subject", target="usr_1", epoch=4, until=Instant(1_000_001)),
            entry(9, kind="key", target="k", until=FOREVER),
        ]
    )
    news = feed.after(at(7))
    assert news
    assert json.loads(news.encoded())["entries"] == [
        {"number": 8, "kind": "subject", "target": "usr_1", "epoch": 4, "until": 2},
        {"number": 9, "kind": "key", "target": "k"},
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "abc.",
        "abc.7",
        "abc.-1.a",
        "abc.x.a",
        ".7.a",
        "a b.7.a",
        f"abc.{'9' * 19}.a",
        "abc.\u0661.a",
        "abc.7.x",
    ],
)
def test_what_is_no_cursor_is_none(text: str) -> None:
    assert read_cursor(text) is None


def test_a_cursor_is_read_as_it_was_written() -> None:
    assert read_cursor(str(at(12))) == at(12)


async def test_whoever_waits_is_woken_by_the_next_entry(feed: Feed) -> None:
    import asyncio

    waiting = asyncio.ensure_future(feed.moved(5))
    await asyncio.sleep(0)
    assert not waiting.done()
    feed.apply([entry(8)])
    await asyncio.wait_for(waiting, 1)
    await feed.moved(0.01)


def test_its_age_is_that_of_the_last_look_into_the_ledger() -> None:
    time = Time()
    feed = Feed(time, matters=MATTERS)
    assert feed.age is None
    # As it began: what was written while it was read may be missing.
    begun = feed.now
    time.now += 2
    feed.read(begun)
    time.now += 3
    assert feed.age == 5


def test_who_saw_entries_that_a_store_lost_gets_a_snapshot_when_their_numbers_are_given_again(feed: Feed) -> None:
    feed.apply([entry(8, target="lost")])
    lost = feed.cursor
    feed.start("abc", [entry(3), entry(7)])
    assert feed.is_behind(lost)
    feed.apply([entry(8, target="another"), entry(9)])
    news = feed.after(lost)
    assert news
    assert (news.snapshot, numbers(news)) == (True, [3, 7, 8, 9])
    assert numbers(feed.after(at(8, target="another"))) == [9]


def test_what_matters_for_ever_does_not_hold_up_the_forgetting(feed: Feed) -> None:
    feed.apply([entry(8, kind="key", target="k", until=FOREVER)])
    feed.apply([entry(number, until=after(NOW, number)) for number in range(9, 60)])
    assert feed.forgotten == 0
    forget(feed, 200)
    assert feed.forgotten == 58
    assert len(feed._entries) == 1
    assert numbers(feed.after(None)) == [8, 59]
    assert numbers(feed.after(at(57))) == [8, 59]
    assert numbers(feed.after(at(58))) == [59]
    feed.apply([entry(60)])
    assert numbers(feed.after(at(59, until=after(NOW, 59)))) == [60]


@pytest.mark.parametrize("wrong", [-7200, 7200])
def test_r102_a_wall_clock_that_is_wrong_makes_it_let_go_of_nothing_too_early(feed: Feed, wrong: int) -> None:
    # One that is ahead, here or where an entry was written: each stays for as long as it matters from when it came.
    feed.apply([entry(8, until=after(NOW, wrong)), entry(9)])
    feed.forget(after(NOW, 3 * 7200))
    assert (feed.forgotten, numbers(feed.after(None))) == (0, [3, 7, 8, 9])
    forget(feed, 99)
    assert (feed.forgotten, numbers(feed.after(None))) == (0, [3, 7, 8, 9])
    # And one that was ahead where it was written: the tokens of that machine are good for longer, too.
    forget(feed, 100)
    assert feed.forgotten == (8 if wrong < 0 else 7)


def test_an_entry_from_a_clock_that_was_days_ahead_holds_up_no_other(feed: Feed) -> None:
    feed.apply([entry(8, until=after(NOW, 365 * 86_400)), entry(9), entry(10)])
    forget(feed, 100)
    assert (feed.forgotten, numbers(feed.after(None))) == (9, [10])


def test_a_store_that_is_read_anew_has_forgotten_nothing(feed: Feed) -> None:
    feed.apply([entry(8), entry(9)])
    forget(feed, 100)
    assert feed.forgotten == 8
    feed.start("abc", [entry(8), entry(9)])
    assert feed.forgotten == 0
    forget(feed, 199)
    assert feed.forgotten == 0
    forget(feed, 200)
    assert feed.forgotten == 8
