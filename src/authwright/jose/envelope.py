"""Compact JWS: strict parse and verify in one call (RFC 7515, RFC 8725).

    payload, key = KeySet(keys, typ="at+jwt").open(token)     # or an InvalidToken

The header chooses among the keys the caller brought and nothing else. Headers that bring keys of their own or change
what the envelope means are refused, and the algorithm is the key's, which the header may only name.
"""

from collections.abc import Mapping
from typing import Any, Final

from authwright.jose.encoding import b64url_decode, parse_json_object
from authwright.jose.errors import LimitExceeded, MalformedToken, SignatureRefused, UnknownKey
from authwright.jose.keys import MAX_KID_LENGTH, VerifyingKey

MAX_TOKEN_BYTES: Final = 16 * 1024
MAX_HEADER_BYTES: Final = 4 * 1024
MAX_KNOWN_HEADERS: Final = 64

# They change what the envelope means, bring keys of their own, or belong to encryption, which is not spoken here.
_REFUSED_PARAMETERS = frozenset({"crit", "b64", "cty", "jku", "jwk", "x5u", "x5c", "zip", "enc", "p2c", "p2s", "epk"})


class KeySet:
    """The keys of one issuer for one kind of token, and the headers already seen with them.

    A header that led to a good signature once is remembered by its exact bytes, so that its JSON is read once and not
    for every token. The table is bounded and belongs to this key set alone.
    """

    __slots__ = ("_headers", "_keys", "_typ")

    def __init__(self, keys: Mapping[str, VerifyingKey], *, typ: str) -> None:
        if any(key is None for key in keys.values()):
            raise ValueError("a key set holds keys only")
        self._keys = dict(keys)
        self._typ = typ.lower()
        self._headers: dict[str, VerifyingKey] = {}

    def __contains__(self, kid: object) -> bool:
        return kid in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def open(self, token: str) -> tuple[bytes, VerifyingKey]:
        """Verify *token* and return its payload and the key that vouched for it.

        Raises LimitExceeded, MalformedToken or SignatureRefused (UnknownKey if no key has the header's `kid`).
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise LimitExceeded("token too large")
        signed, _, signature = token.rpartition(".")
        # A fourth part would stand in the payload, with a dot that is not base64url.
        header, _, payload = signed.partition(".")
        if not header or not payload or not signature:
            raise MalformedToken("not three parts")
        key = self._headers.get(header)
        known = key is not None
        if key is None:
            key = self._key_for(header)
        raw_payload = b64url_decode(payload)
        # Both parts of it were decoded, or found among headers that were: they are ASCII.
        key.verify(signed.encode("ascii"), b64url_decode(signature))
        if not known and len(self._headers) < MAX_KNOWN_HEADERS:
            self._headers[header] = key
        return raw_payload, key

    def _key_for(self, encoded: str) -> VerifyingKey:
        if len(encoded) > MAX_HEADER_BYTES:
            raise LimitExceeded("header too large")
        header = parse_json_object(b64url_decode(encoded))
        if not _REFUSED_PARAMETERS.isdisjoint(header):
            raise MalformedToken("header asks for what is not understood")
        typ = header.get("typ")
        if not isinstance(typ, str) or typ.lower().removeprefix("application/") != self._typ:
            raise MalformedToken("wrong type of token")
        alg = header.get("alg")
        if not isinstance(alg, str):
            raise MalformedToken("header without an algorithm")
        key = self._find(header)
        if not key.accepts(alg):
            raise SignatureRefused("algorithm is not the key's")
        return key

    def _find(self, header: Mapping[str, Any]) -> VerifyingKey:
        if "kid" not in header and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        kid = header.get("kid")
        if not isinstance(kid, str) or len(kid) > MAX_KID_LENGTH:
            raise MalformedToken("header without a usable key id")
        key = self._keys.get(kid)
        if key is None:
            raise UnknownKey("no key with this id")
        return key
