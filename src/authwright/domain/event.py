"""Security events: who did what, to whom, from where, and how it ended. Rows are added, and in the end forgotten.

Nothing that was typed into a secret's place stands in an event, nor a name that was tried: what came from outside is
bounded and cannot start a line or move a terminal's cursor.
"""

from typing import Final, Literal, NamedTuple, get_args

from authwright.domain.instant import Instant, isoformat

EventKind = Literal[
    "login",
    "logout",
    "logout_everywhere",
    "session_ended",
    "token_revoked",
    "refresh_reused",
    "store_rolled_back",
    "registered",
    "user_created",
    "user_changed",
    "user_disabled",
    "user_enabled",
    "user_deleted",
    "password_changed",
    "password_confirmed",
    "password_reset",
    "reset_link_made",
    "api_key_created",
    "api_key_deleted",
    "client_created",
    "client_key_rotated",
    "client_disabled",
    "client_authenticated",
    "signing_key_rotated",
    "signing_key_withdrawn",
    "keys_rewrapped",
    "store_restored",
    "events_sealed",
    "events_forgotten",
]
EVENT_KINDS: Final[tuple[EventKind, ...]] = get_args(EventKind)
Outcome = Literal["success", "failure"]

COMMAND: Final = "command"
"""The actor of what was done on the command line."""

MAX_TEXT: Final = 256


class Origin(NamedTuple):
    """Who asks, and from where. *actor* is the caller's subject; empty while nobody is known."""

    address: str = ""
    user_agent: str = ""
    request_id: str = ""
    actor: str = ""


COMMAND_LINE: Final = Origin(actor=COMMAND)


class Event(NamedTuple):
    """One row. *subject* is whom it concerns; *number* is 0 until the store gives it one.

    *tell*: the addresses that are sent a notice of it (domain.notice). The store keeps them until that is done, not in
    the row.
    """

    at: Instant
    kind: EventKind
    outcome: Outcome
    actor: str
    subject: str
    client_id: str
    session_id: str
    address: str
    user_agent: str
    request_id: str
    detail: str
    number: int = 0
    tell: tuple[str, ...] = ()


def event(
    kind: EventKind,
    origin: Origin,
    *,
    now: Instant,
    subject: str = "",
    client_id: str = "",
    session_id: str = "",
    detail: str = "",
    outcome: Outcome = "success",
    tell: tuple[str, ...] = (),
) -> Event:
    """What happened *now* at the wish of *origin*; its subject is the actor, where nobody was known before."""
    return Event(
        now,
        kind,
        outcome,
        origin.actor or (subject if outcome == "success" else ""),
        subject,
        client_id,
        session_id,
        origin.address,
        harmless(origin.user_agent),
        origin.request_id,
        detail,
        tell=tell,
    )


def shown(happened: Event) -> dict[str, str | int]:
    """*happened* with the names of its members, as people and programs are shown it."""
    try:
        at = isoformat(happened.at)
    except (TypeError, OverflowError):
        # Somebody has put it there who can write to the database.
        at = repr(happened.at)
    members: dict[str, str | int] = {"number": happened.number, **happened._asdict(), "at": at}
    del members["tell"]
    return members


def harmless(text: str) -> str:
    """*text* from outside, bounded, in one line, and without control characters."""
    text = text[:MAX_TEXT]
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")[:MAX_TEXT]
