"""Every refusal the product can give: a stable code, a status, a text for the caller and a detail for the log.

    Refusal
    ├── InvalidRequest ── PayloadTooLarge, UnsupportedMediaType, HeadersTooLarge
    ├── InvalidGrant, InvalidClient, UnauthorizedClient, UnsupportedGrantType, InvalidScope, InvalidTarget  (RFC 6749)
    ├── UnsupportedTokenType    a key, where a token is to be revoked (RFC 7009)
    ├── InvalidCredentials      a login that failed, for whatever reason
    ├── Unauthenticated         no usable bearer token (RFC 6750)
    ├── InsufficientScope, Forbidden, PlanNotAvailable, RegistrationClosed, PlanNotSelfService
    ├── AlreadyRegistered, Conflicting, WeakPassword, InvalidName, UnknownPlan
    ├── NotFound, NotInstalled
    ├── LimitExceeded           the plan allows no more just now
    ├── TooManyAttempts         slowed down: try again after `retry_after` seconds
    └── Unavailable ── Busy     try again after `retry_after` seconds

`public` may be shown to anybody; `detail` goes to the log and nowhere else.
"""

from collections.abc import Mapping
from typing import ClassVar


class Refusal(Exception):
    """Base of all refusals. Not to be raised itself."""

    code: ClassVar[str] = "server_error"
    status: ClassVar[int] = 500
    default: ClassVar[str] = "Something went wrong."
    retry_after: int | None = None

    def __init__(self, public: str | None = None, *, detail: str = "") -> None:
        super().__init__(public or self.default)
        self.public = public or self.default
        self.detail = detail

    def members(self) -> Mapping[str, object]:
        """Further members of the answer, safe to show."""
        return {}


