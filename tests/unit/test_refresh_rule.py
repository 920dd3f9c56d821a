"""domain.refresh: the token's format and the rule (RFC 6749 section 6, RFC 9700 section 4.14)."""

import base64
import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import records
from authwright.domain.client import FIRST_PARTY
from authwright.domain.errors import InvalidGrant
from authwright.domain.instant import Instant, after
from authwright.domain.refresh import RefreshToken, RefreshTokens, Verdict, judge
from authwright.domain.secrets import ClientId, Digest, SessionId, derive, new_session_id
from authwright.domain.session import Session
from records import NOW

KEY = b"\1\2\3\4"
TOKENS = RefreshTokens({KEY: b"k" * 32}, current=KEY, issuer="https://a.example", store_epoch="e1")


def session(token: RefreshToken, **changed: Any) -> Session:
    """The session of a user as it is while *token* is the current one."""
    stored = {"id": token.session_id, "generation": token.generation, "secret_digest": token.digest}
    return records.session("usr_x", **{**stored, **changed})


def verdict(stored: Session | None, presented: RefreshToken, now: Instant = NOW, client: str | None = None) -> Verdict:
    successor = TOKENS.successor(presented)
    return judge(stored, presented, successor, client=client and ClientId(client), now=now, grace=10)


def test_a_token_is_read_as_it_was_written() -> None:
    token = TOKENS.first(new_session_id(NOW))
    again = TOKENS.decode(TOKENS.encode(token))
    assert (again.session_id, again.generation, again.secret) == (token.session_id, token.generation, token.secret)


@pytest.mark.parametrize("size", [0, 16, 21, 23])
def test_no_token_is_written_for_a_session_whose_id_has_another_length(size: int) -> None:
    token = TOKENS.first(SessionId(base64.urlsafe_b64encode(bytes(size)).decode().rstrip("=")))
    with pytest.raises(ValueError, match="22 bytes"):
        TOKENS.encode(token)


def test_r60_r34_a_token_has_safe_characters_and_256_random_bits() -> None:
    text = TOKENS.encode(TOKENS.first(new_session_id(NOW)))
    assert text.startswith("awr_")
    assert len(text) == 136
    assert text.replace("_", "").replace("-", "").isalnum()
    assert len({TOKENS.first(new_session_id(NOW)).secret for _ in range(100)}) == 100


@given(st.integers(0, 135), st.characters(min_codepoint=1, max_codepoint=255))
def test_r103_a_token_with_one_other_character_is_refused(at: int, character: str) -> None:
    text = TOKENS.encode(TOKENS.first(SessionId("A" * 29 + "w")))
    changed = text[:at] + character + text[at + 1 :]
    if changed != text:
        with pytest.raises(InvalidGrant):
            TOKENS.decode(changed)


def test_r103_truncated_extended_and_recased_tokens_are_refused() -> None:
    text = TOKENS.encode(TOKENS.first(new_session_id(NOW)))
    for changed in (
        text[:-1],
        text + "A",
        text + "=",
        text.upper(),
        text.lower(),
        " " + text,
        text + "\n",
        text[4:],
        "",
    ):
        with pytest.raises(InvalidGrant):
            TOKENS.decode(changed)


def test_a_token_belongs_to_one_issuer_one_store_epoch_and_one_key() -> None:
    text = TOKENS.encode(TOKENS.first(new_session_id(NOW)))
    for other in (
        RefreshTokens({KEY: b"k" * 32}, current=KEY, issuer="https://b.example", store_epoch="e1"),
        RefreshTokens({KEY: b"k" * 32}, current=KEY, issuer="https://a.example", store_epoch="e2"),
        RefreshTokens({KEY: b"K" * 32}, current=KEY, issuer="https://a.example", store_epoch="e1"),
        RefreshTokens({b"abcd": b"k" * 32}, current=b"abcd", issuer="https://a.example", store_epoch="e1"),
    ):
        with pytest.raises(InvalidGrant):
            other.decode(text)


def mac_of(body: bytes) -> bytes:
    """The HMAC of a token of TOKENS, by the standard library."""
    binding = hashlib.sha256(b"refresh\0https://a.example\0e1").digest()
    return hmac.digest(derive(b"k" * 32, "refresh token mac"), binding + body, "sha256")


def test_mac_and_successor_are_hmacs_as_the_standard_library_makes_them() -> None:
    token = TOKENS.first(new_session_id(NOW))
    raw = base64.urlsafe_b64decode(TOKENS.encode(token)[4:])
    assert raw[67:] == mac_of(raw[:67])
    predecessor = token.session_id.encode() + bytes(7) + b"\1" + token.secret
    successor = hmac.digest(derive(b"k" * 32, "refresh token successor"), predecessor, "sha256")
    assert TOKENS.successor(token).secret == successor


