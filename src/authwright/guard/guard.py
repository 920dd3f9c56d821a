"""The guard of one API: verify a caller's token here, without a call to the server, and know what was revoked.

    guard = Guard(issuer="https://auth.example.com", audience="https://api.example.com", key="awk_...")
    principal = await guard.verify(token)

Everything in here runs on one event loop; it begins with the first token, or with `async with guard`.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, Self

from authwright.domain.errors import Forbidden, InsufficientScope, Unauthenticated, Unavailable
from authwright.domain.instant import MICROSECONDS, Instant
from authwright.domain.revocation import Revocations
from authwright.domain.secrets import API_KEY_PREFIX, CLIENT_KEY_PREFIX, is_key, key_digest
from authwright.guard.issuer import Issuer, IssuerAway, IssuerRefuses
from authwright.guard.life import Life, steady_clock
from authwright.guard.limits import Limits, OnLost, Terms, require_on_lost
from authwright.guard.policy import OnStale, either, require_on_stale
from authwright.guard.principal import Principal
from authwright.guard.questions import Questions
from authwright.guard.status import Status
from authwright.guard.verifier import MAX_CACHED_BYTES, Verifier
from authwright.guard.watch import Watch, Watched
from authwright.jose.encoding import b64url_decode
from authwright.jose.errors import InvalidKey, InvalidToken, UnknownKey
from authwright.jose.keys import PublicKey, SharedSecret

FIRST_SECONDS: Final = 2.0
"""How long the first callers wait for keys and the first snapshot."""
MAX_STALENESS: Final = 5.0
MAX_LIFETIME: Final = 3600
VERDICT_SECONDS: Final = 1.0
"""For how long the issuer's word on a token is taken while the feed is lost."""
KEY_SECONDS: Final = 10.0
"""For how long the issuer's word on a key is taken while the feed is followed."""

log = logging.getLogger("authwright.guard")


