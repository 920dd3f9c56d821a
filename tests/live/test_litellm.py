"""The LiteLLM proxy itself, with our function as its `custom_auth`: who is calling, and what the plan allows."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from processes import Running, environment, free_port, production_environment, program, run, serving

PROXY = Path(__file__).parents[2] / ".venv/products/bin/litellm"
FORM = {"username": "ada", "password": "a long and unusual passphrase"}
MODELS = "https://models.example.com"
pytestmark = pytest.mark.made(".venv/products/installed")

_PLANS = '[free]\npermissions = ["predict"]\nrate = "3/minute"\nconcurrent = 7\n'
_CONFIG = """
model_list:
  - model_name: echo
    litellm_params: {model: openai/echo, api_key: none, mock_response: "hello from the model"}
general_settings:
  custom_auth: authwright.guard.litellm.user_api_key_auth
"""


@dataclass
class Setup:
    auth: Running
    base: str
    key: str

    def ask(self, credential: str) -> httpx2.Response:
        body = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
        headers = {"Authorization": f"Bearer {credential}"} if credential else {}
        return httpx2.post(f"{self.base}/v1/chat/completions", json=body, headers=headers, timeout=60)

    def login(self) -> dict[str, str]:
        with self.auth.http() as http:
            return dict(http.post("/login", data={**FORM, "resource": MODELS}).json())


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    folder = tmp_path_factory.mktemp("litellm")
    (folder / "plans.toml").write_text(_PLANS)
    (folder / "config.yaml").write_text(_CONFIG)
    auth_port, port = free_port(), free_port()
    plans = str(folder / "plans.toml")
    env = production_environment(auth_port, AUTHWRIGHT_AUDIENCES=MODELS, AUTHWRIGHT_PLANS=plans)
    with serving(folder, "serve", port=auth_port, **env) as auth:
        with auth.http() as http:
            assert http.post("/register", json=FORM).status_code == 201
        made = run(folder, "clients", "create", "gateway", "--scope", "revocations limits", "--json", **env)
        caller = run(folder, "clients", "create", "nightly", "--json", **env)
        configured = environment(
            AUTHWRIGHT_ISSUER=auth.base,
            AUTHWRIGHT_AUDIENCE=MODELS,
            AUTHWRIGHT_GUARD_KEY=json.loads(made.stdout)["client_key"],
            AUTHWRIGHT_GUARD_SCOPES="predict",
            AUTHWRIGHT_GUARD_ACCEPT_KEYS="true",
            AUTHWRIGHT_GUARD_LIMITS="true",
            AUTHWRIGHT_GUARD_METRICS_PATH="/guard-metrics",
            LITELLM_MASTER_KEY="sk-of-the-proxy-itself",
            LITELLM_LOCAL_MODEL_COST_MAP="True",
        )
        command = [PROXY, "--config", folder / "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
        base = f"http://127.0.0.1:{port}"
        log, alive = folder / "litellm.log", f"{base}/health/liveliness"
        with program(log, *command, env=configured, at=alive, seconds=120):
            yield Setup(auth, base, json.loads(caller.stdout)["client_key"])


def test_a_token_is_let_through_until_the_plan_says_no_and_the_proxy_knows_the_plans_limits(setup: Setup) -> None:
    token = setup.login()["access_token"]
    answers = [setup.ask(token) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429], answers[-1].text
    assert answers[0].json()["choices"][0]["message"]["content"] == "hello from the model"
    assert answers[0].headers["x-litellm-key-rpm-limit"] == "3"
    # A token each twenty seconds.
    assert 1 <= int(answers[3].headers["retry-after"]) <= 20
    assert "3/minute" in answers[3].text


def test_a_clients_key_has_an_allowance_of_its_own(setup: Setup) -> None:
    assert [setup.ask(setup.key).status_code for _ in range(4)] == [200, 200, 200, 429]


def test_nobody_else_is_let_through_and_a_logout_is_honoured(setup: Setup) -> None:
    login = setup.login()
    for credential in ("", "sk-1234", login["access_token"] + "x"):
        assert setup.ask(credential).status_code == 401
    with setup.auth.http() as http:
        assert http.post("/logout", json={"refresh_token": login["refresh_token"]}).status_code == 200
    ended = time.monotonic()
    while setup.ask(login["access_token"]).status_code != 401:
        assert time.monotonic() < ended + 1


def test_what_the_guard_knows_of_itself_can_be_read(setup: Setup) -> None:
    assert setup.ask(setup.login()["access_token"]).status_code in (200, 429)
    answer = httpx2.get(f"{setup.base}/guard-metrics")
    assert (answer.status_code, answer.headers["content-type"][:10]) == (200, "text/plain")
    labels = f'{{issuer="{setup.auth.base}",audience="{MODELS}"}}'
    assert f"authwright_guard_following{labels} 1\n" in answer.text
    assert "authwright_guard" not in httpx2.get(f"{setup.base}/guard-metrics/more").text
