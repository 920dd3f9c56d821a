"""Protect any ASGI app: every path but those named, requests, streams and WebSockets alike.

    app = GuardMiddleware(app, guard=guard, rules=[Rule("/admin", roles={"admin"})], open_paths=["/health"])

For servers that only take the import path of a middleware there is `EnvironmentGuard`, configured by the environment.
What goes on for long is looked at again every second, and ended when its caller is revoked.
"""

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from authwright.domain.errors import InvalidRequest, Refusal, Unauthenticated, Unavailable
from authwright.guard.credential import credential
from authwright.guard.environment import read_environment
from authwright.guard.errors import PROBLEM, problem, refusal_headers
from authwright.guard.guard import Guard
from authwright.guard.policy import OnStale, require_on_stale
from authwright.guard.principal import Principal
from authwright.guard.watch import Watched

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY_VIOLATION: Final = 1008
TRY_AGAIN_LATER: Final = 1013
EXPOSITION: Final = "text/plain; version=0.0.4; charset=utf-8"
_MOST_LAYERS: Final = 32
# Paths that one program reads as another place than the next one does.
_AMBIGUOUS = re.compile(r"^[^/]|^$|//|\\|/\.{1,2}(?:[/;]|$)|[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Rule:
    """What *path* and everything below it asks for: all of *scopes*, one of *plans*, one of *roles*."""

    path: str
    scopes: Collection[str] = ()
    plans: Collection[str] | None = None
    roles: Collection[str] | None = None
    on_stale: OnStale | None = None


class _Prepared:
    """A rule, ready for use."""

    __slots__ = ("below", "on_stale", "path", "plans", "roles", "scopes")

    def __init__(self, rule: Rule) -> None:
        if not rule.path.startswith("/") or _AMBIGUOUS.search(rule.path):
            raise ValueError(f"a rule's path begins with / and means one place: {rule.path!r}")
        if any(isinstance(names, str) for names in (rule.scopes, rule.plans, rule.roles)):
            raise ValueError("scopes, plans and roles of a rule are lists")
        if rule.on_stale is not None:
            require_on_stale(rule.on_stale)
        self.path = rule.path.rstrip("/")
        self.below = self.path + "/"
        self.scopes = frozenset(rule.scopes)
        self.plans = None if rule.plans is None else frozenset(rule.plans)
        self.roles = None if rule.roles is None else frozenset(rule.roles)
        self.on_stale = rule.on_stale


class GuardMiddleware:
    """ASGI middleware: *app* is reached with a token that *guard* accepts, or at one of *open_paths*.

    The first of *rules* whose path fits says what else is asked for; without one any valid token passes. An open path
    is compared exactly and as it was sent, before any decoding. The app finds the caller with `caller(scope)`.

    At *metrics_path*, compared likewise, everybody may read `Guard.exposition`.

    A prefix that *app* takes off the path itself (`root_path`) escapes no rule, also behind middleware that has its
    app in `.app`; where that has another name, `add_middleware` of the app that has the prefix is the way.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        guard: Guard,
        rules: Sequence[Rule] = (),
        open_paths: Iterable[str] = (),
        metrics_path: str | None = None,
    ) -> None:
        if isinstance(open_paths, str):
            raise ValueError("open_paths is a list")
        self.app = app
        self._guard = guard
        self._rules = [_Prepared(rule) for rule in rules]
        self._roots = _roots_of(app)
        self._open = frozenset(path.encode("ascii") for path in open_paths)
        self._metrics_path = None if metrics_path is None else metrics_path.encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            async with self._guard:
                await self.app(scope, receive, send)
            return
        if kind not in ("http", "websocket"):
            raise RuntimeError(f"unknown kind of connection: {kind}")
        if self._open and scope.get("raw_path") in self._open:
            await self.app(scope, receive, send)
            return
        guard = self._guard
        if self._metrics_path is not None and scope.get("raw_path") == self._metrics_path and kind == "http":
            await Metrics(lambda: guard)(scope, receive, send)
            return
        try:
            rules = self._rules_of(scope) if self._rules else ()
            on_stale = next((rule.on_stale for rule in rules if rule.on_stale is not None), None)
            token = credential(scope["headers"], keys=guard.accept_keys)
            if token is None:
                raise Unauthenticated(presented=False)
            principal = guard.recall(token)
            if principal is None:
                principal = await guard.verify(token, on_stale=on_stale)
            for rule in rules:
                guard.require(principal, scopes=rule.scopes, plans=rule.plans, roles=rule.roles)
            if guard.limits and guard not in scope.setdefault("authwright.spent", {}):
                await guard.spend(principal, token)
                scope["authwright.spent"][guard] = 1
            watched = guard.watch(principal, token, on_stale)
        except Refusal as refusal:
            await _refuse(refusal, guard.audience, scope, send)
            return
        try:
            scope["authwright.guard"] = (guard, principal, on_stale)
            await self._until_revoked(watched, scope, receive, send)
        finally:
            guard.unwatch(watched)

    def _rules_of(self, scope: Scope) -> list[_Prepared]:
        """The rules to keep: the first that fits the path, and the first that fits it without a prefix that is taken
        off before routing. Raises InvalidRequest for a path that could mean two places.
        """
        path: str = scope["path"]
        if _AMBIGUOUS.search(path):
            raise InvalidRequest("The path is ambiguous.")
        paths = {path}
        for root in (scope.get("root_path", ""), *self._roots):
            if root and (path == root or path.startswith(root + "/")):
                paths.add(path[len(root) :])
        fitting = (
            next((rule for rule in self._rules if each == rule.path or each.startswith(rule.below)), None)
            for each in paths
        )
        return [rule for rule in fitting if rule is not None]

    async def _until_revoked(self, watched: Watched, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app, and end it if its caller is revoked meanwhile."""
        started = whole = False

        async def send_on(message: Message) -> None:
            nonlocal started, whole
            if watched.revoked:
                # Also to an app that takes no notice of being cancelled.
                raise StreamEnded
            kind = message["type"]
            started = started or kind in ("http.response.start", "websocket.accept")
            if kind == "http.response.start" and self._guard.limits:
                told = self._guard.limit_headers(watched.principal).items()
                headers = [(name.encode("ascii"), value.encode("ascii")) for name, value in told]
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            whole = kind == "websocket.close" or (kind == "http.response.body" and not message.get("more_body", False))
            await send(message)

        async def receive_on() -> Message:
            message = await receive()
            if watched.revoked:
                raise StreamEnded
            return message

        try:
            await self.app(scope, receive_on, send_on)
        except asyncio.CancelledError:
            if not watched.revoked or watched.take_back():
                raise
        except Exception:
            if not watched.revoked:
                raise
            await watched.absorb()
        else:
            if watched.revoked:
                await watched.absorb()
        if not watched.revoked or whole:
            return
        refusal = watched.refusal
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": close_code(refusal), "reason": refusal.public})
        elif not started:
            await _refuse(refusal, self._guard.audience, scope, send)
        else:
            # The answer has no end: the connection is closed in the middle of it.
            raise StreamEnded


def close_code(refusal: Refusal) -> int:
    """With what a WebSocket is closed for *refusal* (RFC 6455 section 7.4)."""
    return TRY_AGAIN_LATER if isinstance(refusal, Unavailable) else POLICY_VIOLATION


class StreamEnded(Exception):
    """An answer was cut off because its caller was revoked."""


class EnvironmentGuard(GuardMiddleware):
    """`GuardMiddleware` configured by the environment alone (`authwright.guard.environment.read_environment`), for
    model servers that take an import path. Raises ValueError.
    """

    def __init__(self, app: ASGIApp) -> None:
        settings = read_environment(os.environ)
        rules = [Rule("/", scopes=settings.scopes)] if settings.scopes else []
        super().__init__(
            app,
            guard=settings.guard(),
            rules=rules,
            open_paths=settings.open_paths,
            metrics_path=settings.metrics_path,
        )


class Metrics:
    """An ASGI app that answers every request with what Prometheus reads of the guard that *guard* names then."""

    def __init__(self, guard: Callable[[], Guard]) -> None:
        self._guard = guard

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        body = self._guard().exposition().encode("utf-8")
        headers = {"content-type": EXPOSITION, "content-length": str(len(body)), "cache-control": "no-store"}
        await _send(send, "http.response", 200, headers, body)


def _roots_of(app: Any) -> frozenset[str]:
    """What *app*, or one behind it, takes off a path itself: that one sees another path than the rules do."""
    roots = set()
    for _ in range(_MOST_LAYERS):
        root = getattr(app, "root_path", None)
        if isinstance(root, str) and root:
            roots.add(root)
        # By this name middleware knows what it stands before.
        app = getattr(app, "app", None)
    return frozenset(roots)


def caller(scope: Mapping[str, Any]) -> Principal | None:
    """Who was let in by the middleware; None at an open path."""
    passed = scope.get("authwright.guard")
    return None if passed is None else passed[1]


async def _refuse(refusal: Refusal, realm: str, scope: Scope, send: Send) -> None:
    """Answer with *refusal*; a WebSocket is answered like a request where the server can do that."""
    prefix = "http.response"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return
        prefix = "websocket.http.response"
    body = json.dumps(problem(refusal)).encode("ascii")
    headers = {
        "content-type": PROBLEM,
        "content-length": str(len(body)),
        "cache-control": "no-store",
        **refusal_headers(refusal, realm=realm),
    }
    await _send(send, prefix, refusal.status, headers, body)


async def _send(send: Send, prefix: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
    raw = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
    await send({"type": f"{prefix}.start", "status": status, "headers": raw})
    await send({"type": f"{prefix}.body", "body": body})
