"""domain.plan and domain.secrets: what is permitted; ids, keys, digests."""

import pytest

from authwright.domain.errors import InvalidScope
from authwright.domain.plan import effective_role, narrow, permitted_scopes
from authwright.domain.secrets import (
    client_key_digest,
    client_key_hint,
    derive,
    digest,
    is_subject,
    new_client_id,
    new_client_key,
    new_user_id,
)


@pytest.mark.parametrize(
    ("role", "plan", "first_party", "scopes"),
    [
        ("user", "free", True, {"account", "predict"}),
        ("user", "premium", True, {"account", "predict", "analytics"}),
        ("user", "admin", True, {"account", "predict", "analytics", "admin"}),
        ("admin", "free", True, {"account", "predict", "analytics", "admin"}),
        ("user", "free", False, {"predict"}),
        ("admin", "admin", False, {"predict", "analytics"}),
        ("user", "unknown", False, {"predict"}),
    ],
)
def test_scopes_follow_from_role_and_plan(role: str, plan: str, first_party: bool, scopes: set[str]) -> None:
    assert permitted_scopes(role=role, plan=plan, first_party=first_party) == scopes


def test_whoever_has_the_role_or_the_plan_admin_is_shown_as_admin() -> None:
    assert effective_role(role="admin", plan="free") == effective_role(role="user", plan="admin") == "admin"
    assert effective_role(role="user", plan="premium") == "user"


def test_r33_scopes_can_be_narrowed_never_widened() -> None:
    granted = frozenset({"a", "b"})
    assert narrow(granted, None) == narrow(granted, " ") == granted
    assert narrow(granted, "b") == {"b"}
    for asked in ("c", "a c", "A", "a\u00a0b", "a\tb", 'a"'):
        with pytest.raises(InvalidScope):
            narrow(granted, asked)


def test_a_scope_is_bounded_before_it_is_looked_at() -> None:
    with pytest.raises(InvalidScope):
        narrow(frozenset({"a"}), "a " * 600)


def test_r23_ids_of_users_and_clients_live_in_disjoint_name_spaces() -> None:
    assert new_user_id().startswith("usr_")
    assert new_client_id().startswith("cli_")
    assert is_subject(new_user_id())
    assert is_subject(new_client_id())
    assert len({new_user_id() for _ in range(1000)}) == 1000


def test_r34_r35_a_client_key_has_256_bits_a_prefix_and_a_checksum() -> None:
    key = new_client_key()
    assert key.startswith("awk_")
    assert len(key) == 4 + 43 + 8
    assert client_key_digest(key) == digest(key.encode())
    assert key.startswith(client_key_hint(key))
    assert len(client_key_hint(key)) == 10
    for wrong in (key[:-1], key + "0", key[:-1] + ("0" if key[-1] != "0" else "1"), key.upper(), key[4:], "", "awk_é"):
        assert client_key_digest(wrong) is None


def test_every_purpose_has_a_key_of_its_own() -> None:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    assert derive(b"secret", "a") != derive(b"secret", "b")
    for purpose in ("key encryption", "é"):
        oracle = HKDF(SHA256(), 32, salt=None, info=purpose.encode())
        assert derive(b"secret", purpose) == oracle.derive(b"secret")
