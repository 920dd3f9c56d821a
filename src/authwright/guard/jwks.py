"""The issuer's public keys: fetched by one request at a time, kept when a fetch fails (RFC 7517).

They are fetched again when the issuer says they may have changed, and for a key id that nobody knows at most once
in COOLDOWN_SECONDS, however many tokens name one.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import Final

from authwright.guard.issuer import Issuer, IssuerAway, IssuerRefuses
from authwright.jose.errors import InvalidKey
from authwright.jose.keys import PublicKey, public_keys_from_jwks

COOLDOWN_SECONDS: Final = 30.0
MAX_STALE_SECONDS: Final = 24 * 3600.0
USUAL_SECONDS: Final = 300
LEAST_SECONDS: Final = 10
FETCH_SECONDS: Final = 5.0
"""How long a fetch may take in all."""
NEWS_SECONDS: Final = 0.5
"""All guards hear of a withdrawn key at once, and fetch within this time; sooner, if a token with another key comes."""
_RETRY_SECONDS: Final = 5.0
_SPACE_SECONDS: Final = 0.2
_AGAIN_SECONDS: Final = 0.5
"""After news of a key they are fetched once more: a worker of the issuer that heard of it last may have answered."""

log = logging.getLogger("authwright.guard")


class Jwks:
    """The keys of one issuer. *time* is a clock that never jumps; *on_fetch* is called after each fetch.

    *may_be_empty*: the issuer may go over to signing with secrets alone.
    """

    def __init__(
        self, issuer: Issuer, *, time: Callable[[], float], on_fetch: Callable[[], None], may_be_empty: bool
    ) -> None:
        self._issuer = issuer
        self._may_be_empty = may_be_empty
        self._time = time
        self._on_fetch = on_fetch
        self._document: bytes | None = None
        self._flight: asyncio.Task[bool] | None = None
        self._cool_at = -COOLDOWN_SECONDS
        self._due = 0.0
        self._asked = asyncio.Event()
        self.keys: Mapping[str, PublicKey] = {}
        """Another object whenever they changed."""
        self.fetched_at: float | None = None
        """When the keys were last fetched; None before the first time."""
        self.fetches = 0

    @property
    def good_until(self) -> float:
        """Until when what is known may be used."""
        return float("-inf") if self.fetched_at is None else self.fetched_at + MAX_STALE_SECONDS

    async def fetch(self) -> bool:
        """Fetch the keys, or wait for the fetch that is under way; whether it succeeded. Never raises."""
        if self._flight is None or self._flight.done():
            self._flight = asyncio.create_task(self._fetch())
        return await asyncio.shield(self._flight)

    async def unknown_key(self) -> bool:
        """A token names a key that is not here: look again, unless that was done a moment ago; whether it was.

        True for whoever waited for a fetch that was under way, who then should ask once more.
        """
        if self._flight is not None and not self._flight.done():
            return await self.fetch()
        if self._time() < self._cool_at + COOLDOWN_SECONDS:
            return False
        self._cool_at = self._time()
        return await self.fetch()

    def fetch_soon(self) -> None:
        """The issuer said that keys changed."""
        self._cool_at = -COOLDOWN_SECONDS
        self._asked.set()

    async def run(self) -> None:
        """Keep the keys fresh until cancelled."""
        while True:
            try:
                async with asyncio.timeout(max(0.0, self._due - self._time())):
                    await self._asked.wait()
            except TimeoutError:
                pass
            news = self._asked.is_set()
            self._asked.clear()
            if news:
                await asyncio.sleep(NEWS_SECONDS * random.random())  # noqa: S311 - spreads, guards nothing
            if self._flight is not None:
                # It may have begun before the keys changed.
                await asyncio.wait((self._flight,))
            await self.fetch()
            if news:
                self._due = min(self._due, self._time() + _AGAIN_SECONDS)
            await asyncio.sleep(_SPACE_SECONDS)

    async def _fetch(self) -> bool:
        self.fetches += 1
        self._due = self._time() + _RETRY_SECONDS * random.uniform(0.5, 1.5)  # noqa: S311 - spreads, guards nothing
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                document, max_age = await self._issuer.key_set()
            if document != self._document:
                keys = public_keys_from_jwks(document)
                if self.keys and not keys and not self._may_be_empty:
                    # Keys are withdrawn by the feed. This is somebody who has not found its own yet.
                    raise InvalidKey("there is none that can be used")
                self.keys, self._document = keys, document
        except (IssuerAway, IssuerRefuses, InvalidKey, TimeoutError) as error:
            # What was known goes on being used: an issuer that is away ends nobody's work.
            log.warning("the issuer's keys could not be fetched: %s", error or type(error).__name__)
            return False
        except Exception:
            log.exception("fetching the issuer's keys failed")
            return False
        self.fetched_at = self._time()
        # Spread, so that guards that started together do not ask together for ever.
        self._due = self._time() + min(max(max_age or USUAL_SECONDS, LEAST_SECONDS), 3600) * random.uniform(0.8, 1.0)  # noqa: S311 - spreads, guards nothing
        self._on_fetch()
        return True
