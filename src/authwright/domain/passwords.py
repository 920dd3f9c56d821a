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


_SEQUENCES = ("0123456789" * 9, "abcdefghijklmnopqrstuvwxyz" * 3, "qwertyuiopasdfghjklzxcvbnm" * 3)


def _is_pattern(plain: str) -> bool:
    if any(plain in sequence or plain[::-1] in sequence for sequence in _SEQUENCES):
        return True
    # The shortest unit that, repeated, makes the whole (its last repetition may be cut off).
    size = (plain + plain).find(plain, 1)
    whole = size < len(plain) and (size < 5 or plain[:size] in _common_passwords())
    return whole or any(plain == (plain[:unit] * len(plain))[: len(plain)] for unit in range(1, min(5, len(plain))))


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
    scheme, match = _read(stored)
    try:
        return scheme.verify(password, match)
    except ValueError as error:
        # Its parts have the right form, but do not decode, or the hash function does not take them.
        raise UnsupportedHash("hash is malformed") from error


def hash_format(stored: str) -> str:
    """Algorithm and cost of *stored*. Raises UnsupportedHash, also for one that costs more than a login may.

    Says nothing about whether the rest decodes; `require_supported` does.
    """
    scheme, match = _read(stored)
    return scheme.cost(match)


def require_supported(stored: str) -> None:
    """Return if *stored* can be verified here, which is tried. Raises UnsupportedHash."""
    verify_password("", stored)


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


# Costs above these would let one imported row stop the hashing threads for seconds.
MAX_ARGON2_MEMORY: Final = 262_144
MAX_ARGON2_WORK: Final = 1_048_576
MAX_BCRYPT_COST: Final = 14
MAX_PBKDF2_ROUNDS: Final = 5_000_000
MAX_SCRYPT_MEMORY: Final = 128 * 1024 * 1024

_Match = re.Match[str]


@dataclass(frozen=True, slots=True)
class _Scheme:
    """A form of stored hashes: how it reads, what it costs (algorithm and parameters), and whether a password fits."""

    pattern: re.Pattern[str]
    cost: Callable[[_Match], str]
    verify: Callable[[str, _Match], bool]


def _read(stored: str) -> tuple[_Scheme, _Match]:
    for scheme in _SCHEMES:
        if match := scheme.pattern.fullmatch(stored):
            return scheme, match
    raise UnsupportedHash("hash format is not understood")


def _raw(password: str) -> bytes:
    return password.encode("utf-8", "replace")


def _argon2_cost(match: _Match) -> str:
    memory, passes, lanes = (int(match[name]) for name in ("memory", "passes", "lanes"))
    if memory > MAX_ARGON2_MEMORY or memory * passes > MAX_ARGON2_WORK or not 0 < lanes <= 16 or memory < 8 * lanes:
        raise UnsupportedHash("argon2 hash costs too much")
    return f"argon2id:{memory},{passes},{lanes}"


def _verify_argon2(password: str, match: _Match) -> bool:
    try:
        return argon2.PasswordHasher().verify(match["hash"], _prepared_or_raw(password))
    except argon2.exceptions.VerifyMismatchError:
        return False
    except argon2.exceptions.Argon2Error:
        raise UnsupportedHash("argon2 hash is malformed") from None


def _bcrypt_cost(match: _Match) -> str:
    cost = int(match["cost"])
    if not 4 <= cost <= MAX_BCRYPT_COST:
        raise UnsupportedHash("bcrypt hash costs too much")
    return f"bcrypt:{cost}"


def _bcrypt(raw: bytes, match: _Match) -> bool:
    stored = f"${match['ident'] or '2b'}${int(match['cost']):02}${match['salt']}{match['sum']}"
    return bcrypt.checkpw(raw, stored.encode("ascii"))


def _verify_bcrypt(password: str, match: _Match) -> bool:
    raw = _raw(password)
    # bcrypt reads 72 bytes and stops at a NUL; a longer password here would match by its beginning.
    fits = len(raw) <= 72 and b"\0" not in raw
    return _bcrypt(raw if fits else b"", match) and fits


def _verify_django_bcrypt_sha256(password: str, match: _Match) -> bool:
    return _bcrypt(hashlib.sha256(_raw(password)).hexdigest().encode("ascii"), match)


def _verify_passlib_bcrypt_sha256(password: str, match: _Match) -> bool:
    # The second version keys the digest with the salt.
    if match["version"]:
        hashed = hmac.digest(match["salt"].encode("ascii"), _raw(password), "sha256")
    else:
        hashed = hashlib.sha256(_raw(password)).digest()
    return _bcrypt(base64.b64encode(hashed), match)


def _pbkdf2_cost(match: _Match) -> str:
    rounds = int(match["rounds"])
    if not 1 <= rounds <= MAX_PBKDF2_ROUNDS:
        raise UnsupportedHash("PBKDF2 hash costs too much")
    return f"pbkdf2-{match['hash'] or 'sha1'}:{rounds}"


def _verify_pbkdf2(salt_of: Callable[[str], bytes], sum_of: Callable[[str], bytes]) -> Callable[[str, _Match], bool]:
    def verify(password: str, match: _Match) -> bool:
        expected = sum_of(match["sum"])
        salt, rounds = salt_of(match["salt"]), int(match["rounds"])
        made = hashlib.pbkdf2_hmac(match["hash"] or "sha1", _raw(password), salt, rounds, len(expected))
        return hmac.compare_digest(made, expected)

    return verify