def system_clock() -> Instant:
    """Now."""
    return Instant(time.time_ns() // 1000)


class Guard:
    """Verifies access tokens of *issuer* for *audience*, and refuses what was revoked within a second.

    *key* is a client key with the scope `revocations`; it may be left out against a development server. *on_stale*
    says what happens when revocations were not heard of for *max_staleness* seconds: `introspect` asks the issuer
    about each token, and accepts it until it expires if the issuer cannot be asked either; `allow` accepts;
    `refuse` answers 503. *accept_keys*: API keys and client keys are credentials, too; the issuer is asked about each
    now and then, and without its word a key is not accepted, whatever *on_stale* says. *leeway* (seconds) covers
    clocks that differ, *max_lifetime* (seconds) is the longest the issuer gives a token. *shared_secrets* (base64url,
    by key id) are for an issuer that signs with HS256. *limits*: `spend` and `charge` spend the caller's allowance with
    the issuer, for which *key* needs the scope `limits`, too; while the issuer is away a caller goes on at the pace of
    its last lease, or with *on_limits_lost* `refuse` is refused. *cache_bytes* bounds what tokens that were seen before
    may take: some 1.6 KB each.

    Raises ValueError for what is unsafe. Not for several threads: one event loop at a time.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        key: str | None = None,
        on_stale: OnStale = "introspect",
        max_staleness: float = MAX_STALENESS,
        accept_keys: bool = False,
        leeway: int = 5,
        max_lifetime: int = MAX_LIFETIME,
        shared_secrets: Mapping[str, str] | None = None,
        limits: bool = False,
        on_limits_lost: OnLost = "continue",
        cache_bytes: int = MAX_CACHED_BYTES,
        clock: Callable[[], Instant] = system_clock,
    ) -> None:
        require_on_lost(on_limits_lost)
        if key is not None and key_digest(key, CLIENT_KEY_PREFIX) is None:
            raise ValueError("key is not a client key; `authwright clients create` makes one")
        require_on_stale(on_stale)
        if not 0.5 <= max_staleness <= 300:
            raise ValueError("max_staleness is 0.5 to 300 seconds")
        if not 1 <= max_lifetime <= 86_400:
            raise ValueError("max_lifetime is 1 to 86400 seconds")
        try:
            self._secrets = {
                kid: SharedSecret(b64url_decode(secret), kid=kid) for kid, secret in (shared_secrets or {}).items()
            }
        except (InvalidKey, InvalidToken) as error:
            raise ValueError(f"a shared secret is none: {error}") from None
        self.issuer = issuer
        self.audience = audience
        self._on_stale: OnStale = on_stale
        self._leeway = leeway
        self._max_lifetime = max_lifetime
        self._max_staleness = max_staleness
        self.accept_keys = accept_keys
        self.limits = limits
        self._on_limits_lost: OnLost = on_limits_lost
        self._clock = clock
        self._revocations = Revocations()
        self._verifier = Verifier(
            self._secrets,
            issuer=issuer,
            audience=audience,
            revocations=self._revocations,
            leeway=leeway,
            max_lifetime=max_lifetime,
            cache_bytes=cache_bytes,
        )
        self._new_issuer = partial(Issuer, issuer, key=key)
        self._new_issuer()  # raises for what is unsafe
        self._life: Life | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keys: Mapping[str, PublicKey] | None = None
        self._calm_until = float("-inf")
        self._watch = Watch(
            self._revocations,
            is_calm=lambda: steady_clock() < self._calm_until,
            vouched=lambda watched: self._despite_staleness(watched.token, watched.on_stale or self._on_stale),
            is_over=self._is_over,
        )
        self._alarmed = False
        self._alarms = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}(issuer={self.issuer!r}, audience={self.audience!r})"

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop following. The next token begins anew."""
        life, self._life, self._loop = self._life, None, None
        if life is not None and life.loop is asyncio.get_running_loop():
            if life.limits is not None and not life.task.done():
                await life.limits.tidy(everything=True)
            life.task.cancel()
            await asyncio.wait([life.task])

    async def verify(self, token: str, *, on_stale: OnStale | None = None) -> Principal:
        """Who *token* speaks for, now. *on_stale* is for this call, instead of the guard's own.

        Raises Unauthenticated; Unavailable if keys or revocations are not known yet, or too old.
        """
        if is_key(token):
            return await self._verify_key(token, on_stale or self._on_stale)
        principal = self.recall(token)
        if principal is not None:
            return principal
        life = await self._ready()
        while True:
            try:
                principal = self._judge(token)
                break
            except UnknownKey as unknown:
                # A fetch that was under way may have begun before this key was published: then there is one more.
                if not await life.jwks.unknown_key():
                    raise Unauthenticated(unknown.public, detail=str(unknown)) from None
        if steady_clock() >= self._calm_until:
            await self._despite_staleness(token, on_stale or self._on_stale)
            # Meanwhile the feed may have come back, and with it what this token was revoked by; or other keys.
            principal = self._decide(token)
        return principal

    def recall(self, token: str) -> Principal | None:
        """As `verify`, where nobody has to be asked or waited for; None if `verify` must be.

        Raises Unauthenticated.
        """
        if steady_clock() >= self._calm_until or self._loop is not asyncio.get_running_loop():
            return None
        try:
            return self._judge(token)
        except UnknownKey:
            return None
        except Unauthenticated:
            if is_key(token):
                return None
            raise

    async def spend(self, principal: Principal, token: str, units: int = 1) -> None:
        """Spend *units* of the allowance of *principal*, who came with *token*; nothing, unless the guard has *limits*.

        Raises LimitExceeded, PlanNotAvailable, Unauthenticated; Unavailable if the issuer is away and nothing was
        leased before; ValueError for fewer than none.
        """
        if units < 0:
            raise ValueError("units are not given back")
        if self.limits and units:
            limits = self._begin().limits
            assert limits is not None
            if not limits.spend_now(principal.subject, units):
                await limits.spend(principal, token, units)

    def charge(self, principal: Principal, units: int) -> None:
        """Count *units* more that *principal* spent, where what work costs is known afterwards.

        It is charged in any case; if it was more than is left, it is the next call that is refused. Raises ValueError
        for fewer than none.
        """
        if units < 0:
            raise ValueError("units are not given back")
        if self.limits:
            limits = self._begin().limits
            assert limits is not None
            limits.charge(principal, units)

    def terms(self, principal: Principal) -> Terms | None:
        """What the plan of *principal* says, if it spent something here lately."""
        limits = None if self._life is None else self._life.limits
        return None if limits is None else limits.terms(principal)

    def limit_headers(self, principal: Principal) -> dict[str, str]:
        """`RateLimit-Policy` and `RateLimit` for an answer to *principal*; empty without limits."""
        limits = None if self._life is None else self._life.limits
        return {} if limits is None else limits.headers(principal)

    def check(self, principal: Principal) -> None:
        """Return if nothing that *principal* came with was revoked since: for what goes on for long.

        Raises Unauthenticated.
        """
        if self._refuses(principal):
            raise Unauthenticated("The token was revoked.", detail="revoked meanwhile")

    @asynccontextmanager
    async def while_good(
        self, principal: Principal, token: str, on_stale: OnStale | None = None
    ) -> AsyncIterator[None]:
        """What is done inside goes on as long as *principal*, who came with *token*, is not revoked: for streams and
        the like. Looked at on news and every second; while nothing is heard of revocations, *on_stale* says what then.

        Raises Unauthenticated in the middle, whatever is awaited there; Unavailable where *on_stale* refuses. What
        keeps the cancellation to itself, by which this is done, is cancelled again after CLEAN_UP_SECONDS.
        """
        watched = self.watch(principal, token, on_stale)
        try:
            try:
                yield
            finally:
                self.unwatch(watched)
        except asyncio.CancelledError:
            if not watched.revoked or watched.take_back():
                raise
        except BaseException:
            if watched.revoked:
                await watched.absorb()
            raise
        else:
            if watched.revoked:
                await watched.absorb()
        if watched.revoked:
            raise watched.refusal

    def watch(self, principal: Principal, token: str, on_stale: OnStale | None = None) -> Watched:
        """Cancel the task that runs now when *principal*, who came with *token*, is revoked, until `unwatch`; also if
        revocations were not heard of for too long and *on_stale* then refuses. Raises Unauthenticated.
        """
        self.check(principal)
        watched = Watched(principal, token, on_stale)
        self._watch.watched.add(watched)
        return watched

    def unwatch(self, watched: Watched) -> None:
        """What `watch` answered with is done."""
        self._watch.watched.discard(watched)

    def require(
        self,
        principal: Principal,
        *,
        scopes: frozenset[str] = frozenset(),
        plans: frozenset[str] | None = None,
        roles: frozenset[str] | None = None,
    ) -> None:
        """Return if *principal* has all *scopes*, one of *plans* and one of *roles*.

        Raises InsufficientScope, Forbidden.
        """
        if not scopes <= principal.scopes:
            raise InsufficientScope(" ".join(sorted(scopes)))
        if plans is not None and principal.plan not in plans:
            raise Forbidden(f"This needs the plan {either(plans)}.")
        if roles is not None and roles.isdisjoint(principal.roles):
            raise Forbidden(f"This needs the role {either(roles)}.")

    @property
    def status(self) -> Status:
        now, life = steady_clock(), self._life
        fetched = None if life is None else life.jwks.fetched_at
        return Status(
            staleness=float("inf") if life is None else now - life.follower.as_of,
            following=life is not None and life.follower.streaming,
            revocations=len(self._revocations),
            cursor=None if life is None else life.follower.cursor,
            keys=len(self._verifier),
            keys_age=float("inf") if fetched is None else now - fetched,
            key_fetches=0 if life is None else life.jwks.fetches,
            introspections=0 if life is None else life.questions.asked,
            alarms=self._alarms,
        )

    def exposition(self) -> str:
        """`status` in the text format that Prometheus reads."""
        return self.status.exposition(issuer=self.issuer, audience=self.audience)

    def _judge(self, token: str) -> Principal:
        try:
            return self._verifier.verify(token, now=self._clock())
        except UnknownKey:
            raise
        except InvalidToken as error:
            raise Unauthenticated(error.public, detail=str(error)) from None

    def _decide(self, token: str) -> Principal:
        try:
            return self._judge(token)
        except UnknownKey as error:
            raise Unauthenticated(error.public, detail=str(error)) from None

    def _refuses(self, principal: Principal) -> bool:
        return self._revocations.refuses(principal) is not None

    def _begin(self) -> Life:
        life, loop = self._life, asyncio.get_running_loop()
        if life is None or life.loop is not loop or life.task.done():
            # What was known may be old by now: it is asked for again before anybody is let in.
            self._calm_until = float("-inf")
            client = self._new_issuer()
            questions = Questions(client, issuer=self.issuer, audience=self.audience, time=steady_clock)
            limits = None
            if self.limits:
                limits = Limits(client, audience=self.audience, on_lost=self._on_limits_lost, time=steady_clock)
            life = Life(
                client,
                self._revocations,
                questions,
                limits,
                has_secrets=bool(self._secrets),
                on_progress=self._progress,
                look=self._watch.look,
            )
            self._loop, self._life = loop, life
        return life

    async def _ready(self) -> Life:
        """Wait until keys and revocations were heard of once. Raises Unavailable."""
        life = self._begin()
        try:
            async with asyncio.timeout(FIRST_SECONDS):
                await life.complete.wait()
        except TimeoutError:
            raise Unavailable(detail="keys or revocations are not known yet") from None
        if steady_clock() >= life.jwks.good_until:
            raise Unavailable(detail="the issuer's keys are too old")
        return life

    def _progress(self) -> None:
        life = self._life
        if life is None or life.loop is not asyncio.get_running_loop():
            return
        if life.jwks.keys is not self._keys:
            self._keys = life.jwks.keys
            self._verifier.use_keys({**self._keys, **self._secrets})
        as_of = life.follower.as_of
        self._calm_until = min(as_of + self._max_staleness, life.jwks.good_until)
        if life.jwks.fetched_at is not None and as_of > float("-inf"):
            life.complete.set()
        self._watch.on_news()
        if self._alarmed and steady_clock() < self._calm_until:
            self._alarmed = False
            log.warning("revocations are followed again")

    def _is_over(self, principal: Principal) -> bool:
        # A key is good for years, and what it began goes on no longer than what a token began.
        good_until = min(principal.expires_at, principal.issued_at + self._max_lifetime) + self._leeway
        return good_until <= self._clock() // MICROSECONDS

    async def _despite_staleness(self, token: str, on_stale: OnStale) -> bool:
        """Return if *token* may pass although revocations may be missing: True, or False if that holds only until it
        expires, as nobody was asked. Raises Unauthenticated, Unavailable.
        """
        if on_stale == "allow":
            return False
        if on_stale == "refuse":
            raise Unavailable(detail="revocations were not heard of for too long")
        try:
            if await self._begin().questions.ask(token, VERDICT_SECONDS) is None:
                raise Unauthenticated(detail="the issuer says: not active")
        except IssuerRefuses as refused:
            raise Unavailable(detail=f"the issuer does not answer this guard: {refused}") from None
        except IssuerAway as away:
            self._alarms += 1
            if not self._alarmed:
                self._alarmed = True
                log.error("revocations are not followed, and the issuer cannot be asked (%s): tokens pass", away)
            return False
        return True

    async def _verify_key(self, key: str, on_stale: OnStale) -> Principal:
        """Who an API key or a client key speaks for. Only the issuer knows: its word counts for KEY_SECONDS while it is
        heard of what was revoked, or nobody minds (`allow`); otherwise for VERDICT_SECONDS.

        Raises Unauthenticated, Unavailable.
        """
        if not self.accept_keys:
            raise Unauthenticated("Keys are not accepted here; log in with one for a token.", detail="a key")
        if key_digest(key, API_KEY_PREFIX) is None and key_digest(key, CLIENT_KEY_PREFIX) is None:
            raise Unauthenticated("The key is not valid.", detail="not a key")
        questions = (await self._ready()).questions
        stale = steady_clock() >= self._calm_until
        if stale and on_stale == "refuse":
            raise Unavailable(detail="revocations were not heard of for too long")
        seconds = VERDICT_SECONDS if stale and on_stale == "introspect" else KEY_SECONDS
        try:
            principal = await questions.ask(key, seconds)
            if principal is not None and self._refuses(principal):
                # Something of it was revoked: only the issuer knows whether this key still is one.
                questions.forget(key)
                principal = await questions.ask(key, seconds)
        except (IssuerAway, IssuerRefuses) as away:
            raise Unavailable(detail=f"a key cannot be looked up: {away}") from None
        if principal is None or principal.expires_at * MICROSECONDS <= self._clock():
            raise Unauthenticated("The key is not valid.", detail="the issuer says: not active")
        if self._refuses(principal):
            raise Unauthenticated("The key is not valid.", detail="revoked")
        return principal
