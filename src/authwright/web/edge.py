"""What every request passes first and last: who may ask at all, its id, its limits, the headers of every answer."""

import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from opentelemetry.trace import get_current_span
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from authwright.config import Settings, is_loopback
from authwright.domain.errors import (
    Forbidden,
    HeadersTooLarge,
    InvalidRequest,
    MisdirectedRequest,
    Refusal,
    Unavailable,
)
from authwright.web.endpoint import HeaderTable, RawEndpoint, Reply, Stream, refusal_reply
from authwright.web.errors import current_trace_id

MAX_HEADERS: Final = 32 * 1024
_FORWARDING: Final = frozenset(
    {b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port", b"x-real-ip"}
)
# Probes come by address, not by name, and tell nothing.
_PROBES: Final = frozenset({"/health", "/livez", "/readyz"})
# What tells that the process lives, whatever the store does.
_ALIVE: Final = frozenset({"/health", "/livez"})

# What web apps in browsers call by themselves (RFC 9700 section 2.6); nothing with cookies, no page, no /admin.
_CORS: Final = frozenset({"/token", "/revoke"})
_PREFLIGHT: Final = (
    (b"access-control-allow-methods", b"POST"),
    # Swagger UI sends the last one along.
    (b"access-control-allow-headers", b"authorization, content-type, x-requested-with"),
    (b"access-control-max-age", b"600"),
)

log = structlog.get_logger("authwright.requests")


class Edge:
    """ASGI middleware around the whole *app*. What *direct* names by method and path takes the short way."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        is_open: Callable[[], bool],
        observe: Callable[[Scope, str, int, int], None],
        direct: Callable[[], Mapping[tuple[str, str], RawEndpoint]],
    ) -> None:
        self._app = app
        self._direct = direct
        self._is_open = is_open
        self._observe = observe
        self._hosts = {host.encode("latin-1") for host in settings.allowed_hosts}
        self._dev = settings.is_dev
        self._origins = {b"http://" + host for host in self._hosts}
        self._cors_origins = frozenset(origin.encode("ascii") for origin in settings.cors_origins)
        self._base_path = settings.base_path
        self._realm = settings.issuer
        self._headers = [
            (b"cache-control", b"no-store"),
            (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
            (b"x-content-type-options", b"nosniff"),
        ]
        if settings.issuer.startswith("https:"):
            self._headers.append((b"strict-transport-security", b"max-age=31536000"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._request(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            raise RuntimeError(f"unknown kind of connection: {scope['type']}")

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = time.perf_counter_ns()
        # Tells requests apart and guards nothing.
        request_id = f"{random.getrandbits(64):016x}"
        scope["authwright.request_id"] = request_id
        structlog.contextvars.bind_contextvars(request_id=request_id)
        status = spent = answered = 0
        route = ""

        async def send_with_headers(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], time.perf_counter_ns() - begun
                headers = message["headers"] = list(message.get("headers", ()))
                own = {name for name, _ in headers}
                headers += [each for each in self._headers if each[0] not in own]
                headers.append((b"x-request-id", request_id.encode("ascii")))
                headers += scope.get("authwright.limits", ())
                if (trace_id := current_trace_id()) is not None:
                    # For the line below, which is written when the span has ended.
                    structlog.contextvars.bind_contextvars(trace_id=trace_id)
            await send(message)

        if "fastapi.telemetry" in scope and scope["query_string"]:
            # Mounted in an app that is traced: a reset link has its token in the query.
            get_current_span().set_attribute("url.query", "REDACTED")
        try:
            headers = self._headers
            path = _one_spelling(scope, self._base_path)
            table = self._admit(scope, path)
            if b"origin" in table and path in _CORS:
                headers = self._allow_origin(table)
                if scope["method"] == "OPTIONS" and b"access-control-request-method" in table:
                    status, route = 200, path
                    await Reply(200, b"", headers).send(send, [(b"x-request-id", request_id.encode("ascii"))])
                    return
            endpoint = self._direct().get((scope["method"], path))
            if endpoint is None:
                await self._app(scope, receive, send_with_headers)
                route = getattr(scope.get("route"), "path", "")
            else:
                route = path
                reply = await endpoint.answer(scope, receive)
                status = reply.status
                if isinstance(reply, Stream):
                    # What it takes until it begins; how long the client stays tells nothing.
                    spent = time.perf_counter_ns() - begun
                    scope["authwright.stop"] = reply.stop
                limits = scope.get("authwright.limits", ())
                await reply.send(send, [*headers, (b"x-request-id", request_id.encode("ascii")), *limits])
        except Refusal as refusal:
            await self._refuse(refusal, request_id, send_with_headers)
        except Exception:
            log.exception("failed", method=scope["method"], path=scope["path"])
            if status:
                raise
            await self._refuse(Refusal(), request_id, send_with_headers)
        finally:
            if "authwright.stop" in scope:
                spent = spent or answered
            spent = spent or time.perf_counter_ns() - begun
            self._observe(scope, route, status, spent)
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                ms=spent // 1000 / 1000,
                client=scope["client"][0] if scope.get("client") else None,
            )

    async def _refuse(self, refusal: Refusal, request_id: str, send: Send) -> None:
        await refusal_reply(refusal, oauth=False, request_id=request_id, realm=self._realm).send(send)

    def _allow_origin(self, table: HeaderTable) -> list[tuple[bytes, bytes]]:
        """The usual headers, and for a listed origin those that let its pages read the answer; never with cookies."""
        origin = table[b"origin"]
        headers = [*self._headers, (b"vary", b"origin")]
        if isinstance(origin, bytes) and origin in self._cors_origins:
            headers.append((b"access-control-allow-origin", origin))
            if b"access-control-request-method" in table:
                headers += _PREFLIGHT
        return headers

    def _admit(self, scope: Scope, path: str) -> HeaderTable:
        """The headers of a request that may be answered.

        Raises MisdirectedRequest, Forbidden, HeadersTooLarge, InvalidRequest, Unavailable.
        """
        size = 0
        table: dict[bytes, Any] = {}
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name in table:
                table[name] = [*_values(table, name), value]
            else:
                table[name] = value
        scope["authwright.headers"] = table
        if size > MAX_HEADERS:
            raise HeadersTooLarge
        host = table.get(b"host", b"")
        if type(host) is list:
            raise InvalidRequest("The header host was sent more than once.")
        if host.lower() not in self._hosts and (self._dev or path not in _PROBES):
            raise MisdirectedRequest
        if self._dev:
            self._admit_dev(scope, table, path)
        if not self._is_open() and path not in _ALIVE:
            raise Unavailable("The server is starting or stopping.")
        return table

    def _admit_dev(self, scope: Scope, table: HeaderTable, path: str) -> None:
        # Anything here may make itself an admin, so nothing but this machine's own programs and pages may ask:
        # no other machine, no proxy in between, and no web page of somebody else (DNS rebinding, CSRF).
        if not scope.get("client") or not is_loopback(scope["client"][0]):
            raise Forbidden("Development mode answers this machine only.")
        if not _FORWARDING.isdisjoint(table):
            raise Forbidden("Development mode takes no forwarded requests.")
        origins = _values(table, b"origin")
        if path in _CORS and len(origins) == 1 and origins[0] in self._cors_origins:
            return
        # A page that tells nobody where it was, as that with a reset link, has no origin for its own form either.
        own = {*self._origins, b"null"} if table.get(b"sec-fetch-site") == b"same-origin" else self._origins
        foreign = any(origin.lower() not in own for origin in origins)
        if foreign or any(site not in (b"same-origin", b"none") for site in _values(table, b"sec-fetch-site")):
            raise Forbidden("Development mode takes no requests from pages of other origins.")


def _values(table: HeaderTable, name: bytes) -> list[bytes]:
    values = table.get(name, [])
    return values if isinstance(values, list) else [values]


def _one_spelling(scope: Scope, base_path: str) -> str:
    """The path below where the app is mounted; `/me/` is answered as `/me`: a redirect would be built from `Host`.

    A proxy may pass on the issuer's own *base_path*, or take it away.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if base_path and not root and path.startswith(base_path + "/"):
        root = scope["root_path"] = base_path
    below = path.removeprefix(root) if root else path
    if len(below) > 1 and below.endswith("/"):
        below = below[:-1]
        scope["path"] = path[:-1]
    return below