def _scrypt_parameters(match: _Match) -> tuple[int, int, int]:
    given = match.groupdict()
    logarithm = given.get("ln")
    if logarithm is not None and int(logarithm) > 30:
        raise UnsupportedHash("scrypt hash costs too much")
    n = int(given["n"]) if logarithm is None else 1 << int(logarithm)
    r, p = int(match["r"]), int(match["p"])
    if n < 2 or n & (n - 1) or not r or not p or 128 * n * r * p > MAX_SCRYPT_MEMORY:
        raise UnsupportedHash("scrypt hash costs too much")
    return n, r, p


def _scrypt_cost(match: _Match) -> str:
    n, r, p = _scrypt_parameters(match)
    return f"scrypt:{n},{r},{p}"


def _verify_scrypt(salt_of: Callable[[str], bytes], sum_of: Callable[[str], bytes]) -> Callable[[str, _Match], bool]:
    def verify(password: str, match: _Match) -> bool:
        n, r, p = _scrypt_parameters(match)
        expected, salt = sum_of(match["sum"]), salt_of(match["salt"])
        room = 132 * n * r * p + (1 << 20)
        made = hashlib.scrypt(_raw(password), salt=salt, n=n, r=r, p=p, maxmem=room, dklen=len(expected))
        return hmac.compare_digest(made, expected)

    return verify


def _unpadded_base64(text: str) -> bytes:
    """Base64 without padding; passlib writes `.` for `+` in some of its forms."""
    return base64.b64decode(text.replace(".", "+") + "=" * (-len(text) % 4))


_BCRYPT_PARTS = r"(?P<ident>2[aby])\$(?P<cost>\d\d)\$(?P<salt>[./A-Za-z0-9]{21}[.Oeu])(?P<sum>[./A-Za-z0-9]{31})"

_SCHEMES: Final = (
    # Our own; Argon2id from anywhere; Django's, which puts its name in front.
    _Scheme(
        re.compile(
            r"(?:argon2)?(?P<hash>\$argon2id\$v=19\$m=(?P<memory>\d{1,7}),t=(?P<passes>\d{1,3}),p=(?P<lanes>\d{1,3})"
            r"\$[A-Za-z0-9+/]{11,64}\$[A-Za-z0-9+/]{22,128})"
        ),
        _argon2_cost,
        _verify_argon2,
    ),
    # Everybody's bcrypt; Django's.
    _Scheme(re.compile(r"(?:bcrypt\$)?\$" + _BCRYPT_PARTS), _bcrypt_cost, _verify_bcrypt),
    _Scheme(re.compile(r"bcrypt_sha256\$\$" + _BCRYPT_PARTS), _bcrypt_cost, _verify_django_bcrypt_sha256),
    # passlib's, in both its versions.
    _Scheme(
        re.compile(
            r"\$bcrypt-sha256\$(?:(?P<version>v=2),t=(?P<ident>2b),r=|2b,)(?P<cost>\d{1,2})"
            r"\$(?P<salt>[./A-Za-z0-9]{22})\$(?P<sum>[./A-Za-z0-9]{31})"
        ),
        _bcrypt_cost,
        _verify_passlib_bcrypt_sha256,
    ),
    # Django
    _Scheme(
        re.compile(
            r"pbkdf2_(?P<hash>sha1|sha256)\$(?P<rounds>\d{1,8})\$(?P<salt>[^$]+)\$(?P<sum>[A-Za-z0-9+/]{16,128}={0,2})"
        ),
        _pbkdf2_cost,
        _verify_pbkdf2(str.encode, base64.b64decode),
    ),
    _Scheme(
        re.compile(
            r"scrypt\$(?P<n>\d{1,8})\$(?P<salt>[^$]+)\$(?P<r>\d{1,3})\$(?P<p>\d{1,3})\$(?P<sum>[A-Za-z0-9+/]{16,128}={0,2})"
        ),
        _scrypt_cost,
        _verify_scrypt(str.encode, base64.b64decode),
    ),
    # Werkzeug
    _Scheme(
        re.compile(
            r"pbkdf2:(?P<hash>sha1|sha256|sha512):(?P<rounds>\d{1,8})\$(?P<salt>[^$]+)\$(?P<sum>(?:[0-9a-f]{2}){16,64})"
        ),
        _pbkdf2_cost,
        _verify_pbkdf2(str.encode, bytes.fromhex),
    ),
    _Scheme(
        re.compile(
            r"scrypt:(?P<n>\d{1,8}):(?P<r>\d{1,3}):(?P<p>\d{1,3})\$(?P<salt>[^$]+)\$(?P<sum>(?:[0-9a-f]{2}){16,64})"
        ),
        _scrypt_cost,
        _verify_scrypt(str.encode, bytes.fromhex),
    ),
    # passlib
    _Scheme(
        re.compile(
            r"\$pbkdf2(?:-(?P<hash>sha256|sha512))?\$(?P<rounds>\d{1,8})\$(?P<salt>[./A-Za-z0-9]*)\$(?P<sum>[./A-Za-z0-9]{22,128})"
        ),
        _pbkdf2_cost,
        _verify_pbkdf2(_unpadded_base64, _unpadded_base64),
    ),
    _Scheme(
        re.compile(
            r"\$scrypt\$ln=(?P<ln>\d{1,2}),r=(?P<r>\d{1,3}),p=(?P<p>\d{1,3})"
            r"\$(?P<salt>[A-Za-z0-9+/]*)\$(?P<sum>[A-Za-z0-9+/]{22,128})"
        ),
        _scrypt_cost,
        _verify_scrypt(_unpadded_base64, _unpadded_base64),
    ),
)
