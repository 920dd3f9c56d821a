"""What a new epoch of a subject does to its sessions and to the ledger, in the transaction that raises the epoch.

So no crash and no other change comes in between: whoever reads finds the subject, its sessions and the ledger agreed.
"""

from typing import Any

from sqlalchemy import Table, Text, bindparam, literal_column, select, update

from authwright.domain.secrets import Subject
from authwright.storage.port import Ending
from authwright.storage.sql.ledger import append_of
from authwright.storage.sql.statements import Statement, Step, compiled
from authwright.storage.sql.tables import clients, sessions, users

_live = (
    sessions.c.subject == bindparam("subject"),
    sessions.c.revoked_at.is_(None),
    sessions.c.idle_expires_at > bindparam("now"),
)
_ended: dict[str, Any] = {"revoked_at": bindparam("now"), "revoked_because": bindparam("because")}


def _of(column: Any) -> Any:
    return select(column).where(column.table.c.id == bindparam("subject")).scalar_subquery()


def _statements(table: Table, shown: dict[str, Any]) -> tuple[Statement, Statement, Statement, Statement]:
    epoch = _of(table.c.auth_epoch)
    as_it_is_now = update(sessions).values(auth_epoch=epoch, **shown)
    return (
        compiled(as_it_is_now.where(sessions.c.id == bindparam("keep"), *_live)),
        # Only those of the epoch before: an older one was to end by an earlier change.
        compiled(as_it_is_now.where(sessions.c.auth_epoch == epoch - literal_column("1"), *_live)),
        compiled(
            update(sessions)
            .where(
                sessions.c.subject == bindparam("subject"),
                sessions.c.revoked_at.is_(None),
                sessions.c.auth_epoch < epoch,
            )
            .values(**_ended)
        ),
        append_of("subject", bindparam("subject", type_=Text), epoch),
    )


_FOR_USERS = _statements(
    users, {"username": _of(users.c.username), "role": _of(users.c.role), "plan": _of(users.c.plan)}
)
_FOR_CLIENTS = _statements(clients, {})
_END_SESSION = append_of("session", bindparam("session", type_=Text), literal_column("0"))
_END_OF_CLIENT = compiled(
    update(sessions)
    .where(
        sessions.c.subject == bindparam("subject"),
        sessions.c.client_id == bindparam("client"),
        sessions.c.revoked_at.is_(None),
    )
    .values(**_ended)
)
_CLIENT_ENDED = append_of("client", bindparam("client", type_=Text), literal_column("0"))
_TOKEN_WITHDRAWN = append_of("token", bindparam("token", type_=Text), literal_column("0"))


def _values(ending: Ending) -> dict[str, Any]:
    return {"because": ending.because, "now": ending.now, "until": ending.until, "keep": ending.keep}


def subject_steps(subject: str, ending: Ending | None) -> list[Step]:
    """What follows, in the same transaction, on a step that raised the epoch of *subject*, whose row is still there."""
    if ending is None:
        return []
    keep, carry_over, end, append = _FOR_USERS if subject.startswith("usr_") else _FOR_CLIENTS
    values = {"subject": Subject(subject), **_values(ending)}
    first = [(keep, values)] if ending.keep is not None else []
    if ending.carry_over:
        first.append((carry_over, values))
    return [*first, (end, values), (append, values)]


def session_steps(session: str, ending: Ending | None) -> list[Step]:
    """What follows on a step that ended one *session*."""
    return [] if ending is None else [(_END_SESSION, {"session": session, **_values(ending)})]


def client_steps(client: str, subject: str, ending: Ending | None) -> list[Step]:
    """What follows on a step that took a key of *subject* away: the sessions of this *client* end, and its tokens."""
    if ending is None:
        return []
    values = {"client": client, "subject": subject, **_values(ending)}
    return [(_END_OF_CLIENT, values), (_CLIENT_ENDED, values)]


def token_step(token: str, ending: Ending) -> Step:
    """The step that withdraws one access *token*."""
    return _TOKEN_WITHDRAWN, {"token": token, **_values(ending)}
