"""A server and its routes, as a FastAPI app."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from typing import TYPE_CHECKING

import structlog
from fastapi import FastAPI
from fastapi.exceptions import HTTPException
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from authwright.app.server import Server, system_clock
from authwright.config import Settings, as_mode, load_settings
from authwright.domain.errors import MethodNotAllowed, NotFound, Refusal
from authwright.domain.instant import Instant
from authwright.storage.port import OutdatedStore
from authwright.web.accounts import Accounts, AccountServices, add_accounts
from authwright.web.admin import AdminRoutes, add_admin
from authwright.web.allowance import add_allowance
from authwright.web.caller import Callers
from authwright.web.docs import add_docs
from authwright.web.edge import Edge
from authwright.web.endpoint import Brake, Endpoints, refusal_reply
from authwright.web.forward_auth import ForwardAuth, add_forward_auth
from authwright.web.health import add_health
from authwright.web.me import Me, add_me
from authwright.web.oauth.introspect import add_introspect
from authwright.web.oauth.metadata import add_metadata
from authwright.web.oauth.revoke import add_revoke
from authwright.web.oauth.token import add_token
from authwright.web.reset import add_reset
from authwright.web.revocations import add_revocations
from authwright.web.samples import add_samples
from authwright.web.usage import add_usage
from authwright.web.users import UserRoutes, add_users

if TYPE_CHECKING:
    from authwright.tracing import Tracing

DESCRIPTION = """Accounts, API clients, tokens that verify locally, and a logout that is honoured at once.

**Authorize** logs in with user name and password, or takes a pasted access token."""

log = structlog.get_logger("authwright")


class EdgedApp(FastAPI):
    """A FastAPI app whose every request passes the *edge* first, before FastAPI's own middleware."""

    edge: Edge

    async def inner(self, scope: Scope, receive: Receive, send: Send) -> None:
        """FastAPI itself."""
        await super().__call__(scope, receive, send)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.edge(scope, receive, send)


