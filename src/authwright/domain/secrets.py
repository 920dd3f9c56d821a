"""Ids, client keys and digests; what is derived from `SECRET_KEY`, and comparison in constant time."""

import binascii
import hashlib
import hmac
import os
import re
import secrets
from typing import Final, NewType

from authwright.domain.instant import Instant
from authwright.jose.encoding import b64url_encode

UserId = NewType("UserId", str)
ClientId = NewType("ClientId", str)
SessionId = NewType("SessionId", str)
ApiKeyId = NewType("ApiKeyId", str)
Subject = NewType("Subject", str)
"""A `UserId` or a `ClientId`: what `sub` holds."""
Digest = NewType("Digest", bytes)
"""SHA-256 of a high-entropy secret: 32 bytes, safe to store."""

USER_PREFIX: Final = "usr_"
CLIENT_PREFIX: Final = "cli_"
API_KEY_ID_PREFIX: Final = "key_"
CLIENT_KEY_PREFIX: Final = "awk_"
API_KEY_PREFIX: Final = "awu_"
RESET_TOKEN_PREFIX: Final = "awp_"  # noqa: S105 - how such tokens begin, and no secret

SESSION_ID_BYTES: Final = 22
"""48 bits of milliseconds and 128 random ones."""

_KEY = re.compile(r"(aw[kup]_)([A-Za-z0-9_-]{43})([0-9a-f]{8})")
_SUBJECT = re.compile(r"(?:usr|cli)_[A-Za-z0-9_-]{22}")


def new_user_id() -> UserId:
    """128 random bits, never reused."""
    return UserId(USER_PREFIX + secrets.token_urlsafe(16))


def new_client_id() -> ClientId:
    """128 random bits, in a name space of its own: no client is ever taken for a user."""
    return ClientId(CLIENT_PREFIX + secrets.token_urlsafe(16))


def new_session_id(now: Instant) -> SessionId:
    """The moment in milliseconds (48 bits) and 128 random bits, as 30 characters of base64url.

    Sessions that begin together stand together in an index: a login writes a quarter less than with random bits alone.
    """
    return SessionId(b64url_encode((now // 1000).to_bytes(6, "big") + os.urandom(16)))


def is_subject(text: str) -> bool:
    """Whether *text* has the form of a `sub`. A user name cannot (an underscore is allowed, but ids are reserved)."""
    return _SUBJECT.fullmatch(text) is not None


def digest(secret: bytes) -> Digest:
    """What is stored of a secret with at least 128 random bits; a password needs `domain.passwords` instead."""
    return Digest(hashlib.sha256(secret).digest())


def new_api_key_id() -> ApiKeyId:
    """128 random bits, in a name space of its own."""
    return ApiKeyId(API_KEY_ID_PREFIX + secrets.token_urlsafe(16))


def new_key(prefix: str) -> str:
    """256 random bits as *prefix* + 43 characters + 8 of a CRC-32, by which scanners tell a real key from noise."""
    body = secrets.token_urlsafe(32)
    return f"{prefix}{body}{_checksum(body)}"


def key_digest(key: str, prefix: str) -> Digest | None:
    """The stored form of *key*, or None if it is not a key of this kind at all (wrong form or checksum)."""
    match = _KEY.fullmatch(key)
    if match is None or match[1] != prefix or _checksum(match[2]) != match[3]:
        return None
    return digest(key.encode("ascii"))


def is_key(text: str) -> bool:
    """Whether *text* begins as the keys of clients and users do, and so is no token."""
    return text.startswith((CLIENT_KEY_PREFIX, API_KEY_PREFIX))


def key_hint(key: str) -> str:
    """The first characters, by which a person recognises a key in a list."""
    return key[:10]


def _checksum(body: str) -> str:
    return f"{binascii.crc32(body.encode('ascii')):08x}"


def derive(secret: bytes, purpose: str) -> bytes:
    """32 bytes for one *purpose* from *secret* by HKDF-SHA256 without salt (RFC 5869): one key, one use."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, purpose.encode("utf-8") + b"\x01", "sha256")


def same(one: bytes, other: bytes) -> bool:
    """Equality in constant time."""
    return hmac.compare_digest(one, other)
