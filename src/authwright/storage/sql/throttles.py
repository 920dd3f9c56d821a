"""Counters of failures on SQLAlchemy Core."""

from collections.abc import Sequence

from sqlalchemy import BigInteger, Integer, Select, bindparam, case, cast, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from authwright.domain.instant import MICROSECONDS, Instant, after
from authwright.domain.throttle import MOST_SECONDS, Backoff, Bucket
from authwright.storage.port import Passed
from authwright.storage.sql.statements import Database, Step, compiled, least, unfailing
from authwright.storage.sql.tables import familiar, throttles

_again = case((throttles.c.counted_at < bindparam("remembered"), 0), else_=throttles.c.failures) + 1
_free = bindparam("free", type_=BigInteger)
_now = bindparam("now", type_=BigInteger)
_over = cast(least(_again - _free, 20), Integer)
_seconds = case(
    (_again < _free, 0),
    else_=least(MOST_SECONDS, cast(1, BigInteger).op("<<", return_type=BigInteger())(_over)),
)
# A bucket that is closed is left as it is, and answers nothing: the attempt was neither let in nor counted.
_ADMIT = compiled(
    insert(throttles)
    .values(
        bucket=bindparam("bucket"),
        failures=1,
        counted_at=_now,
        closed_until=_now + bindparam("first", type_=BigInteger) * MICROSECONDS,
    )
    .on_conflict_do_update(
        index_elements=["bucket"],
        set_={
            "failures": _again,
            "counted_at": _now,
            "closed_until": _now + _seconds * MICROSECONDS,
        },
        where=throttles.c.closed_until <= bindparam("now"),
    )
    .returning(throttles.c.failures)
)
_FIND = compiled(select(throttles.c.closed_until).where(throttles.c.bucket == bindparam("bucket")))
_CLEAR = unfailing(delete(throttles).where(throttles.c.bucket == bindparam("bucket")))
_RETURN = unfailing(
    update(throttles)
    .where(throttles.c.bucket == bindparam("bucket"), throttles.c.failures > 0)
    .values(failures=throttles.c.failures - 1)
)
_MARK = unfailing(
    insert(familiar)
    .values(bucket=bindparam("bucket"), until=bindparam("until"))
    .on_conflict_do_update(index_elements=["bucket"], set_={"until": bindparam("until")})
)
_FAMILIAR_UNTIL = compiled(
    select(familiar.c.until).where(familiar.c.bucket == bindparam("bucket"), familiar.c.until > bindparam("now"))
)


def _some(source: Select[tuple[Bucket]]) -> Select[tuple[Bucket]]:
    return source.limit(bindparam("most"))


_FORGET_COUNTERS = compiled(
    delete(throttles)
    .where(
        throttles.c.bucket.in_(
            _some(
                select(throttles.c.bucket).where(
                    throttles.c.counted_at < bindparam("before"), throttles.c.closed_until <= bindparam("now")
                )
            )
        )
    )
    .returning(throttles.c.bucket)
)
_FORGET_FAMILIAR = compiled(
    delete(familiar)
    .where(familiar.c.bucket.in_(_some(select(familiar.c.bucket).where(familiar.c.until <= bindparam("now")))))
    .returning(familiar.c.bucket)
)


def passed_steps(passed: Passed | None) -> list[Step]:
    """What stores *passed*; nothing can refuse these steps."""
    if passed is None:
        return []
    steps: list[Step] = [(_CLEAR, {"bucket": bucket}) for bucket in passed.cleared]
    steps += [(_RETURN, {"bucket": bucket}) for bucket in passed.returned]
    steps += [(_MARK, {"bucket": bucket, "until": passed.until}) for bucket in passed.familiar]
    return steps


class SqlThrottles:
    """`storage.port.Throttles`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def admit(
        self, buckets: Sequence[tuple[Bucket, Backoff]], *, now: Instant, hurry: bool = True
    ) -> Instant | None:
        steps: list[Step] = [
            (
                _ADMIT,
                {
                    "bucket": bucket,
                    "now": now,
                    "free": backoff.free,
                    "first": backoff.closed_for(1),
                    "remembered": after(now, -backoff.memory),
                },
            )
            for bucket, backoff in buckets
        ]
        while not await self._database.write_together(*steps, guards=len(steps), patient=not hurry):
            closed = [row[0] for bucket, _ in buckets for row in await self._database.find(_FIND, {"bucket": bucket})]
            if max(closed, default=now) > now:
                return Instant(max(closed))
            # It was cleared in between: once more.
        return None

    async def succeed(self, passed: Passed) -> None:
        await self._database.write_together(*passed_steps(passed))

    async def familiar_until(self, bucket: Bucket, *, now: Instant) -> Instant | None:
        rows = await self._database.find(_FAMILIAR_UNTIL, {"bucket": bucket, "now": now})
        return rows[0][0] if rows else None

    async def forget(self, *, before: Instant, now: Instant, most: int) -> int:
        parameters = {"before": before, "now": now, "most": most}
        rows = await self._database.write_together((_FORGET_COUNTERS, parameters), (_FORGET_FAMILIAR, parameters))
        return sum(len(each) for each in rows)
