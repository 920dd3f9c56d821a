"""/me/usage and /admin/usage: what was used, for whoever used it and for whoever sells it."""

import asyncio
import csv
import io
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import date, timedelta

from pydantic import Field

from authwright.domain.errors import InsufficientScope, InvalidRequest, NotFound, PlanNotAvailable, Unauthenticated
from authwright.domain.instant import Instant
from authwright.domain.plan import Plans
from authwright.domain.secrets import Subject
from authwright.domain.usage import UsageKey, UsageRow, day_of
from authwright.jose.encoding import b64url_decode, b64url_encode
from authwright.jose.errors import InvalidToken
from authwright.services.usage_report import FIRST, UsageReport, date_of
from authwright.services.users import Users
from authwright.web.caller import Callers
from authwright.web.endpoint import Answer, Body, Call, Endpoints, Reply, Stream, json_reply, query_as

_COLUMNS = ("day", "id", "route", "calls", "units")
_MOST_DAYS = 400
_CLIENT_ID = re.compile(r"cli_[A-Za-z0-9_-]{1,64}")


class OwnUsageQuery(Body):
    days: int = Field(default=30, ge=1, le=_MOST_DAYS, description="So many days of UTC, today included.")


class Left(Answer):
    """Units that are left; null: no such quota."""

    day: int | None
    month: int | None


class OwnUsageShown(Answer):
    """Units that were spent. What is left of the rate stands in the `RateLimit` header of every answer."""

    plan: str
    since: str
    until: str
    total: int
    by_day: dict[str, dict[str, int]] = Field(description="By UTC day and route; (a name) is that of a guarded API.")
    left: Left


class UsageQuery(Body):
    since: date | None = Field(default=None, description="First UTC day; by default 30 days ago.")
    until: date | None = Field(default=None, description="Last UTC day; by default today.")
    user: str | None = Field(default=None, description="User name, address or id; or the id of a client.")
    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = Field(default=None, description="`next` of the page before.")


class UsageShown(Answer):
    """What one caller did on one UTC day with one route."""

    day: str
    id: str
    route: str
    calls: int = Field(description="Answered by this server; those of guarded APIs are not known here.")
    units: int


class UsagePage(Answer):
    usage: list[UsageShown]
    next: str | None


def add_usage(
    endpoints: Endpoints,
    *,
    report: UsageReport,
    plans: Plans,
    users: Users,
    callers: Callers,
    measured: Callers,
    clock: Callable[[], Instant],
) -> None:
    """Both routes. *measured*: callers whose rate is charged, but not their quota: who used it up may know it."""

    async def own(call: Call) -> Reply:
        """What the caller spent, by day and route, and what is left of its quotas."""
        principal = await measured(call)
        query = query_as(OwnUsageQuery, call.query())
        plan = plans.get(principal.plan or "")
        if plan is None:
            raise PlanNotAvailable
        used = await report.own(Subject(principal.subject), plan, days=query.days, now=clock())
        return json_reply(
            {
                "plan": plan.name,
                "since": used.since.isoformat(),
                "until": used.until.isoformat(),
                "total": used.total,
                "by_day": used.by_day,
                "left": {"day": used.day_left, "month": used.month_left},
            }
        )

    async def every(call: Call) -> Reply | Stream:
        """Calls and units by day, caller and route, page by page; with `Accept: text/csv` all of them as CSV."""
        await callers.admin(call)
        query = query_as(UsageQuery, call.query())
        today = date_of(day_of(clock()))
        since, until = query.since or today - timedelta(days=29), query.until or today
        if not 0 <= (until - since).days < _MOST_DAYS:
            raise InvalidRequest(f"From since to until it is one to {_MOST_DAYS} days.")
        subject = query.user
        if subject is not None and not _CLIENT_ID.fullmatch(subject):
            subject = (await users.find(subject)).id
        if (call.header(b"accept") or "").partition(";")[0].strip() == "text/csv":
            headers = ((b"content-type", b"text/csv; charset=utf-8"), (b"content-disposition", b"attachment"))
            rows_of = report.all(since=since, until=until, subject=subject)
            return Stream(200, _csv(rows_of), call.receive, asyncio.Event(), headers, whole=True)
        after = FIRST if query.cursor is None else _read_cursor(query.cursor)
        rows = await report.page(since=since, until=until, subject=subject, after=after, most=query.limit + 1)
        page = rows[: query.limit]
        cursor = _cursor(page[-1]) if len(rows) > len(page) else None
        shown = [dict(zip(_COLUMNS, _shown(row), strict=True)) for row in page]
        return json_reply({"usage": shown, "next": cursor})

    endpoints.add(
        "GET",
        "/me/usage",
        own,
        name="my_usage",
        summary="My usage",
        tag="me",
        answer=OwnUsageShown,
        query=OwnUsageQuery,
        refusals=(Unauthenticated,),
        secured=True,
        charged=True,
    )
    endpoints.add(
        "GET",
        "/admin/usage",
        every,
        name="usage",
        summary="Usage",
        tag="admin",
        answer=UsagePage,
        query=UsageQuery,
        refusals=(Unauthenticated, InsufficientScope, NotFound),
        secured=True,
    )


def _shown(row: UsageRow) -> tuple[str, str, str, int, int]:
    return (date_of(row.day).isoformat(), row.subject, row.route, row.calls, row.units)


async def _csv(pages: AsyncIterator[Sequence[UsageRow]]) -> AsyncIterator[bytes]:
    yield (",".join(_COLUMNS) + "\r\n").encode("ascii")
    async for rows in pages:
        text = io.StringIO()
        csv.writer(text).writerows(_shown(row) for row in rows)
        yield text.getvalue().encode("utf-8")


def _cursor(row: UsageRow) -> str:
    return b64url_encode(json.dumps(row[:3]).encode("ascii"))


def _read_cursor(text: str) -> UsageKey:
    try:
        day, subject, route = json.loads(b64url_decode(text))
    except (InvalidToken, ValueError, TypeError, RecursionError):
        raise InvalidRequest("The cursor is not one of these pages.") from None
    if type(day) is not int or abs(day) > 1_000_000 or not _is_text(subject) or not _is_text(route):
        raise InvalidRequest("The cursor is not one of these pages.")
    return day, subject, route


def _is_text(value: object) -> bool:
    """Whether every store takes it: no half of a character, and nothing that ends a text."""
    return type(value) is str and "\0" not in value and not any("\ud800" <= each <= "\udfff" for each in value)
