"""Records to store, with sensible values where a test does not care."""

from dataclasses import replace
from typing import Any

from authwright.domain.client import FIRST_PARTY, Client
from authwright.domain.instant import Instant, after
from authwright.domain.keyring import KeyRecord
from authwright.domain.revocation import Kind, Revocation
from authwright.domain.secrets import Digest, Subject, digest, new_client_id, new_session_id, new_user_id
from authwright.domain.session import Session
from authwright.domain.user import User
from authwright.storage.port import NameDigest

# Beyond 2038 and with microseconds, so that no store can round them away unseen.
NOW = Instant(2_208_988_800_123_457)
HASH = "$argon2id$v=19$m=32,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$" + "A" * 43


def user(**changed: Any) -> User:
    made = User(new_user_id(), "Ada", "ada@example.com", HASH, "user", "free", "active", 1, NOW, NOW)
    return replace(made, **changed)


def name(text: str) -> NameDigest:
    return NameDigest(digest(text.encode()))


def client(**changed: Any) -> Client:
    ident = new_client_id()
    made = Client(
        id=ident,
        name="scoring",
        key_digest=digest(ident.encode()),
        key_hint="awk_abcdef",
        scope=frozenset({"predict", "analytics"}),
        audiences=("https://a.example", "https://b.example"),
        plan="premium",
        status="active",
        auth_epoch=1,
        created_at=NOW,
        updated_at=NOW,
    )
    return replace(made, **changed)


def session(subject: str, **changed: Any) -> Session:
    ident = new_session_id(NOW)
    made = Session(
        id=ident,
        subject=Subject(subject),
        client_id=FIRST_PARTY,
        username="Ada",
        role="user",
        plan="free",
        auth_epoch=1,
        granted_scope="",
        audiences=("https://a.example", "https://b.example"),
        generation=1,
        secret_digest=secret(1),
        created_at=NOW,
        rotated_at=NOW,
        used_at=NOW,
        idle_expires_at=after(NOW, 1000),
        expires_at=after(NOW, 5000),
        revoked_at=None,
        revoked_because=None,
        user_agent="pytest",
        address="127.0.0.1",
        methods="pwd",
        request_id="5b1d1f8a0c5e4a0d",
    )
    return made._replace(**changed)


def secret(number: int) -> Digest:
    return digest(f"secret {number}".encode())


def revocation(target: str, *, kind: Kind = "session", until: float = 100, epoch: int = 0) -> Revocation:
    return Revocation(kind, target, epoch, "logout", NOW, after(NOW, until))


def key_record(ident: str, ordinal: int = 1, issuer: str = "https://a.example") -> KeyRecord:
    return KeyRecord(ident, "sign", issuer, "ES256", ordinal, b"wrapped", NOW, NOW, None)
