"""How a refusal looks on the wire of a protected API: problem details (RFC 9457) and the challenge (RFC 6750)."""

from typing import Any, Final

from authwright.domain.errors import InsufficientScope, InvalidClient, InvalidCredentials, Refusal, Unauthenticated

PROBLEM: Final = "application/problem+json"

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


def problem(refusal: Refusal) -> dict[str, Any]:
    """*refusal* as problem details; its private detail is not in them."""
    return {
        "type": f"urn:authwright:error:{refusal.code}",
        "title": TITLES[refusal.status],
        "status": refusal.status,
        "detail": refusal.public,
        "error": refusal.code,
        **refusal.members(),
    }


def refusal_headers(refusal: Refusal, *, realm: str) -> dict[str, str]:
    """The headers that belong to *refusal*: when to come again, and the challenge of the protection space *realm*."""
    headers: dict[str, str] = {}
    if refusal.retry_after is not None:
        headers["retry-after"] = str(refusal.retry_after)
    if (challenge := _challenge(refusal, realm)) is not None:
        headers["www-authenticate"] = challenge
    return headers


def _challenge(refusal: Refusal, realm: str) -> str | None:
    """The WWW-Authenticate header (RFC 6750 section 3, RFC 6749 section 5.2)."""
    if isinstance(refusal, Unauthenticated):
        bearer = f'Bearer realm="{realm}"'
        if refusal.presented:
            bearer += f', error="invalid_token", error_description="{refusal.public}"'
        # In one line: of two some proxies pass on one.
        return f'{bearer}, Basic realm="{realm}", charset="UTF-8"' if refusal.basic else bearer
    if isinstance(refusal, InsufficientScope):
        return f'Bearer realm="{realm}", error="insufficient_scope", scope="{refusal.scope}"'
    if isinstance(refusal, InvalidClient):
        return f'Basic realm="{realm}"'
    if isinstance(refusal, InvalidCredentials):
        return f'Bearer realm="{realm}"'
    return None
