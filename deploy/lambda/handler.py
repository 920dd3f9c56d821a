"""AWS Lambda behind API Gateway, a function URL or a load balancer. Handler: handler.handler."""

from typing import Any

from mangum import Mangum

from authwright.serverless import Serverless

_server = Serverless()


async def _app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    event = scope.get("aws.event", {})
    if "elb" in event.get("requestContext", {}):
        # A load balancer adds the caller's address to whatever the caller has sent under this name.
        forwarded = event.get("headers", {}).get("x-forwarded-for", "")
        scope["client"] = (forwarded.rpartition(",")[2].strip(), 0)
    await _server(scope, receive, send)


# Made once for each container; the store is opened with its first request.
handler = Mangum(_app, lifespan="off")
