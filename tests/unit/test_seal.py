"""domain.seal: whatever is done to events that were sealed is seen, and a seal needs the key."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authwright.domain.event import COMMAND_LINE, Event, event
from authwright.domain.instant import Instant
from authwright.domain.seal import (
    NOTHING,
    forgotten_text,
    is_whole,
    read_forgotten,
    read_seal,
    seal,
    text_of,
)

KEY, OTHER = b"k" * 32, b"o" * 32
_COLUMNS = [name for name in Event._fields if name != "tell"]


def some(count: int) -> list[Event]:
    now = Instant(1_795_000_000_000_000)
    return [event("login", COMMAND_LINE, now=now, detail=f"{n}")._replace(number=n) for n in range(1, count + 1)]


@given(count=st.integers(1, 6), data=st.data())
def test_any_change_is_seen(count: int, data: Any) -> None:
    events = some(count)
    made = seal(KEY, events, first=1, previous=NOTHING)
    assert is_whole(KEY, made, events)
    assert not is_whole(OTHER, made, events)
    place = data.draw(st.integers(0, count - 1))
    column = data.draw(st.sampled_from(_COLUMNS))
    was = getattr(events[place], column)
    other = data.draw(st.integers(0, 2**53) if isinstance(was, int) else st.text(max_size=9))
    if other != was:
        assert not is_whole(
            KEY, made, [*events[:place], events[place]._replace(**{column: other}), *events[place + 1 :]]
        )
    assert not is_whole(KEY, made, [*events[:place], *events[place + 1 :]])
    assert not is_whole(KEY, made, [*events[:place], events[place], *events[place:]])
    if count > 1:
        assert not is_whole(KEY, made, [*events[1:], events[0]])


@given(field=st.integers(0, 4), other=st.integers(0, 9))
def test_a_seal_vouches_for_its_own_range_and_predecessor(field: int, other: int) -> None:
    events = some(3)
    made = seal(KEY, events, first=1, previous=NOTHING)
    changed = made._replace(**{made._fields[field]: other if field < 3 else f"{other}" * 64})
    assert is_whole(KEY, changed, events) == (changed == made)


def test_a_seal_is_read_as_it_was_written_and_nothing_else_is() -> None:
    made = seal(KEY, some(3), first=1, previous=NOTHING)
    assert read_seal(text_of(made)) == made
    for text in (
        "",
        "1 2 3",
        f"{text_of(made)} x",
        text_of(made).replace("1 ", "-1 ", 1),
        text_of(made)[:-1],
        "² " * 5,
    ):
        assert read_seal(text) is None


@pytest.mark.parametrize(
    "text", ["", "5", "5 00", forgotten_text(OTHER, 5), forgotten_text(KEY, 6).replace("6", "5", 1)]
)
def test_only_the_server_says_what_was_forgotten(text: str) -> None:
    assert read_forgotten(KEY, forgotten_text(KEY, 5)) == 5
    assert read_forgotten(KEY, text) is None
