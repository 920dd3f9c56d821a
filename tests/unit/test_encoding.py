"""jose.encoding: the two encodings inside a token, read so that two readers cannot disagree."""

import base64
import itertools
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authwright.jose.encoding import b64url_decode, b64url_encode, parse_json
from authwright.jose.errors import InvalidToken, MalformedToken


@given(st.binary(max_size=80))
def test_what_is_encoded_is_decoded_again(data: bytes) -> None:
    text = b64url_encode(data)
    assert text == base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    assert b64url_decode(text) == data


@given(st.text('ABCYZabyz0189-_+/=. \n\0\\"é\ud800', max_size=12))
def test_r81_only_the_canonical_spelling_is_decoded(text: str) -> None:
    try:
        data = b64url_decode(text)
    except InvalidToken:
        return
    assert b64url_encode(data) == text


def test_r81_every_short_text_is_decoded_if_the_standard_library_decodes_and_writes_it_so() -> None:
    for length in range(5):
        for letters in itertools.product('AQw9-_+/="\\u\n \0é', repeat=length):
            text = "".join(letters)
            try:
                decoded: bytes | None = b64url_decode(text)
            except MalformedToken:
                decoded = None
            try:
                expected: bytes | None = base64.urlsafe_b64decode(text + "=" * (-length % 4))
            except ValueError:
                expected = None
            if expected is not None and base64.urlsafe_b64encode(expected).rstrip(b"=") != text.encode():
                expected = None
            assert decoded == expected, text


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_ordinary_json_is_read_as_the_standard_library_reads_it(value: object) -> None:
    try:
        raw = json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    assert parse_json(raw) == json.loads(raw)


@given(st.binary(max_size=60))
def test_r84_whatever_comes_the_error_is_typed(raw: bytes) -> None:
    try:
        parse_json(raw)
    except InvalidToken:
        return
    json.loads(raw)


# Quadratic for a pattern that begins anew at each quote: seconds instead of a millisecond.
UNTERMINATED = b"[" * 17 + b'"' + b'\\"' * 31_990


@pytest.mark.parametrize(
    "raw",
    [
        UNTERMINATED,
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"9" * 5000,
        b'"' + b"\\" * 9999,
        b'["\\ud800"]',
        b'{"\\udfff":1}',
    ],
)
def test_r84_hostile_json_ends_in_a_typed_error(raw: bytes) -> None:
    begun = time.process_time()
    with pytest.raises(InvalidToken):
        parse_json(raw)
    assert time.process_time() - begun < 0.5


def test_brackets_inside_strings_are_no_depth() -> None:
    assert parse_json(json.dumps({"a": "[" * 100 + '\\"{' * 50}).encode())["a"].startswith("[")


@given(st.lists(st.tuples(st.sampled_from(["a", "b", 'a\\":', "c "]), st.sampled_from(["1", '"x"', '"\\":"', "[]"]))))
def test_r82_however_an_object_is_written_duplicates_are_found(members: list[tuple[str, str]]) -> None:
    for colon in (":", " :", ": ", "\t:", "\n :"):
        text = "{" + ",".join(f'"{name}"{colon}{value}' for name, value in members) + "}"
        names = [name for name, _ in members]
        if len(set(names)) == len(names):
            assert len(parse_json(text.encode())) == len(names)
        else:
            with pytest.raises(MalformedToken):
                parse_json(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1e400}',
        '{"a":NaN}',
        '{"a":-Infinity}',
        '{"a":1}x',
        '{"a":1,}',
        '{"a":' + "1" * 21 + "}",
        '{"a":"\\ud800"}',
    ],
)
def test_r82_what_readers_of_json_disagree_about_is_refused(text: str) -> None:
    with pytest.raises(InvalidToken):
        parse_json(text.encode())
