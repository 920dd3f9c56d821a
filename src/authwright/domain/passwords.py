"""Passwords: what may be one, how it is hashed, and whose hashes are understood.

New hashes are Argon2id (RFC 9106; 19 MiB, two passes, one lane by default). Hashes from elsewhere verify and are
replaced at the next login. Sources: NIST SP 800-63B-4 section 3.1.1, RFC 8265 section 4.2, OWASP's cheat sheet.
"""

import base64
import functools
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import argon2
import argon2.exceptions
import bcrypt
from precis_i18n import get_profile

from authwright.domain.errors import WeakPassword

MAX_CODE_POINTS: Final = 1024
MAX_BYTES: Final = 4096

_opaque = get_profile("OpaqueString")


@dataclass(frozen=True, slots=True)
class PasswordPolicy:
    """What a new password must satisfy. *min_length* counts code points; *block_list* asks for the common ones."""

    min_length: int = 15
    block_list: bool = True


@dataclass(frozen=True, slots=True)
class HashProfile:
    """Cost of new hashes: *memory* in KiB, *passes*, *lanes*."""

    memory: int = 19_456
    passes: int = 2
    lanes: int = 1

    @property
    def format(self) -> str:
        """Names algorithm and cost; two hashes with one format take the same time."""
        return f"argon2id:{self.memory},{self.passes},{self.lanes}"


def prepare(password: str) -> str:
    """*password* in RFC 8265's OpaqueString form: composed and decomposed accents log in alike.

    Raises WeakPassword if it is empty, too long or holds what no keyboard sends.
    """
    if len(password) > MAX_CODE_POINTS:
        raise WeakPassword(f"A password has at most {MAX_CODE_POINTS} characters.")
    try:
        prepared: str = _opaque.enforce(password)
    except UnicodeEncodeError:
        raise WeakPassword("A password is not empty and has no control characters.") from None
    if len(prepared.encode("utf-8")) > MAX_BYTES:
        raise WeakPassword(f"A password has at most {MAX_BYTES} bytes.")
    return prepared


