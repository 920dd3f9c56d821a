"""Rates of callers in Redis or Valkey: a guarded change is one script, and those that wait go together."""

import asyncio
import time
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.asyncio.connection import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from authwright.domain.allowance import Allowance
from authwright.domain.instant import Instant
from authwright.domain.secrets import Subject
from authwright.storage.port import Replaced, StoreUnavailable

ANSWER_SECONDS: Final = 0.25
_TOGETHER: Final = 128
# A full bucket is that of somebody who was never seen. It is kept for a while longer, for clocks that differ.
_KEPT_MS: Final = 60_000
_SWAP: Final = """
local stored = redis.call('GET', KEYS[1]) or ''
if stored ~= ARGV[1] then return stored end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return false
"""


class _Change(NamedTuple):
    key: str
    old: str
    new: str
    kept_ms: int
    answer: "asyncio.Future[str | None]"


class RedisAllowances:
    """`storage.port.Allowances` in the server that *url* names; *name* keeps stores apart that share it.

    Nothing here is durable: a server that forgot everything lets every caller have one more burst.
    """

    def __init__(self, url: str, *, name: str) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=4,
            timeout=ANSWER_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
            client_name="authwright",
        )
        self._redis: Any = Redis.from_pool(pool)
        self._script = ""
        self._prefix = f"authwright:{name}:allowance:"
        self._waiting: list[_Change] = []
        self._sending: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Disconnect."""
        await self._redis.aclose()

    async def read(self, caller: Subject) -> Allowance | None:
        try:
            return _allowance(await self._redis.get(self._prefix + caller))
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"Redis: {type(error).__name__}") from None

    async def replace(self, caller: Subject, old: Allowance | None, new: Allowance) -> Replaced:
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        ahead = max(new.full_at, new.leased_until) - time.time_ns() // 1000
        kept_ms = max(0, ahead // 1000) + _KEPT_MS
        self._waiting.append(_Change(self._prefix + caller, _text(old), _text(new), kept_ms, answer))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())
        stored = await answer
        return Replaced(True, new) if stored is None else Replaced(False, _allowance(stored))

    async def forget(self, *, before: Instant, most: int) -> int:
        """The server forgets by itself."""
        return 0

    async def _send(self) -> None:
        """Send what waits, as long as something does; who comes meanwhile goes together the next time."""
        changes: list[_Change] = []
        try:
            while self._waiting:
                changes, self._waiting = self._waiting[:_TOGETHER], self._waiting[_TOGETHER:]
                for change, answer in zip(changes, await self._swap(changes), strict=True):
                    if change.answer.done():
                        continue
                    if isinstance(answer, Exception):
                        change.answer.set_exception(StoreUnavailable(f"Redis: {type(answer).__name__}"))
                    else:
                        change.answer.set_result(answer)
        except BaseException as error:
            for change in (*changes, *self._waiting):
                if not change.answer.done():
                    change.answer.set_exception(StoreUnavailable(f"Redis: {type(error).__name__}"))
            self._waiting = []
            if not isinstance(error, RedisError | OSError | TimeoutError):
                raise
        finally:
            self._sending = None

    async def _swap(self, changes: list[_Change]) -> list[Any]:
        if not self._script:
            self._script = await self._redis.script_load(_SWAP)
        answers = await self._pipeline(changes)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            # The server was started anew. What has its answer must not be done again.
            self._script = await self._redis.script_load(_SWAP)
            again = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            for at, answer in zip(again, await self._pipeline([changes[at] for at in again]), strict=True):
                answers[at] = answer
        return answers

    async def _pipeline(self, changes: list[_Change]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for change in changes:
                pipeline.evalsha(self._script, 1, change.key, change.old, change.new, change.kept_ms)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
            return answers


def _text(allowance: Allowance | None) -> str:
    return "" if allowance is None else f"{allowance.full_at} {allowance.leased} {allowance.leased_until}"


def _allowance(text: str | None) -> Allowance | None:
    if not text:
        return None
    parts = text.split(" ")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        # Somebody else writes here: whatever it means, it is replaced.
        raise StoreUnavailable("Redis holds what is no allowance")
    full_at, leased, leased_until = map(int, parts)
    return Allowance(Instant(full_at), leased, Instant(leased_until))
