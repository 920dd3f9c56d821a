"""Is it alive, is it ready. The store is never read to answer the first."""

from collections.abc import Awaitable, Callable

from authwright.domain.errors import Unavailable
from authwright.web.endpoint import Answer, Call, Endpoints, Reply, json_reply


class Health(Answer):
    status: str


_OK = json_reply({"status": "ok"})


def add_health(endpoints: Endpoints, *, ready: Callable[[], Awaitable[None]]) -> None:
    """`/health`, `/livez`, `/readyz`. *ready* raises StoreUnavailable while requests could not be answered."""

    async def health(_call: Call) -> Reply:
        """The process answers."""
        return _OK

    async def readyz(_call: Call) -> Reply:
        """The process answers, and so does its store."""
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
