"""An answer that leaves in one step is, byte for byte, what uvicorn makes of two messages."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

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
    received = await asked(port, "GET /split HTTP/1.1\r\n" + CLOSE + "\r\n")
    assert received.startswith(b"HTTP/1.1 500 ")
    assert b"set-cookie" not in received


async def test_a_client_that_left_gets_nothing_and_nobody_is_held_up(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /whole HTTP/1.1\r\n\r\n" * 50)
    writer.transport.abort()
    assert (await asked(port, "GET /whole HTTP/1.1\r\n" + CLOSE + "\r\n")).startswith(b"HTTP/1.1 201 ")
