"""jose.envelope: what is opened, and everything that is not (RFC 7515, RFC 8725)."""

import base64
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from authwright.jose.encoding import b64url_decode, b64url_encode
from authwright.jose.envelope import MAX_KNOWN_HEADERS, KeySet
from authwright.jose.errors import (
    InvalidToken,
    LimitExceeded,
    MalformedToken,
    SignatureRefused,
    UnknownKey,
)
from authwright.jose.keys import Algorithm, PublicKey
from authwright.jose.sign import PrivateKey, Signer
from tokens import ASYMMETRIC, EVERY, encoded, key, token, verifying


def keyset(*algs: Algorithm) -> KeySet:
    return KeySet({verifying(alg).kid: verifying(alg) for alg in algs}, typ="at+jwt")


@pytest.mark.parametrize("alg", EVERY)
def test_what_was_signed_is_opened_again(alg: Algorithm) -> None:
    text = Signer(key(alg), typ="at+jwt").sign({"sub": "é"})
    payload, vouching = keyset(alg).open(text)
    assert payload == '{"sub":"é"}'.encode()
    assert (vouching.kid, vouching.alg) == (key(alg).kid, alg)


@pytest.mark.parametrize("claim", [b"a secret", float("nan"), 1.5, None, {"a": "b"}, {"a"}])
def test_what_is_no_claim_of_ours_is_not_signed(claim: object) -> None:
    with pytest.raises(TypeError):
        Signer(key("ES256"), typ="at+jwt").sign({"sub": "me", "extra": claim})


def test_r87_eddsa_verifies_under_its_fully_specified_name_too() -> None:
    _, vouching = keyset("EdDSA").open(token("EdDSA", alg="Ed25519"))
    assert vouching.alg == "EdDSA"


@pytest.mark.parametrize("alg", EVERY)
def test_r73_cve_2026_48523_a_key_verifies_its_own_algorithm_and_no_other(alg: Algorithm) -> None:
    for claimed in {*EVERY, "RS384", "ES384", "PS512", "HS384"} - {alg}:
        with pytest.raises(SignatureRefused):
            keyset(*EVERY).open(token(alg, alg=claimed))


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt"])
def test_a_type_is_a_media_type_and_has_no_case(typ: str) -> None:
    keyset("ES256").open(token("ES256", typ=typ))


@pytest.mark.parametrize("typ", ["JWT", "jwt", "logout+jwt", "at+jwt ", "", None, 1, ["at+jwt"], "dpop+jwt", "at"])
def test_r71_another_type_of_token_is_refused(typ: object) -> None:
    with pytest.raises(MalformedToken):
        keyset("ES256").open(token("ES256", typ=typ))


@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "NONE", "", " none", None, 0, ["ES256"], {"alg": "ES256"}])
def test_cve_2026_28802_no_spelling_of_none_is_an_algorithm(alg: object) -> None:
    head = {"alg": alg, "kid": key("ES256").kid, "typ": "at+jwt"}
    good = token("ES256")
    for text in (
        f"{encoded(head)}.{good.split('.')[1]}.{good.split('.')[2]}",
        f"{encoded(head)}.{good.split('.')[1]}.",
        f"{encoded(head)}.{good.split('.')[1]}",
    ):
        with pytest.raises(InvalidToken):
            keyset("ES256").open(text)


def test_an_algorithm_must_be_named() -> None:
    with pytest.raises(MalformedToken):
        keyset("ES256").open(token("ES256", {"kid": key("ES256").kid, "typ": "at+jwt"}))


@pytest.mark.parametrize("claimed", [*EVERY, "ES384", "RS512", "HS512", "Ed25519", "ES256K"])
@pytest.mark.parametrize("alg", EVERY)
def test_cve_2026_48523_the_algorithm_is_the_keys_not_the_headers(alg: Algorithm, claimed: str) -> None:
    if claimed == alg or (alg, claimed) == ("EdDSA", "Ed25519"):
        return
    with pytest.raises(SignatureRefused):
        keyset(alg).open(token(alg, alg=claimed))


