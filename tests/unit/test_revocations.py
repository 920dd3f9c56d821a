"""domain.revocation: what a token is held against."""

import pytest

from authwright.domain.instant import Instant
from authwright.domain.revocation import FOREVER, Kind, Revocation, Revocations
from authwright.guard.principal import Principal

LATER = Instant(100)
TOKEN = Principal(
    issuer="https://a.example",
    subject="usr_1",
    client_id="cli_1",
    session_id="s1",
    token_id="j1",
    username=None,
    scopes=frozenset(),
    roles=(),
    plan=None,
    auth_epoch=3,
    issued_at=0,
    expires_at=0,
    key_id="k1",
)


def entry(kind: Kind, target: str, number: int, epoch: int = 0, until: Instant = LATER) -> Revocation:
    return Revocation(kind, target, epoch, "test", Instant(0), until, number)


def applied(*entries: Revocation) -> Revocations:
    revocations = Revocations()
    revocations.apply(entries)
    return revocations


def test_nothing_is_refused_without_an_entry() -> None:
    assert applied().refuses(TOKEN) is None
    assert applied().refuses(TOKEN._replace(session_id=None)) is None


@pytest.mark.parametrize(("kind", "target"), [("session", "s1"), ("client", "cli_1"), ("token", "j1"), ("key", "k1")])
def test_each_kind_of_entry_refuses_what_it_names_and_nothing_else(kind: Kind, target: str) -> None:
    assert applied(entry(kind, target, 1)).refuses(TOKEN) == kind
    assert applied(entry(kind, "other", 1)).refuses(TOKEN) is None


def test_a_subjects_entry_refuses_older_epochs_only_and_never_falls_back() -> None:
    for epoch, refused in ((3, None), (4, "subject")):
        assert applied(entry("subject", "usr_1", 1, epoch)).refuses(TOKEN) == refused
    assert applied(entry("subject", "usr_1", 1, 4), entry("subject", "usr_1", 2, 2)).refuses(TOKEN) == "subject"


def test_cve_2026_8922_one_entry_never_hides_another() -> None:
    kinds: list[tuple[Kind, str, int]] = [("client", "cli_1", 0), ("subject", "usr_1", 9), ("key", "k1", 0)]
    for chosen in range(1, 8):
        entries = [each for bit, each in enumerate(kinds) if chosen >> bit & 1]
        revocations = applied(*(entry(kind, target, n + 1, epoch) for n, (kind, target, epoch) in enumerate(entries)))
        assert revocations.refuses(TOKEN) is not None


def test_a_gap_is_never_stepped_over() -> None:
    revocations = applied(entry("session", "a", 1))
    for number in (1, 3, 0):
        with pytest.raises(ValueError):
            revocations.apply([entry("session", "b", number)])
    assert revocations.head == 1


def test_entries_are_forgotten_when_no_living_token_can_meet_them_but_keys_never() -> None:
    revocations = applied(
        entry("session", "s1", 1),
        entry("subject", "usr_1", 2, epoch=4),
        Revocation("key", "k1", 0, "leaked", Instant(0), FOREVER, 3),
    )
    revocations.forget(1)
    assert revocations.refuses(TOKEN._replace(key_id="k2")) == "subject"
    revocations.forget(3)
    assert revocations.refuses(TOKEN._replace(key_id="k2")) is None
    assert revocations.refuses(TOKEN) == "key"


def test_what_was_withdrawn_twice_is_kept_as_long_as_the_later_entry_and_for_ever_if_one_says_so() -> None:
    revocations = applied(entry("session", "s1", 1), entry("session", "s1", 2))
    revocations.forget(1)
    assert revocations.refuses(TOKEN) == "session"
    revocations.forget(2)
    assert revocations.refuses(TOKEN) is None
    for first, second in ((FOREVER, Instant(9)), (Instant(9), FOREVER)):
        revocations = applied(entry("key", "k1", 1, until=first), entry("key", "k1", 2, until=second))
        revocations.forget(2)
        assert revocations.refuses(TOKEN) == "key"


def test_what_another_store_forgot_says_nothing_of_this_one() -> None:
    revocations = applied(entry("token", "j9", 1))
    revocations.forget(1)
    revocations.restart([entry("session", "s1", 1)])
    revocations.forget(0)
    assert revocations.refuses(TOKEN) == "session"
    revocations.forget(1)
    assert revocations.refuses(TOKEN) is None


def test_a_snapshot_may_begin_anywhere_and_is_continued_without_a_gap() -> None:
    revocations = Revocations()
    revocations.start([entry("session", "s1", 7), entry("token", "j9", 12)])
    assert revocations.head == 12
    revocations.apply([entry("token", "j1", 13)])
    assert revocations.refuses(TOKEN._replace(session_id="x")) == "token"
