"""What a server sends to: a mail server, an app that takes its webhook, a collector of OpenTelemetry. Real ones, on
loopback; they keep what they were sent.
"""

import asyncio
import contextlib
import gzip
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from issued import ISSUED


class MailServer:
    """Takes mail, or says *answer*."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, Message]] = []
        self.answer = ""
        self.port = 0

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Envelope, address: str, _options: Any) -> str:
        if self.answer:
            return self.answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        self.mails += [(recipient, message_from_bytes(envelope.content)) for recipient in envelope.rcpt_tos]
        return "250 OK"

    @property
    def got(self) -> list[tuple[str, str]]:
        """Recipients and subjects."""
        return [(recipient, str(mail["Subject"])) for recipient, mail in self.mails]


@contextlib.asynccontextmanager
async def mail_server(port: int = 0, **options: Any) -> AsyncIterator[MailServer]:
    taker = MailServer()
    tls = options.pop("ssl", None)
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(taker, hostname="mail.example.com", **options), "127.0.0.1", port, ssl=tls
    )
    taker.port = server.sockets[0].getsockname()[1]
    async with server:
        yield taker


@contextlib.contextmanager
def _http(take: Callable[[str, dict[str, str], bytes], int], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port where *take* is given the path, headers and body of each POST; it says with which status to answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.send_response_only(take(self.path, headers, body))
            # Where it must not follow to.
            self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@dataclass
class EventTaker:
    """Takes the webhook; says *answers*, one after the other, and then 204."""

    port: int = 0
    answers: list[int] = field(default_factory=list)
    taken: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events?from=auth"

    @property
    def events(self) -> list[list[dict[str, Any]]]:
        """The events of each message."""
        return [json.loads(body)["events"] for _, body in self.taken]

    @property
    def numbers(self) -> list[list[int]]:
        return [[each["number"] for each in events] for events in self.events]

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        assert path == "/events?from=auth"
        self.taken.append((headers, body))
        return self.answers.pop(0) if self.answers else 204


@contextlib.contextmanager
def taking(tls: ssl.SSLContext | None = None) -> Iterator[EventTaker]:
    taker = EventTaker()
    with _http(taker.take, tls) as taker.port:
        yield taker


@dataclass
class Span:
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    failed: bool
    attributes: dict[str, Any]


@dataclass
class Collector:
    """Takes traces by OTLP over HTTP, and keeps what they tell."""

    port: int = 0
    service: dict[str, Any] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    received: bytes = b""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        assert path == "/v1/traces"
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.received += body
        ISSUED.search(body, "spans")
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.service = _values(resource.resource.attributes)
            self.spans += [
                Span(
                    span.name,
                    span.kind,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.status.code == 2,
                    _values(span.attributes),
                )
                for scope in resource.scope_spans
                for span in scope.spans
            ]
        return 200

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    with _http(collector.take) as collector.port:
        yield collector
