"""Notices: what a user is told by mail of a change to the ways into the account (ASVS 6.3.7)."""

from typing import Final, NamedTuple

from authwright.domain.event import Event, EventKind
from authwright.domain.instant import Instant, isoformat


class Notice(NamedTuple):
    """One mail that is to be sent. *address* is the network it was done from; empty if somebody else did it.

    *number* is 0 until the store gives it one.
    """

    at: Instant
    kind: EventKind
    detail: str
    address: str
    recipient: str
    number: int = 0


def notices_of(event: Event) -> list[Notice]:
    """A notice for each address that the event is to be told to."""
    # Where an administrator sits is no business of the user's.
    address = event.address if event.actor == event.subject else ""
    return [Notice(event.at, event.kind, event.detail, address, recipient) for recipient in event.tell]


_WHAT: Final[dict[EventKind, str]] = {
    "password_changed": "The password of your account was changed",
    "password_reset": "The password of your account was set anew with a link",
    "api_key_created": "An API key was made for your account",
    "user_deleted": "Your account was deleted",
}
_NAMES: Final = {"username": "user name", "email": "e-mail address"}


def text_of(notice: Notice, *, issuer: str) -> tuple[str, str]:
    """Subject and plain text. Nothing in them was chosen by whoever made the change; there is no link to follow."""
    what = _WHAT.get(notice.kind)
    if what is None:
        changed = " and ".join(name for word, name in _NAMES.items() if word in notice.detail.split())
        what = f"The {changed} of your account changed"
    by = f"from the network address {notice.address}" if notice.address else "by an administrator"
    return what, (
        f"{what} at {issuer}, {by}, on {isoformat(notice.at)}.\n\n"
        "If this was you, or you asked for it, there is nothing to do.\n\n"
        "If it was not, somebody else has got into your account: set a new password if you still can, which logs out\n"
        "everybody else, and tell those who run the service.\n"
    )
