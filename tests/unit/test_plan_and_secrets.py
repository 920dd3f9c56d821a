"""domain.plan and domain.secrets: what is permitted; ids, keys, digests."""

import pytest

from authwright.domain.errors import InvalidScope
from authwright.domain.plan import Plans, effective_role, narrow, read_plans
from authwright.domain.secrets import (
    CLIENT_KEY_PREFIX,
    derive,
    digest,
    is_subject,
    key_digest,
    key_hint,
    new_client_id,
    new_key,
    new_user_id,
)


@pytest.mark.parametrize(
    ("role", "plan", "first_party", "scopes"),
    [
        ("user", "free", True, {"account", "predict"}),
        ("user", "premium", True, {"account", "predict", "analytics"}),
        ("user", "admin", True, {"account", "predict", "analytics", "analytics:full", "admin"}),
        ("admin", "free", True, {"account", "predict", "analytics", "analytics:full", "admin"}),
        ("user", "free", False, {"predict"}),
        ("admin", "admin", False, {"predict", "analytics", "analytics:full"}),
        ("user", "unknown", False, set()),
        ("user", "unknown", True, {"account"}),
    ],
)
def test_scopes_follow_from_role_and_plan(role: str, plan: str, first_party: bool, scopes: set[str]) -> None:
    assert Plans().permitted(role=role, plan=plan, first_party=first_party) == scopes


def test_plans_are_configured_beside_and_instead_of_the_built_in_ones() -> None:
    plans = read_plans('[team]\npermissions = ["predict", "models:large"]\n[free]\npermissions = []\n')
    assert {plan.name for plan in plans} == {"free", "premium", "admin", "team"}
    assert plans.permitted(role="user", plan="team", first_party=False) == {"predict", "models:large"}
    assert plans.permitted(role="user", plan="free", first_party=True) == {"account"}
    assert "team" in plans
    assert "gone" not in plans


@pytest.mark.parametrize(
    "text",
    [
        "[team",
        "team = 1",
        "[Team]\npermissions = []",
        "[team]\npermission = []",
        "[team]\npermissions = 'predict'",
        "[team]\npermissions = ['two words']",
        "[team]\npermissions = ['admin']",
        "[team]\npermissions = ['account']",
        "[team]\npermissions = ['revocations']",
        "[team]\npermissions = []\nrate = 5",
        "[team]\n[team]\n",
    ],
)
def test_a_plans_file_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"TOML|[Tt]eam"):
        read_plans(text)


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
    key = new_key(CLIENT_KEY_PREFIX)
    assert key.startswith("awk_")
    assert len(key) == 4 + 43 + 8
    assert key_digest(key, CLIENT_KEY_PREFIX) == digest(key.encode())
    assert key.startswith(key_hint(key))
    assert len(key_hint(key)) == 10
    for wrong in (key[:-1], key + "0", key[:-1] + ("0" if key[-1] != "0" else "1"), key.upper(), key[4:], "", "awk_é"):
        assert key_digest(wrong, CLIENT_KEY_PREFIX) is None


def test_every_purpose_has_a_key_of_its_own() -> None:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    assert derive(b"secret", "a") != derive(b"secret", "b")
    for purpose in ("key encryption", "é"):
        oracle = HKDF(SHA256(), 32, salt=None, info=purpose.encode())
        assert derive(b"secret", purpose) == oracle.derive(b"secret")
