"""/forward-auth: may this request pass? Asked by a proxy before each request to something that knows no tokens.

The policy (`audience`, `scope`, `plan`) is the proxy's, in the query; Envoy, which puts the path of the request behind
a prefix of its own and keeps its query, has it in the prefix instead. nginx makes 500 of what is not 2xx, 401 or 403,
and drops the body: `proxy=nginx` answers those only, and says in headers what the whole answer would have been.
"""

import json
import re
from collections.abc import Callable
from typing import Any, Final, Literal
from urllib.parse import quote, unquote_to_bytes

from pydantic import Field

from authwright.domain.errors import (
    Forbidden,
    InsufficientScope,
    InvalidRequest,
    LimitExceeded,
    PlanNotAvailable,
    Refusal,
    TooManyAttempts,
    Unauthenticated,
    Unavailable,
)
from authwright.domain.instant import Instant
from authwright.domain.plan import format_scope, parse_scope
from authwright.domain.secrets import is_key
from authwright.guard.credential import credential
from authwright.guard.principal import Principal
from authwright.services.api_keys import ApiKeys
from authwright.services.limits import Limits
from authwright.services.verify import Verify
from authwright.storage.port import StoreUnavailable
from authwright.web.caller import origin_of
from authwright.web.endpoint import (
    Answer,
    Body,
    Brake,
    Call,
    Endpoints,
    HeaderTable,
    Reply,
    parameters_of,
    query_as,
    refusal_reply,
)
from authwright.web.limits import charge

# Where proxies say which path was asked for.
_PATH_HEADERS: Final = (b"x-forwarded-uri", b"x-original-uri", b"x-original-url", b"x-envoy-original-path")
# What one server reads as another place than the next one does (CVE-2026-33494): decided nowhere, passed to nobody.
_AMBIGUOUS: Final = re.compile(r"//|\\|#|/\.{1,2}(?:[/;]|$)|[\x00-\x1f\x7f]")
_ENCODED: Final = re.compile(r"%2f|%5c|%25|%00", re.IGNORECASE)
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_NOBODY: Final = "-"


class Policy(Body):
    """What the proxy asks for."""

    audience: str | None = Field(default=None, description="The API that a token must be for; else the issuer.")
    scope: str | None = Field(default=None, description="Scopes that are all needed, separated by spaces or commas.")
    plan: str | None = Field(default=None, description="Plans of which one is needed, separated by spaces or commas.")
    proxy: Literal["nginx"] | None = Field(default=None, description="Answer with 200, 401 and 403 only.")


class Passed(Answer):
    """Who may pass stands in the headers `X-Auth-Subject`, `-Client`, `-Username`, `-Plan`, `-Roles`, `-Scope`."""


class ForwardAuth:
    """Judges requests for proxies; *audiences* are those a policy may name."""

    def __init__(
        self,
        verify: Verify,
        api_keys: ApiKeys,
        clock: Callable[[], Instant],
        *,
        limits: Limits,
        audiences: tuple[str, ...],
        brake: Brake,
        realm: str,
    ) -> None:
        self._brake = brake
        self._verify = verify
        self._api_keys = api_keys
        self._clock = clock
        self._audiences = audiences
        self._limits = limits
        self._realm = realm

    async def answer(self, call: Call, policy: bytes, path: str | None) -> Reply:
        """Whether *call* satisfies *policy*, as it stands in a query, for a request to *path*."""
        try:
            principal = await self._judge(call, _policy(policy), path)
        except (Refusal, StoreUnavailable) as refusal:
            if isinstance(refusal, Unauthenticated):
                refusal.basic = _may_try_basic(call)
            # Also where the policy itself is at fault.
            if b"proxy=nginx" not in policy.split(b"&"):
                raise
            if isinstance(refusal, TooManyAttempts):
                await self._brake.hold()
            return self._for_nginx(refusal, call)
        return Reply(200, b"{}", (*_identity(principal), (b"content-type", b"application/json")))

    async def _judge(self, call: Call, policy: Policy, path: str | None) -> Principal:
        for asked in (path, *(call.header(name) for name in _PATH_HEADERS)):
            if asked is not None and _is_ambiguous(asked):
                raise InvalidRequest("The path is ambiguous.")
        audience = policy.audience
        if audience is not None and audience not in self._audiences:
            raise Unavailable("This server knows no such audience.", detail="forward-auth for an unknown audience")
        presented = credential(call.scope["headers"], keys=True, basic=True)
        if presented is None:
            raise Unauthenticated(presented=False)
        if is_key(presented):
            origin = origin_of(call)
            principal = await self._api_keys.principal(presented, origin=origin, now=self._clock(), audience=audience)
        else:
            principal = await self._verify.token(presented, now=self._clock(), audience=audience)
        call.scope["authwright.caller"] = principal
        # Who may not pass pays for asking, too, as at every route of this server.
        await charge(call, principal, self._limits, now=self._clock())
        if policy.scope is not None:
            needed = parse_scope(policy.scope.replace(",", " "))
            if not needed <= principal.scopes:
                raise InsufficientScope(format_scope(needed))
        if policy.plan is not None and principal.plan not in re.split("[ ,]", policy.plan):
            raise Forbidden("Your plan does not include this.", detail="plan")
        return principal

    def _for_nginx(self, refusal: Refusal | StoreUnavailable, call: Call) -> Reply:
        reply = refusal_reply(refusal, oauth=False, request_id=call.request_id, realm=self._realm)
        code = refusal.code if isinstance(refusal, Refusal) else Unavailable.code
        status = reply.status if reply.status in (401, 403) else 403
        told = (
            (b"x-auth-status", b"%d" % reply.status),
            (b"x-auth-reason", code.encode("ascii")),
            (b"x-auth-body", json.dumps(json.loads(reply.body)).encode("ascii")),
        )
        return Reply(status, reply.body, (*reply.headers, *told))


