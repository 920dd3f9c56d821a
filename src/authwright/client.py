"""A client of Authwright for programs: it logs in, keeps the tokens fresh, and sends them where they belong.

    from authwright.client import Client

    with Client("https://auth.example.com", client_key=KEY) as auth:
        print(auth.me().username)
        answer = auth.get("/predict")

`AsyncClient` is the same with `await`. `TokenAuth` alone is for an httpx2 client of your own, which asks an API.
"""

import asyncio
import re
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

import httpx2

REFRESH_SECONDS: Final = 20.0
"""A token that lives no longer than this is replaced before it is used."""


class AuthwrightError(Exception):
    """A refusal: its HTTP *status*, its stable *code*, what it says, and the *request_id* that stands in the log.

    *retry_after* is in seconds, where it says when to come again.
    """

    def __init__(self, status: int, code: str, text: str, request_id: str, retry_after: float | None) -> None:
        super().__init__(f"{code}: {text}" if text else code)
        self.status = status
        self.code = code
        self.text = text
        self.request_id = request_id
        self.retry_after = retry_after


class LoggedOut(AuthwrightError):
    """The session has ended, and there is nothing to log in with again."""


@dataclass(frozen=True)
class Tokens:
    """What a login or a refresh answered. *expires_in* is in seconds from then."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: int
    scope: str


@dataclass(frozen=True)
class Account:
    """Who is logged in: a user or, with *kind* `client`, a program."""

    id: str
    kind: str
    username: str | None
    email: str | None
    role: str
    plan: str | None
    is_active: bool


@dataclass(frozen=True)
class Usage:
    """Units spent in the last 30 days, by UTC day and route, and what is left today and this month (None: no quota)."""

    total: int
    by_day: dict[str, dict[str, int]]
    left_today: int | None
    left_this_month: int | None


class TokenAuth(httpx2.Auth):
    """Logs in at *issuer* with a *client_key*, with *username* and *password*, or goes on with a *refresh_token*.

    Before a token expires, and when it is refused, it is refreshed: once, however many requests need it, in any number
    of threads or in the tasks of one event loop. Tokens are sent to *issuer*, or with *resource* to that API alone, and
    never anywhere else: any other request raises ValueError. A client that follows redirects would take them along:
    leave `follow_redirects` off, as it is in httpx2 by default. *on_tokens* is told of new tokens, for a program that
    wants to keep the refresh token.

    Raises AuthwrightError, LoggedOut, and what httpx2 raises.
    """

    def __init__(
        self,
        issuer: str,
        *,
        client_key: str | None = None,
        username: str | None = None,
        password: str | None = None,
        refresh_token: str | None = None,
        scope: str | None = None,
        resource: str | None = None,
        on_tokens: Callable[[Tokens], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        ways = (bool(client_key), username is not None and password is not None, bool(refresh_token))
        if sum(ways) != 1:
            raise ValueError("give a client_key, or a username and a password, or a refresh_token")
        self.issuer = issuer.rstrip("/")
        given = {"client_key": client_key, "username": username, "password": password}
        self._credentials = {name: value for name, value in given.items() if value is not None}
        self._asked = {name: value for name, value in (("scope", scope), ("resource", resource)) if value is not None}
        self._resource = resource
        self._on_tokens = on_tokens
        self._clock = clock
        self._tokens = Tokens("", refresh_token, 0, "") if refresh_token else None
        self._good_until = 0.0
        self._ended = AuthwrightError(401, "logged_out", "There is no session.", "", None)
        self._thread_lock = threading.Lock()
        self._task_lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"TokenAuth({self.issuer!r})"

    @property
    def tokens(self) -> Tokens | None:
        """The tokens of the present session, if there is one."""
        return self._tokens

    def forget(self) -> None:
        """Let go of the session's tokens; the next request logs in anew."""
        self._tokens, self._good_until = None, 0.0

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        self._require_own(request.url)
        # It may be needed twice.
        request.read()
        used = self._fresh() or (yield from self._renew_in_turn(None))
        response = yield _with_token(request, used)
        if _is_refused(response):
            yield _with_token(request, (yield from self._renew_in_turn(used)))

    def _renew_in_turn(self, refused: str | None) -> Generator[httpx2.Request, httpx2.Response, str]:
        with self._thread_lock:
            flow = self._renew(refused)
            asked = next(flow, None)
            while asked is not None:
                response = yield asked
                response.read()
                asked = _next(flow, response)
            return self._access_token()

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        self._require_own(request.url)
        await request.aread()
        used = self._fresh()
        for attempt in range(2):
            if used is None or attempt:
                async with self._task_lock:
                    flow = self._renew(used)
                    asked = next(flow, None)
                    while asked is not None:
                        response = yield asked
                        await response.aread()
                        asked = _next(flow, response)
                    used = self._access_token()
            response = yield _with_token(request, used)
            if not _is_refused(response):
                return

    def _require_own(self, url: httpx2.URL) -> None:
        """A token is good for one audience; whoever else got it could use it there."""
        own = self._resource or self.issuer
        if not _is_below(str(url), own):
            raise ValueError(f"a token for {own} is not sent to {url.scheme}://{url.host}")

    def _fresh(self) -> str | None:
        return self._access_token() if self._clock() < self._good_until else None

    def _access_token(self) -> str:
        tokens = self._tokens
        # Another thread may have let go of them.
        return "" if tokens is None else tokens.access_token

    def _renew(self, refused: str | None) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Requests that lead to an access token other than *refused*; none, if somebody else got one meanwhile."""
        tokens = self._tokens
        if tokens is not None and self._clock() < self._good_until and tokens.access_token != refused:
            return
        if tokens is not None:
            body = {"refresh_token": tokens.refresh_token, **self._asked}
            response = yield httpx2.Request("POST", f"{self.issuer}/refresh-token", json=body)
            if response.status_code == 200:
                self._take(response)
                return
            error = error_of(response)
            if error.code != "invalid_grant":
                raise error
            self.forget()
            self._ended = error
        if not self._credentials:
            ended = self._ended
            raise LoggedOut(ended.status, ended.code, ended.text, ended.request_id, None)
        response = yield httpx2.Request("POST", f"{self.issuer}/login", json={**self._credentials, **self._asked})
        if response.status_code != 200:
            raise error_of(response)
        self._take(response)

    def _take(self, response: httpx2.Response) -> None:
        if any(each.has_redirect_location for each in response.history):
            raise AuthwrightError(response.status_code, "redirected", "The issuer does not redirect.", "", None)
        try:
            told = response.json()
            tokens = Tokens(told["access_token"], told["refresh_token"], int(told["expires_in"]), told.get("scope", ""))
        except (ValueError, KeyError, TypeError):
            raise AuthwrightError(
                response.status_code, "no_tokens", "That was no answer of Authwright.", "", None
            ) from None
        self._tokens = tokens
        self._good_until = self._clock() + max(tokens.expires_in - REFRESH_SECONDS, tokens.expires_in / 2)
        if self._on_tokens is not None:
            self._on_tokens(tokens)


class Client:
    """Asks the issuer, or with *resource* that API, for one user or program. *given* is what `TokenAuth` takes."""

    def __init__(
        self, issuer: str, *, timeout: float = 10.0, transport: httpx2.BaseTransport | None = None, **given: Any
    ) -> None:
        self.auth = TokenAuth(issuer, **given)
        self._base = given.get("resource") or self.auth.issuer
        self._http = httpx2.Client(auth=self.auth, timeout=timeout, transport=transport)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect. The session stays: `logout` ends it."""
        self._http.close()

    def request(self, method: str, url: str, **more: Any) -> httpx2.Response:
        """Ask for *url*, absolute or a path, with a token; *more* as httpx2 takes it. Raises AuthwrightError."""
        return _checked(self._http.request(method, _at(self._base, url), **_without_redirects(more)))

    def get(self, url: str, **more: Any) -> httpx2.Response:
        """`request` with GET."""
        return self.request("GET", url, **more)

    def post(self, url: str, **more: Any) -> httpx2.Response:
        """`request` with POST."""
        return self.request("POST", url, **more)

    def me(self) -> Account:
        """Who is logged in. Not with a *resource*: its tokens open no account."""
        return _account(self.get("/me").json())

    def usage(self) -> Usage:
        """What was spent, and what is left."""
        return _usage(self.get("/me/usage").json())

    def logout(self, *, everywhere: bool = False) -> None:
        """End the session, or all of the user's; every API refuses its tokens from now on."""
        if (tokens := self.auth.tokens) is not None:
            _checked(self._http.post(**_ending(self.auth.issuer, tokens, everywhere=everywhere)))
            self.auth.forget()


