"""guard.verifier: signature, claims, revocation in one call, and a table that never remembers too much."""

from typing import Any

import pytest

from authwright.domain.instant import Instant, after
from authwright.domain.revocation import FOREVER, Revocation, Revocations
from authwright.guard import Verifier
from authwright.guard import verifier as module
from authwright.jose.errors import ClaimRefused, InvalidToken, SignatureRefused, TokenExpired
from authwright.jose.sign import Signer
from tokens import key, verifying

NOW = Instant(1_795_000_000_000_000)
SECONDS = NOW // 1_000_000


def minted(**changed: Any) -> str:
    claims = {
        "iss": "https://auth.example.com",
        "sub": "usr_1",
        "aud": "https://api.example.com",
        "exp": SECONDS + 300,
        "iat": SECONDS,
        "jti": "j",
        "client_id": "cli_1",
        "sid": "s",
        "auth_epoch": 3,
        **changed,
    }
    return Signer(key("ES256"), typ="at+jwt").sign(claims)


def verifier(**changed: Any) -> Verifier:
    public = verifying("ES256")
    options = {
        "issuer": "https://auth.example.com",
        "audience": "https://api.example.com",
        "revocations": Revocations(),
        "leeway": 5,
        "max_lifetime": 3600,
        **changed,
    }
    return Verifier({public.kid: public}, **options)


def test_the_second_look_at_a_token_costs_no_signature_check(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, text = verifier(), minted()
    first = judge.verify(text, now=NOW)
    monkeypatch.setattr(Verifier, "_verify_first", None)
    assert judge.verify(text, now=NOW) is first


def test_r91_a_remembered_token_still_expires_and_is_still_revoked() -> None:
    judge, text = verifier(), minted()
    judge.verify(text, now=NOW)
    judge.revocations.apply([Revocation("session", "s", 0, "logout", NOW, FOREVER, 1)])
    with pytest.raises(ClaimRefused):
        judge.verify(text, now=NOW)
    other = minted(sid="t")
    judge.verify(other, now=after(NOW, 304))
    with pytest.raises(TokenExpired):
        judge.verify(other, now=after(NOW, 305))
    assert not judge._young


def test_r91_cve_2026_35039_tokens_are_remembered_whole() -> None:
    judge = verifier()
    one, two = minted(sub="usr_1", jti="a"), minted(sub="usr_2", jti="a")
    assert judge.verify(one, now=NOW).subject == "usr_1"
    assert judge.verify(two, now=NOW).subject == "usr_2"
    with pytest.raises(SignatureRefused):
        judge.verify(one.rpartition(".")[0] + "." + two.rpartition(".")[2], now=NOW)


def test_r91_tables_belong_to_one_issuer_and_audience() -> None:
    text = minted()
    verifier().verify(text, now=NOW)
    for changed in ({"issuer": "https://other.example.com"}, {"audience": "https://other.example.com"}):
        with pytest.raises(ClaimRefused):
            verifier(**changed).verify(text, now=NOW)


def test_a_remembered_token_is_not_valid_before_its_time() -> None:
    judge, text = verifier(), minted()
    judge.verify(text, now=NOW)
    with pytest.raises(ClaimRefused):
        judge.verify(text, now=after(NOW, -6))


def test_the_policy_of_a_verifier_cannot_be_changed() -> None:
    for name in ("issuer", "audience", "leeway", "max_lifetime"):
        with pytest.raises(AttributeError):
            setattr(verifier(), name, "other")


def test_refused_tokens_are_not_remembered() -> None:
    judge = verifier()
    for text in (minted(exp=SECONDS - 10, iat=SECONDS - 20), minted(aud="x"), minted()[:-6], "x"):
        with pytest.raises(InvalidToken):
            judge.verify(text, now=NOW)
    assert (judge._young, judge._young_bytes) == ({}, 0)


def test_new_keys_forget_what_old_ones_vouched_for() -> None:
    judge, text = verifier(), minted()
    judge.verify(text, now=NOW)
    judge.use_keys({"kid": verifying("EdDSA")})
    with pytest.raises(SignatureRefused):
        judge.verify(text, now=NOW)


def test_the_table_is_bounded_in_bytes_and_keeps_what_is_asked_for() -> None:
    judge, favourite = verifier(cache_bytes=60_000), minted(jti="favourite")
    first = judge.verify(favourite, now=NOW)
    known = set()
    for number in range(100):
        judge.verify(minted(jti=str(number)), now=NOW)
        assert judge.verify(favourite, now=NOW) is first
        tables = (judge._young, judge._old)
        assert sum(len(text) + module.ENTRY_BYTES for text in judge._young) == judge._young_bytes
        for table in tables:
            assert sum(len(text) + module.ENTRY_BYTES for text in table) <= 30_000
        known.add(sum(map(len, tables)))
    assert 20 < max(known) < 45


def test_what_was_moved_aside_still_expires_and_is_still_revoked() -> None:
    judge, text = verifier(cache_bytes=8_000), minted(sid="mine")
    judge.verify(text, now=NOW)
    while text not in judge._old:
        judge.verify(minted(jti=str(len(judge._young)), sub=f"usr_{len(judge._old)}"), now=NOW)
    aside = dict(judge._old)
    judge.revocations.apply([Revocation("session", "mine", 0, "logout", NOW, FOREVER, 1)])
    with pytest.raises(ClaimRefused):
        judge.verify(text, now=NOW)
    assert text not in judge._young
    judge._old = aside
    with pytest.raises(TokenExpired):
        judge.verify(text, now=after(NOW, 1000))


def test_r79_issuer_and_audience_cannot_be_forgotten() -> None:
    for changed in (
        {"issuer": ["https://auth.example.com"]},
        {"audience": ["x"]},
        {"issuer": ""},
        {"audience": ""},
        {"leeway": 121},
        {"leeway": -1},
    ):
        with pytest.raises(ValueError):
            verifier(**changed)
    with pytest.raises(TypeError):
        Verifier({})  # type: ignore[call-arg]
