"""Security events sent to another system: in order, signed, until they were taken, and nowhere they should not."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from authwright.config import SettingsError, check_settings
from authwright.domain.event import COMMAND_LINE, event
from authwright.services import event_push
from authwright.services.audit import GAP_SECONDS
from authwright.services.event_push import EventPush, NotTaken
from authwright.webhook import Webhook
from certificates import certificate
from harness import Clock, Service, development, open_service
from receivers import EventTaker, taking

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
HERE = ("127.0.0.0/8", "::1/128")


@pytest.fixture
def taker() -> Iterator[EventTaker]:
    with taking() as running:
        yield running


@pytest.fixture
async def hook(taker: EventTaker) -> AsyncIterator[Webhook]:
    opened = Webhook(taker.url, secret=SECRET, networks=HERE)
    yield opened
    await opened.close()


@pytest.fixture
def steady() -> list[float]:
    return [0.0]


@pytest.fixture
def push(service: Service, hook: Webhook, steady: list[float]) -> EventPush:
    return EventPush(service.server.store, service.server.keyring, hook, time=lambda: steady[0])


async def happen(service: Service, times: int) -> None:
    for _ in range(times):
        await service.server.store.events.append(event("logout", COMMAND_LINE, now=service.clock()))


async def test_events_are_sent_in_order_and_once(service: Service, push: EventPush, taker: EventTaker) -> None:
    await happen(service, 250)
    assert await push.push(service.clock) == 250
    assert [len(each) for each in taker.numbers] == [100, 100, 50]
    assert [number for each in taker.numbers for number in each] == list(range(1, 251))
    assert await push.push(service.clock) == 0
    await service.registered_login()
    assert await push.push(service.clock) == 2
    sent = json.loads(taker.taken[-1][1])["events"]
    assert [each["kind"] for each in sent] == ["registered", "login"]
    admin = await service.new_admin()
    assert sent[1] in await service.events(admin)


async def test_whoever_has_the_secret_can_tell_that_it_was_us(
    service: Service, push: EventPush, taker: EventTaker
) -> None:
    await happen(service, 1)
    await push.push(service.clock)
    headers, body = taker.taken[0]
    name, stamp = headers["webhook-id"], headers["webhook-timestamp"]
    signed = hmac.new(b"s" * 32, f"{name}.{stamp}.".encode() + body, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(signed).decode()}"
    assert int(stamp) == service.clock.now // 1_000_000
    assert (headers["content-type"], headers["host"]) == ("application/json", f"127.0.0.1:{taker.port}")


@pytest.mark.parametrize("status", [500, 400, 410, 302, 307])
async def test_what_was_not_taken_is_sent_again_with_the_same_id(
    service: Service, push: EventPush, taker: EventTaker, status: int
) -> None:
    taker.answers = [status]
    await happen(service, 3)
    with pytest.raises(NotTaken, match=str(status)):
        await push.push(service.clock)
    assert await push.push(service.clock) == 3
    assert taker.numbers == [[1, 2, 3]] * 2
    assert len({headers["webhook-id"] for headers, _ in taker.taken}) == 1


async def test_a_message_that_was_begun_is_sent_again_as_it_was(
    service: Service, push: EventPush, hook: Webhook, taker: EventTaker
) -> None:
    """Also by another process, and although more has happened: who took it without our knowing it knows it again."""
    taker.answers = [503]
    await happen(service, 2)
    with pytest.raises(NotTaken):
        await push.push(service.clock)
    await happen(service, 1)
    service.clock.advance(31)
    other = EventPush(service.server.store, service.server.keyring, hook, time=lambda: 0.0)
    assert await other.push(service.clock) == 3
    assert taker.numbers == [[1, 2], [1, 2], [3]]
    first, again, more = [headers["webhook-id"] for headers, _ in taker.taken]
    assert (first == again, first == more) == (True, False)


@pytest.mark.parametrize("noted", ["3 3", "3 3 00", "abc", "9" * 5000, "99999999999999999999 1 x"])
async def test_nobody_without_the_key_says_what_was_taken(
    service: Service, push: EventPush, taker: EventTaker, noted: str
) -> None:
    await happen(service, 3)
    assert await push.push(service.clock) == 3
    await service.server.store.facts.replace("events_pushed", noted)
    await happen(service, 1)
    # All of it once more, and nothing left out.
    assert await push.push(service.clock) == 4


async def test_large_events_go_in_messages_that_can_be_taken(
    service: Service, push: EventPush, taker: EventTaker
) -> None:
    for _ in range(5):
        await service.server.store.events.append(
            event("logout", COMMAND_LINE, now=service.clock(), detail="x" * 200_000)
        )
    assert await push.push(service.clock) == 5
    assert max(len(body) for _, body in taker.taken) < 500_000


async def test_two_processes_send_each_event_once(
    service: Service, push: EventPush, hook: Webhook, taker: EventTaker
) -> None:
    other = EventPush(service.server.store, service.server.keyring, hook, time=lambda: 0.0)
    await happen(service, 5)
    assert await push.push(service.clock) == 5
    await happen(service, 5)
    assert await other.push(service.clock) == 0
    service.clock.advance(31)
    assert await other.push(service.clock) == 5
    assert taker.numbers == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]


async def test_an_event_that_is_on_its_way_is_not_left_out(
    service: Service, push: EventPush, taker: EventTaker, steady: list[float]
) -> None:
    await happen(service, 3)
    connection = service.server.store._database._opened().writer._connection
    connection.execute("DELETE FROM events WHERE number = 2")
    assert await push.push(service.clock) == 1
    steady[0] = GAP_SECONDS
    assert await push.push(service.clock) == 1
    assert taker.numbers == [[1], [3]]


async def test_after_a_restore_it_goes_on_with_the_restore(
    service: Service, push: EventPush, taker: EventTaker
) -> None:
    await happen(service, 9)
    await push.push(service.clock)
    connection = service.server.store._database._opened().writer._connection
    connection.execute("DELETE FROM events WHERE number > 4")
    await service.server.store.events.append(event("store_restored", COMMAND_LINE, now=service.clock()))
    assert await push.push(service.clock) == 1
    assert taker.numbers[-1] == [5]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "64:ff9b:1::a00:1",
        "fec0::1",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "2606:4700::5efe:10.0.0.1",
        "2606:4700::200:5efe:10.0.0.1",
        "3fff::1",
        "5f00::1",
        "2001:db8::1",
        "192.0.0.8",
        "192.88.99.1",
        "198.18.0.1",
    ],
)
async def test_no_address_inside_is_asked_whatever_the_name_says(
    service: Service, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    asked: list[object] = []

    async def resolved(*_: object, **__: object) -> list[Any]:
        public = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 443))
        # One bad address among good ones is enough.
        return [public, (family, socket.SOCK_STREAM, 6, "", (address, 443))]

    async def send(*given: object, **_: object) -> None:
        asked.append(given)

    hook = Webhook("https://hooks.example.com/x", secret=SECRET)
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolved)
    monkeypatch.setattr(hook._http, "send", send)
    with pytest.raises(NotTaken, match="no public address"):
        await hook.take(b"{}", message_id="msg_1", now=service.clock())
    assert asked == []
    await hook.close()


async def test_the_address_that_was_judged_is_the_one_that_is_asked(
    service: Service, taker: EventTaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that means another address the second time (DNS rebinding) changes nothing."""
    answers = ["127.0.0.1", "10.0.0.1"]

    async def resolved(_host: str, port: int, **_: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers.pop(0), port))]

    hook = Webhook(taker.url.replace("127.0.0.1", "localhost"), secret=SECRET, networks=HERE)
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolved)
    await hook.take(b'{"events":[]}', message_id="msg_1", now=service.clock())
    assert taker.taken[0][0]["host"] == f"localhost:{taker.port}"
    assert answers == ["10.0.0.1"]
    await hook.close()


