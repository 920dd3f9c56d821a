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

from authwright.domain.errors import InvalidRequest, Refusal, Unauthenticated
from authwright.guard.credential import credential
from authwright.guard.environment import read_environment
from authwright.guard.errors import PROBLEM, problem, refusal_headers
from authwright.guard.guard import Guard, OnStale, require_on_stale
from authwright.guard.principal import Principal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY_VIOLATION: Final = 1008
# Paths that one program reads as another place than the next one does.
_AMBIGUOUS = re.compile(r"//|\\|/\.{1,2}(?:/|$)|[\x00-\x1f\x7f]")


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
    """

    def __init__(
        self, app: ASGIApp, *, guard: Guard, rules: Sequence[Rule] = (), open_paths: Iterable[str] = ()
    ) -> None:
        if isinstance(open_paths, str):
            raise ValueError("open_paths is a list")
        self._app = app
        self._guard = guard
        self._rules = [_Prepared(rule) for rule in rules]
        self._open = frozenset(path.encode("ascii") for path in open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            async with self._guard:
                await self._app(scope, receive, send)
            return
        if kind not in ("http", "websocket"):
            raise RuntimeError(f"unknown kind of connection: {kind}")
        if self._open and scope.get("raw_path") in self._open:
            await self._app(scope, receive, send)
            return
        guard = self._guard
        try:
            rule = self._rule(scope) if self._rules else None
            on_stale = None if rule is None else rule.on_stale
            token = credential(scope["headers"], keys=guard.accept_keys)
            if token is None:
                raise Unauthenticated(presented=False)
            principal = guard.recall(token)
            if principal is None:
                principal = await guard.verify(token, on_stale=on_stale)
            if rule is not None:
                guard.require(principal, scopes=rule.scopes, plans=rule.plans, roles=rule.roles)
        except Refusal as refusal:
            await _refuse(refusal, guard.audience, scope, send)
            return
        scope["authwright.guard"] = (guard, principal, on_stale)
        await self._watched(principal, scope, receive, send)

    def _rule(self, scope: Scope) -> _Prepared | None:
        """The first rule that fits. Raises InvalidRequest for a path that could mean two places."""
        path: str = scope["path"]
        if _AMBIGUOUS.search(path):
            raise InvalidRequest("The path is ambiguous.")
        root: str = scope.get("root_path", "")
        if root and (path == root or path.startswith(root + "/")):
            path = path[len(root) :]
        for rule in self._rules:
            if path == rule.path or path.startswith(rule.below):
                return rule
        return None

    async def _watched(self, principal: Principal, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app, and end it if *principal* is revoked meanwhile."""
        started = closed = False

        async def send_on(message: Message) -> None:
            nonlocal started, closed
            kind = message["type"]
            started = started or kind in ("http.response.start", "websocket.accept")
            closed = closed or kind == "websocket.close"
            await send(message)

        watched = self._guard.watch(principal)
        try:
            await self._app(scope, receive, send_on)
        except asyncio.CancelledError:
            if not watched.revoked or watched.task.uncancel() > 0:
                raise
            refusal = Unauthenticated("The token was revoked.", detail="revoked meanwhile")
            if scope["type"] == "websocket":
                if not closed:
                    await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": refusal.public})
            elif not started:
                await _refuse(refusal, self._guard.audience, scope, send)
            else:
                # The answer has no end: the connection is closed in the middle of it.
                raise StreamEnded from None
        finally:
            self._guard.unwatch(watched)


class StreamEnded(Exception):
    """An answer was cut off because its caller was revoked."""


class EnvironmentGuard(GuardMiddleware):
    """`GuardMiddleware` configured by the environment alone (`authwright.guard.environment.read_environment`), for
    model servers that take an import path. Raises ValueError.
    """

    def __init__(self, app: ASGIApp) -> None:
        settings = read_environment(os.environ)
        rules = [Rule("/", scopes=settings.scopes)] if settings.scopes else []
        super().__init__(app, guard=settings.guard(), rules=rules, open_paths=settings.open_paths)


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
    raw = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
    await send({"type": f"{prefix}.start", "status": refusal.status, "headers": raw})
    await send({"type": f"{prefix}.body", "body": body})
