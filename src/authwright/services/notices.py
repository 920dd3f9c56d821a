"""Tell users by mail of a change to the ways into their account: the old address, too (ASVS 6.3.7).

A notice is stored with the change itself and sent by whichever server comes first: at least once, and within seconds if
the mail server is there.
"""

import asyncio
import secrets
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from authwright.domain.instant import Instant, after
from authwright.domain.names import normal_address
from authwright.domain.notice import Notice, text_of
from authwright.domain.user import User
from authwright.services.throttle import Throttle
from authwright.storage.port import Store, StoreUnavailable

EVERY_SECONDS: Final = 2.0
GIVE_UP_SECONDS: Final = 86_400
_CLAIM: Final = "notices"
# Longer than one mail takes, with a server that is slow to answer every command: it is renewed for each.
_CLAIM_SECONDS: Final = 180
_BATCH: Final = 100
_MOST_PAUSE: Final = 300.0
# A mail that was refused for now waits a minute, then twice as long each time, up to an hour.
_FIRST_WAIT: Final = 60
_MOST_WAIT: Final = 3600
# So many in a row that could not be handed over: it is the server, not the mail.
_GIVE_UP_AFTER: Final = 3

log = structlog.get_logger("authwright.notices")


class MailRefused(Exception):
    """The mail server will not take this mail, now (*for_now*) or ever."""

    def __init__(self, *, for_now: bool) -> None:
        super().__init__("refused for now" if for_now else "refused")
        self.for_now = for_now


class MailUnavailable(Exception):
    """The mail server does not take any mail at present."""


class Mail(Protocol):
    """What carries mail."""

    async def send(self, recipient: str, subject: str, text: str) -> None:
        """Return when the mail server has it. Raises MailRefused, MailUnavailable."""


class Notices:
    """Sends what waits. Without *mail* nobody is told anything, and nothing is stored to be told."""

    def __init__(self, store: Store, throttle: Throttle, mail: Mail | None, *, issuer: str) -> None:
        self._store = store
        self._throttle = throttle
        self._mail = mail
        self._issuer = issuer
        self._holder = secrets.token_hex(8)
        self._later: dict[int, tuple[Instant, int]] = {}
        """By number: not before when, and how long it waits after the next time."""

    def recipients(self, *users: User) -> tuple[str, ...]:
        """Whom a change is told to: the addresses of the user before and after it, in their normal form."""
        if self._mail is None:
            return ()
        return tuple(dict.fromkeys(normal_address(user.email) for user in users if user.email is not None))

    async def send(self, clock: Callable[[], Instant]) -> int:
        """Send what waits, unless another process is at it; how many. Raises MailUnavailable, StoreUnavailable."""
        settled, number, in_vain = 0, 0, 0
        last: MailUnavailable | None = None
        while batch := await self._store.notices.list(after=number, most=_BATCH):
            for notice in batch:
                number = notice.number
                now = clock()
                if now < self._later.get(number, (now, 0))[0]:
                    continue
                if not await self._claim(now):
                    return settled
                try:
                    done = await self._settled(notice, now)
                except MailUnavailable as error:
                    in_vain, last = in_vain + 1, error
                    if in_vain == _GIVE_UP_AFTER:
                        raise
                    done = False
                else:
                    in_vain, last = 0, None
                if done:
                    await self._store.notices.delete(number)
                    self._later.pop(number, None)
                    settled += 1
                else:
                    wait = self._later.get(number, (now, _FIRST_WAIT))[1]
                    self._later[number] = after(now, wait), min(_MOST_WAIT, wait * 2)
        if last is not None:
            raise last
        return settled

    async def run_regularly(self, clock: Callable[[], Instant]) -> None:
        """Send every EVERY_SECONDS, and less often while that does not work, until cancelled."""
        if self._mail is None:
            return
        pause = EVERY_SECONDS
        while True:
            await asyncio.sleep(pause)
            try:
                await self.send(clock)
                pause = EVERY_SECONDS
            except (StoreUnavailable, MailUnavailable) as error:
                pause = min(_MOST_PAUSE, pause * 2)
                log.error("notices_wait", detail=str(error), seconds=pause)
            except Exception:
                pause = _MOST_PAUSE
                log.exception("notices_wait")

    async def _claim(self, now: Instant) -> bool:
        return await self._store.facts.claim(_CLAIM, self._holder, now=now, until=after(now, _CLAIM_SECONDS))

    async def _settled(self, notice: Notice, now: Instant) -> bool:
        """Whether *notice* needs no further attempt."""
        assert self._mail is not None
        if after(notice.at, GIVE_UP_SECONDS) < now:
            log.error("notice_dropped", number=notice.number, detail="too old")
            return True
        # Nobody proves an address when registering: it must not be flooded by whoever gave it as theirs.
        if not await self._throttle.notice(notice.recipient, now=now):
            log.warning("notice_dropped", number=notice.number, detail="too many to this address")
            return True
        subject, text = text_of(notice, issuer=self._issuer)
        try:
            await self._mail.send(notice.recipient, subject, text)
        except MailRefused as error:
            log.warning("notice_refused", number=notice.number, detail=str(error))
            await self._throttle.notice_failed(notice.recipient, now=now)
            return not error.for_now
        except MailUnavailable:
            await self._throttle.notice_failed(notice.recipient, now=now)
            raise
        return True
