"""Raw endpoints on FastAPI's route table, with their OpenAPI beside them.

A route is added the usual way, for the path table and the document, and then answers through a plain ASGI callable:
a fraction of the cost, and every byte of a request is read by the strict rules below.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol, TypeVar
from urllib.parse import parse_qsl

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_json
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import Receive, Scope, Send

from authwright.domain.errors import (
    Busy,
    InvalidRequest,
    LimitExceeded,
    PayloadTooLarge,
    PlanNotAvailable,
    Refusal,
    TooManyAttempts,
    Unavailable,
    UnprocessableContent,
    UnsupportedMediaType,
)
from authwright.jose.encoding import parse_json_object
from authwright.jose.errors import InvalidToken
from authwright.storage.port import StoreUnavailable
from authwright.web import errors
from authwright.web.errors import JSON
from authwright.web.protocol import answer

MOST_HELD: Final = 1000
MAX_BODY: Final = 64 * 1024
MAX_FIELDS: Final = 32
FORM: Final = "application/x-www-form-urlencoded"

M = TypeVar("M", bound=BaseModel)


class Body(BaseModel):
    """A request body: exact types, no fields but those named."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Answer(BaseModel):
    """A response body, as the document describes it."""

    model_config = ConfigDict(frozen=True)


class Reply(NamedTuple):
    """A whole response."""

    status: int
    body: bytes
    headers: Sequence[tuple[bytes, bytes]] = ()

    async def send(self, send: Send, usual: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Send it, with those of the *usual* headers that it does not set itself."""
        if self.headers is not _JSON_HEADERS:
            own = {name for name, _ in self.headers}
            usual = [each for each in usual if each[0] not in own]
        headers = [*self.headers, (b"content-length", b"%d" % len(self.body)), *usual]
        await answer(send, self.status, headers, self.body)


class Stream(NamedTuple):
    """A response that goes on until its client leaves: all that *chunks* yields.

    When *stop* is set, as it is when the server stops, it ends; what is only of use *whole* is then cut off.
    """

    status: int
    chunks: AsyncIterator[bytes]
    receive: Receive
    stop: asyncio.Event
    headers: Sequence[tuple[bytes, bytes]] = ()
    whole: bool = False

    async def send(self, send: Send, usual: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Send it, with those of the *usual* headers that it does not set itself."""
        own = {name for name, _ in self.headers}
        headers = [*self.headers, *(each for each in usual if each[0] not in own)]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        going_on = asyncio.create_task(self._send_chunks(send))
        left, stopped = asyncio.create_task(self._left()), asyncio.create_task(self.stop.wait())
        try:
            done, _ = await asyncio.wait((going_on, left, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (going_on, left, stopped):
                task.cancel()
        # Whatever it was that ended the chunks must not pass for their end.
        await asyncio.wait((going_on,))
        if not going_on.cancelled() and (error := going_on.exception()) is not None:
            raise error
        if left not in done and (going_on in done or not self.whole):
            await send({"type": "http.response.body", "body": b""})

    async def _send_chunks(self, send: Send) -> None:
        async for chunk in self.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def _left(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass


_JSON_HEADERS: Final = ((b"content-type", JSON.encode("ascii")),)

HeaderTable = Mapping[bytes, bytes | list[bytes]]
"""The headers of a request by their names in lower case; a list where one was sent more than once."""


def json_reply(content: object, status: int = 200, headers: Sequence[tuple[bytes, bytes]] = ()) -> Reply:
    """*content* as a JSON response."""
    return Reply(status, _encode(content), (*_JSON_HEADERS, *headers) if headers else _JSON_HEADERS)


def refusal_reply(refusal: Refusal | StoreUnavailable, *, oauth: bool, request_id: str, realm: str) -> Reply:
    """*refusal* as a response: RFC 6749 JSON for *oauth*, problem details otherwise."""
    status, body, headers = errors.render(refusal, oauth=oauth, request_id=request_id, realm=realm)
    return Reply(status, _encode(body), headers)


def _encode(content: object) -> bytes:
    return to_json(content)


class Call:
    """One request; *route* is the path of what answers it, with its parameters by name."""

    __slots__ = ("_body", "_headers", "_media", "_receive", "route", "scope")

    def __init__(self, scope: Scope, receive: Receive, route: str) -> None:
        self.scope = scope
        self.route = route
        self._headers: HeaderTable = scope["authwright.headers"]
        self._receive = receive
        self._media: str | None = None
        self._body: bytes | None = None

    @property
    def address(self) -> str:
        """The client's address; behind configured proxies the one they name."""
        client = self.scope.get("client")
        return client[0] if client else "unknown"

    @property
    def user_agent(self) -> str:
        return self.header(b"user-agent") or ""

    @property
    def request_id(self) -> str:
        return str(self.scope.get("authwright.request_id", ""))

    @property
    def receive(self) -> Receive:
        return self._receive

    @property
    def path_parameters(self) -> Mapping[str, str]:
        parameters: Mapping[str, str] = self.scope.get("path_params", {})
        return parameters

    def header(self, name: bytes) -> str | None:
        """The value of the header *name* (lower case). Raises InvalidRequest if it was sent more than once."""
        values = self._headers.get(name)
        if values is None:
            return None
        if isinstance(values, list):
            raise InvalidRequest(f"The header {name.decode('ascii')} was sent more than once.")
        return values.decode("latin-1")

    def content_type(self) -> str:
        """The media type of the body without parameters, lower case; empty if none was sent."""
        if self._media is None:
            self._media = (self.header(b"content-type") or "").partition(";")[0].strip().lower()
        return self._media

    async def body(self, limit: int = MAX_BODY) -> bytes:
        """The body. Raises PayloadTooLarge before more than *limit* bytes are held, UnsupportedMediaType if encoded."""
        if self._body is None:
            self._body = await self._received(limit)
        return self._body

    async def whole(self, limit: int) -> None:
        """Wait until the body is here, if one was announced. Raises what `body` raises."""
        if b"content-length" in self._headers or b"transfer-encoding" in self._headers:
            await self.body(limit)

    async def _received(self, limit: int) -> bytes:
        if (self.header(b"content-encoding") or "identity").lower() != "identity":
            raise UnsupportedMediaType("An encoded body is not accepted.")
        length = self.header(b"content-length")
        if length is not None and (re.fullmatch(r"[0-9]{1,12}", length) is None or int(length) > limit):
            raise PayloadTooLarge
        chunks: list[bytes] = []
        held = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise InvalidRequest(detail="the client went away")
            chunk = message.get("body", b"")
            held += len(chunk)
            if held > limit:
                raise PayloadTooLarge
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)

    async def json_object(self, limit: int = MAX_BODY) -> dict[str, Any]:
        """The body as a strictly read JSON object. Raises InvalidRequest, UnsupportedMediaType, PayloadTooLarge."""
        if self.content_type() != JSON:
            raise UnsupportedMediaType(f"The body must be {JSON}.")
        try:
            return parse_json_object(await self.body(limit))
        except InvalidToken as error:
            raise InvalidRequest("The body is not a JSON object.", detail=str(error)) from None

    async def json(self, model: type[M], limit: int = MAX_BODY) -> M:
        """The body as *model*. Raises what `json_object` raises, and UnprocessableContent."""
        return as_model(model, await self.json_object(limit))

    async def form(self) -> dict[str, str]:
        """The parameters of a form body, each at most once; empty ones count as absent (RFC 6749 section 3.2).

        Raises InvalidRequest, UnsupportedMediaType, PayloadTooLarge.
        """
        if self.content_type() != FORM:
            raise UnsupportedMediaType(f"The body must be {FORM}.")
        return parameters_of(await self.body())

    def query(self) -> dict[str, str]:
        """The query parameters, by the rules of `form`."""
        return parameters_of(self.scope["query_string"])


def parameters_of(encoded: bytes, *, blank: bool = False) -> dict[str, str]:
    """Form-encoded parameters, by the rules of `Call.form`; *blank*: empty ones, too. Raises InvalidRequest."""
    try:
        pairs = parse_qsl(
            encoded.decode("ascii"),
            keep_blank_values=True,
            max_num_fields=MAX_FIELDS,
            encoding="utf-8",
            errors="strict",
        )
    except ValueError:
        raise InvalidRequest("The parameters are malformed, or too many.") from None
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise InvalidRequest("A parameter was sent more than once.")
    return {name: value for name, value in parameters.items() if value or blank}


def as_model(model: type[M], value: Mapping[str, Any]) -> M:
    """*value* as *model*. Raises UnprocessableContent, which names fields of the model and never what was sent."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise UnprocessableContent(problems=_problems(model, error), detail=f"{error.error_count()} problems") from None


def query_as(model: type[M], parameters: Mapping[str, str]) -> M:
    """Query *parameters* as *model*: numbers are read from text. Raises UnprocessableContent."""
    try:
        return model.model_validate_strings(dict(parameters))
    except ValidationError as error:
        public = "The parameters are not what this endpoint takes."
        raise UnprocessableContent(
            public, problems=_problems(model, error), detail=f"{error.error_count()} problems"
        ) from None


class HasId(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=HasId)


def page_of(rows: Sequence[Item], most: int) -> tuple[Sequence[Item], str | None]:
    """The first *most* of *rows*, and as cursor the id of the last of them if there are more."""
    page = rows[:most]
    return page, page[-1].id if len(rows) > most else None


def _problems(model: type[BaseModel], error: ValidationError) -> dict[str, str]:
    problems: dict[str, str] = {}
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        if each["type"] == "extra_forbidden":
            # The name of an unknown field is what was sent; the known ones are what the caller needs.
            problems["unknown field"] = f"Only these are taken: {', '.join(model.model_fields)}."
        else:
            problems[".".join(str(part) for part in each["loc"][:4]) or "body"] = f"{each['msg']}."
    return problems


Handler = Callable[[Call], Awaitable[Reply | Stream]]


class Brake:
    """Holds back answers to who is slowed down, so that asking again at once costs others no time.

    For *seconds* each, and MOST_HELD at a time: what is beyond is answered at once.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._held = 0

    async def hold(self) -> None:
        if self._held >= MOST_HELD or not self._seconds:
            return
        self._held += 1
        try:
            await asyncio.sleep(self._seconds)
        finally:
            self._held -= 1


class RawEndpoint:
    """The ASGI callable behind a route."""

    __slots__ = ("_brake", "_handle", "_realm", "_route", "oauth")

    def __init__(self, handle: Handler, *, route: str, oauth: bool, realm: str, brake: Brake) -> None:
        self._handle = handle
        self._route = route
        self._brake = brake
        self._realm = realm
        self.oauth = oauth

    async def answer(self, scope: Scope, receive: Receive) -> Reply | Stream:
        """The whole response; a refusal is one, too."""
        call = Call(scope, receive, self._route)
        try:
            return await self._handle(call)
        except (Refusal, StoreUnavailable) as refusal:
            if isinstance(refusal, TooManyAttempts | Busy):
                await self._brake.hold()
            return refusal_reply(refusal, oauth=self.oauth, request_id=call.request_id, realm=self._realm)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = await self.answer(scope, receive)
        if isinstance(reply, Stream):
            scope["authwright.stop"] = reply.stop
        await reply.send(send)


class Endpoints:
    """Adds raw endpoints to *app*; *realm* names the protection space in challenges."""

    def __init__(self, app: FastAPI, *, realm: str, brake: Brake) -> None:
        self._app = app
        self._brake = brake
        self._realm = realm
        self.direct: dict[tuple[str, str], RawEndpoint] = {}
        """The endpoints whose path has no parameters, by method and path."""

    def add(
        self,
        method: str,
        path: str,
        handle: Handler,
        *,
        name: str,
        summary: str,
        tag: str,
        answer: type[BaseModel],
        status: int = 200,
        json: Sequence[type[BaseModel]] = (),
        form: type[BaseModel] | None = None,
        query: type[BaseModel] | None = None,
        body_optional: bool = False,
        refusals: Sequence[type[Refusal]] = (),
        secured: bool = False,
        charged: bool = False,
        oauth: bool = False,
        example: object = None,
        media: str = JSON,
        hidden: bool = False,
    ) -> None:
        """Serve *method* *path* with *handle*; the rest is what the document says of it. *name*: operation id.

        *charged*: the caller's plan is charged for it. *hidden*: the document says nothing of it.
        """
        extra: dict[str, Any] = {}
        if json or form:
            extra["requestBody"] = {"required": not body_optional, "content": _content(json, form)}
        parameters = [
            {"name": part, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for part in re.findall(r"{(\w+)}", path)
        ]
        if parameters := parameters + (_query_parameters(query) if query else []):
            extra["parameters"] = parameters
        if secured:
            extra["security"] = [{"Password": []}, {"Bearer": []}]
        # Any request can be malformed, and any meet a server that cannot answer just now.
        of_query = (UnprocessableContent,) if query else ()
        of_plan = (PlanNotAvailable, LimitExceeded) if charged else ()
        every = dict.fromkeys((*refusals, *of_query, *of_plan, InvalidRequest, Unavailable))
        described = dict(errors.documented(tuple(every), oauth=oauth))
        if example is not None:
            described[status] = {"content": {JSON: {"example": example}}}
        if media != JSON:
            described[status] = {"content": {media: {"schema": {"type": "string"}}}}

        def documented() -> None:  # only its route is used
            raise AssertionError("replaced by the raw endpoint")

        self._app.add_api_route(
            path,
            documented,
            methods=[method],
            operation_id=name,
            name=name,
            summary=summary,
            description=handle.__doc__ or summary,
            tags=[tag],
            status_code=status,
            response_model=answer if media == JSON else None,
            response_class=JSONResponse if media == JSON else PlainTextResponse,
            responses=described,
            openapi_extra=extra or None,
            include_in_schema=not hidden,
        )
        route = self._app.router.routes[-1]
        if not isinstance(route, APIRoute):  # pragma: no cover - FastAPI always appends the route it made
            raise TypeError("FastAPI did not add the route last")
        route.app = endpoint = RawEndpoint(handle, route=path, oauth=oauth, realm=self._realm, brake=self._brake)
        if "{" not in path:
            self.direct[method, path] = endpoint


def _content(json_models: Sequence[type[BaseModel]], form: type[BaseModel] | None) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if form:
        content[FORM] = {"schema": schema_of(form)}
    if json_models:
        schemas = [schema_of(model) for model in json_models]
        content[JSON] = {"schema": schemas[0] if len(schemas) == 1 else {"oneOf": schemas}}
    return content


def _query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    schema = schema_of(model)
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": {key: value for key, value in described.items() if key != "description"},
            **({"description": described["description"]} if "description" in described else {}),
        }
        for name, described in schema["properties"].items()
    ]


@lru_cache(maxsize=64)
def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of *model*, with nothing referred to elsewhere."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolved(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return resolved(definitions[node["$ref"].rpartition("/")[2]])
            return {key: resolved(value) for key, value in node.items()}
        return [resolved(each) for each in node] if isinstance(node, list) else node

    result: dict[str, Any] = resolved(schema)
    return result
