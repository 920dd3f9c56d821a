"""An answer that leaves in one step is, byte for byte, what uvicorn makes of two messages."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from authwright.web.endpoint import Reply
from authwright.web.protocol import answer
from guarded import listening

REPLY = Reply(201, b'{"answer": "yes"}', ((b"content-type", b"application/json"), (b"x-own", b"kept")))
USUAL = [(b"cache-control", b"no-store"), (b"x-own", b"not this one")]
Send = Callable[[Any], Awaitable[None]]


async def app(scope: Any, receive: Any, send: Send) -> None:
    """One answer for all paths; below `/messages` it is sent as the messages of ASGI."""
    await receive()

    async def as_messages(message: Any) -> None:
        await send(message)

    if scope["path"].endswith("/split"):
        await answer(send, 200, [(b"content-length", b"0"), (b"x-told", b"a\r\nset-cookie: b=c")], b"")
    await REPLY.send(as_messages if scope["path"].startswith("/messages") else send, USUAL)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with listening(app) as port:
        yield port


async def asked(port: int, *requests: str) -> bytes:
    """All that is answered to *requests*, sent at once, until the server closes, without the moment of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("".join(requests).encode("ascii"))
    async with asyncio.timeout(5):
        received = await reader.read()
    writer.close()
    return b"\r\n".join(line for line in received.split(b"\r\n") if not line.startswith(b"date: "))


CLOSE = "connection: close\r\n"
REQUESTS = {
    "GET": ("GET {} HTTP/1.1\r\n" + CLOSE + "\r\n",),
    "HEAD": ("HEAD {} HTTP/1.1\r\n" + CLOSE + "\r\n",),
    "HTTP/1.0": ("GET {} HTTP/1.0\r\n\r\n",),
    "a body": ("POST {} HTTP/1.1\r\ncontent-length: 2\r\n\r\n{{}}", "GET {} HTTP/1.1\r\n" + CLOSE + "\r\n"),
    "asked before its body": ("POST {} HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 0\r\n" + CLOSE + "\r\n",),
    "pipelined": ("GET {} HTTP/1.1\r\n\r\n",) * 5 + ("GET {} HTTP/1.1\r\n" + CLOSE + "\r\n",),
}


@pytest.mark.parametrize("kind", REQUESTS)
async def test_it_is_what_two_messages_would_be(port: int, kind: str) -> None:
    whole = await asked(port, *(each.format("/whole") for each in REQUESTS[kind]))
    assert whole.count(b"HTTP/1.1 201 Created\r\n") == len(REQUESTS[kind])
    assert b"x-own: kept\r\n" in whole
    assert b"not this one" not in whole
    assert whole == await asked(port, *(each.format("/messages") for each in REQUESTS[kind]))


async def test_no_header_starts_another_one(port: int) -> None:
    """And answers do leave in one step here: uvicorn itself would have closed the connection without a word."""
    received = await asked(port, "GET /split HTTP/1.1\r\n" + CLOSE + "\r\n")
    assert received.startswith(b"HTTP/1.1 500 ")
    assert b"set-cookie" not in received


class Written:
    """As much of a transport as an answer needs."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.closed = False

    def write(self, part: bytes) -> None:
        self.parts.append(part)

    def close(self) -> None:
        self.closed = True


def cycle_on(transport: Any, **changed: Any) -> RequestResponseCycle:
    given: dict[str, Any] = {
        "scope": {"method": "GET"},
        "transport": transport,
        "flow": FlowControl(transport),
        "logger": logging.getLogger("uvicorn.error"),
        "access_logger": logging.getLogger("uvicorn.access"),
        "access_log": False,
        "default_headers": [],
        "message_event": asyncio.Event(),
        "expect_100_continue": True,
        "keep_alive": True,
        "on_response": lambda: None,
    }
    return RequestResponseCycle(**given | changed)


@pytest.mark.parametrize("left", [False, True])
async def test_it_waits_for_a_client_that_reads_slowly_and_sends_nothing_to_one_that_left(left: bool) -> None:
    transport: Any = Written()
    written_before = None

    class Slow(FlowControl):
        async def drain(self) -> None:
            nonlocal written_before
            written_before = list(transport.parts)
            cycle.disconnected = left

    cycle = cycle_on(transport, flow=Slow(transport))
    cycle.flow.pause_writing()
    await REPLY.send(cycle.send)
    assert written_before == []
    assert len(transport.parts) == (not left)
    assert cycle.response_complete is cycle.message_event.is_set() is not left


async def test_whoever_still_reads_the_request_is_told_that_it_was_answered() -> None:
    cycle = cycle_on(Written())
    await REPLY.send(cycle.send)
    assert await cycle.receive() == {"type": "http.disconnect"}
    with pytest.raises(RuntimeError, match="already completed"):
        await REPLY.send(cycle.send)


@pytest.mark.parametrize("header", [(b"connection", b"close"), (b"x-tab", b"a\tb")])
async def test_headers_that_uvicorn_sends_with_every_answer_mean_what_they_do_there(
    header: tuple[bytes, bytes],
) -> None:
    ours, theirs = Written(), Written()
    await REPLY.send(cycle_on(ours, default_headers=[header]).send)
    cycle = cycle_on(theirs, default_headers=[header])

    async def as_messages(message: Any) -> None:
        await cycle.send(message)

    await REPLY.send(as_messages)
    assert b"".join(ours.parts) == b"".join(theirs.parts)
    assert ours.closed is theirs.closed is (header[0] == b"connection")
