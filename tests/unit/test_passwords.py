"""domain.passwords: what may be one, how it is hashed, whose hashes are understood."""

import pytest

from authwright.domain.errors import WeakPassword
from authwright.domain.passwords import (
    HashProfile,
    PasswordPolicy,
    UnsupportedHash,
    decoy,
    hash_format,
    hash_password,
    needs_rehash,
    prepare,
    require_strong,
    require_supported,
    sample_hash,
    verify_password,
)

CHEAP = HashProfile(memory=32, passes=1)
POLICY = PasswordPolicy()

# Made by the named libraries, of PASSWORD.
PASSWORD = "correct horse battery staple é"
ELSEWHERE = {
    "passlib bcrypt": "$2b$04$DvMz6eNEqprwPxKG.xnfTeBWYYykK4fgswiEaqrbluJ2s.z/atYaS",
    "passlib bcrypt-sha256 v2": "$bcrypt-sha256$v=2,t=2b,r=4$zjNEriVRr0sTTqMPt0rFCe$odP2WrIIhvGEyDmAg1a6w6gXArq8uK2",
    "passlib bcrypt-sha256 v1": "$bcrypt-sha256$2b,4$fPCyGKanSOSLcoLB3JfJ7e$J.EmgyjVYlz6S5hUVMMKvcomiob1O1K",
    "passlib pbkdf2-sha1": "$pbkdf2$100$fY.Rcm7N2dv7/79XytnbGw$0hVMsRhuqjJvQH.jCeiYo6bQVxc",
    "passlib pbkdf2-sha256": "$pbkdf2-sha256$100$irG2FoKQcg6hNIaQklLKuQ$09TM5IBtu6MamH6sC7opRKQvQBkH9NROKWg99kCs0Ok",
    "passlib pbkdf2-sha512": "$pbkdf2-sha512$100$IWTsPQcAQChlDCHE.F/LGQ"
    "$sJbovcRuQsGrak1getj.95CCOf8kjkPzOchc1uMmS.UOXwR/jwScLRlEDJrsmELfdH2g.hZ8Jh6S.8lgrgpKWw",
    "passlib argon2": "$argon2id$v=19$m=64,t=1,p=1$+L9XCuHcG8P4////35tTSg$X/gwjS4fFg2NHNO7X4nwsu5Sr2jkkaIH0rl+G08dFtM",
    "passlib scrypt": "$scrypt$ln=10,r=8,p=1$3TvH2Pvfe69VyjnHeE8JQQ$otiTVEuOLILAxMBzCRhHTqZPMhMc0HqlbmvEMrZpnmE",
    "werkzeug scrypt": "scrypt:1024:8:1$o0wGIhZcySuUgjtv$dd2243bae62f069483739226127947e67474682f83eff7e2ea975c213fb8"
    "c866a600ed1de9d15f294db570f42ef22108e746171d74e23afab83897c8f27a898c",
    "werkzeug pbkdf2 sha256": "pbkdf2:sha256:100$HV2dUi46hNL5MDwl"
    "$93aa0c8422611c2355d37a9284dc9a8686f0759987cad29acc6804bc542c63eb",
    "werkzeug pbkdf2 sha512": "pbkdf2:sha512:100$W2nyje4FU1vBvLOd$c8a7af26219b1f7903d247a48778853a4173ac0c9d6c82672ef6"
    "56f071f30803a7fab5f891123fc18f315f25da97ae2dab7723213c955e873f78552954ce3484",
    "werkzeug pbkdf2 sha1": "pbkdf2:sha1:100$krg1xFocGeRgIVK0$62734898c7d3ebfaf8e4330275d1e7cdbc133013",
    "django scrypt": "scrypt$1024$NybRaaAsGHScteuFz41CEq$8$5$oyMnzx3CzsrTAAW8lnARY/KXsA7IiKEDJVCxy5EVz4HHydOxKYbs0znI6"
    "X44doe0mmgEsMdG4/AtLlYTyEy2cg==",
    "django pbkdf2": "pbkdf2_sha256$100$09nPul0IPeTjoFReLo4quK$Ool2Dfvuuh1PgKYyfdJjkLxxG5Q0TLClaZUQ67IEqSU=",
    "django pbkdf2 sha1": "pbkdf2_sha1$100$QNUVIwYCTyixGlEltBH995$VeyEPNnBqEzidwTLnSZ0qK/W+BU=",
    "django bcrypt": "bcrypt$$2b$04$SPC0k8MM5s0t6UEVpux2wenPH.3avA5ZIWQmd8zRH8E8xF58V7Ya6",
    "django bcrypt_sha256": "bcrypt_sha256$$2b$04$QaER30jCVp4.mMjW9uWvhuL1VK9/.iZJEFdXePLjIomfKqd7.s63m",
    "django argon2": "argon2$argon2id$v=19$m=64,t=1,p=1$TUlMdDJlaUxMSE9RUnZ3TjlpcmlWRg"
    "$9/PJn6f+ZJIUfcC9AmeCYUXXh3YrUIv6NklkxZL+gs8",
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_hashes_made_elsewhere_verify_and_are_due_for_an_upgrade(name: str) -> None:
    stored = ELSEWHERE[name]
    assert verify_password(PASSWORD, stored)
    assert not verify_password(PASSWORD + " ", stored)
    assert not verify_password("", stored)
    assert needs_rehash(stored, profile=HashProfile())


@pytest.mark.parametrize("name", ELSEWHERE)
def test_there_is_a_sample_of_every_format_to_measure_with(name: str) -> None:
    format_ = hash_format(ELSEWHERE[name])
    sample = sample_hash(format_)
    assert sample is not None
    assert hash_format(sample) == format_
    assert not verify_password("", sample)


TOO_COSTLY = [
    "$argon2id$v=19$m=9999999,t=1,p=1$c2FsdHNhbHQ$" + "A" * 43,
    "$argon2id$v=19$m=262144,t=5,p=1$c2FsdHNhbHQ$" + "A" * 43,
    "$argon2id$v=19$m=64,t=1,p=0$c2FsdHNhbHQ$" + "A" * 43,
    "$2b$15$" + "." * 53,
    "$2b$03$" + "." * 53,
    "pbkdf2_sha256$9999999$salt$" + "A" * 43 + "=",
    "pbkdf2_sha256$0$salt$" + "A" * 43 + "=",
    "scrypt:1048576:64:1$salt$" + "00" * 32,
    "scrypt:1023:8:1$salt$" + "00" * 32,
    "$scrypt$ln=99,r=8,p=1$c2FsdA$" + "A" * 43,
    "$argon2i$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$" + "A" * 43,
    "5f4dcc3b5aa765d61d8327deb882cf99",
    "md5$salt$5f4dcc3b5aa765d61d8327deb882cf99",
    "password",
    "",
    "!",
]


@pytest.mark.parametrize("stored", TOO_COSTLY)
def test_hashes_that_cost_too_much_or_are_unknown_are_refused(stored: str) -> None:
    with pytest.raises(UnsupportedHash):
        hash_format(stored)


MALFORMED = [
    "$2b$04$" + "/" * 53,
    "$2b$04$" + "9" * 53,
    "pbkdf2_sha256$100$salt$" + "A" * 17,
    "scrypt:131072:1:1$salt$" + "00" * 32,
    "$argon2id$v=19$m=8,t=1,p=16$c2FsdHNhbHQ$" + "A" * 43,
    "$pbkdf2-sha256$100$A$" + "A" * 43,
]


@pytest.mark.parametrize("stored", MALFORMED)
def test_hashes_that_do_not_decode_are_refused_at_import_and_never_crash_a_login(stored: str) -> None:
    try:
        require_supported(stored)
    except UnsupportedHash:
        return
    assert not verify_password("x", stored)


def test_r156_bcrypt_reads_no_more_than_72_bytes_and_so_nothing_longer_matches() -> None:
    import bcrypt

    stored = bcrypt.hashpw(b"a" * 72, bcrypt.gensalt(4)).decode()
    assert verify_password("a" * 72, stored)
    assert not verify_password("a" * 73, stored)
    assert not verify_password("a" * 71 + "\0", stored)


def test_r155_new_hashes_are_argon2id_at_owasps_cost_with_a_salt_each() -> None:
    one, two = hash_password("p", profile=HashProfile()), hash_password("p", profile=HashProfile())
    assert one.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert one != two
    assert not needs_rehash(one, profile=HashProfile())
    assert needs_rehash(one, profile=HashProfile(passes=3))


def test_r152_composed_and_decomposed_accents_are_one_password() -> None:
    stored = hash_password(prepare("caf\u00e9 au lait"), profile=CHEAP)
    assert verify_password("cafe\u0301 au lait", stored)
    assert not verify_password("cafe au lait", stored)
    assert not verify_password("CAF\u00c9 au lait", stored)


def test_r151_long_passwords_are_taken_whole_and_too_long_ones_refused() -> None:
    long = "x" * 1024
    stored = hash_password(prepare(long), profile=CHEAP)
    assert verify_password(long, stored)
    assert not verify_password(long[:-1], stored)
    for password in ("x" * 1025, "\U0001f600" * 1024 + "x", "é" * 2049):
        with pytest.raises(WeakPassword):
            prepare(password)
    assert not verify_password("x" * 5000, stored)


@pytest.mark.parametrize("password", ["", "\0", "a\x07b", "a\ud800b"])
def test_what_no_keyboard_sends_is_no_password(password: str) -> None:
    with pytest.raises(WeakPassword):
        prepare(password)
    assert not verify_password(password, decoy(CHEAP))


def test_r150_fifteen_code_points() -> None:
    assert require_strong("é" * 7 + "zebra zz", policy=POLICY)
    with pytest.raises(WeakPassword, match="15"):
        require_strong("é" * 14, policy=POLICY)
    assert require_strong("test123", policy=PasswordPolicy(6, block_list=False))


GUESSABLE = [
    "aaaaaaaaaaaaaaaaaaa",
    "abcabcabcabcabcabc",
    "123456789012345678",
    "abcdefghijklmnopqr",
    "rqponmlkjihgfedcba",
    "qwertyuiopasdfghjkl",
    "AUTHWRIGHTauthwright",
    "adaLovelace@example.com",
    "adalovelaceadalovelace",
    "passwordpassword",
    "123456789012345",
    "PassWord",
    "iloveyou",
]


@pytest.mark.parametrize("password", GUESSABLE)
def test_r154_what_is_easy_to_guess_is_refused(password: str) -> None:
    with pytest.raises(WeakPassword):
        require_strong(password, policy=PasswordPolicy(8), context=("AdaLovelace", "adalovelace@example.com"))


def test_a_long_password_is_looked_through_once() -> None:
    import time

    require_strong("x y z - warm the block list", policy=POLICY)
    begun = time.process_time()
    assert require_strong("\u0390" * 1023 + "z", policy=POLICY)
    assert time.process_time() - begun < 0.1


def test_r153_there_are_no_rules_of_composition() -> None:
    for password in ("lowercase only words here", "1827364554637281", "ΑΒΓΔ ΕΖΗΘ ΙΚΛΜ ΝΞΟ"):
        assert require_strong(password, policy=POLICY)


def test_the_decoy_matches_nothing() -> None:
    assert decoy(CHEAP) == decoy(CHEAP)
    assert not verify_password("", decoy(CHEAP))
