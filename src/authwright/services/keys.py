"""Signing, MAC and look-up keys: made at the first start, encrypted at rest, rotated, withdrawn, rewrapped.

Stored under AES-256-GCM with a key derived from `SECRET_KEY`; issuer, key id and algorithm are associated data, so
no row can be passed off as another. A key that cannot be decrypted stops the start; none is ever replaced silently.
"""

import asyncio
import hmac
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from authwright.domain.event import COMMAND_LINE, Event, event
from authwright.domain.instant import Instant, after
from authwright.domain.keyring import (
    PUBLISH_AHEAD,
    KeyRecord,
    KeyState,
    Purpose,
    active_key,
    key_state,
    published_keys,
)
from authwright.domain.names import NameKey
from authwright.domain.refresh import RefreshTokens
from authwright.domain.revocation import FOREVER, Revocation
from authwright.domain.secrets import derive
from authwright.jose.claims import ACCESS_TOKEN_TYPE
from authwright.jose.encoding import b64url_encode
from authwright.jose.keys import Algorithm, VerifyingKey
from authwright.jose.sign import PrivateKey, Signer, SigningSecret
from authwright.storage.port import Counter, IncompatibleStore, NameDigest, Store, StoreUnavailable

_NONCE: Final = 12
# Look-ups by name must outlive a change of the issuer, so their key belongs to the store, not to an issuer.
_ANY_ISSUER: Final = ""

log = structlog.get_logger("authwright.keys")


class UnreadableKey(Exception):
    """A stored key does not decrypt under `SECRET_KEY` or `SECRET_KEY_PREVIOUS`."""


class UnknownKeyId(LookupError):
    """There is no key with this id."""


class KeyWrap:
    """Encrypts key material under *secret*; decrypts under it or *previous*."""

    def __init__(self, secret: str, previous: str = "") -> None:
        ciphers = [AESGCM(derive(each.encode("utf-8"), "key encryption")) for each in (secret, previous) if each]
        self._current, self._all = ciphers[0], ciphers

    def wrap(self, material: bytes, record: KeyRecord) -> bytes:
        """Nonce and ciphertext of *material*, bound to *record*'s purpose, issuer, id and algorithm."""
        nonce = os.urandom(_NONCE)
        return nonce + self._current.encrypt(nonce, material, _associated(record))

    def unwrap(self, record: KeyRecord) -> bytes:
        """The material of *record*. Raises UnreadableKey."""
        for cipher in self._all:
            try:
                return cipher.decrypt(record.wrapped[:_NONCE], record.wrapped[_NONCE:], _associated(record))
            except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
                continue
        raise UnreadableKey(
            f"The key {record.id} in the store cannot be decrypted: SECRET_KEY is not the one it was stored with. "
            "Set the right SECRET_KEY, or the old one as SECRET_KEY_PREVIOUS."
        )


