"""jose.claims: the claims of an access token (RFC 7519, RFC 9068 sections 2.2 and 4)."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authwright.jose import claims as module
from authwright.jose.claims import AccessClaims, read_access_claims, validate_access_claims
from authwright.jose.encoding import parse_json_object
from authwright.jose.errors import ClaimRefused, InvalidToken, LimitExceeded, MalformedToken, TokenExpired

NOW = 1_795_000_000
GOOD: dict[str, Any] = {
    "iss": "https://auth.example.com",
    "sub": "usr_1",
    "aud": "https://api.example.com",
    "exp": NOW + 300,
    "iat": NOW,
    "jti": "j",
    "client_id": "cli_1",
    "sid": "s",
    "scope": "predict account",
    "roles": ["user"],
    "plan": "free",
    "preferred_username": "ada",
    "auth_epoch": 3,
}


def validate(now: int = NOW, raw: bytes | None = None, **changed: Any) -> tuple[AccessClaims, frozenset[str]]:
    claims = {name: value for name, value in {**GOOD, **changed}.items() if value is not ...}
    return validate_access_claims(
        json.dumps(claims).encode() if raw is None else raw,
        issuer="https://auth.example.com",
        audience="https://api.example.com",
        now=now,
        leeway=5,
        max_lifetime=3600,
    )


def test_good_claims_are_returned() -> None:
    claims, scopes = validate()
    assert (claims.sub, claims.client_id, claims.sid) == ("usr_1", "cli_1", "s")
    assert scopes == {"predict", "account"}
    assert (claims.roles, claims.plan, claims.preferred_username, claims.auth_epoch) == (("user",), "free", "ada", 3)


@pytest.mark.parametrize("name", ["iss", "sub", "aud", "exp", "iat", "jti", "client_id"])
def test_r64_every_required_claim_must_be_there(name: str) -> None:
    for missing in (..., None, "", [], {}, True):
        with pytest.raises(ClaimRefused):
            validate(**{name: missing})


WRONG_ISSUERS: list[object] = [
    "https://auth.example.co",
    "https://auth.example.com/",
    "HTTPS://auth.example.com",
    "auth.example.com",
    "https",
    ["https://auth.example.com"],
    {"https://auth.example.com": 1},
    1,
]


@pytest.mark.parametrize("issuer", WRONG_ISSUERS)
def test_r80_cve_2024_53861_the_issuer_is_compared_by_equality(issuer: object) -> None:
    with pytest.raises(ClaimRefused):
        validate(iss=issuer)


@pytest.mark.parametrize(
    "audience",
    ["https://api.example.co", "https://api.example.com/", ["other"], ["https://api.example.com", 1], [], [[]], {}, 1],
)
def test_r67_the_audience_must_be_ours(audience: object) -> None:
    with pytest.raises(ClaimRefused):
        validate(aud=audience)


def test_r67_one_of_several_audiences_is_enough() -> None:
    claims, _ = validate(aud=["other", "https://api.example.com"])
    assert claims.aud == ["other", "https://api.example.com"]


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("value", [True, False, "1795000000", None, [NOW], {}, -1, 2**63, -(2**63)])
def test_r85_times_are_finite_numbers(name: str, value: object) -> None:
    with pytest.raises(ClaimRefused):
        validate(**{name: value})


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_r85_numbers_that_are_none_are_refused(text: str) -> None:
    raw = json.dumps(GOOD).replace(str(NOW + 300), text).encode()
    with pytest.raises(InvalidToken):
        validate(raw=raw)


def test_r85_a_time_may_have_a_fraction_which_does_not_count() -> None:
    claims, _ = validate(exp=NOW + 300.9, iat=NOW + 0.5, nbf=NOW + 5.5)
    assert (claims.exp, claims.iat, claims.nbf) == (NOW + 300, NOW, NOW + 5)
    assert type(claims.exp) is type(claims.iat) is type(claims.nbf) is int
    validate(NOW + 304, exp=NOW + 300.9)
    with pytest.raises(TokenExpired):
        validate(NOW + 305, exp=NOW + 300.9)
    for name in ("exp", "iat", "nbf"):
        for value in (-0.5, 2.0**53, 1e300):
            with pytest.raises(ClaimRefused):
                validate(**{name: value})


def test_r68_the_leeway_is_small_and_exact() -> None:
    validate(NOW + 304)
    with pytest.raises(TokenExpired):
        validate(NOW + 305)
    validate(NOW - 5)
    with pytest.raises(ClaimRefused):
        validate(NOW - 6)
    validate(nbf=NOW + 5)
    with pytest.raises(ClaimRefused):
        validate(nbf=NOW + 6)


def test_a_lifetime_longer_than_the_issuer_ever_gives_is_refused() -> None:
    validate(exp=NOW + 3600)
    with pytest.raises(ClaimRefused):
        validate(exp=NOW + 3601)
    with pytest.raises(ClaimRefused):
        validate(exp=NOW, iat=NOW)


def test_r121_a_token_bound_to_a_key_is_no_bearer_token() -> None:
    with pytest.raises(ClaimRefused):
        validate(cnf={"jkt": "x"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sub", "x" * 256),
        ("scope", ["predict"]),
        ("scope", 1),
        ("scope", "x\u00a0admin"),
        ("scope", "x\tadmin"),
        ("scope", "x  admin"),
        ("scope", "a\0b"),
        ("scope", " ".join(map(str, range(257)))),
        ("roles", ["r"] * 257),
        ("sub", "a\0b"),
        ("jti", "a\u202eb"),
        ("client_id", "x" * 2049),
        ("auth_epoch", 2**53),
        ("roles", "admin"),
        ("roles", ["admin", 1]),
        ("roles", None),
        ("plan", 1),
        ("sid", 1),
        ("preferred_username", {}),
        ("auth_epoch", -1),
        ("auth_epoch", 1.5),
        ("auth_epoch", 3.0),
        ("auth_epoch", True),
        ("auth_epoch", "3"),
    ],
)
def test_claims_of_the_wrong_type_are_refused(name: str, value: object) -> None:
    with pytest.raises(ClaimRefused):
        validate(**{name: value})


@pytest.mark.parametrize("raw", [b"[]", b"null", b'"x"', b"1", b"", b"{", b'{"exp":1,"exp":2}'])
def test_r82_a_payload_is_one_strict_object(raw: bytes) -> None:
    with pytest.raises(InvalidToken):
        validate(raw=raw)


def written(members: list[tuple[str, Any]], *, lean: bool, escaped: bool) -> bytes:
    """*members* as an object, also one that no encoder would write: with a name twice."""
    parted = (",", ":") if lean else (", ", " : ")
    encoded = (
        f"{json.dumps(name)}{parted[1]}{json.dumps(value, separators=parted, ensure_ascii=escaped)}"
        for name, value in members
    )
    return ("{" + parted[0].join(encoded) + "}").encode("utf-8", "surrogatepass")


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(0, 9),
    st.floats(),
    st.text(),
    st.text('é\ud800/\\"\x7f', max_size=3),
)
VALUES = st.one_of(LEAVES, st.lists(LEAVES, max_size=3), st.dictionaries(st.text(max_size=2), LEAVES, max_size=2))
NAMES = st.sampled_from([*GOOD, "nbf", "cnf", "zone"])


def told(payload: bytes, how: Any) -> Any:
    try:
        return how(payload)
    except InvalidToken as error:
        return type(error)


def by_strict_json_alone(payload: bytes) -> AccessClaims:
    """What a payload says to the strict reader of JSON and nobody else."""
    members = parse_json_object(payload)
    if "cnf" in members:
        raise ClaimRefused("cnf")
    for name in {"exp", "iat", "nbf"} & members.keys():
        if isinstance(members[name], float):
            members[name] = int(members[name] // 1)
    try:
        return msgspec.convert(members, AccessClaims)
    except msgspec.ValidationError:
        raise ClaimRefused("type") from None


@given(st.lists(st.tuples(NAMES, VALUES), max_size=3), st.permutations(list(GOOD)), st.booleans(), st.booleans())
@example([], list(GOOD), True, False)
@example([("exp", NOW)], list(GOOD), True, False)
def test_r82_a_payload_says_the_same_to_its_quick_reader_and_to_strict_json(
    more: list[tuple[str, Any]], order: list[str], lean: bool, escaped: bool
) -> None:
    payload = written([*((name, GOOD[name]) for name in order), *more], lean=lean, escaped=escaped)
    assert told(payload, read_access_claims) == told(payload, by_strict_json_alone)
    # And a claim in place of the one that was there, not after it.
    changed = {**{name: GOOD[name] for name in order}, **dict(more)}
    payload = written(list(changed.items()), lean=lean, escaped=escaped)
    assert told(payload, read_access_claims) == told(payload, by_strict_json_alone)


@given(st.binary(max_size=40), st.integers(0, 400), st.integers(0, 12))
def test_r82_so_does_a_payload_with_bytes_exchanged(noise: bytes, at: int, instead: int) -> None:
    payload = json.dumps(GOOD, separators=(",", ":")).encode()
    payload = payload[:at] + noise + payload[at + instead :]
    assert told(payload, read_access_claims) == told(payload, by_strict_json_alone)


def test_r82_only_the_one_way_to_write_a_payload_is_read_without_strict_json(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = msgspec.json.encode(read_access_claims(json.dumps(GOOD).encode()))
    others = [
        usual.replace(b'"sid"', b'"sid":"other","sid"'),
        usual.replace(b'"sid"', b'"zone":1,"sid"'),
        usual.replace(b'"sid"', b'"cnf":{},"sid"'),
        usual.replace(b'"sid":', b'"sid" :'),
        usual.replace(b'"s"', b'"\\u0073"'),
        usual.replace(b'"auth_epoch":3', b'"auth_epoch":3.0'),
        usual + b" ",
    ]

    def refused(_payload: bytes) -> Any:
        raise MalformedToken("the strict reader was asked")

    monkeypatch.setattr(module, "parse_json_object", refused)
    assert read_access_claims(usual).sid == "s"
    for other in others:
        assert other != usual
        with pytest.raises(MalformedToken):
            read_access_claims(other)


def test_r84_limits_of_strict_json_hold_for_claims_that_nobody_reads() -> None:
    for unknown in (b"[" * 20 + b"]" * 20, b"1" * 21):
        with pytest.raises(LimitExceeded):
            read_access_claims(b'{"zone":' + unknown + b"," + json.dumps(GOOD).encode()[1:])


def test_what_a_refusal_says_names_claims_and_quotes_nothing() -> None:
    for name in GOOD:
        with pytest.raises(ClaimRefused) as refused:
            validate(**{name: {"very secret": "hunter2"}})
        assert "secret" not in str(refused.value)
        assert "hunter2" not in str(refused.value)
