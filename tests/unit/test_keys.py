"""jose.keys: what may become a key, and for what (RFC 7517, 7518, 7638, 8037)."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from joserfc import jwk as joserfc_jwk

from authwright.jose import keys as module
from authwright.jose.encoding import b64url_encode
from authwright.jose.envelope import KeySet
from authwright.jose.errors import InvalidKey, SignatureRefused
from authwright.jose.keys import (
    Algorithm,
    PublicKey,
    SharedSecret,
    public_key_from_jwk,
    public_key_from_pem,
    public_keys_from_jwks,
)
from authwright.jose.sign import PrivateKey
from tokens import ASYMMETRIC, key, token


def jwk(alg: Algorithm) -> dict[str, str]:
    private = key(alg)
    assert isinstance(private, PrivateKey)
    return private.public.jwk()


@pytest.mark.parametrize("alg", ASYMMETRIC)
def test_a_key_survives_its_jwk_its_pem_and_its_storage(alg: Algorithm) -> None:
    private = key(alg)
    assert isinstance(private, PrivateKey)
    again = PrivateKey.from_private_bytes(private.private_bytes(), alg=alg, kid=private.kid)
    pem = private.public._key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for public in (public_key_from_jwk(jwk(alg)), public_key_from_pem(pem, alg=alg), again.public):
        assert (public.kid, public.alg) == (private.kid, alg)
        public.verify(b"input", private.sign(b"input"))
        with pytest.raises(SignatureRefused):
            public.verify(b"other", private.sign(b"input"))


@pytest.mark.parametrize("alg", ASYMMETRIC)
def test_the_key_id_is_the_thumbprint_of_rfc_7638(alg: Algorithm) -> None:
    members: Any = jwk(alg)
    assert joserfc_jwk.import_key(members).thumbprint() == members["kid"]


def test_a_published_key_has_public_members_only_and_says_what_it_is_for() -> None:
    for alg in ASYMMETRIC:
        members = jwk(alg)
        assert (members["use"], members["alg"]) == ("sig", alg)
        assert not set(members) & {"d", "p", "q", "dp", "dq", "qi", "k"}


def test_keys_show_nothing_secret() -> None:
    for alg in ASYMMETRIC:
        assert str(key(alg).kid) in repr(key(alg))
        assert repr(key(alg)).count("=") == 2
    secret = bytes(range(64))
    assert "kid='k'" in repr(SharedSecret(secret, kid="k"))
    assert len(repr(SharedSecret(secret, kid="k"))) < 30


def test_r86_keys_must_be_strong_and_of_their_algorithms_kind() -> None:
    p384, weak = ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 1024)
    p256, secp = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256K1())
    strong, edwards = rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()
    wrong: list[tuple[Any, Any]] = [
        (p384, "ES256"),
        (secp, "ES256"),
        (weak, "RS256"),
        (weak, "PS256"),
        (p256, "RS256"),
        (p256, "EdDSA"),
        (strong, "ES256"),
        (edwards, "ES256"),
        (edwards, "PS256"),
        (ed448.Ed448PrivateKey.generate(), "EdDSA"),
        (p256, "HS256"),
        (p256, "none"),
        (p256, ""),
    ]
    for private, alg in wrong:
        with pytest.raises(InvalidKey):
            PublicKey(private.public_key(), kid="k", alg=alg)
    even = rsa.RSAPublicNumbers(e=3, n=strong.public_key().public_numbers().n).public_key()
    assert PublicKey(even, kid="k", alg="RS256").alg == "RS256"


def test_r86_cve_2017_15361_keys_of_the_broken_generator_are_refused() -> None:
    product = 1
    for prime in range(3, 702):
        if all(prime % each for each in range(2, prime)):
            product *= prime
    modulus = pow(65537, 1234, product)
    assert module._has_roca_fingerprint(modulus)
    assert not module._has_roca_fingerprint(rsa.generate_private_key(65537, 2048).public_key().public_numbers().n)


@pytest.mark.parametrize("y", ["00" * 32, "01" + "00" * 31, "01" + "00" * 30 + "80", "ec" + "ff" * 30 + "7f"])
def test_r86_ed25519_points_of_small_order_are_refused(y: str) -> None:
    with pytest.raises(InvalidKey):
        public_key_from_jwk({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": b64url_encode(bytes.fromhex(y))})


def test_r86_rsa_numbers_must_be_odd_and_the_exponent_small() -> None:
    numbers = rsa.generate_private_key(65537, 2048).public_key().public_numbers()
    for n, e in ((numbers.n - 1, 65537), (numbers.n, 2**64 + 1)):
        with pytest.raises(InvalidKey):
            PublicKey(rsa.RSAPublicNumbers(e, n).public_key(), kid="k", alg="RS256")


def test_a_jwk_without_a_key_id_gets_its_thumbprint() -> None:
    members = jwk("ES256")
    kid = members.pop("kid")
    assert public_key_from_jwk(members).kid == kid


def test_pem_of_another_kind_is_refused_with_a_typed_error() -> None:
    for curve in (ec.BrainpoolP256R1(), ec.SECP224R1()):
        pem = (
            ec.generate_private_key(curve)
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        with pytest.raises(InvalidKey):
            public_key_from_pem(pem, alg="ES256")


@pytest.mark.parametrize("length", [0, 1, 31, 65, 1000])
def test_r86_a_shared_secret_has_at_least_the_hashs_size(length: int) -> None:
    with pytest.raises(InvalidKey):
        SharedSecret(b"x" * length, kid="k")


def spellings(alg: Algorithm) -> list[bytes]:
    """Every encoding of a key pair that a mistaken setting could hold."""
    private = key(alg)
    assert isinstance(private, PrivateKey)
    public, formats, encodings = private.public._key, serialization.PublicFormat, serialization.Encoding
    der = public.public_bytes(encodings.DER, formats.SubjectPublicKeyInfo)
    found = [
        public.public_bytes(encodings.PEM, formats.SubjectPublicKeyInfo),
        der,
        base64.b64encode(der),
        private._key.private_bytes(encodings.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        private.private_bytes(),
        base64.b64encode(private.private_bytes()),
        json.dumps(private.public.jwk()).encode(),
        json.dumps([private.public.jwk()]).encode(),
        public.public_bytes(encodings.PEM, formats.SubjectPublicKeyInfo).decode().encode("utf-16"),
    ]
    return found if alg == "PS256" else [*found, public.public_bytes(encodings.OpenSSH, formats.OpenSSH)]


@pytest.mark.parametrize("alg", ASYMMETRIC)
@pytest.mark.parametrize("around", ["{}", " {}", "\n\n{}", "\ufeff{}", "{}\r\n", "# a comment\n{}", "\0{}", "{};"])
def test_r74_cve_2024_33663_cve_2026_34950_other_keys_are_never_shared_secrets(alg: Algorithm, around: str) -> None:
    before, after = (part.encode() for part in around.split("{}"))
    for spelling in spellings(alg):
        with pytest.raises(InvalidKey):
            SharedSecret(before + spelling + after, kid="k")


def test_r93_cve_2026_27962_nothing_is_verified_without_keys() -> None:
    from authwright.jose.errors import InvalidToken

    with pytest.raises(InvalidToken):
        KeySet({}, typ="at+jwt").open(token("ES256"))


BAD_JWKS: list[dict[str, object]] = [
    {"kty": "oct", "k": "c2VjcmV0"},
    {"d": "AAAA"},
    {"use": "enc"},
    {"use": None},
    {"key_ops": ["sign"]},
    {"key_ops": "verify"},
    {"key_ops": None},
    {"dp": "AAAA"},
    {"oth": []},
    {"kid": None},
    {"kid": 1},
    {"kid": ""},
    {"kid": "k" * 257},
    {"kty": None},
    {"kty": ["EC"]},
    {"crv": "P-384"},
    {"crv": 256},
    {"alg": "none"},
    {"alg": "HS256"},
    {"alg": "RS256"},
    {"alg": ["ES256"]},
    {"alg": None},
    {"x": "AAAA"},
    {"x": "*"},
    {"x": 1},
    {"y": ""},
    {"x": "AAAA" + "A" * 40},
]


@pytest.mark.parametrize("wrong", BAD_JWKS, ids=str)
def test_r90_a_jwk_is_read_strictly(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidKey):
        public_key_from_jwk({**jwk("ES256"), **wrong})


def test_r86_a_point_must_be_on_its_curve() -> None:
    members = jwk("ES256")
    with pytest.raises(InvalidKey):
        public_key_from_jwk({**members, "x": members["y"], "y": members["x"]})


def test_cve_2026_22817_a_jwk_without_alg_gets_it_from_its_kind_not_from_the_token() -> None:
    for alg, found in (("ES256", "ES256"), ("EdDSA", "EdDSA"), ("RS256", "RS256"), ("PS256", "RS256")):
        members = {name: value for name, value in jwk(alg).items() if name != "alg"}  # type: ignore[arg-type]
        assert public_key_from_jwk(members).alg == found
    keys = public_keys_from_jwks(json.dumps({"keys": [{**jwk("RS256"), "alg": "RS256"}]}).encode())
    with pytest.raises(SignatureRefused):
        KeySet(keys, typ="at+jwt").open(token("RS256", alg="HS256"))


def test_r90_a_key_set_is_refused_as_a_whole() -> None:
    good = jwk("ES256")
    for document in (
        {"keys": [good, good]},
        {"keys": [good, {"kty": "oct", "kid": "s", "k": "c2VjcmV0"}]},
        {"keys": [{**good, "d": "AAAA"}]},
        {"keys": good},
        {"keys": None},
        {},
        [],
        {"keys": [1]},
        {"keys": [{**good, "kid": str(number)} for number in range(65)]},
    ):
        with pytest.raises(InvalidKey):
            public_keys_from_jwks(json.dumps(document).encode())
    for raw in (b"", b"\xff", b'{"keys":[],"keys":[]}', b" " * 300_000):
        with pytest.raises(InvalidKey):
            public_keys_from_jwks(raw)


def test_keys_for_other_uses_are_left_out_of_a_set() -> None:
    others = [{**jwk("RS256"), "kid": "enc", "use": "enc"}, {"kty": "EC", "crv": "P-521", "kid": "x"}, {"kty": "AKP"}]
    document = json.dumps({"keys": [jwk("ES256"), *others]}).encode()
    assert list(public_keys_from_jwks(document)) == [jwk("ES256")["kid"]]


def test_a_private_key_in_pem_is_refused_not_reduced() -> None:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for text in (pem, b"", b"-----BEGIN PUBLIC KEY-----\n", b"ssh-ed25519 AAAA"):
        with pytest.raises(InvalidKey):
            public_key_from_pem(text, alg="ES256")
