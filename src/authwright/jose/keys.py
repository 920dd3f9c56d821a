"""Keys, each bound to exactly one algorithm (RFC 7517, 7518, 7638, 8037; RFC 8725 section 3.1).

A key is an object of a class that can do one thing, never a string whose kind is guessed: a public key cannot become
an HMAC secret, whatever the header of a token says. Keys that sign are in `jose.sign`.
"""

import hmac
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol, cast, get_args

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from joserfc.errors import JoseError as JoserfcError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from authwright.jose.encoding import parse_json_object
from authwright.jose.errors import InvalidKey, InvalidToken, SignatureRefused

Algorithm = Literal["ES256", "RS256", "PS256", "EdDSA", "HS256"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = get_args(Algorithm)
ASYMMETRIC_ALGORITHMS: Final[frozenset[str]] = frozenset({"ES256", "RS256", "PS256", "EdDSA"})

# RFC 9864 gives EdDSA over Ed25519 the fully specified name `Ed25519`; both mean this one algorithm.
_HEADER_NAMES: Final[Mapping[str, frozenset[str]]] = {
    "ES256": frozenset({"ES256"}),
    "RS256": frozenset({"RS256"}),
    "PS256": frozenset({"PS256"}),
    "EdDSA": frozenset({"EdDSA", "Ed25519"}),
    "HS256": frozenset({"HS256"}),
}

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
MIN_SECRET_BYTES: Final = 32
MAX_SECRET_BYTES: Final = 64
MAX_JWKS_BYTES: Final = 256 * 1024
MAX_JWKS_KEYS: Final = 64
MAX_KID_LENGTH: Final = 256

_ZERO: Final = bytes(32)
_P256_ORDER: Final = bytes.fromhex("FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551")
# Ed25519's object identifier, in DER and in the base64 of DER.
_ED25519_ENCODED = re.compile(rb"\x06\x03\x2b\x65\x70|BQYDK2Vw")
# Points of small order (y coordinates, little endian, without the sign bit): anybody can sign under such a key.
_SMALL_ORDER: Final = frozenset(
    int.from_bytes(bytes.fromhex(y), "little")
    for y in (
        "00" * 32,
        "01" + "00" * 31,
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    )
)
_PRIVATE_MEMBERS: Final = frozenset({"d", "k", "p", "q", "dp", "dq", "qi", "oth"})
SHA256: Final = hashes.SHA256()
ECDSA: Final = ec.ECDSA(SHA256)
PKCS1: Final = padding.PKCS1v15()
PSS: Final = padding.PSS(mgf=padding.MGF1(SHA256), salt_length=32)

PublicMaterial = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class VerifyingKey(Protocol):
    """What an envelope is verified with."""

    @property
    def kid(self) -> str: ...

    @property
    def alg(self) -> Algorithm: ...

    def accepts(self, header_alg: str) -> bool:
        """Whether a header's `alg` names this key's one algorithm."""

    def verify(self, signing_input: bytes, signature: bytes) -> None:
        """Return if *signature* is this key's over *signing_input*; raise SignatureRefused otherwise."""


class PublicKey:
    """An asymmetric public key for one algorithm. Raises InvalidKey if key and algorithm do not belong together."""

    __slots__ = ("_key", "alg", "kid")

    def __init__(self, key: PublicMaterial, *, kid: str, alg: Algorithm) -> None:
        require_strength(key, alg)
        if not kid or len(kid) > MAX_KID_LENGTH:
            raise InvalidKey("key id is empty or too long")
        self._key = key
        self.kid: str = kid
        self.alg: Algorithm = alg

    def __repr__(self) -> str:
        return f"PublicKey(kid={self.kid!r}, alg={self.alg!r})"

    def accepts(self, header_alg: str) -> bool:
        return header_alg in _HEADER_NAMES[self.alg]

    def verify(self, signing_input: bytes, signature: bytes) -> None:
        # The constructor saw to it that key and algorithm belong together.
        key: Any = self._key
        try:
            if self.alg == "ES256":
                key.verify(_der_of(signature), signing_input, ECDSA)
            elif self.alg == "EdDSA":
                key.verify(signature, signing_input)
            elif self.alg == "RS256":
                key.verify(signature, signing_input, PKCS1, SHA256)
            else:
                key.verify(signature, signing_input, PSS, SHA256)
        except InvalidSignature:
            raise SignatureRefused("signature does not verify") from None

    def jwk(self) -> dict[str, str]:
        """This key as a public JWK with `kid`, `alg` and `use` (RFC 7517)."""
        public = _wrap(self._key).as_dict(private=False)
        return {name: str(public[name]) for name in sorted(public)} | {"kid": self.kid, "alg": self.alg, "use": "sig"}


class SharedSecret:
    """An HS256 secret of 32 to 64 random bytes, for closed systems (RFC 7518 section 3.2).

    Raises InvalidKey for shorter ones and for encodings of public or private keys, however they are wrapped: all but
    Ed25519's are longer, and that one carries its name.
    """

    __slots__ = ("_secret", "alg", "kid")

    def __init__(self, secret: bytes, *, kid: str) -> None:
        if not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES:
            raise InvalidKey("an HS256 secret has 32 to 64 bytes")
        if _ED25519_ENCODED.search(secret):
            raise InvalidKey("this is not a shared secret but another kind of key")
        self._secret = secret
        self.kid: str = kid
        self.alg: Algorithm = "HS256"

    def __repr__(self) -> str:
        return f"SharedSecret(kid={self.kid!r})"

    def accepts(self, header_alg: str) -> bool:
        return header_alg == "HS256"

    def verify(self, signing_input: bytes, signature: bytes) -> None:
        if not hmac.compare_digest(hmac.digest(self._secret, signing_input, "sha256"), signature):
            raise SignatureRefused("signature does not verify")


def thumbprint(key: PublicMaterial) -> str:
    """The SHA-256 thumbprint of a public key (RFC 7638)."""
    return _wrap(key).thumbprint()


def public_key_from_jwk(jwk: Mapping[str, Any]) -> PublicKey:
    """One public JWK as a key. Raises InvalidKey for a private or symmetric one, or one not meant for signatures.

    A key without `kid` gets its thumbprint as one. The algorithm is the JWK's own `alg`; where that is absent it
    follows from the kind of key (RSA: RS256), never from a token's header.
    """
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise InvalidKey("private or symmetric key in a public set")
    if jwk.get("use", "sig") != "sig":
        raise InvalidKey("key is not for signatures")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise InvalidKey("key is not for verifying")
    by_kind = {("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA", ("RSA", None): "RS256"}
    kind = (jwk.get("kty"), jwk.get("crv"))
    if not all(isinstance(part, str | None) for part in kind) or kind not in by_kind:
        raise InvalidKey("kind of key not supported")
    alg = jwk.get("alg", by_kind[kind])
    if alg == "Ed25519":
        alg = "EdDSA"
    if not isinstance(alg, str) or alg not in ASYMMETRIC_ALGORITHMS:
        raise InvalidKey("algorithm not supported")
    if kind[0] == "EC" and not all(isinstance(jwk.get(axis), str) and len(jwk[axis]) == 43 for axis in ("x", "y")):
        raise InvalidKey("coordinates have 32 bytes")
    loader: Any = {"EC": ECKey, "OKP": OKPKey, "RSA": RSAKey}[kind[0]]
    members = {name: value for name, value in jwk.items() if name in ("kty", "crv", "x", "y", "n", "e")}
    try:
        material = loader.import_key(members).public_key
    except (ValueError, TypeError, KeyError, JoserfcError):
        raise InvalidKey("not a valid public key") from None
    key = cast("PublicMaterial", material)
    require_strength(key, cast("Algorithm", alg))
    kid = jwk["kid"] if "kid" in jwk else thumbprint(key)
    if not isinstance(kid, str):
        raise InvalidKey("key id is not a text")
    return PublicKey(key, kid=kid, alg=cast("Algorithm", alg))


def public_keys_from_jwks(document: bytes) -> dict[str, PublicKey]:
    """The keys of a JWK set (RFC 7517 section 5) by key id.

    Keys of an unknown kind or for another use are left out, as the RFC asks. The whole set is refused (InvalidKey)
    if it is malformed, too large, holds a private or symmetric key, or the same key id twice.
    """
    if len(document) > MAX_JWKS_BYTES:
        raise InvalidKey("key set too large")
    try:
        jwks = parse_json_object(document).get("keys")
    except InvalidToken:
        raise InvalidKey("key set is not strict JSON") from None
    if not isinstance(jwks, list) or len(jwks) > MAX_JWKS_KEYS or not all(isinstance(jwk, dict) for jwk in jwks):
        raise InvalidKey("not a key set")
    keys: dict[str, PublicKey] = {}
    for jwk in jwks:
        if jwk.get("kty") == "oct" or not _PRIVATE_MEMBERS.isdisjoint(jwk):
            raise InvalidKey("private or symmetric key in a public set")
        try:
            key = public_key_from_jwk(jwk)
        except InvalidKey:
            continue
        if key.kid in keys:
            raise InvalidKey("key id stands twice in the set")
        keys[key.kid] = key
    return keys


def public_key_from_pem(data: bytes, *, alg: Algorithm, kid: str | None = None) -> PublicKey:
    """A public key in PEM (SubjectPublicKeyInfo). Raises InvalidKey; a private key is refused, not reduced."""
    if b"PRIVATE KEY" in data:
        raise InvalidKey("a private key where a public one is wanted")
    try:
        key = cast("PublicMaterial", serialization.load_pem_public_key(data))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidKey("not a public key in PEM") from None
    require_strength(key, alg)
    return PublicKey(key, kid=kid or thumbprint(key), alg=alg)


def _wrap(key: PublicMaterial) -> ECKey | RSAKey | OKPKey:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return ECKey(key, key)
    if isinstance(key, rsa.RSAPublicKey):
        return RSAKey(key, key)
    return OKPKey(key, key)


def _der_of(signature: bytes) -> bytes:
    # ECDSA signatures in JOSE are r || s of the curve's size (RFC 7518 section 3.4); both must be in 1..n-1.
    if len(signature) != 64:
        raise SignatureRefused("signature has the wrong length")
    r, s = signature[:32], signature[32:]
    if not (_ZERO < r < _P256_ORDER and _ZERO < s < _P256_ORDER):
        raise SignatureRefused("signature out of range")
    # An ASN.1 SEQUENCE of two INTEGERs, each in as few bytes as it needs and never negative (X.690 section 8.3).
    r, s = r.lstrip(b"\0"), s.lstrip(b"\0")
    if r[0] > 127:
        r = b"\0" + r
    if s[0] > 127:
        s = b"\0" + s
    return b"\x30%c\x02%c%b\x02%c%b" % (len(r) + len(s) + 4, len(r), r, len(s), s)


def require_strength(key: PublicMaterial, alg: Algorithm) -> None:
    """Return if *key* may be used with *alg* (RFC 8725 section 3.5). Raises InvalidKey."""
    if alg == "ES256":
        fits = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    elif alg == "EdDSA":
        fits = isinstance(key, ed25519.Ed25519PublicKey)
    else:
        fits = alg in ("RS256", "PS256") and isinstance(key, rsa.RSAPublicKey)
    if not fits:
        raise InvalidKey("key and algorithm do not belong together")
    if isinstance(key, ed25519.Ed25519PublicKey):
        y = int.from_bytes(key.public_bytes_raw(), "little") & (2**255 - 1)
        if y in _SMALL_ORDER:
            raise InvalidKey("Ed25519 point of small order")
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            raise InvalidKey("RSA keys need 2048 to 8192 bits")
        if not 3 <= numbers.e < 2**64 or numbers.e % 2 == 0 or numbers.n % 2 == 0:
            raise InvalidKey("RSA exponent or modulus is out of range")
        if _has_roca_fingerprint(numbers.n):
            raise InvalidKey("RSA key made by a broken generator (CVE-2017-15361)")


def _has_roca_fingerprint(modulus: int) -> bool:
    # Moduli of the broken generator are powers of 65537 modulo every small prime; random ones are not.
    for prime in (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157):
        power, residue = 1, modulus % prime
        for _ in range(prime):
            if power == residue:
                break
            power = power * 65537 % prime
        else:
            return False
    return True