class AsyncClient:
    """As `Client`, with `await`."""

    def __init__(
        self, issuer: str, *, timeout: float = 10.0, transport: httpx2.AsyncBaseTransport | None = None, **given: Any
    ) -> None:
        self.auth = TokenAuth(issuer, **given)
        self._base = given.get("resource") or self.auth.issuer
        self._http = httpx2.AsyncClient(auth=self.auth, timeout=timeout, transport=transport)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Disconnect. The session stays: `logout` ends it."""
        await self._http.aclose()

    async def request(self, method: str, url: str, **more: Any) -> httpx2.Response:
        """Ask for *url*, absolute or a path, with a token; *more* as httpx2 takes it. Raises AuthwrightError."""
        return _checked(await self._http.request(method, _at(self._base, url), **_without_redirects(more)))

    async def get(self, url: str, **more: Any) -> httpx2.Response:
        """`request` with GET."""
        return await self.request("GET", url, **more)

    async def post(self, url: str, **more: Any) -> httpx2.Response:
        """`request` with POST."""
        return await self.request("POST", url, **more)

    async def me(self) -> Account:
        """Who is logged in. Not with a *resource*: its tokens open no account."""
        return _account((await self.get("/me")).json())

    async def usage(self) -> Usage:
        """What was spent, and what is left."""
        return _usage((await self.get("/me/usage")).json())

    async def logout(self, *, everywhere: bool = False) -> None:
        """End the session, or all of the user's; every API refuses its tokens from now on."""
        if (tokens := self.auth.tokens) is not None:
            _checked(await self._http.post(**_ending(self.auth.issuer, tokens, everywhere=everywhere)))
            self.auth.forget()


