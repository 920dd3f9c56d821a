"""Refresh tokens: their format and the rule.  RFC 6749 section 6, RFC 9700 section 4.14.

A token is `awr_` and the base64url of

    version 1 | key id 4 | session id 22 | generation 8 | secret 32 | HMAC 32        (99 bytes, 132 characters)

The HMAC covers purpose, issuer, store epoch and everything before it, so a forged token is refused without a look at
the database. The first secret of a session is random; each next one is an HMAC of its predecessor, so that the same
predecessor always yields the same successor: a client whose answer got lost may ask again and nothing branches. What
is stored is a digest: neither the database nor the key alone can make a token.
"""

import hashlib
import hmac
import os
import struct
from collections.abc import Mapping
from enum import Enum
from typing import Final

from authwright.domain.errors import InvalidGrant
from authwright.domain.instant import Instant, after
from authwright.domain.secrets import SESSION_ID_BYTES, ClientId, Digest, SessionId, derive, digest
from authwright.domain.session import Session
from authwright.jose.encoding import b64url_decode, b64url_encode
from authwright.jose.errors import MalformedToken

PREFIX: Final = "awr_"
FIRST_GENERATION: Final = 1

_VERSION: Final = 1
# What stands in front of the HMAC: version, key id, session id, generation, secret.
_SIGNED: Final = struct.Struct(f">B4s{SESSION_ID_BYTES}sQ32s")
_LENGTH: Final = len(PREFIX) + 132


class RefreshToken:
    """A token whose HMAC was checked, or one just made. Never shown by `repr`."""

    __slots__ = ("generation", "key_id", "secret", "session_id")

    def __init__(self, *, key_id: bytes, session_id: SessionId, generation: int, secret: bytes) -> None:
        self.key_id = key_id
        self.session_id = session_id
        self.generation = generation
        self.secret = secret

    def __repr__(self) -> str:
        return f"RefreshToken(session_id={self.session_id!r}, generation={self.generation})"

    @property
    def digest(self) -> Digest:
        """What the store keeps of the secret."""
        return digest(self.secret)


class _Hmac:
    """HMAC-SHA256 (RFC 2104) whose key and *beginning* were hashed once, for many ends.

    Copying and ending two hashes costs a third of what copying and ending one of the standard library's HMACs does.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes, beginning: bytes = b"") -> None:
        if len(key) > 64:
            raise ValueError("a key of more than a block would have to be hashed first")
        block = key.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + beginning)
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def digest(self, end: bytes) -> bytes:
        """The HMAC of beginning and *end*."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(end)
        outer.update(inner.digest())
        return outer.digest()


