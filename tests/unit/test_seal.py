"""domain.seal: whatever is done to events that were sealed is seen, and a seal needs the key."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authwright.domain.event import COMMAND_LINE, Event, event
from authwright.domain.instant import Instant
from authwright.domain.seal import NOTHING, SEALED, Seal, digest_of, read_seal, read_signed, seal, signed, text_of

KEY, OTHER = b"k" * 32, b"o" * 32
NOW = Instant(1_795_000_000_000_000)
_COLUMNS = [name for name in Event._fields if name != "tell"]


def some(count: int) -> list[Event]:
    return [event("login", COMMAND_LINE, now=NOW, detail=f"{n}")._replace(number=n) for n in range(1, count + 1)]


def sealed(events: list[Event]) -> Seal:
    return seal(((each.number, digest_of(each)) for each in events), first=1, at=NOW, previous=NOTHING)


def event_of(made: Seal, **changes: Any) -> Event:
    one = event("events_sealed", COMMAND_LINE, now=NOW, detail=text_of(KEY, made))
    return one._replace(**{"number": made.last + 1, **changes})


@given(count=st.integers(1, 6), data=st.data())
def test_any_change_is_seen(count: int, data: Any) -> None:
    events = some(count)
    made = sealed(events)
    assert sealed(events) == made
    place = data.draw(st.integers(0, count - 1))
    column = data.draw(st.sampled_from(_COLUMNS))
    was = getattr(events[place], column)
    other = data.draw(st.integers(0, 2**53) if isinstance(was, int) else st.text(max_size=9))
    if other != was:
        changed = events[place]._replace(**{column: other})
        assert sealed([*events[:place], changed, *events[place + 1 :]]) != made
    assert sealed([*events[:place], *events[place + 1 :]]) != made
    assert sealed([*events[:place], events[place], *events[place:]]) != made
    if count > 1:
        assert sealed([*events[1:], events[0]]) != made


@pytest.mark.parametrize("value", [b"\xff", None, 1.5, "\ud800", 10**400, object()])
def test_an_event_has_a_digest_whatever_is_in_its_columns(value: Any) -> None:
    assert digest_of(some(1)[0]._replace(detail=value)) != digest_of(some(1)[0])


@given(field=st.integers(0, 5), other=st.integers(0, 9))
def test_a_seal_is_read_as_it_was_made_and_only_with_its_key(field: int, other: int) -> None:
    made = sealed(some(3))
    assert read_seal(KEY, event_of(made)) == made
    assert read_seal(OTHER, event_of(made)) is None
    changed = made._replace(**{made._fields[field]: other if field < 4 else f"{other}" * 64})
    text = signed(OTHER, SEALED, *changed).rpartition(" ")[0] + " " + text_of(KEY, made).rpartition(" ")[2]
    assert (read_seal(KEY, event_of(made, detail=text)) == made) == (changed == made)


def test_nothing_else_is_a_seal() -> None:
    made = sealed(some(3))
    text = text_of(KEY, made)
    for other in ("", "1 2 3", f"{text} x", text.replace("1 ", "01 ", 1), text[:-1], "² " * 7, signed(KEY, "x", *made)):
        assert read_seal(KEY, event_of(made, detail=other)) is None
    # It cannot stand before what it seals, wherever it is moved to.
    assert read_seal(KEY, event_of(made, number=3)) is None


@pytest.mark.parametrize("text", ["", "5", "5 00", "5 é", None, b"5", signed(OTHER, "x", 5), signed(KEY, "y", 5)])
def test_what_is_signed_is_read_for_its_purpose_with_its_key_alone(text: Any) -> None:
    assert read_signed(KEY, "x", signed(KEY, "x", 5), 1) == ["5"]
    assert read_signed(KEY, "x", signed(KEY, "x", 5), 2) is None
    assert read_signed(KEY, "x", text, 1) is None
