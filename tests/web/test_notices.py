"""What users are told by mail: over a real SMTP server, which can refuse, be away, or want a password."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import AuthResult

from authwright.config import Settings
from authwright.domain.event import COMMAND_LINE, event
from authwright.services.notices import GIVE_UP_SECONDS, MailRefused, MailUnavailable, Notices
from authwright.smtp import Smtp
from certificates import certificate
from harness import Service, bearer, development, open_service
from receivers import MailServer, mail_server


def with_mail(port: int) -> Settings:
    return development(smtp_url=f"smtp://127.0.0.1:{port}", mail_from="auth@example.com")


@pytest.fixture
async def mail() -> AsyncIterator[MailServer]:
    async with mail_server() as taker:
        yield taker


@pytest.fixture
async def told(mail: MailServer) -> AsyncIterator[Service]:
    async with open_service(settings=with_mail(mail.port)) as service:
        yield service


async def deliver(service: Service) -> int:
    return await service.server.notices.send(service.clock)


async def test_r164_a_new_password_name_address_and_key_are_told_to_their_owner_at_the_old_address_too(
    told: Service, mail: MailServer
) -> None:
    await told.register("ada", email="ada@example.com")
    login = await told.login("ada")
    change = {"current_password": "test123", "new_password": "test456"}
    answer = await told.http.post("/me/password", headers=bearer(login["access_token"]), json=change)
    token = answer.json()["access_token"]
    moved = {"email": "Ada@new.example.org", "current_password": "test456"}
    assert (await told.http.patch("/me", headers=bearer(token), json=moved)).status_code == 200
    token = (await told.login("ada", "test456"))["access_token"]
    renamed = {"username": "lovelace", "current_password": "test456"}
    assert (await told.http.patch("/me", headers=bearer(token), json=renamed)).status_code == 200
    token = (await told.login("lovelace", "test456"))["access_token"]
    assert (await told.http.post("/me/keys", headers=bearer(token), json={"name": "x"})).status_code == 201
    assert await deliver(told) == 5
    assert mail.got == [
        ("ada@example.com", "The password of your account was changed"),
        ("ada@example.com", "The e-mail address of your account changed"),
        ("ada@new.example.org", "The e-mail address of your account changed"),
        ("ada@new.example.org", "The user name of your account changed"),
        ("ada@new.example.org", "An API key was made for your account"),
    ]
    message = mail.mails[0][1]
    text = message.get_payload(decode=True)
    assert isinstance(text, bytes)
    assert b"from the network address 127.0.0.1" in text
    assert b"test" not in text.replace(b"http://127.0.0.1:8000", b"")
    assert (message["From"], message["To"]) == ("auth@example.com", "ada@example.com")
    assert await deliver(told) == 0


async def test_r164_what_an_administrator_does_is_told_without_where_the_administrator_sits(
    told: Service, mail: MailServer
) -> None:
    admin = bearer(await told.new_admin())
    account = {"username": "eve", "email": "eve@example.com"}
    made = (await told.http.post("/users/", headers=admin, json=account)).json()
    reset = {"token": made["reset_link"]["url"].partition("token=")[2], "new_password": "test789"}
    assert (await told.http.post("/reset-password", json=reset)).status_code == 200
    assert (await told.http.patch("/users/eve", headers=admin, json={"plan": "premium"})).status_code == 200
    moved = {"email": "eva@example.com", "is_active": False}
    assert (await told.http.patch("/users/eve", headers=admin, json=moved)).status_code == 200
    assert (await told.http.delete("/users/eve", headers=admin)).status_code == 200
    await deliver(told)
    assert mail.got == [
        ("eve@example.com", "The password of your account was set anew with a link"),
        ("eve@example.com", "The e-mail address of your account changed"),
        ("eva@example.com", "The e-mail address of your account changed"),
        ("eva@example.com", "Your account was deleted"),
    ]
    first, *others = [mail.get_payload(decode=True) for _, mail in mail.mails]
    assert isinstance(first, bytes)
    assert b"from the network address" in first
    assert all(b"by an administrator" in text and b"127.0.0.1," not in text for text in others)  # type: ignore[operator]


async def test_mail_waits_for_a_server_that_is_away_and_is_given_up_after_a_day(mail: MailServer) -> None:
    async with mail_server() as gone:
        port = gone.port
    async with open_service(settings=with_mail(port)) as service:
        await service.server.register.create(
            username="ada",
            email="ada@example.com",
            password="test123",
            plan=None,
            role="user",
            origin=COMMAND_LINE,
            now=service.clock(),
        )
        await service.server.users.delete("ada", origin=COMMAND_LINE, now=service.clock())
        with pytest.raises(MailUnavailable, match=f"127.0.0.1:{port}"):
            await deliver(service)
        async with mail_server(port) as back:
            back.answer = "450 try again later"
            service.clock.advance(60)
            assert await deliver(service) == 0
            back.answer = ""
            # It waits longer each time.
            service.clock.advance(119)
            assert await deliver(service) == 0
            service.clock.advance(1)
            assert await deliver(service) == 1
            assert back.got == [("ada@example.com", "Your account was deleted")]
        await service.register("eve", email="eve@example.com")
        await service.server.users.delete("eve", origin=COMMAND_LINE, now=service.clock())
        service.clock.advance(GIVE_UP_SECONDS + 1)
        assert await deliver(service) == 1
        assert await service.server.store.notices.list(after=0, most=9) == []


async def test_an_address_that_the_server_refuses_for_ever_is_not_tried_again(told: Service, mail: MailServer) -> None:
    mail.answer = "550 no such user"
    await told.register("ada", email="ada@example.com")
    await told.server.users.delete("ada", origin=COMMAND_LINE, now=told.clock())
    assert await deliver(told) == 1
    assert await deliver(told) == 0
    assert mail.mails == []


async def test_nobody_is_flooded_with_mail_by_who_gave_their_address(told: Service, mail: MailServer) -> None:
    for _ in range(30):
        done = event("password_changed", COMMAND_LINE, now=told.clock(), tell=("victim@example.com",))
        await told.server.store.events.append(done)
    assert await deliver(told) == 30
    assert len(mail.mails) == 20


async def test_without_a_mail_server_nothing_waits(service: Service) -> None:
    login = await service.registered_login("ada", email="ada@example.com")
    change = {"current_password": "test123", "new_password": "test456"}
    answer = await service.http.post("/me/password", headers=bearer(login["access_token"]), json=change)
    assert answer.status_code == 200
    assert await service.server.store.notices.list(after=0, most=9) == []


async def test_a_mail_server_that_says_later_for_hours_loses_nothing(told: Service, mail: MailServer) -> None:
    mail.answer = "451 greylisted"
    done = event("password_changed", COMMAND_LINE, now=told.clock(), tell=("ada@example.com",))
    await told.server.store.events.append(done)
    for _ in range(300):
        assert await deliver(told) == 0
        told.clock.advance(60)
    mail.answer = ""
    told.clock.advance(3600)
    assert await deliver(told) == 1
    assert len(mail.mails) == 1


async def test_one_mail_that_cannot_be_made_or_handed_over_keeps_no_other_waiting(
    told: Service, mail: MailServer
) -> None:
    for address in ("=?utf-8?q?=0d=0a?=@example.com", "=?utf-8?q??=@example.com", "no address", "ada@example.com"):
        done = event("password_changed", COMMAND_LINE, now=told.clock(), tell=(address,))
        await told.server.store.events.append(done)
    assert await deliver(told) == 4
    assert [recipient for recipient, _ in mail.got][-1] == "ada@example.com"
    assert all("\n" not in str(message["To"]) for _, message in mail.mails)
    for text in ("=?utf-8?q?=0d=0a?=@example.com", "=?utf-8?q?a=40b.com=2c?=@evil.com"):
        answer = await told.http.post("/register", json={"email": text, "password": "test123"})
        assert answer.status_code == 422


async def test_who_writes_the_address_in_wide_letters_gets_mail_at_the_plain_one(
    told: Service, mail: MailServer
) -> None:
    await told.register("ada", email="ada\uff20example.com")
    await told.server.users.delete("ada", origin=COMMAND_LINE, now=told.clock())
    await deliver(told)
    assert [recipient for recipient, _ in mail.got] == ["ada@example.com"]


async def test_two_servers_send_a_notice_once(told: Service, mail: MailServer) -> None:
    done = event("password_changed", COMMAND_LINE, now=told.clock(), tell=("ada@example.com",))
    await told.server.store.events.append(done)
    other = Notices(told.server.store, told.server.throttle, told.server.notices._mail, issuer="https://x.example")
    assert sorted(await asyncio.gather(deliver(told), other.send(told.clock))) == [0, 1]
    assert len(mail.mails) == 1


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
async def test_mail_goes_over_tls_to_the_server_that_was_named_with_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = certificate(tmp_path, "127.0.0.1")
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(file)
    ours = ssl.create_default_context(cafile=file)

    def password(_server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        return AuthResult(success=(given.login, given.password) == (b"auth", b"p@ss/word"), handled=False)

    def smtp(scheme: str, port: int, *, secret: str = "p%40ss%2Fword", tls: ssl.SSLContext | None = ours) -> Smtp:
        return Smtp(f"{scheme}://auth:{secret}@127.0.0.1:{port}", sender="auth@example.com", tls=tls)

    rules: dict[str, Any] = {"authenticator": password, "auth_required": True}
    async with mail_server(ssl=theirs, auth_require_tls=False, **rules) as mail:
        await smtp("smtps", mail.port).send("ada@example.com", "Hello", "there")
        assert mail.got == [("ada@example.com", "Hello")]
        with pytest.raises(MailUnavailable, match="SMTPAuthenticationError 535") as wrong:
            await smtp("smtps", mail.port, secret="wrong-password").send("ada@example.com", "Hello", "there")
        assert "wrong-password" not in repr(wrong.value)
        with pytest.raises(MailUnavailable, match="SSLCertVerificationError"):
            await smtp("smtps", mail.port, tls=None).send("ada@example.com", "Hello", "there")
        with pytest.raises(MailRefused):
            await smtp("smtps", mail.port).send("\u00e4da@example.com", "Hello", "there")
    # As for a server on another machine.
    monkeypatch.setattr("authwright.smtp.is_loopback", lambda _host: False)
    async with mail_server(tls_context=theirs, require_starttls=True, **rules) as mail:
        await smtp("smtp", mail.port).send("ada@example.com", "Hello", "there")
        assert len(mail.mails) == 1
    async with mail_server(auth_require_tls=False, **rules) as mail:
        with pytest.raises(MailUnavailable, match="offers no TLS"):
            await smtp("smtp", mail.port).send("ada@example.com", "Hello", "there")
        assert mail.mails == []
