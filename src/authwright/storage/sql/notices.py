"""Mail that waits to be sent, on SQLAlchemy Core."""

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, insert, select

from authwright.domain.notice import Notice
from authwright.storage.sql.statements import Database, Step, compiled, unfailing
from authwright.storage.sql.tables import notices

_COLUMNS = [column for column in notices.c if column.name != "number"]
_NAMES = [column.name for column in _COLUMNS]
_ADD = unfailing(insert(notices).values({name: bindparam(name) for name in _NAMES}))
_LIST = compiled(
    select(*_COLUMNS, notices.c.number)
    .where(notices.c.number > bindparam("after"))
    .order_by(notices.c.number)
    .limit(bindparam("most"))
)
_DELETE = compiled(delete(notices).where(notices.c.number == bindparam("gone")))


def notice_step(notice: Notice) -> Step:
    """The step that stores *notice* in the transaction of the act that it tells of."""
    return _ADD, dict(zip(_NAMES, notice, strict=False))


class SqlNotices:
    """`storage.port.Notices`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, *, after: int, most: int) -> Sequence[Notice]:
        return [Notice(*row) for row in await self._database.find(_LIST, {"after": after, "most": most})]

    async def delete(self, number: int) -> None:
        await self._database.write(_DELETE, {"gone": number})
