"""The server inside another app, and two servers in one process."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import authwright
from authwright.config import SettingsError
from authwright.domain.event import COMMAND_LINE
from harness import ORIGIN, Clock, Service, bearer, development, open_service


async def test_mounted_in_another_app_it_opens_in_that_apps_lifespan() -> None:
    auth = authwright.create_app(development())

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with authwright.lifespan(auth):
            yield

    app = FastAPI(lifespan=lifespan)
    app.mount("/auth", auth)

    @app.get("/own")
    def own() -> dict[str, bool]:
        return {"own": True}

    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app=app, client=("127.0.0.1", 1))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
            body = {"username": "ada", "password": "test123"}
            assert (await http.post("/auth/register", json=body)).status_code == 201
            login = (await http.post("/auth/login", data=body)).json()
            for path in ("/auth/me", "/auth/me/", "/auth/predict"):
                assert (await http.get(path, headers=bearer(login["access_token"]))).status_code == 200
            assert (await http.get("/own")).json() == {"own": True}
            assert (await http.get("/auth/docs")).status_code == 200
            assert (await http.get("/auth/docs/swagger-ui.css")).status_code == 200
            assert (await http.get("/auth/openapi.json")).json()["openapi"].startswith("3.")
            missing = await http.get("/auth/nowhere")
            assert (missing.status_code, missing.json()["error"]) == (404, "not_found")


async def test_mounted_without_its_lifespan_it_answers_503_and_not_500() -> None:
    app = FastAPI()
    app.mount("/auth", authwright.create_app(development()))
    transport = httpx2.ASGITransport(app=app, client=("127.0.0.1", 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
        assert (await http.get("/auth/me")).status_code == 503


async def test_r178_a_traced_app_around_it_learns_no_query() -> None:
    auth, spans = authwright.create_app(development()), InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    app = FastAPI(telemetry={"tracer_provider": provider})
    app.mount("/auth", auth)
    transport = httpx2.ASGITransport(app=app, client=("127.0.0.1", 1))
    async with authwright.lifespan(auth), httpx2.AsyncClient(transport=transport, base_url=ORIGIN) as http:
        assert (await http.get("/auth/reset-password?token=awp_of-a-link")).status_code == 200
        refused = await http.get("/auth/me")
    page, me = spans.get_finished_spans()
    assert page.attributes is not None
    assert (page.name, page.attributes["url.query"]) == ("GET /auth/{path}", "REDACTED")
    assert me.context is not None
    assert refused.json()["trace_id"] == f"{me.context.trace_id:032x}"


async def test_two_differently_configured_apps_in_one_process(clock: Clock) -> None:
    async with (
        open_service(clock=clock, signing_alg="EdDSA", access_token_seconds=60) as one,
        open_service(clock=clock, issuer="http://127.0.0.1:9000", port=9000, registration="admin", docs=False) as two,
    ):
        login = await one.registered_login()
        assert login["expires_in"] == 60
        refused = await two.http.post("/register", json={"username": "ada", "password": "test123"})
        assert refused.status_code == 403
        assert (await one.get("/docs")).status_code == 200
        assert (await two.get("/docs")).status_code == 404
        await two.server.register.create(
            username="bholay", email=None, password="test123", plan=None, origin=COMMAND_LINE, now=clock()
        )
        other = await two.login()
        assert other["expires_in"] == 300
        for service, good, foreign in ((one, login, other), (two, other, login)):
            assert (await service.get("/me", good["access_token"])).status_code == 200
            assert (await service.get("/me", foreign["access_token"])).status_code == 401
            assert (await service.refresh(foreign["refresh_token"])).status_code == 400


async def test_middleware_that_an_embedding_app_adds_is_passed_by_every_request() -> None:
    from starlette.responses import Response

    auth = authwright.create_app(development())

    @auth.middleware("http")
    async def closed(_request: object, _next: object) -> Response:
        return Response("closed", 403)

    async with authwright.lifespan(auth):
        transport = httpx2.ASGITransport(app=auth, client=("127.0.0.1", 1))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
            for path in ("/health", "/me", "/nowhere"):
                assert (await http.get(path)).text == "closed"
            assert (await http.post("/login", data={"username": "a", "password": "b"})).text == "closed"


def test_settings_that_cannot_be_used_make_no_app() -> None:
    with pytest.raises(SettingsError):
        authwright.create_app(authwright.Settings(host="0.0.0.0"))


async def test_without_the_ml_extra_predictions_answer_501_with_the_command(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = (await service.registered_login())["access_token"]
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    answer = await service.get("/predict", token)
    assert (answer.status_code, answer.json()["error"]) == (501, "not_installed")
    assert "pip install 'authwright[ml]'" in answer.json()["detail"]
