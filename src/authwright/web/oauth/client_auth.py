"""Who is this client: with its key in HTTP Basic or in the form, or the built-in public one (RFC 6749 section 2.3)."""

from collections.abc import Mapping
from urllib.parse import unquote_plus

from authwright.domain.client import FIRST_PARTY, Client
from authwright.domain.errors import InvalidClient, InvalidRequest
from authwright.domain.instant import Instant
from authwright.guard.credential import read_basic
from authwright.services.clients import Clients
from authwright.web.caller import origin_of
from authwright.web.endpoint import Call


async def authenticate_client(call: Call, form: Mapping[str, str], clients: Clients, now: Instant) -> Client | None:
    """The client that calls; None for the built-in public one.

    Raises InvalidClient, TooManyAttempts, InvalidRequest (two ways at once).
    """
    basic = _basic(call)
    if basic is not None and "client_secret" in form:
        raise InvalidRequest("Two ways of client authentication were used.")
    if basic is not None and form.get("client_id", basic[0]) != basic[0]:
        raise InvalidRequest("Two client ids were sent.")
    client_id, secret = basic or (form.get("client_id"), form.get("client_secret"))
    if not secret and (not client_id or client_id == FIRST_PARTY):
        return None
    return await clients.authenticate(client_id or "", secret or "", origin=origin_of(call), now=now)


def _basic(call: Call) -> tuple[str, str] | None:
    """Client id and secret of HTTP Basic, strictly read: form-encoded inside canonical base64."""
    header = call.header(b"authorization")
    if header is None:
        return None
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        raise InvalidClient("Clients authenticate with HTTP Basic or in the form.")
    try:
        client_id, secret = read_basic(encoded.encode("latin-1"))
    except ValueError:
        raise InvalidClient from None
    return unquote_plus(client_id), unquote_plus(secret)