@pytest.mark.parametrize("name", ["hooks.example.com", "other.example.com"])
async def test_the_certificate_has_to_be_that_of_the_name(
    service: Service, taker: EventTaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file = certificate(tmp_path, "hooks.example.com")
    ours, theirs = ssl.create_default_context(cafile=file), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(file)

    async def resolved(_host: str, port: int, **_: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    with taking(theirs) as secure:
        hook = Webhook(f"https://{name}:{secure.port}/events?from=auth", secret=SECRET, networks=HERE, tls=ours)
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolved)
        if name == "hooks.example.com":
            await hook.take(b"{}", message_id="msg_1", now=service.clock())
            assert secure.taken[0][0]["host"] == f"{name}:{secure.port}"
        else:
            with pytest.raises(NotTaken, match="ConnectError"):
                await hook.take(b"{}", message_id="msg_1", now=service.clock())
            assert not secure.taken
        await hook.close()


async def test_nobody_answers(service: Service) -> None:
    hook = Webhook("http://127.0.0.1:1/", secret=SECRET, networks=HERE)
    with pytest.raises(NotTaken, match="ConnectError"):
        await hook.take(b"{}", message_id="msg_1", now=service.clock())
    assert SECRET not in repr(hook) + repr(vars(hook))
    await hook.close()


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"events_webhook": "http://hooks.example.com/"}, "https"),
        ({"events_webhook": "https://user:word@hooks.example.com/"}, "without user"),
        ({"events_webhook": "https://host\t/x"}, "https"),
        ({"events_webhook": "https://a/\x7f"}, "https"),
        ({"events_webhook": "https://[v1.a]/"}, "https"),
        ({"events_webhook": "https://\u2603.example/"}, "https"),
        ({"events_webhook": "https://x..y/"}, "https"),
        ({"events_webhook": f"https://{'x' * 64}.example/"}, "https"),
        ({"events_webhook": "https://hooks.example.com/", "events_webhook_secret": ""}, "whsec_"),
        ({"events_webhook_secret": "whsec_c2hvcnQ="}, "24 to 64 bytes"),
        ({"events_webhook_networks": ("10.0.0.0/33",)}, "NETWORKS"),
    ],
)
def test_settings_that_cannot_be_meant(values: dict[str, Any], word: str) -> None:
    good = {"events_webhook": "https://hooks.example.com/x", "events_webhook_secret": SECRET}
    check_settings(development(**good))
    with pytest.raises(SettingsError, match=word) as refused:
        check_settings(development(**{**good, **values}))
    assert SECRET not in str(refused.value)
    assert SECRET not in repr(development(**good))


