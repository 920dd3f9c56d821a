"""What goes on for long after its caller was let in: ended when that caller is revoked, or nobody vouches for it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from authwright.domain.errors import Refusal, Unauthenticated, Unavailable
from authwright.domain.revocation import Revocations
from authwright.guard.life import LOOK_SECONDS, steady_clock
from authwright.guard.policy import OnStale
from authwright.guard.principal import Principal
from authwright.guard.questions import MOST_QUESTIONS, TooManyQuestions

_AT_ONCE: Final = LOOK_SECONDS / 10
"""How often at most news is looked into."""
CLEAN_UP_SECONDS: Final = 5.0
"""How long what is ended has to clean up, before it is cancelled once more."""


class Watched:
    """A task that goes on for its *principal*, who came with *token*."""

    __slots__ = ("_again_at", "_before", "_cancels", "on_stale", "principal", "refusal", "task", "token")

    def __init__(self, principal: Principal, token: str, on_stale: OnStale | None) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can be watched")
        self.principal = principal
        self.token = token
        self.on_stale = on_stale
        self.task = task
        self.refusal: Refusal
        """Why it ends, once it is `revoked`."""
        # What others asked for before is not ours to take back.
        self._before = task.cancelling()
        self._cancels = 0
        self._again_at = float("-inf")

    @property
    def revoked(self) -> bool:
        """Whether the task was cancelled because its caller was revoked, or nobody vouches for it."""
        return self._cancels > 0

    def end(self, refusal: Refusal | None = None) -> None:
        """Cancel the task: once, and again where that was kept from it, or lost, for CLEAN_UP_SECONDS."""
        if not self.revoked:
            self.refusal = refusal or Unauthenticated("The token was revoked.", detail="revoked meanwhile")
        now = steady_clock()
        if now >= self._again_at:
            self._again_at = now + CLEAN_UP_SECONDS
            self._cancels += 1
            self.task.cancel()

    def take_back(self) -> bool:
        """The cancellations of `end` have arrived; whether there is one of somebody else."""
        for _ in range(self._cancels):
            self.task.uncancel()
        return self.task.cancelling() > self._before

    async def absorb(self) -> None:
        """Take in the cancellation that `end` asked for, where it was not seen: it is on its way, or somebody kept it.

        Raises CancelledError if there is another one.
        """
        if asyncio.current_task() is not self.task:
            # A generator that was dropped is closed by the loop: its task has had the cancellation.
            return
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if self.take_back():
                raise
        else:
            self.take_back()


class Watch:
    """All that is watched by one guard. *revocations* is fed by somebody else.

    *is_calm* tells whether revocations are heard of. Where they are not, *vouched* asks about one of the watched, and
    raises Unauthenticated or Unavailable for who must not go on; if it is False, as nobody could be asked, *is_over*
    tells whether the credential by itself is good no more.
    """

    def __init__(
        self,
        revocations: Revocations,
        *,
        is_calm: Callable[[], bool],
        vouched: Callable[[Watched], Awaitable[bool]],
        is_over: Callable[[Principal], bool],
    ) -> None:
        self._revocations = revocations
        self._is_calm = is_calm
        self._vouched = vouched
        self._is_over = is_over
        self.watched: set[Watched] = set()
        self._looked_at, self._looked_for = float("-inf"), 0

    def on_news(self) -> None:
        """Something was heard of revocations."""
        if self.watched and steady_clock() >= self._looked_at + _AT_ONCE:
            self._end_revoked()

    async def look(self) -> None:
        """Look at all of it, also for what was not heard of, and at what should have ended."""
        # A generator that its consumer dropped says only when it is collected that nothing goes on.
        self.watched = {each for each in self.watched if not each.task.done()}
        self._end_revoked()
        for each in self.watched:
            if each.revoked:
                each.end()
        if not self._is_calm():
            # Each in its turn, however many there are, and half of the places are for those who come anew.
            places = asyncio.Semaphore(MOST_QUESTIONS // 2)
            await asyncio.gather(*(self._look_at(each, places) for each in self.watched if not each.revoked))

    def _end_revoked(self) -> None:
        if self._revocations.version != self._looked_for:
            self._looked_at, self._looked_for = steady_clock(), self._revocations.version
            for each in self.watched:
                if self._revocations.refuses(each.principal) is not None:
                    each.end()

    async def _look_at(self, watched: Watched, places: asyncio.Semaphore) -> None:
        try:
            async with places:
                if watched not in self.watched or self._is_calm():
                    # It is done, or the feed is back.
                    return
                vouched = await self._vouched(watched)
        except TooManyQuestions:
            # This guard is busy; that says nothing about the caller.
            vouched = False
        except (Unauthenticated, Unavailable) as refusal:
            watched.end(refusal)
            return
        # Only a feed that is followed lets anybody go on for longer than a credential is good.
        if not vouched and self._is_over(watched.principal):
            watched.end(Unauthenticated("The token has expired.", detail="and nobody vouches for it"))