class RefreshTokens:
    """Makes and reads the refresh tokens of one issuer and one store epoch.

    *keys* maps key ids of 4 bytes to secrets; *current* names the one new sessions begin with. A session keeps its
    key, so a new one changes nothing for those that exist.
    """

    __slots__ = ("_current", "_macs", "_successors")

    def __init__(self, keys: Mapping[bytes, bytes], *, current: bytes, issuer: str, store_epoch: str) -> None:
        binding = hashlib.sha256(f"refresh\0{issuer}\0{store_epoch}".encode()).digest()
        self._macs = {key_id: _Hmac(derive(secret, "refresh token mac"), binding) for key_id, secret in keys.items()}
        self._successors = {key_id: _Hmac(derive(secret, "refresh token successor")) for key_id, secret in keys.items()}
        self._current = current

    def first(self, session_id: SessionId) -> RefreshToken:
        """The first token of a new session."""
        return RefreshToken(
            key_id=self._current,
            session_id=session_id,
            generation=FIRST_GENERATION,
            secret=os.urandom(32),
        )

    def successor(self, token: RefreshToken) -> RefreshToken:
        """The one token that may follow *token*; always the same."""
        predecessor = token.session_id.encode("ascii") + token.generation.to_bytes(8, "big") + token.secret
        return RefreshToken(
            key_id=token.key_id,
            session_id=token.session_id,
            generation=token.generation + 1,
            secret=self._successors[token.key_id].digest(predecessor),
        )

    def encode(self, token: RefreshToken) -> str:
        """*token* as clients hold it. Raises ValueError for a session whose id is not of today's length."""
        session = b64url_decode(token.session_id)
        if len(session) != SESSION_ID_BYTES:
            # struct would fill it up or cut it off, and the token would name another session.
            raise ValueError(f"a session id has {SESSION_ID_BYTES} bytes")
        body = _SIGNED.pack(_VERSION, token.key_id, session, token.generation, token.secret)
        return PREFIX + b64url_encode(body + self._macs[token.key_id].digest(body))

    def decode(self, text: str) -> RefreshToken:
        """The token that *text* encodes. Raises InvalidGrant for anything this issuer and store did not make."""
        try:
            if len(text) != _LENGTH or not text.startswith(PREFIX):
                raise MalformedToken("not of this form")
            # 132 characters are exactly 99 bytes: every character counts, there is no second spelling.
            raw = b64url_decode(text[len(PREFIX) :])
        except MalformedToken:
            raise InvalidGrant(detail="refresh token is malformed") from None
        body, mac = raw[: _SIGNED.size], raw[_SIGNED.size :]
        version, key_id, session, generation, secret = _SIGNED.unpack(body)
        if version != _VERSION or key_id not in self._macs:
            raise InvalidGrant(detail="refresh token of an unknown version or key")
        if not hmac.compare_digest(self._macs[key_id].digest(body), mac):
            raise InvalidGrant(detail="refresh token is forged, or of another issuer or store epoch")
        session_id = SessionId(b64url_encode(session))
        return RefreshToken(key_id=key_id, session_id=session_id, generation=generation, secret=secret)


class Verdict(Enum):
    """What presenting a refresh token means, when the guarded update did not take it."""

    REPLAY = "replay"
    """The predecessor once more, within the grace period: the same successor again, nothing written."""
    REUSE = "reuse"
    """An older generation: somebody holds a token that was already spent. Ends the session."""
    ROLLBACK = "rollback"
    """Ahead of the store: the store went back in time, nobody stole anything. Refused and reported."""
    EXPIRED = "expired"
    REVOKED = "revoked"
    WRONG_CLIENT = "wrong_client"
    """Refused without ending anything: a stranger must not be able to log somebody out."""
    UNKNOWN = "unknown"
    RACED = "raced"
    """The token is current after all: another request moved the session meanwhile. Try once more."""


def judge(
    session: Session | None,
    presented: RefreshToken,
    successor: RefreshToken,
    *,
    client: ClientId | None,
    now: Instant,
    grace: float,
) -> Verdict:
    """What *presented* means for *session* as it is stored, given that no update took it.

    *client* is the authenticated client, or None at endpoints that serve first-party and client-key sessions without
    one. *grace* is in seconds, counted from the rotation and never extended.
    """
    if session is None:
        return Verdict.UNKNOWN
    if client is not None and session.client_id != client:
        return Verdict.WRONG_CLIENT
    if session.revoked_at is not None:
        return Verdict.REVOKED
    if presented.generation > session.generation:
        return Verdict.ROLLBACK
    if now >= session.idle_expires_at or now >= session.expires_at:
        return Verdict.EXPIRED
    if presented.generation == session.generation:
        return Verdict.RACED if presented.digest == session.secret_digest else Verdict.UNKNOWN
    is_predecessor = presented.generation + 1 == session.generation and successor.digest == session.secret_digest
    # Machines differ by a little, so a rotation may seem to lie ahead; by more than the grace period it is no retry.
    if is_predecessor and after(session.rotated_at, -grace) <= now < after(session.rotated_at, grace):
        return Verdict.REPLAY
    return Verdict.REUSE