class InvalidRequest(Refusal):
    """The request is malformed. *problems* names fields and what is wrong with them, never their values."""

    code, status, default = "invalid_request", 400, "The request is malformed."

    def __init__(
        self, public: str | None = None, *, detail: str = "", problems: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(public, detail=detail)
        self.problems = dict(problems or {})

    def members(self) -> Mapping[str, object]:
        return {"problems": self.problems} if self.problems else {}


class UnprocessableContent(InvalidRequest):
    """The body is well-formed JSON, but not what this endpoint takes."""

    status, default = 422, "The body is not what this endpoint takes."


class PayloadTooLarge(InvalidRequest):
    status, default = 413, "The body is too large."


class HeadersTooLarge(InvalidRequest):
    status, default = 431, "The headers are too large."


class UnsupportedMediaType(InvalidRequest):
    status, default = 415, "This content type or encoding is not accepted here."


class InvalidGrant(Refusal):
    code, status, default = "invalid_grant", 400, "The grant is invalid, expired or revoked."


class InvalidClient(Refusal):
    code, status, default = "invalid_client", 401, "Client authentication failed."


class UnauthorizedClient(Refusal):
    code, status, default = "unauthorized_client", 400, "This client may not use this grant."


class UnsupportedGrantType(Refusal):
    code, status, default = "unsupported_grant_type", 400, "This grant type is not supported."


class UnsupportedTokenType(Refusal):
    """RFC 7009 section 2.2.1."""

    code, status = "unsupported_token_type", 400
    default = "Tokens are revoked here, keys are not: delete an API key, rotate a client key."


class InvalidScope(Refusal):
    code, status, default = "invalid_scope", 400, "The scope is unknown or wider than granted."


class InvalidTarget(Refusal):
    """RFC 8707 section 2."""

    code, status, default = "invalid_target", 400, "The resource is unknown or was not granted."


class InvalidCredentials(Refusal):
    """One answer for a wrong name, a wrong password, a disabled account and a wrong key."""

    code, status, default = "invalid_credentials", 401, "The credentials are not valid."


class Unauthenticated(Refusal):
    """RFC 6750 section 3. Without `error` no credential was sent at all. *basic*: HTTP Basic would do, too."""

    code, status, default = "invalid_token", 401, "A valid access token is needed."

    def __init__(self, public: str | None = None, *, detail: str = "", presented: bool = True) -> None:
        super().__init__(public, detail=detail)
        self.presented = presented
        self.basic = False


class InsufficientScope(Refusal):
    code, status, default = "insufficient_scope", 403, "The access token does not allow this."

    def __init__(self, scope: str) -> None:
        super().__init__(f"This needs the scope {scope!r}.")
        self.scope = scope


class Forbidden(Refusal):
    code, status, default = "forbidden", 403, "This is not allowed."


class PlanNotAvailable(Refusal):
    code, status = "plan_not_available", 403
    default = "Your plan does not exist here any more; an administrator can give you another one."


class RegistrationClosed(Refusal):
    code, status = "registration_closed", 403
    default = "Registration is closed here; an administrator creates accounts."


class PlanNotSelfService(Refusal):
    code, status = "plan_not_self_service", 403
    default = "This plan cannot be chosen at registration; an administrator assigns it."


class UnknownPlan(Refusal):
    code, status, default = "unknown_plan", 422, "There is no such plan."


class AlreadyRegistered(Refusal):
    """Does not say which of name and address is taken."""

    code, status, default = "already_registered", 409, "This user name or e-mail address is already registered."


class WeakPassword(Refusal):
    code, status, default = "weak_password", 422, "This password cannot be used."


class InvalidName(Refusal):
    code, status, default = "invalid_name", 422, "This user name or e-mail address cannot be used."


class NotFound(Refusal):
    code, status, default = "not_found", 404, "There is nothing here."


class MethodNotAllowed(Refusal):
    code, status, default = "method_not_allowed", 405, "This method is not allowed here."


class MisdirectedRequest(Refusal):
    """The request is not for this server (RFC 9110 section 15.5.20), or comes from where it may not."""

    code, status, default = "misdirected_request", 421, "This server does not answer for that host."


class NotInstalled(Refusal):
    code, status, default = "not_installed", 501, "This feature is not installed."


class Conflicting(Refusal):
    """Somebody else changed the same thing at the same time."""

    code, status, default = "conflict", 409, "This was changed by somebody else meanwhile; look again."


class TooManyAttempts(Refusal):
    """Slowed down. What was sent was neither checked nor counted."""

    code, status, default = "too_many_attempts", 429, "Too many attempts; try again later."

    def __init__(self, public: str | None = None, *, detail: str = "", retry_after: int = 1) -> None:
        super().__init__(public, detail=detail)
        self.retry_after = retry_after


class LimitExceeded(Refusal):
    """The plan allows no more just now. *limit* is `rate`, `day`, `month` or `concurrent`; *policy* what the plan says.

    *opens_at* (RFC 3339) and *retry_after* (seconds) are None where waiting does not help, or nobody knows how long.
    """

    code, status, default = "limit_exceeded", 429, "Your plan allows no more calls just now."

    def __init__(
        self, public: str, *, limit: str, policy: str, retry_after: int | None = None, opens_at: str | None = None
    ) -> None:
        super().__init__(public, detail=f"limit: {limit}")
        self.limit = limit
        self.policy = policy
        self.retry_after = retry_after
        self.opens_at = opens_at

    def members(self) -> Mapping[str, object]:
        return {
            "limit": self.limit,
            "policy": self.policy,
            "opens_at": self.opens_at,
            "violated-policies": [self.limit],
        }


class Unavailable(Refusal):
    """What is needed to answer is away. Tokens go on being verified."""

    code, status, default = "temporarily_unavailable", 503, "The service cannot answer just now."

    def __init__(self, public: str | None = None, *, detail: str = "", retry_after: int = 1) -> None:
        super().__init__(public, detail=detail)
        self.retry_after = retry_after


class Busy(Unavailable):
    """A bounded queue is full; decided before anything about the account was looked up."""

    default = "Too many logins at once; try again shortly."
