"""domain.keyring: published, active, retired, withdrawn, read off three times."""

from typing import Any

from authwright.domain.instant import Instant, after
from authwright.domain.keyring import JWKS_MAX_AGE, PUBLISH_AHEAD, KeyRecord, active_key, key_state, published_keys

NOW = Instant(1_795_000_000_000_000)
KEEP = 3605


def record(ordinal: int, active: float, withdrawn: float | None = None) -> KeyRecord:
    at = None if withdrawn is None else after(NOW, withdrawn)
    return KeyRecord(f"k{ordinal}", "sign", "i", "ES256", ordinal, b"", NOW, after(NOW, active), at)


def states(records: list[KeyRecord], seconds: float) -> list[Any]:
    return [key_state(each, records, now=after(NOW, seconds), keep=KEEP) for each in records]


def test_a_new_key_is_published_before_it_signs_and_the_old_one_stays_until_its_tokens_have_expired() -> None:
    records = [record(1, 0), record(2, PUBLISH_AHEAD)]
    assert PUBLISH_AHEAD >= 2 * JWKS_MAX_AGE
    assert states(records, 0) == ["active", "next"]
    assert states(records, PUBLISH_AHEAD) == ["retired", "active"]
    assert states(records, PUBLISH_AHEAD + KEEP - 1) == ["retired", "active"]
    assert states(records, PUBLISH_AHEAD + KEEP) == ["gone", "active"]
    published = [each.id for each in published_keys(records, now=after(NOW, PUBLISH_AHEAD + KEEP), keep=KEEP)]
    assert published == ["k2"]


def test_a_withdrawn_key_is_out_whatever_its_times() -> None:
    records = [record(1, 0), record(2, 0, withdrawn=5)]
    assert states(records, 10) == ["active", "withdrawn"]
    assert [each.id for each in published_keys(records, now=after(NOW, 10), keep=KEEP)] == ["k1"]


def test_withdrawing_the_next_key_keeps_the_active_one_active() -> None:
    records = [record(1, 0), record(2, 100, withdrawn=5), record(3, 200)]
    assert states(records, 150) == ["active", "withdrawn", "next"]
    assert states(records, 250) == ["retired", "withdrawn", "active"]


def test_of_two_keys_due_at_once_the_newer_signs() -> None:
    records = [record(1, 0), record(2, 50), record(3, 50)]
    assert states(records, 60) == ["retired", "retired", "active"]


def test_without_a_usable_key_there_is_no_active_one() -> None:
    assert active_key([], NOW) is None
    assert active_key([record(1, 0, withdrawn=0)], NOW) is None


def test_a_clock_that_was_set_back_leaves_the_oldest_key_in_use() -> None:
    assert states([record(1, 10), record(2, 20)], 0) == ["active", "next"]
