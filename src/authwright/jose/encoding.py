"""Canonical base64url and strict JSON: the two encodings inside a token.

Everything lenient in the standard library's versions is an attack on a signature's meaning: characters skipped by
base64, members taken twice by JSON. Source: RFC 7515 section 2, RFC 8725 sections 3.7 and 3.8.
"""

import binascii
import json
import math
import re
from typing import Any, NoReturn

import msgspec

from authwright.jose.errors import LimitExceeded, MalformedToken

MAX_JSON_DEPTH = 16
MAX_INTEGER_DIGITS = 20

# The last character of a group that is not full carries unused bits; a canonical encoder leaves them zero.
_CANONICAL_LAST = {2: frozenset("AQgw"), 3: frozenset("AEIMQUYcgkosw048")}
_PADDING = ("", "", "==", "=")
_TO_URL = bytes.maketrans(b"+/", b"-_")
# Base64 in a JSON string: as strict as binascii in its strict mode, in a third of its time.
_decode_base64 = msgspec.json.Decoder(bytes).decode
# Possessive, and good for a string without an end, too: it never looks at a character twice.
_BRACKETS_OUTSIDE_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


def b64url_encode(data: bytes) -> str:
    """Base64url without padding."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL, b"=").decode("ascii")


def b64url_decode(text: str) -> bytes:
    """The bytes that `b64url_encode` makes *text* of, and no other spelling of them.

    Raises MalformedToken for padding, white space, `+`, `/`, an impossible length or unused bits that are not zero.
    """
    rest = len(text) % 4
    if rest and (rest == 1 or text[-1] not in _CANONICAL_LAST[rest]):
        raise MalformedToken("base64url is not canonical")
    # What would mean something else to base64 or to JSON.
    if "+" in text or "/" in text or "=" in text or "\\" in text:
        raise MalformedToken("not base64url")
    try:
        return _decode_base64(f'"{text.replace("-", "+").replace("_", "/")}{_PADDING[rest]}"')
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise MalformedToken("not base64url") from None


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedToken("JSON object with a duplicate member")
    return members


def _integer(digits: str) -> int:
    if len(digits) > MAX_INTEGER_DIGITS:
        raise LimitExceeded("JSON integer too long")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise MalformedToken("JSON number is not finite")
    return value


def _constant(name: str) -> NoReturn:
    raise MalformedToken("JSON constant is not a number")


_decoder = json.JSONDecoder(
    object_pairs_hook=_unique_members, parse_int=_integer, parse_float=_number, parse_constant=_constant
)


def parse_json(data: bytes) -> Any:
    """*data* as JSON (RFC 8259), read so that two readers cannot disagree about it.

    Raises MalformedToken for anything but UTF-8, a byte order mark, lone surrogates, duplicate members, NaN or
    infinite numbers; LimitExceeded for more than MAX_JSON_DEPTH levels or MAX_INTEGER_DIGITS digits.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedToken("JSON is not UTF-8") from None
    if text.count("{") + text.count("[") > MAX_JSON_DEPTH and _depth(text) > MAX_JSON_DEPTH:
        raise LimitExceeded("JSON nested too deeply")
    try:
        value = _decoder.decode(text)
    except (ValueError, RecursionError):
        raise MalformedToken("not JSON") from None
    if "\\u" in text and not _is_unicode(value):
        raise MalformedToken("JSON string with a lone surrogate")
    return value


def parse_json_object(data: bytes) -> dict[str, Any]:
    """*data* as a JSON object, by the rules of `parse_json`."""
    value = parse_json(data)
    if type(value) is not dict:
        raise MalformedToken("JSON is not an object")
    return value


def _depth(text: str) -> int:
    depth = deepest = 0
    for match in _BRACKETS_OUTSIDE_STRINGS.finditer(text):
        found = match.group()
        if found in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif found in "]}":
            depth -= 1
    return deepest


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
