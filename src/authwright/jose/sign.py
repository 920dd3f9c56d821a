"""Keys that sign, and compact JWS made with them. Only the server may: the guard cannot import this module, and loads
nothing else that signs (RFC 7515 section 5.1).
"""

import hmac
from collections.abc import Mapping
from typing import Any, cast

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from authwright.jose.encoding import b64url_encode
from authwright.jose.errors import InvalidKey
from authwright.jose.keys import (
    ECDSA,
    PKCS1,
    PSS,
    SHA256,
    Algorithm,
    PublicKey,
    SharedSecret,
    require_strength,
    thumbprint,
)

PrivateMaterial = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

_CLAIMED = frozenset({str, int, list})


class PrivateKey:
    """An asymmetric key pair for one algorithm."""

    __slots__ = ("_key", "public")

    def __init__(self, key: PrivateMaterial, *, alg: Algorithm, kid: str | None = None) -> None:
        material = key.public_key()
        require_strength(material, alg)
        self._key = key
        self.public = PublicKey(material, kid=kid or thumbprint(material), alg=alg)

    def __repr__(self) -> str:
        return f"PrivateKey(kid={self.kid!r}, alg={self.alg!r})"

    @property
    def kid(self) -> str:
        return self.public.kid

    @property
    def alg(self) -> Algorithm:
        return self.public.alg

    def sign(self, signing_input: bytes) -> bytes:
        """The signature in JOSE's form (RFC 7518 section 3, RFC 8037 section 3.1)."""
        key: Any = self._key
        alg = self.public.alg
        if alg == "ES256":
            r, s = decode_dss_signature(key.sign(signing_input, ECDSA))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        if alg == "EdDSA":
            signature: bytes = key.sign(signing_input)
        else:
            signature = key.sign(signing_input, PKCS1 if alg == "RS256" else PSS, SHA256)
        return signature

    def private_bytes(self) -> bytes:
        """PKCS #8, DER, not encrypted: to be wrapped before it leaves the process."""
        return self._key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @classmethod
    def from_private_bytes(cls, data: bytes, *, alg: Algorithm, kid: str) -> "PrivateKey":
        """The key that `private_bytes` wrote. Raises InvalidKey."""
        try:
            key = serialization.load_der_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise InvalidKey("not a private key") from None
        return cls(cast("PrivateMaterial", key), alg=alg, kid=kid)

    @classmethod
    def generate(cls, alg: Algorithm) -> "PrivateKey":
        """A new key pair; its `kid` is the RFC 7638 thumbprint. RSA keys have 3072 bits."""
        if alg == "ES256":
            return cls(ec.generate_private_key(ec.SECP256R1()), alg=alg)
        if alg == "EdDSA":
            return cls(ed25519.Ed25519PrivateKey.generate(), alg=alg)
        if alg in ("RS256", "PS256"):
            return cls(rsa.generate_private_key(public_exponent=65537, key_size=3072), alg=alg)
        raise InvalidKey("HS256 has no key pair")


class SigningSecret(SharedSecret):
    """A shared secret that signs. Whoever has one could: that is why HS256 is for closed systems only."""

    __slots__ = ()

    def sign(self, signing_input: bytes) -> bytes:
        """The HMAC-SHA256."""
        return hmac.digest(self._secret, signing_input, "sha256")


class Signer:
    """Signs claims with one key as one type of token. The header is encoded once."""

    __slots__ = ("_head", "_key", "kid")

    def __init__(self, key: PrivateKey | SigningSecret, *, typ: str) -> None:
        header = {"alg": key.alg, "kid": key.kid, "typ": typ}
        self._head = b64url_encode(msgspec.json.encode(header)) + "."
        self._key = key
        self.kid = key.kid

    def sign(self, claims: Mapping[str, Any]) -> str:
        """*claims* as a signed token: texts, integers, and lists of texts. Raises TypeError for anything else."""
        if not _CLAIMED.issuperset(map(type, claims.values())):
            # The encoder would put bytes into the token, too, and numbers that are none.
            raise TypeError("a claim is neither text nor integer nor list")
        signing_input = self._head + b64url_encode(msgspec.json.encode(claims))
        return f"{signing_input}.{b64url_encode(self._key.sign(signing_input.encode('ascii')))}"
