"""Is it alive, is it ready. The store is never read to answer the first."""

from collections.abc import Awaitable, Callable
from typing import Final

from authwright.domain.errors import InsufficientScope, Unauthenticated, Unavailable
from authwright.domain.secrets import same
from authwright.web.caller import Callers, bearer_token
from authwright.web.endpoint import Answer, Call, Endpoints, Reply, json_reply


class Health(Answer):
    status: str


_OK = json_reply({"status": "ok"})


_METRICS_HEADERS: Final = ((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),)


def _has_token(call: Call, token: str) -> bool:
    presented = bearer_token(call)
    return bool(token) and presented is not None and same(presented.encode("utf-8"), token.encode("utf-8"))


def add_health(
    endpoints: Endpoints,
    *,
    ready: Callable[[], Awaitable[None]],
    exposition: Callable[[], bytes],
    callers: Callers,
    metrics_token: str,
    metrics_open: bool,
) -> None:
    """`/health`, `/livez`, `/readyz`, `/metrics`.

    *ready* raises StoreUnavailable while requests could not be answered. The metrics are for administrators and for
    who has the *metrics_token* (empty: nobody), or for everybody.
    """

    async def metrics(call: Call) -> Reply:
        """Metrics for Prometheus. For administrators, and for the bearer of `METRICS_TOKEN`."""
        if not metrics_open and not _has_token(call, metrics_token):
            await callers.admin(call)
        return Reply(200, exposition(), _METRICS_HEADERS)

    endpoints.add(
        "GET",
        "/metrics",
        metrics,
        name="metrics",
        summary="Metrics",
        tag="operation",
        answer=Health,
        refusals=(Unauthenticated, InsufficientScope),
        secured=True,
        media="text/plain",
    )

    async def health(_call: Call) -> Reply:
        """The process answers."""
        return _OK

    async def readyz(_call: Call) -> Reply:
        """The process answers, so does its store, and what was changed on this machine is known."""
        await ready()
        return _OK

    for path, name, summary in (("/health", "health", "Health"), ("/livez", "livez", "Liveness")):
        endpoints.add(
            "GET", path, health, name=name, summary=summary, tag="operation", answer=Health, example={"status": "ok"}
        )
    endpoints.add(
        "GET",
        "/readyz",
        readyz,
        name="readyz",
        summary="Readiness",
        tag="operation",
        answer=Health,
        refusals=(Unavailable,),
        example={"status": "ok"},
    )
