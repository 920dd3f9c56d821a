"""The LiteLLM proxy takes Authwright's tokens and keys: name `authwright.guard.litellm.user_api_key_auth` as its
`custom_auth`. Configured by the environment, as `authwright.guard.asgi.EnvironmentGuard` is.
"""

import os
from functools import cache
from typing import Any

from litellm.proxy._types import ProxyException, UserAPIKeyAuth

from authwright.domain.errors import Refusal, Unauthenticated
from authwright.guard.asgi import Metrics
from authwright.guard.environment import read_environment
from authwright.guard.errors import refusal_headers
from authwright.guard.guard import Guard


@cache
def _guard() -> tuple[Guard, frozenset[str]]:
    settings = read_environment(os.environ)
    return settings.guard(), settings.scopes


def _show_metrics(path: str) -> None:
    """Let the proxy answer at *path* with what Prometheus reads of the guard."""
    from litellm.proxy.proxy_server import app

    app.add_route(path, Metrics(lambda: _guard()[0]), methods=["GET"], include_in_schema=False)
    # The proxy has routes that would take any path.
    app.router.routes.insert(0, app.router.routes.pop())


# The proxy loads this module once, after its own app is made.
if os.environ.get("AUTHWRIGHT_GUARD_METRICS_PATH"):
    _show_metrics(str(read_environment(os.environ).metrics_path))


async def user_api_key_auth(request: Any, api_key: str) -> UserAPIKeyAuth:
    """Who *api_key*, an access token or a key, speaks for: spend and limits count by subject.

    With AUTHWRIGHT_GUARD_LIMITS a call costs one unit of the caller's plan, and the proxy is told what the plan allows.

    Raises ProxyException, of which alone the proxy keeps the headers.
    """
    guard, scopes = _guard()
    try:
        if not api_key:
            raise Unauthenticated(presented=False)
        token = api_key.removeprefix("Bearer ").strip(" ")
        principal = await guard.verify(token)
        guard.require(principal, scopes=scopes)
        await guard.spend(principal, token)
    except Refusal as refusal:
        headers = refusal_headers(refusal, realm=guard.audience)
        code, status = refusal.code, refusal.status
        raise ProxyException(refusal.public, type=code, param=None, code=status, headers=headers) from None
    terms = guard.terms(principal)
    rate = None if terms is None else terms.rate
    return UserAPIKeyAuth(
        # Not what was presented: this is stored, and the same for all tokens of a caller.
        api_key=principal.subject,
        user_id=principal.subject,
        key_alias=principal.username,
        rpm_limit=None if rate is None else max(1, rate.count * 60 // rate.seconds),
        max_parallel_requests=None if terms is None else terms.concurrent,
        metadata={"plan": principal.plan, "client_id": principal.client_id},
    )
