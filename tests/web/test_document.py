"""The OpenAPI document: whole, stable, true; and Swagger UI without the internet."""

import json
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.routing import APIRoute

from authwright.web.endpoint import RawEndpoint, Reply
from harness import ORIGIN, Service, bearer

ROOT = Path(__file__).parents[2]
DOCUMENT = json.loads((ROOT / "openapi.json").read_text(encoding="utf-8"))
OPERATIONS = [(path, method, op) for path, item in DOCUMENT["paths"].items() for method, op in item.items()]


async def test_the_committed_document_is_the_one_that_is_served(service: Service) -> None:
    assert (await service.get("/openapi.json")).json() == DOCUMENT


def test_operation_ids_are_unique_and_stable_words() -> None:
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", each) for each in ids)


@pytest.mark.parametrize(
    ("path", "method", "operation"), OPERATIONS, ids=[op["operationId"] for _, _, op in OPERATIONS]
)
def test_every_operation_says_what_it_takes_answers_and_refuses(path: str, method: str, operation: Any) -> None:
    assert operation["summary"]
    assert operation["description"]
    assert operation["tags"]
    success = [status for status in operation["responses"] if status.startswith("2")]
    assert len(success) == 1
    for status, response in operation["responses"].items():
        if not status.startswith("2"):
            (media, content) = next(iter(response["content"].items()))
            oauth = path in ("/token", "/revoke", "/introspect")
            model = "OAuthError" if oauth else "Problem"
            assert content["schema"] == {"$ref": f"#/components/schemas/{model}"}
            assert media == ("application/json" if oauth else "application/problem+json")
    if operation.get("security"):
        assert "401" in operation["responses"]


def test_references_lead_somewhere() -> None:
    text = json.dumps(DOCUMENT)
    for name in re.findall(r'"#/components/schemas/([^"]+)"', text):
        assert name in DOCUMENT["components"]["schemas"]
    for scheme in ("Password", "Bearer"):
        assert scheme in DOCUMENT["components"]["securitySchemes"]


async def test_every_route_is_answered_by_its_raw_endpoint(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    every = [route for route in service.app.router.routes if isinstance(route, APIRoute)]
    routes = [route for route in every if route.include_in_schema]
    assert len(routes) == len(OPERATIONS)
    real, ran = RawEndpoint.answer, []

    async def noted(self: RawEndpoint, scope: Any, receive: Any) -> Reply:
        ran.append(scope["path"])
        return await real(self, scope, receive)

    monkeypatch.setattr(RawEndpoint, "answer", noted)
    # By the short way, and by FastAPI's own, which embedding apps and their middleware may take.
    for app in (service.app, service.app.router):
        ran.clear()
        for path, method, _ in OPERATIONS:
            transport = httpx2.ASGITransport(app=as_the_edge_does(app), client=("127.0.0.1", 1))
            async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN) as http:
                await http.request(method.upper(), path)
        assert ran == [path for path, _, _ in OPERATIONS]


def as_the_edge_does(app: Any) -> Any:
    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        scope.setdefault("authwright.request_id", "test")
        scope.setdefault("authwright.headers", dict(scope["headers"]))
        await app(scope, receive, send)

    return wrapped


async def test_swagger_ui_comes_from_here_alone_under_a_strict_policy(service: Service) -> None:
    page = await service.get("/docs")
    policy = page.headers["content-security-policy"]
    assert (page.headers["x-frame-options"], page.headers["referrer-policy"]) == ("DENY", "no-referrer")
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe-eval" not in policy
    assert "http" not in policy
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page.text)
    assert 'src="docs/setup.js"' in page.text
    assert 'src="setup.js"' in (await service.get("/docs/")).text
    for asset, media in (("swagger-ui.css", "text/css"), ("swagger-ui-bundle.js", "text/javascript")):
        answer = await service.get(f"/docs/{asset}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(media)
        assert len(answer.content) > 100_000
    setup = (await service.get("/docs/setup.js")).text
    assert "queryConfigEnabled: false" in setup
    assert "persistAuthorization: false" in setup
    for name in ("nothing.js", "..%2fsecret_key", "%2e%2e%2fsecret_key", "../secret_key"):
        assert (await service.get(f"/docs/{name}")).status_code == 404


async def test_documented_examples_are_true(service: Service) -> None:
    """Every example of a request is taken, and every answer has the members its example has."""
    register = DOCUMENT["paths"]["/register"]["post"]
    schema = register["requestBody"]["content"]["application/json"]["schema"]
    example = {name: described["examples"][0] for name, described in schema["properties"].items()}
    made = await service.http.post("/register", json=example)
    assert made.status_code == 201
    shown = register["responses"]["201"]["content"]["application/json"]["example"]
    assert made.json().keys() == shown.keys()
    login = await service.http.post("/login", json={name: example[name] for name in ("username", "password")})
    shown = DOCUMENT["paths"]["/login"]["post"]["responses"]["200"]["content"]["application/json"]["example"]
    assert login.json().keys() == shown.keys()
    flower = {
        parameter["name"]: parameter["schema"]["examples"][0]
        for parameter in DOCUMENT["paths"]["/predict"]["get"]["parameters"]
    }
    token = login.json()["access_token"]
    assert (await service.get("/predict", token, params=flower)).json()["features"] == flower
    assert (await service.http.post("/predict", json={"rows": [flower]}, headers=bearer(token))).status_code == 200
