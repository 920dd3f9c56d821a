"""What a guard asks its issuer for: public keys, what was revoked, and now and then about one token.

Over https (http on the loopback only), without following redirects, with bounds on time and size.
"""

import ipaddress
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx2

from authwright.jose.keys import MAX_JWKS_BYTES

ANSWER_SECONDS: Final = 2.0
SILENT_SECONDS: Final = 3.5
"""A stream that says nothing for longer is broken or held back: the server says something every second."""
MAX_EVENT_BYTES: Final = 1024 * 1024
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
MAX_VERDICT_BYTES: Final = 64 * 1024
# A proxy or a network of such before an issuer that is away has numbers of its own for it. Anything less, but for
# 200, comes from somebody who is there.
_AWAY: Final = 500
_EVENTS: Final = frozenset({"snapshot", "entries", "heartbeat"})


class IssuerAway(Exception):
    """The issuer cannot be reached, or says that it cannot answer just now."""


class IssuerSilent(IssuerAway):
    """The issuer took the request and then said nothing for too long."""


class IssuerDropped(IssuerAway):
    """The connection ended without an answer, as one does that was kept for long: ask once more."""


class IssuerRefuses(Exception):
    """The issuer answers, and not what it should: it does not accept the guard's key, or is no issuer at all.

    *status* is that of its answer, if it was not 200.
    """

    def __init__(self, text: str, *, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class Issuer:
    """A client of the issuer named *issuer*; *key* is a client key with the scope `revocations`.

    Raises ValueError for an issuer that is not an https URL (or http on the loopback) without query and fragment.
    """

    def __init__(self, issuer: str, *, key: str | None) -> None:
        _require_safe(issuer)
        self._base = issuer.rstrip("/")
        self._headers = {"user-agent": "authwright-guard", "accept-encoding": "identity"}
        if key is not None:
            self._headers["authorization"] = f"Bearer {key}"
        self._http: httpx2.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        timeout = httpx2.Timeout(ANSWER_SECONDS, pool=ANSWER_SECONDS)
        self._http = httpx2.AsyncClient(
            headers=self._headers,
            timeout=timeout,
            follow_redirects=False,
            # A proxy of the environment would see the key where nothing is encrypted.
            trust_env=self._base.startswith("https:"),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def key_set(self) -> tuple[bytes, int | None]:
        """The JWK set and for how many seconds it may be kept, if it says so. Raises IssuerAway."""
        async with self._answer("GET", "/.well-known/jwks.json") as answer:
            document = await _read(answer, MAX_JWKS_BYTES)
            return document, _max_age(answer.headers.get("cache-control", ""))

    @asynccontextmanager
    async def follow(self, cursor: str | None) -> AsyncIterator[AsyncIterator[tuple[str, dict[str, Any]]]]:
        """The feed as a stream: name and content of each event. Raises IssuerAway, IssuerRefuses."""
        headers = {"accept": "text/event-stream"}
        if cursor is not None:
            headers["last-event-id"] = cursor
        timeout = httpx2.Timeout(ANSWER_SECONDS, read=SILENT_SECONDS)
        async with self._answer("GET", "/revocations", headers=headers, timeout=timeout) as answer:
            yield _events(answer)

    async def ask(self, cursor: str | None, *, wait: int) -> dict[str, Any]:
        """The feed by asking: what is new after *cursor*, within *wait* seconds. Raises IssuerAway, IssuerRefuses."""
        query = {"wait": str(wait)} | ({} if cursor is None else {"cursor": cursor})
        timeout = httpx2.Timeout(ANSWER_SECONDS, read=ANSWER_SECONDS + wait)
        async with self._answer("GET", "/revocations", params=query, timeout=timeout) as answer:
            return _object(await _read(answer, MAX_ANSWER_BYTES))

    async def introspect(self, token: str) -> dict[str, Any]:
        """What the issuer says of *token* now (RFC 7662 section 2.2). Raises IssuerAway, IssuerRefuses."""
        async with self._answer("POST", "/introspect", data={"token": token}) as answer:
            return _object(await _read(answer, MAX_VERDICT_BYTES))

    async def lease(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Units of a caller's allowance. Raises IssuerAway, IssuerRefuses."""
        async with self._answer("POST", "/allowance/lease", json=wanted) as answer:
            return _object(await _read(answer, MAX_VERDICT_BYTES))

    async def settle(self, spent: dict[str, Any]) -> None:
        """Account for leases. Raises IssuerAway, IssuerRefuses."""
        async with self._answer("POST", "/allowance/settle", json=spent) as answer:
            await _read(answer, MAX_VERDICT_BYTES)

    @asynccontextmanager
    async def _answer(self, method: str, path: str, **more: Any) -> AsyncIterator[httpx2.Response]:
        if self._http is None:
            raise IssuerAway("not started")
        try:
            async with self._http.stream(method, self._base + path, **more) as answer:
                if answer.status_code >= _AWAY:
                    raise IssuerAway(f"{path} answered {answer.status_code}")
                if answer.status_code != 200:
                    raise IssuerRefuses(f"{path} answered {answer.status_code}", status=answer.status_code)
                yield answer
        except httpx2.ReadTimeout:
            raise IssuerSilent(f"{path}: nothing comes") from None
        except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError) as error:
            raise IssuerDropped(f"{path}: {type(error).__name__}") from None
        except (httpx2.HTTPError, OSError) as error:
            # The kind alone: texts of errors may hold what was sent.
            raise IssuerAway(f"{path}: {type(error).__name__}") from None


async def _events(answer: httpx2.Response) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    async for event in httpx2.EventSource(answer, max_event_size=MAX_EVENT_BYTES):
        # What somebody in between adds, to keep the connection open or to set a pause, says nothing.
        if event.event in _EVENTS:
            try:
                content = _object(event.data.encode("utf-8"))
            except IssuerRefuses as refused:
                raise IssuerAway(f"an event makes no sense: {refused}") from None
            yield event.event, content


async def _read(answer: httpx2.Response, most: int) -> bytes:
    parts = bytearray()
    async for part in answer.aiter_raw():
        parts += part
        if len(parts) > most:
            raise IssuerRefuses("the answer is too large")
    return bytes(parts)


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise IssuerRefuses("the answer is not JSON") from None
    if not isinstance(value, dict):
        raise IssuerRefuses("the answer is not a JSON object")
    return value


def _max_age(cache_control: str) -> int | None:
    for directive in cache_control.split(","):
        name, _, value = directive.strip().partition("=")
        if name.lower() == "max-age" and value.isascii() and value.isdigit():
            return int(value[:9])
    return None


def _require_safe(issuer: str) -> None:
    if type(issuer) is not str:
        raise ValueError("an issuer is a URL")
    parts = urlsplit(issuer)
    if parts.query or parts.fragment or "@" in parts.netloc or not parts.hostname:
        raise ValueError("an issuer is a URL without user, query and fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise ValueError("an issuer is an https URL; http is for the loopback only")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
