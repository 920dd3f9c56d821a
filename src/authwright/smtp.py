"""Mail by SMTP (RFC 5321), on a thread: a mail is no part of any request."""

import asyncio
import smtplib
import ssl
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Final
from urllib.parse import unquote, urlsplit

from authwright.config import is_loopback
from authwright.services.notices import MailRefused, MailUnavailable

SECONDS: Final = 10.0
"""How long the mail server may take for each of its answers."""


class Smtp:
    """`services.notices.Mail`: the server that *url* names, as AUTHWRIGHT_SMTP_URL does.

    Nothing is sent without TLS, and its certificate is verified, unless the server is on this machine.
    """

    def __init__(self, url: str, *, sender: str, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._from_the_start = parts.scheme == "smtps"
        self._port = parts.port or (465 if self._from_the_start else 25 if is_loopback(self._host) else 587)
        self._user = unquote(parts.username or "")
        self._password = unquote(parts.password or "")
        self._sender = sender
        self._tls = tls or ssl.create_default_context()

    def __repr__(self) -> str:
        return f"Smtp({self._host}:{self._port})"

    async def send(self, recipient: str, subject: str, text: str) -> None:
        await asyncio.to_thread(self._send, recipient, subject, text)

    def _send(self, recipient: str, subject: str, text: str) -> None:
        try:
            message = self._message(recipient, subject, text)
        except Exception:
            # Whatever the library finds wrong with an address will be wrong the next time, too.
            raise MailRefused(for_now=False) from None
        try:
            with self._connect() as server:
                server.send_message(message, self._sender, [recipient])
        except smtplib.SMTPRecipientsRefused as error:
            code = next(iter(error.recipients.values()))[0]
            raise MailRefused(for_now=code < 500) from None
        except (smtplib.SMTPNotSupportedError, UnicodeError):
            # The address has letters that this server cannot carry.
            raise MailRefused(for_now=False) from None
        except smtplib.SMTPDataError as error:
            raise MailRefused(for_now=error.smtp_code < 500) from None
        except smtplib.SMTPResponseException as error:
            # What the server says may quote what was sent to it; the code tells enough.
            raise MailUnavailable(f"{self!r}: {type(error).__name__} {error.smtp_code}") from None
        except (OSError, smtplib.SMTPException) as error:
            raise MailUnavailable(f"{self!r}: {type(error).__name__}") from None

    def _connect(self) -> smtplib.SMTP:
        if self._from_the_start:
            server: smtplib.SMTP = smtplib.SMTP_SSL(self._host, self._port, timeout=SECONDS, context=self._tls)
        else:
            server = smtplib.SMTP(self._host, self._port, timeout=SECONDS)
        try:
            if not self._from_the_start and not is_loopback(self._host):
                server.starttls(context=self._tls)
            if self._user:
                server.login(self._user, self._password)
        except smtplib.SMTPNotSupportedError:
            # Another server would be needed; that is no fault of the mail.
            server.close()
            raise MailUnavailable(f"{self!r} offers no TLS, or no login") from None
        except BaseException:
            server.close()
            raise
        return server

    def _message(self, recipient: str, subject: str, text: str) -> EmailMessage:
        message = EmailMessage()
        # The parts as they are: nothing in an address is decoded, and there is one recipient.
        local, _, domain = recipient.rpartition("@")
        message["From"], message["To"], message["Subject"] = self._sender, Address("", local, domain), subject
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=self._sender.rpartition("@")[2])
        # No "I am on holiday" in answer to it (RFC 3834).
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        return message
