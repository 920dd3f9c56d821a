"""domain.plan and domain.secrets: what is permitted; ids, keys, digests."""

import re
from pathlib import Path

import pytest

from authwright.domain.allowance import Rate
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
    new_session_id,
    new_user_id,
)
from authwright.jose.encoding import b64url_decode
from records import NOW


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
    team = '[team]\npermissions = ["predict", "models:large"]\nrate = "unlimited"\n'
    plans = read_plans(team + '[free]\npermissions = []\nrate = "1/day"\n')
    assert {plan.name for plan in plans} == {"free", "premium", "admin", "team"}
    assert plans.permitted(role="user", plan="team", first_party=False) == {"predict", "models:large"}
    assert plans.permitted(role="user", plan="free", first_party=True) == {"account"}
    assert "team" in plans
    assert "gone" not in plans


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[team", "TOML"),
        ("[team]\n[team]\n", "TOML"),
        ("team = 1", "nothing else"),
        ("[Team]\npermissions = []", "small letters"),
        ("[team]\npermission = []", "nothing else"),
        ("[team]\nrate = '1/day'", "permissions and its rate"),
        ("[team]\npermissions = []", "permissions and its rate"),
        ("[team]\nrate = '1/day'\npermissions = 'predict'", "as scopes"),
        ("[team]\nrate = '1/day'\npermissions = ['two words']", "as scopes"),
        ("[team]\nrate = '1/day'\npermissions = ['admin']", "no plan can give"),
        ("[team]\nrate = '1/day'\npermissions = ['account']", "no plan can give"),
        ("[team]\nrate = '1/day'\npermissions = ['revocations']", "no plan can give"),
        ("[team]\nrate = '1/day'\npermissions = ['limits']", "no plan can give"),
        ("[team]\npermissions = []\nrate = 5", "like 10000/day"),
        ("[team]\npermissions = []\nrate = '0/day'", "like 10000/day"),
        ("[team]\npermissions = []\nrate = '-5/day'", "like 10000/day"),
        ("[team]\npermissions = []\nrate = '5/month'", "a rate by 'month'"),
        ("[team]\npermissions = []\nrate = '10001/second'", "more than 10000 a second"),
        ("[team]\npermissions = []\nrate = '5/day'\nburst = 0", "a whole number"),
        ("[team]\npermissions = []\nrate = '5/day'\nburst = true", "a whole number"),
        ("[team]\npermissions = []\nrate = 'unlimited'\nburst = 5", "no rate"),
        ("[team]\npermissions = []\nrate = '1000/day'\nburst = 1000000000000", "takes years"),
        ("[team]\npermissions = []\nrate = '5/day'\nquota = 7", "like 10000/day"),
        ("[team]\npermissions = []\nrate = '5/day'\nquota = '7/hour'", "a quota by 'hour'"),
        ("[team]\npermissions = []\nrate = '5/day'\nquota = ['7/day', '8/day']", "a quota by 'day'"),
        ("[team]\npermissions = []\nrate = '5/day'\nconcurrent = '7'", "a whole number"),
        ("[team]\npermissions = []\nrate = '5/day'\nweights = 7", "by route"),
        ("[team]\npermissions = []\nrate = '5/day'\nweights = { predict = 7 }", "by route"),
        ("[team]\npermissions = []\nrate = '5/day'\nweights = { '/predict' = 0 }", "a whole number"),
    ],
)
def test_a_plans_file_that_is_not_understood_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_plans(text)


def test_limits_are_read_as_they_are_written() -> None:
    plans = read_plans(
        """
        [team]
        permissions = ["predict"]
        rate = "300/minute"
        burst = 50
        quota = ["10k/day", "1M/month"]
        concurrent = 8
        weights = { "/predict" = 2, "GET /predict" = 3 }
        [hourly]
        permissions = []
        rate = "7/hour"
        quota = "9/month"
        """
    )
    team, hourly = plans.get("team"), plans.get("hourly")
    assert team is not None
    assert hourly is not None
    assert (team.rate, team.daily, team.monthly, team.concurrent) == (Rate(300, 60, 50), 10_000, 1_000_000, 8)
    assert [team.cost(method, "/predict") for method in ("GET", "POST")] == [3, 2]
    assert team.cost("GET", "/me") == 1
    assert (hourly.rate, hourly.daily, hourly.monthly, hourly.concurrent) == (Rate(7, 3600, 7), None, 9, None)


@pytest.mark.parametrize(
    "page", ["docs/howto/manage-users-keys-and-plans.md", "bench/plans.toml", "tests/unlimited.toml"]
)
def test_plans_that_are_written_down_are_plans(page: str) -> None:
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if page.endswith(".md") else [text]
    assert blocks
    for block in blocks:
        assert len(list(read_plans(block))) > 2


def test_the_built_in_plans_have_the_limits_that_are_promised() -> None:
    limits = {plan.name: (plan.rate and plan.rate.text, plan.daily, plan.monthly) for plan in Plans()}
    assert limits == {
        "free": ("60/minute", 1000, None),
        "premium": ("600/minute", None, None),
        "admin": (None, None, None),
    }


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


def test_r172_the_id_of_a_session_is_the_time_and_128_random_bits() -> None:
    ids = [new_session_id(NOW) for _ in range(1000)]
    read = [b64url_decode(ident) for ident in ids]
    assert {int.from_bytes(each[:6], "big") for each in read} == {NOW // 1000}
    assert {len(each) - 6 for each in read} == {16}
    assert len({each[6:] for each in read}) == 1000
    # Every bit of them is one of some and not of others.
    ones = [sum(each[6 + bit // 8] >> bit % 8 & 1 for each in read) for bit in range(128)]
    assert min(ones) > 350
    assert max(ones) < 650


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