def app_of(server: Server) -> FastAPI:
    """The routes of *server*."""
    settings = server.settings
    app = EdgedApp(
        title="Authwright",
        version=version("authwright"),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        telemetry=_telemetry(server.tracing),
    )
    app.state.authwright = server
    brake = Brake(settings.refusal_delay_ms / 1000)
    endpoints = Endpoints(app, realm=settings.issuer, brake=brake)
    password_grant = settings.profile != "oauth21"
    callers = Callers(server.verify, server.api_keys, server.clock)
    charged = Callers(server.verify, server.api_keys, server.clock, server.limits)
    services = AccountServices(server.register, server.login, server.refresh, server.logout, server.whoami)
    accounts = Accounts(services, callers, charged, server.clock, password_grant=password_grant)
    add_accounts(endpoints, accounts)
    me = Me(
        users=server.users,
        passwords=server.passwords,
        api_keys=server.api_keys,
        logout=server.logout,
        callers=charged,
        clock=server.clock,
    )
    add_me(endpoints, me)
    users = UserRoutes(
        users=server.users,
        register=server.register,
        passwords=server.passwords,
        whoami=server.whoami,
        callers=charged,
        clock=server.clock,
    )
    add_users(endpoints, users)
    add_token(
        endpoints,
        login=server.login,
        refresh=server.refresh,
        clients=server.clients,
        clock=server.clock,
        password_grant=password_grant,
    )
    add_reset(endpoints, passwords=server.passwords, clock=server.clock)
    add_samples(
        endpoints,
        callers=charged,
        predict=server.predict,
        usage=server.usage,
        analytics=server.analytics,
        clock=server.clock,
    )
    admin = AdminRoutes(
        clients=server.clients,
        users=server.users,
        api_keys=server.api_keys,
        logout=server.logout,
        events=server.events,
        plans=server.plans,
        callers=callers,
        clock=server.clock,
    )
    add_admin(endpoints, admin)
    add_usage(
        endpoints,
        report=server.usage_report,
        plans=server.plans,
        users=server.users,
        callers=callers,
        measured=Callers(server.verify, server.api_keys, server.clock, server.limits, quotas=False),
        clock=server.clock,
    )
    add_revocations(endpoints, revoke=server.revoke, callers=callers, open_here=settings.is_dev)
    add_introspect(
        endpoints,
        introspect=server.introspect,
        clients=server.clients,
        callers=callers,
        clock=server.clock,
        open_here=settings.is_dev,
    )
    add_revoke(endpoints, revoke_token=server.revoke_token, clients=server.clients, clock=server.clock)
    add_allowance(
        endpoints,
        lease=server.lease,
        clients=server.clients,
        callers=callers,
        clock=server.clock,
        open_here=settings.is_dev,
    )
    forward_auth = ForwardAuth(
        server.verify,
        server.api_keys,
        server.clock,
        limits=server.limits,
        audiences=server.tokens.known_audiences,
        brake=brake,
        realm=settings.issuer,
    )
    add_forward_auth(endpoints, forward_auth)
    add_metadata(endpoints, keyring=server.keyring, clock=server.clock)
    add_health(
        endpoints,
        ready=server.ready,
        exposition=server.exposition,
        callers=callers,
        metrics_token=settings.metrics_token,
        metrics_open=settings.is_dev,
    )
    if settings.docs:
        add_docs(app, description=DESCRIPTION)

    async def unrouted(request: Request, error: Exception) -> Response:
        status, allow = 500, {}
        if isinstance(error, StarletteHTTPException):
            status, allow = error.status_code, dict(error.headers or {})
        refusal: Refusal = {404: NotFound, 405: MethodNotAllowed}.get(status, Refusal)()
        request_id = request.scope["authwright.request_id"]
        reply = refusal_reply(refusal, oauth=False, request_id=request_id, realm=settings.issuer)
        headers = {name.decode("ascii"): value.decode("ascii") for name, value in reply.headers}
        return Response(reply.body, reply.status, headers={**allow, **headers})

    app.add_exception_handler(HTTPException, unrouted)
    app.add_exception_handler(StarletteHTTPException, unrouted)
    app.edge = Edge(
        app.inner,
        settings=settings,
        is_open=lambda: server.is_open,
        observe=server.observe,
        # What an embedding app puts around this one must be passed, and FastAPI traces its own way alone.
        direct=lambda: {} if app.user_middleware or server.tracing else endpoints.direct,
    )
    return app


def create_app(settings: Settings, *, clock: Callable[[], Instant] = system_clock) -> FastAPI:
    """An Authwright server with *settings* as a FastAPI app, to be run or mounted. Raises SettingsError.

    Run by itself it opens with its own lifespan. Mounted in another app, whose lifespan is the only one that runs,
    open it there: `async with authwright.lifespan(app): ...`.
    """
    return app_of(Server(settings, clock=clock))


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the server behind *app* (made by `create_app`) and close it at the end."""
    server: Server = app.state.authwright
    try:
        await server.open()
    except OutdatedStore as error:
        # The process lives, and is not ready, until the store is migrated.
        log.error("store_outdated", detail=str(error))
    follower = asyncio.create_task(server.follow())
    try:
        yield
    finally:
        follower.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await follower
        await server.close()


def from_environment() -> FastAPI:
    """The app that `authwright serve` runs in each worker, configured by the environment alone."""
    return create_app(load_settings(as_mode(os.environ.get("AUTHWRIGHT_MODE", "serve"))))


def _telemetry(tracing: "Tracing | None") -> TelemetryConfig:
    """What FastAPI is told: spans of requests alone. It has no logs or metrics to send: services.metrics has."""
    if tracing is None:
        return {"tracing": False}
    return {
        "tracer_provider": tracing.provider,
        "tracing": True,
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "auto_configure": False,
        "exclude": tracing.leaves_out,
    }
