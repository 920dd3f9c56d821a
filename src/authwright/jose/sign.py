"""Make a compact JWS. Only the server may: the guard cannot import this module (RFC 7515 section 5.1)."""

from collections.abc import Mapping
from typing import Any

import msgspec

from authwright.jose.encoding import b64url_encode
from authwright.jose.keys import PrivateKey, SharedSecret

_CLAIMED = frozenset({str, int, list})


class Signer:
    """Signs claims with one key as one type of token. The header is encoded once."""

    __slots__ = ("_head", "_key", "kid")

    def __init__(self, key: PrivateKey | SharedSecret, *, typ: str) -> None:
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
