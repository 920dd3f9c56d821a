"""issued: the search for secrets finds them in whatever they stand, whole or in part."""

import pytest

from authwright.domain.secrets import CLIENT_KEY_PREFIX, new_key
from issued import Issued


@pytest.mark.parametrize("around", ["{}", "x{}x", '{{"key":"{}"}}', "GET /?token={} HTTP/1.1"])
def test_a_secret_is_found_in_whatever_it_stands(around: str) -> None:
    issued, key = Issued(), new_key(CLIENT_KEY_PREFIX)
    issued.note({"clients": [{"client_key": key}]})
    issued.search(around.format(key).encode(), "here")
    assert issued.leaks
    assert issued.verdict() is not None


def test_half_of_a_secret_is_found_and_nothing_else_is() -> None:
    issued, key = Issued(), new_key(CLIENT_KEY_PREFIX)
    issued.note_text(f'{{"access_token": "head.claims.{key}"}}')
    issued.search(new_key(CLIENT_KEY_PREFIX).encode(), "elsewhere")
    assert issued.verdict() is None
    issued.search(key[:42].encode(), "here")
    assert issued.verdict() is not None


def test_a_search_that_does_not_find_what_was_planted_is_no_search() -> None:
    issued, key = Issued(), new_key(CLIENT_KEY_PREFIX)
    issued.plant(key)
    assert issued.verdict() is not None
    issued.search(key.encode(), "here")
    assert issued.verdict() is None