def _associated(record: KeyRecord) -> bytes:
    return "\0".join(("authwright", record.purpose, record.issuer, record.id, record.alg)).encode("utf-8")


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A signing key as `authwright keys list` shows it."""

    record: KeyRecord
    state: KeyState


class _SigningKeys(NamedTuple):
    records: Sequence[KeyRecord]
    material: Mapping[str, PrivateKey | bytes]


_NO_KEY: Final[tuple[KeyRecord | None, Instant, Instant]] = (None, FOREVER, FOREVER)


class Keyring:
    """The keys of one issuer. `load` first; then everything answers from memory.

    *keep* is how long (seconds) a retired signing key still verifies. Where the store knows only other issuers'
    keys, *adopt* allows new ones for this issuer (development); otherwise that is refused.
    """

    def __init__(
        self, store: Store, counter: Counter, *, issuer: str, alg: Algorithm, wrap: KeyWrap, keep: float, adopt: bool
    ) -> None:
        self._store = store
        self._counter = counter
        self._issuer = issuer
        self._alg = alg
        self._wrap = wrap
        self._keep = keep
        self._adopt = adopt
        self._rows: Sequence[KeyRecord] = ()
        self._signing = _SigningKeys((), {})
        self._signers: dict[tuple[str, str], Signer] = {}
        self._active = _NO_KEY
        self._names = b""
        self._refresh: RefreshTokens | None = None
        self._loading = asyncio.Lock()
        self._signs = True
        self._read_at: int | None = None

    @property
    def behind(self) -> bool:
        """Whether anything changed on this machine since the keys were read: a key may have. Reading the ledger alone
        does not end it."""
        return self._counter.read() != self._read_at

    @property
    def refresh_tokens(self) -> RefreshTokens:
        """Makes and reads refresh tokens."""
        if self._refresh is None:
            raise RuntimeError("the keyring is not loaded")
        return self._refresh

    @property
    def seal_key(self) -> bytes:
        """What security events are sealed with. It stays when `SECRET_KEY` or a signing key is changed."""
        return derive(self._names, "event seals")

    def name_digest(self, name: NameKey) -> NameDigest:
        """What the unique index holds of *name*: without the key a stolen table of names says nothing."""
        return NameDigest(hmac.digest(self._names, name.encode("utf-8"), "sha256"))

    async def load(self, now: Instant, *, anyway: bool = True) -> bool:
        """Read the keys, making those that are missing; whether anything changed.

        Not *anyway*: only if `behind`; of many that ask at once one reads.
        Raises UnreadableKey, IncompatibleStore, StoreUnavailable.
        """
        # One after the other: what was read first must not come last.
        async with self._loading:
            return (anyway or self.behind) and await self._load(now)

    async def _load(self, now: Instant) -> bool:
        counter = self._counter.read()
        rows = await self._store.keys.all()
        if not self._has_all(rows):
            rows = await self._make_missing(rows, now)
        if rows == self._rows:
            self._read_at = counter
            return False
        store_epoch = await self._store.facts.establish("store_epoch", secrets.token_hex(16))
        # Also if one of them cannot be decrypted: to read it again changes nothing.
        self._read_at = counter
        signing = self._of("sign", rows)
        material: dict[str, PrivateKey | bytes] = {}
        for row in signing:
            raw = self._wrap.unwrap(row)
            alg = _as_alg(row.alg)
            material[row.id] = raw if alg == "HS256" else PrivateKey.from_private_bytes(raw, alg=alg, kid=row.id)
        refresh = {bytes.fromhex(row.id): self._wrap.unwrap(row) for row in self._of("refresh", rows)}
        newest = bytes.fromhex(self._of("refresh", rows)[-1].id)
        names = self._wrap.unwrap(self._of("names", rows)[-1])
        # Everything decrypted: only now is any of it used.
        self._rows, self._signing, self._names = rows, _SigningKeys(signing, material), names
        self._signers, self._active, self._signs = {}, _NO_KEY, True
        self._refresh = RefreshTokens(refresh, current=newest, issuer=self._issuer, store_epoch=store_epoch)
        return True

    def stop_signing(self) -> None:
        """Sign nothing until keys were loaded: the active one was withdrawn, and the one in its place is not known."""
        self._signs = False

    def signer(self, audience: str, now: Instant) -> Signer:
        """Signs access tokens for *audience* with the key that is active at *now*. Raises StoreUnavailable."""
        if not self._signs:
            raise StoreUnavailable("the key that signed was withdrawn, and the one in its place cannot be read")
        record, since, until = self._active
        if record is None or not since <= now < until:
            record = active_key(self._signing.records, now)
            if record is None:
                raise UnreadableKey("There is no active signing key.")
            # Until another key's time comes this one stays the active one.
            coming = [each.active_from for each in self._signing.records if each.active_from > now]
            self._active = (record, now, min(coming, default=FOREVER))
        slot = (record.id, audience)
        signer = self._signers.get(slot)
        if signer is None:
            signer = self._signers[slot] = Signer(self._key(record, audience), typ=ACCESS_TOKEN_TYPE)
        return signer

    def verifying_keys(self, audience: str, now: Instant) -> dict[str, VerifyingKey]:
        """The keys that vouch for tokens with *audience* at *now*, by key id."""
        keys: dict[str, VerifyingKey] = {}
        for record in published_keys(self._signing.records, now=now, keep=self._keep):
            key = self._key(record, audience)
            keys[record.id] = key if isinstance(key, SigningSecret) else key.public
        return keys

    def shared_secrets(self, audience: str, now: Instant) -> dict[str, str]:
        """What a guard of *audience* verifies HS256 with, by key id, in base64url. Whoever has it can make tokens for
        this audience, and for no other.
        """
        published = published_keys(self._signing.records, now=now, keep=self._keep)
        shared = [record.id for record in published if isinstance(self._signing.material[record.id], bytes)]
        return {kid: b64url_encode(self._secret(kid, audience)) for kid in shared}

    def jwks(self, now: Instant) -> dict[str, list[dict[str, str]]]:
        """The public key set (RFC 7517), made from decrypted keys only. HS256 keys are not in it."""
        published = published_keys(self._signing.records, now=now, keep=self._keep)
        material = [self._signing.material[record.id] for record in published]
        return {"keys": [key.public.jwk() for key in material if isinstance(key, PrivateKey)]}

    def signing_keys(self, now: Instant) -> list[ListedKey]:
        """All signing keys of this issuer with their state, oldest first."""
        records = self._signing.records
        return [ListedKey(row, key_state(row, records, now=now, keep=self._keep)) for row in records]

    async def rotate(self, now: Instant, *, ahead: float | None = None) -> KeyRecord:
        """Add a signing key: published now, in use after verifiers have had time to see it, or *ahead* seconds."""
        active_from = after(now, PUBLISH_AHEAD if ahead is None else ahead)
        while True:
            await self.load(now)
            made = event("signing_key_rotated", COMMAND_LINE, now=now, detail=self._alg)
            record = await self._add("sign", self._issuer, self._alg, self._signing.records, now, active_from, made)
            if record is not None:
                break
        await self.load(now)
        self._counter.raise_()
        log.info("key_rotated", kid=record.id, alg=record.alg, active_from=active_from)
        return record

    async def withdraw(self, key_id: str, now: Instant) -> Revocation:
        """Withdraw a signing key for ever: no token it signed is accepted from the next look at the ledger on.

        If it was the active one, another takes its place first. The caller appends the returned entry to the ledger.
        Raises UnknownKeyId.
        """
        await self.load(now)
        if key_id not in self._signing.material:
            raise UnknownKeyId(key_id)
        active = active_key(self._signing.records, now)
        if active is not None and active.id == key_id:
            await self.rotate(now, ahead=0)
        withdrawn = event("signing_key_withdrawn", COMMAND_LINE, now=now, detail=key_id)
        await self._store.keys.withdraw(key_id, now=now, event=withdrawn)
        await self.load(now)
        log.warning("key_withdrawn", kid=key_id)
        return Revocation("key", key_id, 0, "withdrawn", now, FOREVER)

    async def rewrap(self, now: Instant) -> int:
        """Encrypt every stored key under the current `SECRET_KEY`; how many. Sessions and tokens stay valid."""
        rows = await self._store.keys.all()
        for row in rows:
            await self._store.keys.rewrap(row.id, old=row.wrapped, new=self._wrap.wrap(self._wrap.unwrap(row), row))
        await self._store.events.append(event("keys_rewrapped", COMMAND_LINE, now=now, detail=f"{len(rows)} keys"))
        return len(rows)

    def _of(self, purpose: Purpose, rows: Sequence[KeyRecord]) -> list[KeyRecord]:
        issuer = _ANY_ISSUER if purpose == "names" else self._issuer
        return [row for row in rows if row.purpose == purpose and row.issuer == issuer]

    def _has_all(self, rows: Sequence[KeyRecord]) -> bool:
        return all(self._of(purpose, rows) for purpose in ("sign", "refresh", "names"))

    async def _make_missing(self, rows: Sequence[KeyRecord], now: Instant) -> Sequence[KeyRecord]:
        others = sorted({row.issuer for row in rows if row.purpose == "sign"})
        if others and self._issuer not in others and not self._adopt:
            raise IncompatibleStore(
                f"The store belongs to the issuer {others[0]}, AUTHWRIGHT_ISSUER is {self._issuer}."
            )
        wanted: tuple[tuple[Purpose, str, str], ...] = (
            ("names", _ANY_ISSUER, "HS256"),
            ("refresh", self._issuer, "HS256"),
            ("sign", self._issuer, self._alg),
        )
        # A secret that reads not every key there is makes none: the right one could not read that one.
        for row in rows:
            self._wrap.unwrap(row)
        for purpose, issuer, alg in wanted:
            if not self._of(purpose, rows):
                # Another process may make it first; then its key is the one that counts.
                record = await self._add(purpose, issuer, alg, (), now, now)
                if record is not None:
                    log.info("key_made", purpose=purpose, kid=record.id, alg=alg)
        return await self._store.keys.all()

    async def _add(
        self,
        purpose: Purpose,
        issuer: str,
        alg: str,
        existing: Sequence[KeyRecord],
        now: Instant,
        active_from: Instant,
        made: Event | None = None,
    ) -> KeyRecord | None:
        if purpose == "sign" and alg != "HS256":
            pair = PrivateKey.generate(_as_alg(alg))
            key_id, material = pair.kid, pair.private_bytes()
        else:
            key_id, material = secrets.token_hex(4), secrets.token_bytes(32)
        ordinal = max((row.ordinal for row in existing), default=0) + 1
        bare = KeyRecord(key_id, purpose, issuer, alg, ordinal, b"", now, active_from, None)
        record = replace(bare, wrapped=self._wrap.wrap(material, bare))
        return record if await self._store.keys.add(record, event=made) else None

    def _key(self, record: KeyRecord, audience: str) -> PrivateKey | SigningSecret:
        material = self._signing.material[record.id]
        if isinstance(material, PrivateKey):
            return material
        return SigningSecret(self._secret(record.id, audience), kid=record.id)

    def _secret(self, kid: str, audience: str) -> bytes:
        material = self._signing.material[kid]
        if isinstance(material, PrivateKey):
            raise TypeError("a key pair is not shared")
        # One secret per audience: an API that can check its own tokens cannot make another's.
        return derive(material, f"HS256 {audience}")


def _as_alg(name: str) -> Algorithm:
    for alg in ("ES256", "RS256", "PS256", "EdDSA", "HS256"):
        if alg == name:
            return alg
    raise UnreadableKey(f"The store holds a key for the unknown algorithm {name!r}.")