def _identity(principal: Principal) -> list[tuple[bytes, bytes]]:
    """Headers that say who it is: always all of them, so that none that a caller sent along survives."""
    named = {
        "subject": principal.subject,
        "client": principal.client_id,
        "username": principal.username,
        "plan": principal.plan,
        "roles": ",".join(principal.roles),
        "scope": format_scope(principal.scopes),
    }
    # Names may have any letters, headers may not (RFC 9110 section 5.5).
    return [
        (f"x-auth-{name}".encode("ascii"), quote(value or _NOBODY, safe=" ,:@!$&'()*+=~").encode("ascii"))
        for name, value in named.items()
    ] + [(b"x-auth-status", b"200")]


def _policy(encoded: bytes) -> Policy:
    """The policy in *encoded*. Raises InvalidRequest for one that is there but empty, as a variable may have been."""
    given = parameters_of(encoded, blank=True)
    policy = query_as(Policy, given)
    if any("" in re.split("[ ,]", value) for value in given.values()):
        raise InvalidRequest("A part of the policy is empty.")
    return policy


def _may_try_basic(call: Call) -> bool:
    # Not a page in a browser, which would ask its user for a password, nor who knows something better.
    headers: HeaderTable = call.scope["authwright.headers"]
    scheme = (call.header(b"authorization") or "").partition(" ")[0].lower()
    accepted = b" ".join(value for name, value in call.scope["headers"] if name == b"accept")
    return (
        scheme != "bearer" and b"text/html" not in accepted and not {b"x-api-key", b"sec-fetch-mode"} & headers.keys()
    )


def _is_ambiguous(path: str) -> bool:
    path = path.partition("?")[0]
    try:
        decoded = unquote_to_bytes(path.encode("latin-1")).decode("utf-8")
    except UnicodeError:
        # Overlong forms of dots and slashes are no UTF-8, and dots and slashes to somebody.
        return True
    return not path.startswith("/") or _ENCODED.search(path) is not None or _AMBIGUOUS.search(decoded) is not None


def add_forward_auth(endpoints: Endpoints, forward_auth: ForwardAuth) -> None:
    """`GET /forward-auth`, and `/forward-auth/POLICY/...` with every method."""

    async def by_query(call: Call) -> Reply:
        """Whether the request that carries these headers may pass: 200 with the caller in `X-Auth-...` headers, or
        the refusal. The credential is a bearer token, or a key: as bearer, as `X-API-Key`, as password of HTTP Basic.
        """
        return await forward_auth.answer(call, call.scope["query_string"], None)

    async def by_prefix(call: Call) -> Reply:
        """The same for Envoy: the policy is the part of the path after `/forward-auth/` (`-` for none)."""
        raw: bytes = call.scope.get("raw_path") or call.scope["path"].encode("utf-8")
        _, prefix, rest = raw.partition(b"/forward-auth/")
        encoded, _, path = rest.partition(b"/")
        if not prefix or not encoded:
            raise InvalidRequest("The policy is missing.")
        return await forward_auth.answer(call, b"" if encoded == b"-" else encoded, "/" + path.decode("latin-1"))

    described: dict[str, Any] = {
        "summary": "May this request pass?",
        "tag": "guards",
        "answer": Passed,
        "refusals": (Unauthenticated, InsufficientScope, Forbidden, PlanNotAvailable, TooManyAttempts, LimitExceeded),
        "secured": True,
    }
    endpoints.add("GET", "/forward-auth", by_query, name="forward_auth", query=Policy, **described)
    for method in _METHODS:
        name = f"forward_auth_{method.lower()}"
        endpoints.add(method, "/forward-auth/{policy:path}", by_prefix, name=name, hidden=True, **described)
