"""Refusals on the wire: RFC 6749 JSON on OAuth endpoints, RFC 9457 problem details elsewhere; never the detail."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import structlog
from pydantic import BaseModel, ConfigDict, Field

from authwright.domain.errors import (
    InsufficientScope,
    InvalidClient,
    InvalidCredentials,
    Refusal,
    Unauthenticated,
    Unavailable,
)
from authwright.storage.port import StoreUnavailable

Headers = Sequence[tuple[bytes, bytes]]
JSON = "application/json"
PROBLEM = "application/problem+json"

# RFC 9110, RFC 6585. Not from the standard library, whose words differ between its versions.
TITLES: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    421: "Misdirected Request",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}

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


class OAuthError(BaseModel):
    """A refusal of an OAuth endpoint (RFC 6749 section 5.2)."""

    model_config = ConfigDict(title="OAuthError")

    error: str = Field(examples=["invalid_grant"])
    error_description: str = Field(examples=["The grant is invalid, expired or revoked."])
    request_id: str = Field(examples=["5b1d1f8a0c5e4a0d"])


def render(
    refusal: Refusal | StoreUnavailable, *, oauth: bool, request_id: str, realm: str
) -> tuple[int, dict[str, Any], Headers]:
    """Status, body and headers of *refusal*. Its detail goes to the log with the same request id."""
    if isinstance(refusal, StoreUnavailable):
        log.error("store_unavailable", detail=str(refusal))
        refusal = Unavailable(detail=str(refusal))
    elif refusal.detail:
        log.info("refused", error=refusal.code, status=refusal.status, detail=refusal.detail)
    headers: list[tuple[bytes, bytes]] = []
    if refusal.retry_after is not None:
        headers.append((b"retry-after", str(refusal.retry_after).encode("ascii")))
    if (challenge := _challenge(refusal, realm)) is not None:
        headers.append((b"www-authenticate", challenge.encode("ascii")))
    media = JSON if oauth else PROBLEM
    headers.append((b"content-type", media.encode("ascii")))
    if oauth:
        body: dict[str, Any] = {"error": refusal.code, "error_description": refusal.public, "request_id": request_id}
        return refusal.status, body, headers
    body = {
        "type": f"urn:authwright:error:{refusal.code}",
        "title": TITLES[refusal.status],
        "status": refusal.status,
        "detail": refusal.public,
        "error": refusal.code,
        "request_id": request_id,
        **refusal.members(),
    }
    return refusal.status, body, headers


def _challenge(refusal: Refusal, realm: str) -> str | None:
    """The WWW-Authenticate header (RFC 6750 section 3, RFC 6749 section 5.2)."""
    if isinstance(refusal, Unauthenticated):
        if not refusal.presented:
            return f'Bearer realm="{realm}"'
        return f'Bearer realm="{realm}", error="invalid_token", error_description="{refusal.public}"'
    if isinstance(refusal, InsufficientScope):
        return f'Bearer realm="{realm}", error="insufficient_scope", scope="{refusal.scope}"'
    if isinstance(refusal, InvalidClient):
        return f'Basic realm="{realm}"'
    if isinstance(refusal, InvalidCredentials):
        return f'Bearer realm="{realm}"'
    return None


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
