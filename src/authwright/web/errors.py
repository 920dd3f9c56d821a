"""Refusals on the wire: RFC 6749 JSON on OAuth endpoints, RFC 9457 problem details elsewhere; never the detail."""

from collections.abc import Iterator, Sequence
from typing import Any

import structlog
from opentelemetry.trace import format_trace_id, get_current_span
from pydantic import BaseModel, ConfigDict, Field

from authwright.domain.errors import Refusal, Unavailable
from authwright.guard.errors import PROBLEM, TITLES, problem, refusal_headers
from authwright.storage.port import StoreUnavailable

Headers = Sequence[tuple[bytes, bytes]]
JSON = "application/json"

log = structlog.get_logger("authwright.refusals")


class Problem(BaseModel):
    """A refusal (RFC 9457)."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(examples=["urn:authwright:error:invalid_credentials"])
    title: str = Field(examples=["Unauthorized"])
    status: int = Field(examples=[401])
    detail: str = Field(examples=["The credentials are not valid."])
    error: str = Field(description="Stable code of the refusal.", examples=["invalid_credentials"])
    request_id: str = Field(description="Stands in the log, too.", examples=["5b1d1f8a0c5e4a0d"])
    trace_id: str | None = Field(default=None, description="Only where requests are traced.")


class OAuthError(BaseModel):
    """A refusal of an OAuth endpoint (RFC 6749 section 5.2)."""

    model_config = ConfigDict(title="OAuthError")

    error: str = Field(examples=["invalid_grant"])
    error_description: str = Field(examples=["The grant is invalid, expired or revoked."])
    request_id: str = Field(examples=["5b1d1f8a0c5e4a0d"])
    trace_id: str | None = Field(default=None, description="Only where requests are traced.")


def render(
    refusal: Refusal | StoreUnavailable, *, oauth: bool, request_id: str, realm: str
) -> tuple[int, dict[str, Any], Headers]:
    """Status, body and headers of *refusal*. Its detail goes to the log with the same request id."""
    if isinstance(refusal, StoreUnavailable):
        log.error("store_unavailable", detail=str(refusal))
        refusal = Unavailable(detail=str(refusal))
    elif refusal.detail:
        log.info("refused", error=refusal.code, status=refusal.status, detail=refusal.detail)
    ids = {"request_id": request_id}
    if (trace_id := current_trace_id()) is not None:
        ids["trace_id"] = trace_id
    own = refusal_headers(refusal, realm=realm)
    headers = [(name.encode("ascii"), value.encode("ascii")) for name, value in own.items()]
    media = JSON if oauth else PROBLEM
    headers.append((b"content-type", media.encode("ascii")))
    if oauth:
        body: dict[str, Any] = {"error": refusal.code, "error_description": refusal.public, **ids}
        return refusal.status, body, headers
    return refusal.status, {**problem(refusal), **ids}, headers


def current_trace_id() -> str | None:
    """The trace that the current request belongs to, if it is traced (W3C Trace Context, 32 hex digits)."""
    context = get_current_span().get_span_context()
    return format_trace_id(context.trace_id) if context.is_valid else None


def documented(refusals: Sequence[type[Refusal]], *, oauth: bool) -> Iterator[tuple[int | str, dict[str, Any]]]:
    """What the document says of *refusals*, a response for each status."""
    by_status: dict[int, list[type[Refusal]]] = {}
    for refusal in refusals:
        by_status.setdefault(refusal.status, []).append(refusal)
    media, model = (JSON, OAuthError) if oauth else (PROBLEM, Problem)
    for status, kinds in sorted(by_status.items()):
        codes = ", ".join(f"`{code}`" for code in dict.fromkeys(kind.code for kind in kinds))
        schema = {"$ref": f"#/components/schemas/{model.__name__}"}
        yield status, {"description": f"{TITLES[status]}: {codes}", "content": {media: {"schema": schema}}}