def test_another_version_is_refused_even_with_a_good_mac() -> None:
    text = TOKENS.encode(TOKENS.first(new_session_id(NOW)))
    raw = bytearray(base64.urlsafe_b64decode(text[4:]))
    raw[0] = 2
    raw[67:] = mac_of(bytes(raw[:67]))
    with pytest.raises(InvalidGrant):
        TOKENS.decode("awr_" + base64.urlsafe_b64encode(bytes(raw)).decode())


def test_an_old_key_still_reads_its_sessions_while_new_ones_use_the_new() -> None:
    old = TOKENS.first(new_session_id(NOW))
    both = RefreshTokens(
        {KEY: b"k" * 32, b"next": b"n" * 32}, current=b"next", issuer="https://a.example", store_epoch="e1"
    )
    assert both.decode(TOKENS.encode(old)).secret == old.secret
    assert both.first(new_session_id(NOW)).key_id == b"next"
    assert both.successor(old).key_id == KEY


def test_a_predecessor_always_has_the_same_successor_and_no_other_has_it() -> None:
    token = TOKENS.first(new_session_id(NOW))
    assert TOKENS.successor(token).secret == TOKENS.successor(token).secret
    assert TOKENS.successor(token).generation == token.generation + 1
    for other in (
        RefreshToken(key_id=KEY, session_id=new_session_id(NOW), generation=1, secret=token.secret),
        RefreshToken(key_id=KEY, session_id=token.session_id, generation=2, secret=token.secret),
        RefreshToken(key_id=KEY, session_id=token.session_id, generation=1, secret=bytes(32)),
    ):
        assert TOKENS.successor(other).secret != TOKENS.successor(token).secret


def test_a_token_shows_no_secret() -> None:
    token = TOKENS.first(new_session_id(NOW))
    assert str(token.secret) not in repr(token)
    assert "secret" not in repr(token)
    assert "digest" not in repr(session(token))


def test_r58_the_predecessor_within_the_grace_period_is_a_replay() -> None:
    first = TOKENS.first(new_session_id(NOW))
    moved = session(TOKENS.successor(first))
    assert verdict(moved, first) is Verdict.REPLAY
    assert verdict(moved, first, after(NOW, 9.999999)) is Verdict.REPLAY
    assert verdict(moved, first, after(NOW, 10)) is Verdict.REUSE


def test_a_clock_that_is_a_little_behind_is_no_theft_and_one_far_behind_no_grace() -> None:
    first = TOKENS.first(new_session_id(NOW))
    moved = session(TOKENS.successor(first))
    assert verdict(moved, first, after(NOW, -1)) is Verdict.REPLAY
    assert verdict(moved, first, after(NOW, -3600)) is Verdict.REUSE


def test_r51_the_predecessor_is_reuse_once_its_successor_was_used() -> None:
    first = TOKENS.first(new_session_id(NOW))
    moved_twice = session(TOKENS.successor(TOKENS.successor(first)))
    assert verdict(moved_twice, first) is Verdict.REUSE


def test_r58_a_predecessor_with_another_secret_is_no_replay() -> None:
    first = TOKENS.first(new_session_id(NOW))
    forged = RefreshToken(key_id=KEY, session_id=first.session_id, generation=1, secret=bytes(32))
    assert verdict(session(TOKENS.successor(first)), forged) is Verdict.REUSE


def test_a_generation_ahead_of_the_store_is_rollback_not_theft() -> None:
    first = TOKENS.first(new_session_id(NOW))
    assert verdict(session(first), TOKENS.successor(first)) is Verdict.ROLLBACK


def test_r52_the_wrong_client_is_refused_before_anything_else_is_judged() -> None:
    first = TOKENS.first(new_session_id(NOW))
    twice = session(TOKENS.successor(TOKENS.successor(first)))
    assert verdict(twice, first, client="cli_other") is Verdict.WRONG_CLIENT
    assert verdict(twice, first, client=FIRST_PARTY) is Verdict.REUSE


def test_r54_r173_idle_and_absolute_expiry() -> None:
    first = TOKENS.first(new_session_id(NOW))
    stored = session(first)
    assert verdict(stored, first, after(NOW, 999.9)) is Verdict.RACED
    assert verdict(stored, first, after(NOW, 1000)) is Verdict.EXPIRED
    assert verdict(session(first, idle_expires_at=after(NOW, 9000)), first, after(NOW, 5000)) is Verdict.EXPIRED


def test_a_revoked_session_stays_revoked_whatever_is_presented() -> None:
    first = TOKENS.first(new_session_id(NOW))
    ended = session(first, revoked_at=NOW, revoked_because="logout")
    for presented in (first, TOKENS.successor(first)):
        assert verdict(ended, presented) is Verdict.REVOKED


def test_a_session_that_is_not_there_or_has_another_secret_is_unknown() -> None:
    first = TOKENS.first(new_session_id(NOW))
    assert verdict(None, first) is Verdict.UNKNOWN
    assert verdict(session(first, secret_digest=Digest(bytes(32))), first) is Verdict.UNKNOWN