def error_of(response: httpx2.Response) -> AuthwrightError:
    """What *response*, a refusal, says: problem details (RFC 9457) or an OAuth error (RFC 6749)."""
    try:
        told = response.json()
    except ValueError:
        told = {}
    if not isinstance(told, dict):
        told = {}
    wait = response.headers.get("retry-after", "")
    return AuthwrightError(
        response.status_code,
        str(told.get("error", f"http_{response.status_code}")),
        str(told.get("detail") or told.get("error_description") or ""),
        str(told.get("request_id", "")),
        float(wait) if wait.isdigit() else None,
    )


def _without_redirects(more: dict[str, Any]) -> dict[str, Any]:
    if more.get("follow_redirects"):
        raise ValueError("a redirect is not followed with a token")
    return more


def _checked(response: httpx2.Response) -> httpx2.Response:
    if response.status_code >= 400:
        raise error_of(response)
    return response


def _next(flow: Generator[httpx2.Request, httpx2.Response, None], response: httpx2.Response) -> httpx2.Request | None:
    try:
        return flow.send(response)
    except StopIteration:
        return None


def _is_refused(response: httpx2.Response) -> bool:
    """Whether the token was refused, and not what was asked for with it (RFC 6750 section 3)."""
    return response.status_code == 401 and "bearer" in response.headers.get("www-authenticate", "").lower()


def _with_token(request: httpx2.Request, token: str) -> httpx2.Request:
    request.headers["authorization"] = f"Bearer {token}"
    return request


def _at(base: str, url: str) -> str:
    return url if urlsplit(url).scheme else f"{base.rstrip('/')}/{url.lstrip('/')}"


def _is_below(url: str, base: str) -> bool:
    asked, own = urlsplit(url), urlsplit(base)
    path = own.path.rstrip("/")
    read = unquote(asked.path)
    below = read in ("", path) or read.startswith(f"{path}/")
    # Whatever one reader takes for a way up, or for another separator.
    plain = not re.search(r"%2f|%5c|%25", asked.path, re.IGNORECASE) and not {".", ".."} & set(re.split(r"[/\\]", read))
    return _origin(asked) == _origin(own) and below and plain


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def _ending(issuer: str, tokens: Tokens, *, everywhere: bool) -> dict[str, Any]:
    url = f"{issuer}/logout{'?everywhere=true' if everywhere else ''}"
    return {"url": url, "json": {"refresh_token": tokens.refresh_token}, "auth": httpx2.Auth()}


def _account(told: dict[str, Any]) -> Account:
    return Account(
        told["id"],
        told["kind"],
        told.get("username"),
        told.get("email"),
        told["role"],
        told.get("plan"),
        told.get("is_active", True),
    )


def _usage(told: dict[str, Any]) -> Usage:
    return Usage(told["total"], told["by_day"], told["left"]["day"], told["left"]["month"])
