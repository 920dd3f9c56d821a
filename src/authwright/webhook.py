"""A signed webhook (Standard Webhooks), which asks no address that it should not."""

import asyncio
import base64
import hmac
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from typing import Final

import httpx2

from authwright.domain.instant import MICROSECONDS, Instant
from authwright.services.event_push import NotTaken

SECONDS: Final = 10.0
"""How long the other side may take for its answer."""
_PUBLIC: Final = ipaddress.ip_network("2000::/3")
# Special blocks of IANA's registries: protocols, documentation, tests, and those that carry an IPv4 address inside.
_INSIDE: Final = tuple(
    ipaddress.ip_network(each)
    for each in (
        *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
    )
)


class Webhook:
    """`services.event_push.Receiver`: POSTs to *url*, signed with *secret* (`whsec_...`) over id, time and body.

    Only public addresses are asked, and those in *networks*: the name is looked up once for each message, every address
    of it is judged, and the one that was judged is the one that is connected to. Redirects are not followed, and of the
    answer only the status is read.
    """

    def __init__(
        self, url: str, *, secret: str, networks: Sequence[str] = (), tls: ssl.SSLContext | None = None
    ) -> None:
        self._url = httpx2.URL(url)
        self._secret = base64.b64decode(secret.removeprefix("whsec_"))
        self._networks = [ipaddress.ip_network(each) for each in networks]
        self._http = httpx2.AsyncClient(
            timeout=SECONDS, follow_redirects=False, trust_env=False, verify=tls or ssl.create_default_context()
        )

    def __repr__(self) -> str:
        return f"Webhook({self._url.host})"

    async def close(self) -> None:
        """Disconnect."""
        await self._http.aclose()

    async def take(self, body: bytes, *, message_id: str, now: Instant) -> None:
        timestamp = str(now // MICROSECONDS)
        signed = hmac.digest(self._secret, f"{message_id}.{timestamp}.".encode("ascii") + body, "sha256")
        headers = {
            "host": self._url.netloc.decode("ascii"),
            "content-type": "application/json",
            "user-agent": "authwright",
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": f"v1,{base64.b64encode(signed).decode('ascii')}",
        }
        try:
            async with asyncio.timeout(SECONDS):
                address = await self._address()
                request = self._http.build_request(
                    "POST",
                    self._url.copy_with(host=address),
                    content=body,
                    headers=headers,
                    # The certificate is that of the name, whatever the address.
                    extensions={"sni_hostname": self._url.host},
                )
                answer = await self._http.send(request, stream=True)
                status = answer.status_code
                await answer.aclose()
        except (httpx2.HTTPError, TimeoutError, OSError, UnicodeError) as error:
            raise NotTaken(f"{self!r}: {type(error).__name__}") from None
        if not 200 <= status < 300:
            raise NotTaken(f"{self!r}: it answered {status}")

    async def _address(self) -> str:
        """An address of the host, all of whose addresses may be asked. Raises NotTaken, OSError."""
        port = self._url.port or (443 if self._url.scheme == "https" else 80)
        found = await asyncio.get_running_loop().getaddrinfo(self._url.host, port, type=socket.SOCK_STREAM)
        addresses = [str(each[4][0]) for each in found]
        for address in addresses:
            if not self._may_be_asked(address):
                raise NotTaken(f"{self!r}: {address} is no public address, nor in AUTHWRIGHT_EVENTS_WEBHOOK_NETWORKS")
        return addresses[0]

    def _may_be_asked(self, text: str) -> bool:
        address = ipaddress.ip_address(text.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in network for network in self._networks if network.version == address.version):
            return True
        inside = any(address in each for each in _INSIDE if each.version == address.version)
        if isinstance(address, ipaddress.IPv6Address):
            # Public addresses are in 2000::/3 today; an interface named so by ISATAP leads to an IPv4 address.
            return address in _PUBLIC and not inside and (int(address) >> 32) & 0xFDFFFFFF != 0x5EFE
        return address.is_global and not address.is_multicast and not inside