async def test_a_server_sends_by_itself(clock: Clock, taker: EventTaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authwright.services.event_push.EVERY_SECONDS", 0.01)
    settings = development(events_webhook=taker.url, events_webhook_secret=SECRET, events_webhook_networks=HERE)
    done = asyncio.Event()
    push = EventPush.push

    async def told(self: EventPush, given: Any) -> int:
        sent = await push(self, given)
        if sent:
            done.set()
        return sent

    monkeypatch.setattr(EventPush, "push", told)
    async with open_service(clock=clock, settings=settings) as service:
        await service.registered_login()
        await asyncio.wait_for(done.wait(), 10)
    assert [number for each in taker.numbers for number in each][:1] == [1]


async def test_pauses_grow_while_nobody_takes_them_and_are_short_again_afterwards(
    service: Service, push: EventPush, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[Exception | None] = [*(NotTaken("503") for _ in range(9)), None, RuntimeError("ours"), None]
    pauses: list[float] = []

    async def pushed(_: object) -> None:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    async def slept(seconds: float) -> None:
        pauses.append(seconds)
        if not outcomes:
            raise asyncio.CancelledError

    monkeypatch.setattr(push, "push", pushed)
    # Of this module alone: other things sleep meanwhile.
    monkeypatch.setattr(event_push, "asyncio", SimpleNamespace(sleep=slept))
    with pytest.raises(asyncio.CancelledError):
        await push.run_regularly(service.clock)
    first, most = event_push.EVERY_SECONDS, event_push.MOST_PAUSE
    grown = [min(most, first * 2**doubled) for doubled in range(10)]
    assert grown[-1] == most
    assert pauses == [*grown, first, most, first]
