"""A guard on one event loop: its connection to the issuer, and the tasks that keep it in step."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from authwright.domain.revocation import Revocations
from authwright.guard.issuer import Issuer
from authwright.guard.jwks import Jwks
from authwright.guard.limits import Limits
from authwright.guard.questions import Questions
from authwright.guard.revocations import Follower

LOOK_SECONDS: Final = 1.0
"""How often what goes on for long is looked at again, and how often at most for news (a tenth of it)."""

log = logging.getLogger("authwright.guard")

# Goes on while the machine sleeps, where there is such a clock: what was fresh before is not fresh afterwards.
steady_clock: Final[Callable[[], float]] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)


class Life:
    """What belongs to one event loop: the connection to *issuer* and the tasks that keep a guard in step with it.

    *has_secrets*: what it publishes may hold no key. *on_progress* is called when keys or revocations were heard of;
    *look* every LOOK_SECONDS.
    """

    def __init__(
        self,
        issuer: Issuer,
        revocations: Revocations,
        questions: Questions,
        limits: Limits | None,
        *,
        has_secrets: bool,
        on_progress: Callable[[], None],
        look: Callable[[], Awaitable[None]],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.issuer = issuer
        self.jwks = Jwks(issuer, time=steady_clock, on_fetch=on_progress, may_be_empty=has_secrets)
        self.follower = Follower(
            issuer, revocations, time=steady_clock, on_progress=on_progress, on_keys=self.jwks.fetch_soon
        )
        self.questions = questions
        self.limits = limits
        self._look = look
        self.complete = asyncio.Event()
        """Set when keys and revocations were heard of."""
        self.task = asyncio.create_task(self._live())

    async def _live(self) -> None:
        async with self.issuer, asyncio.TaskGroup() as group:
            group.create_task(self.jwks.run())
            group.create_task(self.follower.run())
            group.create_task(_regularly(self._look, "looking at what goes on failed"))
            if self.limits is not None:
                group.create_task(_regularly(self.limits.tidy, "accounting for what was spent failed"))


async def _regularly(work: Callable[[], Awaitable[None]], failure: str) -> None:
    """Do *work* every LOOK_SECONDS, until cancelled; what goes wrong is logged as *failure*."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            await work()
        except Exception:
            log.exception(failure)
