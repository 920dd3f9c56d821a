"""domain.names: one normal form for uniqueness and look-up (RFC 8265 section 3.3)."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from precis_i18n import get_profile

from authwright.domain.errors import InvalidName
from authwright.domain.names import normal_address, normal_login, normal_username

SAME_NAME = [
    ("bholay", "Bholay", "BHOLAY", "\uff42\uff48\uff4f\uff4c\uff41\uff59"),
    ("josé", "jose\u0301", "JOSÉ", "JOSE\u0301"),
    ("straße", "Straße"),
    ("名前", "名前"),
    ("καφές", "ΚΑΦές"),
]


@pytest.mark.parametrize("spellings", SAME_NAME)
def test_spellings_of_one_name_have_one_normal_form(spellings: tuple[str, ...]) -> None:
    assert len({normal_username(spelling) for spelling in spellings}) == 1


REFUSED_NAMES = [
    "",
    " ",
    "a b",
    "a\u200db",
    "a\u200bb",
    "a\u202eb",
    "a\u2066b",
    "a\0b",
    "a\nb",
    "a\x7fb",
    "a\ud800b",
    "a@b",
    "a/b",
    "a\u2044b",
    "x" * 65,
    "x" * 300,
    "\u0430dmin",
    "p\u0430ypal",
    "\uff20",
    "victim\uff20example.com",
    "USR_0Zr4Yq1mQ2u4b1kQq7c3xA",
    "usr_",
    ".",
    "..",
    "a\\b",
    "a?b",
    "a#b",
    "a%2fb",
    'a"b',
    "me",
    "ME",
    "admin",
    "ａｄｍｉｎ",
    "usr_0Zr4Yq1mQ2u4b1kQq7c3xA",
    "cli_0Zr4Yq1mQ2u4b1kQq7c3xA",
    "\u0378",
    "\ufdd0",
    "\ue000",
    "\u0300",
]


@pytest.mark.parametrize("name", REFUSED_NAMES, ids=ascii)
def test_names_that_mislead_or_break_are_refused_without_an_echo(name: str) -> None:
    with pytest.raises(InvalidName) as caught:
        normal_username(name)
    assert len(name) < 4 or name not in caught.value.public


@pytest.mark.parametrize("name", ["ひらがなカタカナ漢字", "한국어漢字", "user.name-1_x", "1", "o'neil"])
def test_names_people_have_are_taken(name: str) -> None:
    assert normal_username(name)


SAME_ADDRESS = [
    ("user@example.com", "User@Example.COM", "USER@EXAMPLE.COM", "user@ｅxample.com"),
    ("straße@example.com", "STRASSE@example.com"),
    ("ſam@example.com", "sam@example.com"),
    ("ﬁrst@example.com", "first@example.com"),
    ("a@bücher.example", "a@xn--bcher-kva.example", "a@BÜCHER.example"),
]


@pytest.mark.parametrize("spellings", SAME_ADDRESS)
def test_spellings_of_one_address_have_one_normal_form(spellings: tuple[str, ...]) -> None:
    assert len({normal_address(spelling) for spelling in spellings}) == 1


def test_cve_2019_19844_the_turkish_dotless_i_is_another_letter() -> None:
    assert normal_address("mıke@example.org") != normal_address("mike@example.org")


REFUSED_ADDRESSES = [
    "",
    "user",
    "@example.com",
    "user@",
    "user@localhost",
    "user@example..com",
    "user@-example.com",
    "user@exam ple.com",
    "a b@example.com",
    "a@b@example.com",
    ".a@example.com",
    "a.@example.com",
    "a..b@example.com",
    "a\r\nBcc: x@example.com",
    "a@example.com\r\nBcc: x",
    "a\u200b@example.com",
    "a\0@example.com",
    "<a@example.com>",
    '"a b"@example.com',
    "a@[127.0.0.1]",
    "x" * 65 + "@example.com",
    "a@" + "x" * 260 + ".com",
    "a@exa\u202emple.com",
    "a\ufe0fb@example.com",
    "a\u034fb@example.com",
    "a\u3164b@example.com",
    "a\u2800b@example.com",
    "p\u0430ypal@example.com",
]


@pytest.mark.parametrize("address", REFUSED_ADDRESSES, ids=ascii)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidName):
        normal_address(address)


@given(st.text(max_size=30))
def test_normal_forms_are_stable_and_errors_typed(text: str) -> None:
    for normal in (normal_username, normal_address):
        try:
            once = normal(text)
        except InvalidName:
            continue
        assert normal(once) == once


@given(st.text(max_size=30))
def test_whoever_is_refused_at_registration_is_nobody_at_login(text: str) -> None:
    normal_login(text)


@given(st.text("".join(map(chr, range(1, 128))), min_size=1, max_size=20))
def test_ascii_names_have_the_form_the_profile_gives_them(text: str) -> None:
    try:
        name = str(normal_username(text))
    except InvalidName:
        return
    assert name == get_profile("UsernameCaseMapped").enforce(text)


@given(st.from_regex(r"[!-~]{1,8}@[A-Za-z0-9-]{1,8}\.[A-Za-z]{2,4}", fullmatch=True))
def test_ascii_addresses_have_the_form_the_general_rule_gives_them(text: str) -> None:
    try:
        local, _, domain = str(normal_address(text)).rpartition("@")
    except InvalidName:
        return
    assert local == unicodedata.normalize("NFKC", text).casefold().rpartition("@")[0]
    assert domain == text.rpartition("@")[2].encode("idna").decode("ascii").lower()
