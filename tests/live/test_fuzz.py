"""The document fuzzed against a running server: no answer it does not name, and never a 500."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings

from processes import serving

ROOT = Path(__file__).parents[2]
schema = schemathesis.openapi.from_dict(json.loads((ROOT / "openapi.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    env = {"AUTHWRIGHT_ARGON2_MEMORY_KIB": "64", "AUTHWRIGHT_ARGON2_PASSES": "1"}
    with serving(tmp_path_factory.mktemp("fuzz"), "dev", **env) as running, running.http() as http:
        http.post("/register", json={"username": "bholay", "password": "test123"})
        yield http


@schema.parametrize()
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_the_document_names(case: Any, server: httpx2.Client) -> None:
    operation = case.operation.definition.raw
    headers = {}
    if operation.get("security"):
        login = server.post("/login", data={"username": "bholay", "password": "test123"}).json()
        headers["authorization"] = f"Bearer {login['access_token']}"
    sent: dict[str, Any] = {}
    if isinstance(case.body, bytes):
        sent = {"content": case.body}
        headers["content-type"] = case.media_type
    elif not isinstance(case.body, schemathesis.core.NotSet):
        is_form = case.media_type == "application/x-www-form-urlencoded" and isinstance(case.body, dict)
        sent = {"data": {key: str(value) for key, value in case.body.items()}} if is_form else {"json": case.body}
    answer = server.request(case.method, case.formatted_path, params=case.query or None, headers=headers, **sent)
    # Whatever the path was made into, it may be another route's or none's.
    assert str(answer.status_code) in operation["responses"] or answer.status_code in (404, 405), answer.text
    assert answer.status_code < 500 or answer.status_code == 503
    medias = ["application/json", "application/problem+json"]
    medias += {"/reset-password": ["text/html"], "/metrics": ["text/plain"]}.get(case.path, [])
    assert answer.headers["content-type"].partition(";")[0] in medias