def require_strong(password: str, *, policy: PasswordPolicy, context: tuple[str, ...] = ()) -> str:
    """*password* prepared, if it may become one; raises WeakPassword. *context*: words it must not consist of."""
    prepared = prepare(password)
    if len(prepared) < policy.min_length:
        raise WeakPassword(f"A password has at least {policy.min_length} characters.")
    if policy.block_list:
        plain = prepared.casefold()
        words = {word.casefold() for word in context if word} | {"authwright"}
        if plain in words or any(plain == word * (len(plain) // len(word)) for word in words if len(plain) > len(word)):
            raise WeakPassword("This password is too easy to guess: it repeats what is known about the account.")
        if _is_pattern(plain) or plain in _common_passwords():
            raise WeakPassword("This password is too easy to guess.")
    return prepared


@functools.cache
def _common_passwords() -> frozenset[str]:
    # 30,000 passwords in the order of their frequency in published breaches; read when first needed.
    from zxcvbn.frequency_lists import FREQUENCY_LISTS

    return frozenset(FREQUENCY_LISTS["passwords"])


_SEQUENCES = ("01234567890" * 8, "abcdefghijklmnopqrstuvwxyz" * 3, "qwertyuiopasdfghjklzxcvbnm" * 3)


def _is_pattern(plain: str) -> bool:
    repeats = any(plain == (plain[:unit] * len(plain))[: len(plain)] for unit in range(1, min(5, len(plain) // 2 + 1)))
    return repeats or any(plain in sequence or plain[::-1] in sequence for sequence in _SEQUENCES)


def hash_password(prepared: str, *, profile: HashProfile) -> str:
    """A new Argon2id hash in PHC form, with a salt of 16 random bytes. Takes tens of milliseconds of one core."""
    return _hasher(profile).hash(prepared)


@functools.lru_cache(maxsize=8)
def _hasher(profile: HashProfile) -> argon2.PasswordHasher:
    return argon2.PasswordHasher(time_cost=profile.passes, memory_cost=profile.memory, parallelism=profile.lanes)


@functools.lru_cache(maxsize=8)
def decoy(profile: HashProfile) -> str:
    """A hash that no password matches, to spend the same time on names that do not exist."""
    return hash_password(secrets.token_urlsafe(32), profile=profile)


class UnsupportedHash(ValueError):
    """A stored hash in a form that is not understood, or that costs more than a login may."""


def verify_password(password: str, stored: str) -> bool:
    """Whether *password*, as typed, is the one *stored* was made of. Takes as long as the stored hash costs.

    Own hashes are compared in the prepared form; hashes from elsewhere as typed, as their makers did.
    Raises UnsupportedHash.
    """
    scheme = _scheme(stored)
    if scheme.name == "argon2":
        try:
            return argon2.PasswordHasher().verify(stored.removeprefix("argon2"), _prepared_or_raw(password))
        except argon2.exceptions.VerifyMismatchError:
            return False
        except argon2.exceptions.Argon2Error:
            raise UnsupportedHash("argon2 hash is malformed") from None
    return scheme.verify(password, stored)


def hash_format(stored: str) -> str:
    """Algorithm and cost of *stored*. Raises UnsupportedHash, also for one that costs more than a login may."""
    return _scheme(stored).format(stored)


def needs_rehash(stored: str, *, profile: HashProfile) -> bool:
    """Whether *stored* should be replaced by a hash with *profile* at the next login."""
    return hash_format(stored) != profile.format


def sample_hash(name: str) -> str | None:
    """Some hash with the format *name* (`hash_format`), to measure how long it takes; None if there is no such."""
    algorithm, _, cost = name.partition(":")
    salt, made = "c2FsdHNhbHRzYWx0c2FsdA", "A" * 43
    if algorithm == "argon2id":
        memory, passes, lanes = cost.split(",")
        return f"$argon2id$v=19$m={memory},t={passes},p={lanes}${salt}${made}"
    if algorithm == "bcrypt":
        return f"$2b${int(cost):02}${'.' * 53}"
    if algorithm.startswith("pbkdf2-"):
        return f"pbkdf2:{algorithm.removeprefix('pbkdf2-')}:{cost}${salt}${'00' * 32}"
    if algorithm == "scrypt":
        return f"scrypt:{cost.replace(',', ':')}${salt}${'00' * 64}"
    return None


def _prepared_or_raw(password: str) -> str:
    try:
        return prepare(password)
    except WeakPassword:
        return password.encode("utf-8", "replace")[:MAX_BYTES].decode("utf-8", "ignore")


@dataclass(frozen=True, slots=True)
class _Scheme:
    name: str
    pattern: re.Pattern[str]
    format: Callable[[str], str]
    verify: Callable[[str, str], bool]


# Costs above these would let one imported row stop the hashing threads for seconds.
MAX_ARGON2_MEMORY: Final = 262_144
MAX_ARGON2_WORK: Final = 1_048_576
MAX_BCRYPT_COST: Final = 14
MAX_PBKDF2_ROUNDS: Final = 5_000_000
MAX_SCRYPT_MEMORY: Final = 128 * 1024 * 1024

_ARGON2 = re.compile(
    r"(?:argon2)?\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,3}),p=(\d{1,3})\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+"
)
_BCRYPT = re.compile(r"(?:bcrypt)?(\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53})")
_BCRYPT_SHA256 = re.compile(r"bcrypt_sha256\$(\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53})")
_DJANGO_PBKDF2 = re.compile(r"pbkdf2_(sha1|sha256)\$(\d{1,8})\$([^$]+)\$([A-Za-z0-9+/=]+)")
_WERKZEUG_PBKDF2 = re.compile(r"pbkdf2:(sha1|sha256|sha512):(\d{1,8})\$([^$]+)\$([0-9a-f]+)")
_PASSLIB_PBKDF2 = re.compile(r"\$pbkdf2(?:-(sha256|sha512))?\$(\d{1,8})\$([./A-Za-z0-9]*)\$([./A-Za-z0-9]+)")
_WERKZEUG_SCRYPT = re.compile(r"scrypt:(\d{1,8}):(\d{1,3}):(\d{1,3})\$([^$]+)\$([0-9a-f]+)")
_DJANGO_SCRYPT = re.compile(r"scrypt\$([^$]+)\$(\d{1,8})\$(\d{1,3})\$(\d{1,3})\$([A-Za-z0-9+/=]+)")


def _scheme(stored: str) -> _Scheme:
    for scheme in _SCHEMES:
        if scheme.pattern.fullmatch(stored):
            return scheme
    raise UnsupportedHash("hash format is not understood")


def _match(pattern: re.Pattern[str], stored: str) -> re.Match[str]:
    match = pattern.fullmatch(stored)
    if match is None:
        raise UnsupportedHash("hash format is not understood")
    return match


def _argon2_format(stored: str) -> str:
    memory, passes, lanes = (int(part) for part in _match(_ARGON2, stored).groups())
    if memory > MAX_ARGON2_MEMORY or memory * passes > MAX_ARGON2_WORK or lanes > 16:
        raise UnsupportedHash("argon2 hash costs too much")
    return f"argon2id:{memory},{passes},{lanes}"


def _bcrypt_format(pattern: re.Pattern[str], name: str) -> Callable[[str], str]:
    def read(stored: str) -> str:
        cost = int(_match(pattern, stored)[2])
        if not 4 <= cost <= MAX_BCRYPT_COST:
            raise UnsupportedHash("bcrypt hash costs too much")
        return f"{name}:{cost}"

    return read


def _verify_bcrypt(password: str, stored: str) -> bool:
    raw = password.encode("utf-8", "replace")
    # bcrypt reads 72 bytes and stops at a NUL; a longer password here would match by its beginning.
    fits = len(raw) <= 72 and b"\0" not in raw
    return bcrypt.checkpw(raw if fits else b"", _match(_BCRYPT, stored)[1].encode("ascii")) and fits


def _verify_bcrypt_sha256(password: str, stored: str) -> bool:
    raw = hashlib.sha256(password.encode("utf-8", "replace")).hexdigest().encode("ascii")
    return bcrypt.checkpw(raw, _match(_BCRYPT_SHA256, stored)[1].encode("ascii"))


def _pbkdf2_format(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def read(stored: str) -> str:
        match = _match(pattern, stored)
        rounds = int(match[2])
        if not 1 <= rounds <= MAX_PBKDF2_ROUNDS:
            raise UnsupportedHash("PBKDF2 hash costs too much")
        return f"pbkdf2-{match[1] or 'sha1'}:{rounds}"

    return read


def _verify_pbkdf2(
    pattern: re.Pattern[str], salt_of: Callable[[str], bytes], sum_of: Callable[[str], bytes]
) -> Callable[[str, str], bool]:
    def check(password: str, stored: str) -> bool:
        match = _match(pattern, stored)
        expected = sum_of(match[4])
        raw = password.encode("utf-8", "replace")
        made = hashlib.pbkdf2_hmac(match[1] or "sha1", raw, salt_of(match[3]), int(match[2]), len(expected))
        return hmac.compare_digest(made, expected)

    return check


def _scrypt_format(pattern: re.Pattern[str], first: int) -> Callable[[str], str]:
    def read(stored: str) -> str:
        n, r, p = (int(_match(pattern, stored)[first + i]) for i in range(3))
        if n < 2 or n & (n - 1) or not r or not p or 128 * n * r * p > MAX_SCRYPT_MEMORY:
            raise UnsupportedHash("scrypt hash costs too much")
        return f"scrypt:{n},{r},{p}"

    return read


def _verify_scrypt(pattern: re.Pattern[str], first: int, salt: int) -> Callable[[str, str], bool]:
    def check(password: str, stored: str) -> bool:
        match = _match(pattern, stored)
        n, r, p = (int(match[first + i]) for i in range(3))
        expected = bytes.fromhex(match[5]) if salt == 4 else base64.b64decode(match[5])
        made = hashlib.scrypt(
            password.encode("utf-8", "replace"),
            salt=match[salt].encode("utf-8"),
            n=n,
            r=r,
            p=p,
            maxmem=132 * n * r * p + (1 << 20),
            dklen=len(expected),
        )
        return hmac.compare_digest(made, expected)

    return check


def _passlib_base64(text: str) -> bytes:
    return base64.b64decode(text.replace(".", "+") + "=" * (-len(text) % 4))


def _never(_password: str, _stored: str) -> bool:
    raise UnsupportedHash("argon2 is verified by its library")


_SCHEMES: Final = (
    _Scheme("argon2", _ARGON2, _argon2_format, _never),
    _Scheme("bcrypt", _BCRYPT, _bcrypt_format(_BCRYPT, "bcrypt"), _verify_bcrypt),
    _Scheme("bcrypt_sha256", _BCRYPT_SHA256, _bcrypt_format(_BCRYPT_SHA256, "bcrypt"), _verify_bcrypt_sha256),
    _Scheme(
        "django_pbkdf2",
        _DJANGO_PBKDF2,
        _pbkdf2_format(_DJANGO_PBKDF2),
        _verify_pbkdf2(_DJANGO_PBKDF2, str.encode, base64.b64decode),
    ),
    _Scheme(
        "werkzeug_pbkdf2",
        _WERKZEUG_PBKDF2,
        _pbkdf2_format(_WERKZEUG_PBKDF2),
        _verify_pbkdf2(_WERKZEUG_PBKDF2, str.encode, bytes.fromhex),
    ),
    _Scheme(
        "passlib_pbkdf2",
        _PASSLIB_PBKDF2,
        _pbkdf2_format(_PASSLIB_PBKDF2),
        _verify_pbkdf2(_PASSLIB_PBKDF2, _passlib_base64, _passlib_base64),
    ),
    _Scheme(
        "werkzeug_scrypt", _WERKZEUG_SCRYPT, _scrypt_format(_WERKZEUG_SCRYPT, 1), _verify_scrypt(_WERKZEUG_SCRYPT, 1, 4)
    ),
    _Scheme("django_scrypt", _DJANGO_SCRYPT, _scrypt_format(_DJANGO_SCRYPT, 2), _verify_scrypt(_DJANGO_SCRYPT, 2, 1)),
)
