"""uvicorn's HTTP protocol, with answers that leave in one piece and with bounds on what a connection may hold."""

import asyncio
import math
from collections.abc import Iterable
from types import MethodType
from typing import Any, ClassVar, Final

from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

MAX_HEAD: Final = 64 * 1024
MAX_PIPELINED: Final = 64
_TOO_SLOW: Final = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"

# Of all control characters a header may have tabs.
_CONTROLS: Final = bytes((*range(9), *range(10, 32), 127))
_UVICORNS_OWN: Final = RequestResponseCycle.send


async def answer(send: Send, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
    """Send a whole answer; *headers* in lower case, with its length and without `connection`.

    Where *send* is uvicorn's own, this does in one step what that does with two messages, at a third of the cost. So it
    knows that version of uvicorn which the package asks for.
    """
    cycle = send.__self__ if type(send) is MethodType and send.__func__ is _UVICORNS_OWN else None
    if not isinstance(cycle, RequestResponseCycle) or cycle.access_log or cycle.response_started or _has_own(cycle):
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return
    if cycle.flow.write_paused and not cycle.disconnected:
        await cycle.flow.drain()
    if cycle.disconnected:
        return
    lines = [b"%s: %s" % (name, value) for name, value in (*cycle.default_headers, *headers)]
    if not cycle.keep_alive:
        lines.append(b"connection: close")
    head = STATUS_LINE[status] + b"\r\n".join(lines)
    if len(head.translate(None, _CONTROLS)) != len(head) - 2 * len(lines):
        raise ValueError("a header with a control character")
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"%s\r\n\r\n%s" % (head, b"" if cycle.scope["method"] == "HEAD" else body))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()


def _has_own(cycle: RequestResponseCycle) -> bool:
    """Whether uvicorn was told to send a `connection` with every answer."""
    return any(name == b"connection" for name, _ in cycle.default_headers)


class Gathered:
    """A transport whose writes of one turn of the loop leave together: a system call and a packet instead of two."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        # What is asked for with every request, found without `__getattr__`.
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        # A client that went away gets nothing more.
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))


class Protocol(HttpToolsProtocol):
    """What uvicorn runs for each connection. *patience* is set once for the process, before it serves."""

    patience: ClassVar[float] = 10.0
    """Seconds for the head of a request; half as much again for its body, and for a client that stops reading."""

    _due = math.inf
    """When what the client is sending must be whole."""
    _looking: asyncio.TimerHandle | None = None
    _unsent = 0
    _stuck_since = math.inf
    _unread = 0
    """Bytes received since the last thing that a request was made of: what the parser holds, and nobody else bounds."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(Gathered(transport, self.loop))  # type: ignore[arg-type]
        # Each request has a line of ours.
        self.access_log = False
        self._due = self.loop.time() + self.patience
        self._looking = self.loop.call_later(self.patience / 4, self._look)

    def shutdown(self) -> None:
        """The server stops: requests may finish, streams have no end of their own and end now."""
        super().shutdown()
        cycle = self.cycle
        stop = None if cycle is None else cycle.scope.get("authwright.stop")
        if isinstance(stop, asyncio.Event):
            stop.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._looking is not None:
            self._looking.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        """Cut off a client that is too slow. Others are looked at in a while."""
        now = self.loop.time()
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._stuck_since = now
        self._unsent = unsent
        if unsent and now - self._stuck_since > self.patience * 1.5:
            self.transport.abort()
            return
        # While the server itself reads no further, nobody is late.
        if now > self._due and not self.flow.read_paused and not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
                self.transport.write(_TOO_SLOW)
            self.transport.close()
        self._looking = self.loop.call_later(self.patience / 4, self._look)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._due = self.loop.time() + self.patience

    def data_received(self, data: bytes) -> None:
        self._unread += len(data)
        super().data_received(data)
        if self._unread > MAX_HEAD and not self.transport.is_closing():
            # While an answer is under way another one would be taken for it.
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            # Ends the parsing; uvicorn answers 400 and closes.
            raise ValueError("too many requests at once on one connection")
        self._unread = 0
        self._due = self.loop.time() + self.patience * 1.5
        super().on_headers_complete()
        # Trailers of a chunked body come after everything was checked that headers are checked for: the request has
        # a list of its own, which they do not reach.
        self.scope["headers"] = self.headers.copy()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread = 0
        self._due = math.inf
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # uvicorn reads on after each answer, also from a client that sends requests and never reads.
        if self.pipeline and not self.transport.is_closing():
            self.flow.pause_reading()