@pytest.mark.parametrize("alg", ASYMMETRIC)
def test_cve_2022_29217_a_public_key_is_never_an_hmac_secret(alg: Algorithm) -> None:
    import hmac

    from cryptography.hazmat.primitives import serialization

    private = key(alg)
    assert isinstance(private, PrivateKey)
    public = private.public._key
    formats = serialization.PublicFormat
    spellings = [
        public.public_bytes(serialization.Encoding.PEM, formats.SubjectPublicKeyInfo),
        public.public_bytes(serialization.Encoding.DER, formats.SubjectPublicKeyInfo),
        public.public_bytes(serialization.Encoding.OpenSSH, formats.OpenSSH),
        str(private.public.jwk()).encode(),
    ]
    for spelling in (*spellings, *(b"\n " + each for each in spellings), *(each + b"\r\n" for each in spellings)):
        for claimed in ("HS256", alg):
            signed = f"{encoded({'alg': claimed, 'kid': private.kid, 'typ': 'at+jwt'})}.{encoded({'sub': 'me'})}"
            forged = f"{signed}.{b64url_encode(hmac.digest(spelling, signed.encode(), 'sha256'))}"
            with pytest.raises(SignatureRefused):
                keyset(alg).open(forged)


CRIT = [["exp"], [], "exp", None, 1, ["b64"], ["exp", "exp"], ["alg"], ["not-there"], {"exp": 1}]


@pytest.mark.parametrize("crit", CRIT)
def test_r75_cve_2025_59420_nothing_critical_is_understood(crit: object) -> None:
    with pytest.raises(MalformedToken):
        keyset("ES256").open(token("ES256", crit=crit, exp=1))


@pytest.mark.parametrize("b64", [False, True, None, "false"])
def test_r76_cve_2026_48525_unencoded_payloads_are_refused(b64: object) -> None:
    with pytest.raises(MalformedToken):
        keyset("ES256").open(token("ES256", b64=b64))


def test_cve_2024_28102_cve_2026_27932_encryption_is_not_spoken() -> None:
    for more in ({"zip": "DEF"}, {"enc": "A256GCM"}, {"alg": "PBES2-HS256+A128KW", "p2c": 2**31}, {"alg": "dir"}):
        begun = time.process_time()
        with pytest.raises(InvalidToken):
            keyset("ES256").open(token("ES256", **more))
        assert time.process_time() - begun < 1
    with pytest.raises(MalformedToken):
        keyset("ES256").open("a.b.c.d.e")


def test_r77_cve_2026_27962_keys_in_the_header_are_never_used() -> None:
    stranger = PrivateKey.generate("ES256")
    own = key("ES256").kid
    for more in (
        {"jwk": stranger.public.jwk()},
        {"x5c": ["MIIB"]},
        {"jku": "http://127.0.0.1:1/jwks"},
        {"x5u": "http://127.0.0.1:1/cert"},
        {"cty": "JWT"},
    ):
        with pytest.raises(MalformedToken):
            keyset("ES256").open(token("ES256", **more))
        for kid in (own, stranger.kid):
            text = Signer(stranger, typ="at+jwt").sign({"sub": "me"})
            head = encoded({"alg": "ES256", "typ": "at+jwt", "kid": kid, **more})
            signed = f"{head}.{text.split('.')[1]}"
            with pytest.raises(InvalidToken):
                keyset("ES256").open(f"{signed}.{b64url_encode(stranger.sign(signed.encode()))}")


KIDS = ["../../../../dev/null", "' OR 1=1 --", "/dev/null", "a\0b", "http://127.0.0.1:1/", "$(id)", "%s%n", "é"]


@pytest.mark.parametrize("kid", KIDS)
def test_r78_a_key_id_is_looked_up_and_nothing_else(kid: str) -> None:
    with pytest.raises(UnknownKey):
        keyset("ES256").open(token("ES256", kid=kid))


@pytest.mark.parametrize("kid", [1, None, ["a"], {"a": 1}, True, "k" * 257])
def test_a_key_id_is_a_short_text(kid: object) -> None:
    with pytest.raises(MalformedToken):
        keyset("ES256", "EdDSA").open(token("ES256", kid=kid))


def test_a_token_without_key_id_is_opened_only_where_there_is_one_key() -> None:
    text = token("ES256", {"alg": "ES256", "typ": "at+jwt"})
    keyset("ES256").open(text)
    with pytest.raises(MalformedToken):
        keyset("ES256", "EdDSA").open(text)
    with pytest.raises(InvalidToken):
        KeySet({}, typ="at+jwt").open(text)


def test_r81_one_spelling_of_base64url() -> None:
    head, body, signature = token("ES256").split(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet[alphabet.index(signature[-1]) ^ 1]
    for text in (
        f"{head}.{body}.{signature[:-1]}{last}",
        f"{head}.{body}.{signature}=",
        f"{head}.{body}.{signature}==",
        f"{head}.{body}. {signature}",
        f"{head}.{body}.{signature}\n",
        f"{head}\n.{body}.{signature}",
        f" {head}.{body}.{signature}",
        f"{head}.{body}.{base64.b64encode(b64url_decode(signature)).decode().rstrip('=')[:-1]}+",
        f"{head}.{body}.{signature[:40]}.{signature[40:]}",
        f"{head}..{signature}",
        f".{body}.{signature}",
        "",
        ".",
        "..",
        "é.é.é",
        "." * 100_000,
    ):
        with pytest.raises(InvalidToken):
            keyset("ES256").open(text)


DUPLICATES = [
    '{"alg":"ES256","alg":"ES256","kid":"K","typ":"at+jwt"}',
    '{"alg":"none","alg":"ES256","kid":"K","typ":"at+jwt"}',
    '{"\\u0061lg":"none","alg":"ES256","kid":"K","typ":"at+jwt"}',
    '{"alg":"ES256","kid":"K","typ":"at+jwt","x":{"a":1,"a":2}}',
]


@pytest.mark.parametrize("head", DUPLICATES)
def test_r82_duplicate_members_are_refused(head: str) -> None:
    with pytest.raises(MalformedToken):
        keyset("ES256").open(token("ES256", head.replace("K", key("ES256").kid).encode()))


@pytest.mark.parametrize(
    "head",
    [b"[]", b'"alg"', b"1", b"null", b"true", b"", b"{", b"{}", b"{'alg':'ES256'}", b'{"alg":NaN}', b'{"a":1e999}'],
)
def test_a_header_is_a_json_object(head: bytes) -> None:
    with pytest.raises(InvalidToken):
        keyset("ES256").open(token("ES256", head))


def test_r83_utf_8_only() -> None:
    head = '{"alg":"ES256","kid":"K","typ":"at+jwt","x":"é"}'.replace("K", key("ES256").kid)
    keyset("ES256").open(token("ES256", head.encode()))
    for raw in (
        b"\xef\xbb\xbf" + head.encode(),
        head.encode("utf-16"),
        head.encode("latin-1"),
        head.replace("é", "\\ud800").encode(),
    ):
        with pytest.raises(MalformedToken):
            keyset("ES256").open(token("ES256", raw))


DEEP = b'{"x":' + b"[" * 17 + b"]" * 17 + b"}"
LONG_NUMBER = b'{"x":' + b"9" * 21 + b"}"


def test_r84_limits_come_before_cryptography() -> None:
    class Untouched:
        kid, alg = "k", "ES256"

        def accepts(self, header_alg: str) -> bool:
            return True

        def verify(self, signing_input: bytes, signature: bytes) -> None:
            raise AssertionError("cryptography was reached")

    keys = KeySet({"k": Untouched()}, typ="at+jwt")  # type: ignore[dict-item]
    head = {"alg": "ES256", "kid": "k", "typ": "at+jwt"}
    body = encoded({"sub": "me"})
    for text in (
        f"{encoded(head)}.{'A' * 20_000}.AAAA",
        f"{encoded(head)}.{body}.{'A' * 10_000_000}",
        f"{encoded({**head, 'x': 'y' * 5000})}.{body}.AAAA",
        f"{encoded(b'{' + b'[' * 3000 + b'}')}.{body}.AAAA",
        f"{encoded(DEEP)}.{body}.AAAA",
        f"{encoded(LONG_NUMBER)}.{body}.AAAA",
    ):
        with pytest.raises(LimitExceeded):
            keys.open(text)


def test_r86_ecdsa_signatures_are_two_numbers_in_range() -> None:
    head, body, good = token("ES256").split(".")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    raw = b64url_decode(good)
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    pair = [(0, 0), (0, s), (r, 0), (order, s), (r, order), (2**256 - 1, 2**256 - 1), (1, 1)]
    signatures = [a.to_bytes(32, "big") + b.to_bytes(32, "big") for a, b in pair]
    signatures += [encode_dss_signature(r, s), raw + b"\0", raw[:-1], b"\0" + raw, b"\0", b"\1" * 22_000]
    for signature in signatures:
        with pytest.raises(InvalidToken):
            keyset("ES256").open(f"{head}.{body}.{b64url_encode(signature)}")


def test_r87_ed25519_s_must_be_reduced() -> None:
    head, body, good = token("EdDSA").split(".")
    raw = b64url_decode(good)
    group = 2**252 + 27742317777372353535851937790883648493
    malleable = (int.from_bytes(raw[32:], "little") + group).to_bytes(32, "little")
    for signature in (raw[:32] + malleable, raw[:63], raw + b"\0", bytes(64)):
        with pytest.raises(InvalidToken):
            keyset("EdDSA").open(f"{head}.{body}.{b64url_encode(signature)}")


def test_signatures_cannot_be_swapped_between_tokens() -> None:
    one, other = token("ES256", payload={"sub": "a"}).split("."), token("ES256", payload={"sub": "b"}).split(".")
    with pytest.raises(SignatureRefused):
        keyset("ES256").open(".".join((one[0], one[1], other[2])))


def test_r95_json_serialization_is_refused() -> None:
    head, body, signature = token("ES256").split(".")
    for text in (
        f'{{"protected":"{head}","payload":"{body}","signature":"{signature}"}}',
        f'{{"payload":"{body}","signatures":[]}}',
    ):
        with pytest.raises(MalformedToken):
            keyset("ES256").open(text)


def test_r96_errors_tell_nobody_what_was_sent() -> None:
    text = token("ES256")
    # One signature of 256 ends with AA.
    other = "AA" if text[-2:] != "AA" else "AQ"
    for broken in (text[:-2] + other, text + "~secret~", token("ES256", kid="secret-kid")):
        with pytest.raises(InvalidToken) as caught:
            keyset("ES256").open(broken)
        assert "secret" not in repr(caught.value)
        assert text[:20] not in repr(caught.value)
    assert UnknownKey.public == SignatureRefused.public


def test_a_header_is_remembered_only_after_a_good_signature_and_within_bounds() -> None:
    keys = keyset("ES256")
    head, body, _ = token("ES256").split(".")
    with pytest.raises(SignatureRefused):
        keys.open(f"{head}.{body}.{b64url_encode(bytes([1] * 64))}")
    assert not keys._headers
    for number in range(MAX_KNOWN_HEADERS + 10):
        keys.open(token("ES256", number=number))
    assert len(keys._headers) == MAX_KNOWN_HEADERS


def test_a_remembered_header_still_needs_its_own_signature() -> None:
    keys = keyset("ES256")
    keys.open(token("ES256"))
    other = PublicKey(ec.generate_private_key(ec.SECP256R1()).public_key(), kid="other", alg="ES256")
    head, body, signature = token("ES256").split(".")
    with pytest.raises(SignatureRefused):
        keys.open(f"{head}.{encoded({'sub': 'admin'})}.{signature}")
    with pytest.raises(UnknownKey):
        KeySet({"other": other}, typ="at+jwt").open(f"{head}.{body}.{signature}")


def test_r94_encrypted_tokens_are_not_read() -> None:
    parts = [encoded({"alg": "RSA-OAEP", "enc": "A256GCM", "kid": "k"}), encoded("key"), encoded("iv"), "AAAA", "AAAA"]
    for text in (".".join(parts), ".".join([parts[0], parts[1], parts[2]])):
        with pytest.raises(MalformedToken):
            keyset("ES256").open(text)
    for member in ({"enc": "A256GCM"}, {"zip": "DEF"}, {"p2c": 10_000_000}, {"alg": "RSA1_5"}, {"epk": {}}):
        with pytest.raises(InvalidToken):
            keyset("ES256").open(token("ES256", **member))
