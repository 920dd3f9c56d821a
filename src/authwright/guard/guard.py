"""The guard of one API: verify a caller's token here, without a call to the server, and know what was revoked.

    guard = Guard(issuer="https://auth.example.com", audience="https://api.example.com", key="awk_...")
    principal = await guard.verify(token)

Everything in here runs on one event loop; it begins with the first token, or with `async with guard`.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, Self, get_args

from authwright.domain.errors import Forbidden, InsufficientScope, Unauthenticated, Unavailable
from authwright.domain.instant import MICROSECONDS, Instant
from authwright.domain.revocation import Revocations
from authwright.domain.secrets import API_KEY_PREFIX, CLIENT_KEY_PREFIX, Digest, digest, is_key, key_digest
from authwright.guard.issuer import Issuer, IssuerAway, IssuerRefuses
from authwright.guard.jwks import Jwks
from authwright.guard.principal import Principal
from authwright.guard.revocations import Follower
from authwright.guard.verifier import Verifier
from authwright.jose.encoding import b64url_decode
from authwright.jose.errors import InvalidKey, InvalidToken, UnknownKey
from authwright.jose.keys import PublicKey, SharedSecret

OnStale = Literal["introspect", "allow", "refuse"]
FIRST_SECONDS: Final = 2.0
"""How long the first callers wait for keys and the first snapshot."""
MAX_STALENESS: Final = 5.0
MAX_LIFETIME: Final = 3600
VERDICT_SECONDS: Final = 2.0
"""For how long the issuer's word on a token is taken while the feed is lost."""
KEY_SECONDS: Final = 10.0
"""For how long the issuer's word on a key is taken while the feed is followed."""
MOST_VERDICTS: Final = 10_000
MOST_QUESTIONS: Final = 32

log = logging.getLogger("authwright.guard")


def system_clock() -> Instant:
    """Now."""
    return Instant(time.time_ns() // 1000)


@dataclass(frozen=True, slots=True)
class Status:
    """What a guard knows of itself. *staleness*: seconds since all revocations were known; infinite before."""

    staleness: float
    following: bool
    revocations: int
    cursor: str | None
    keys: int
    keys_age: float
    key_fetches: int
    introspections: int
    alarms: int


class Watched:
    """A task that goes on for its *principal*. *revoked*: it was cancelled for that."""

    __slots__ = ("principal", "revoked", "task")

    def __init__(self, principal: Principal) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can be watched")
        self.principal = principal
        self.task = task
        self.revoked = False


class _Life:
    """What belongs to one event loop: the connection to *issuer* and the tasks that keep a guard in step with it.

    *on_progress* is called when keys or revocations were heard of.
    """

    def __init__(
        self,
        issuer: Issuer,
        revocations: Revocations,
        *,
        clock: Callable[[], Instant],
        on_progress: Callable[[], None],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.issuer = issuer
        self.jwks = Jwks(issuer, time=time.monotonic, on_fetch=on_progress)
        self.follower = Follower(
            issuer,
            revocations,
            clock=clock,
            time=time.monotonic,
            on_progress=on_progress,
            on_keys=self.jwks.fetch_soon,
        )
        self.questions = asyncio.Semaphore(MOST_QUESTIONS)
        self.asking: dict[Digest, asyncio.Task[Principal | None]] = {}
        self.complete = asyncio.Event()
        """Set when keys and revocations were heard of."""
        self.task = asyncio.create_task(self._live())

    async def _live(self) -> None:
        async with self.issuer, asyncio.TaskGroup() as group:
            group.create_task(self.jwks.run())
            group.create_task(self.follower.run())


class Guard:
    """Verifies access tokens of *issuer* for *audience*, and refuses what was revoked within a second.

    *key* is a client key with the scope `revocations`; it may be left out against a development server. *on_stale*
    says what happens when revocations were not heard of for *max_staleness* seconds: `introspect` asks the issuer
    about each token, and accepts it until it expires if the issuer cannot be asked either; `allow` accepts;
    `refuse` answers 503. *accept_keys*: API keys and client keys are credentials, too. *leeway* (seconds) covers
    clocks that differ, *max_lifetime* (seconds) is the longest the issuer gives a token. *shared_secrets* (base64url,
    by key id) are for an issuer that signs with HS256.

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
        clock: Callable[[], Instant] = system_clock,
    ) -> None:
        if key is not None and key_digest(key, CLIENT_KEY_PREFIX) is None:
            raise ValueError("key is not a client key; `authwright clients create` makes one")
        require_on_stale(on_stale)
        try:
            self._secrets = {
                kid: SharedSecret(b64url_decode(secret.encode("ascii")), kid=kid)
                for kid, secret in (shared_secrets or {}).items()
            }
        except (InvalidKey, InvalidToken) as error:
            raise ValueError(f"a shared secret is none: {error}") from None
        self.issuer = issuer
        self.audience = audience
        self._on_stale: OnStale = on_stale
        self._max_staleness = max_staleness
        self.accept_keys = accept_keys
        self._clock = clock
        self._revocations = Revocations()
        self._verifier = Verifier(
            self._secrets,
            issuer=issuer,
            audience=audience,
            revocations=self._revocations,
            leeway=leeway,
            max_lifetime=max_lifetime,
        )
        self._new_issuer = partial(Issuer, issuer, key=key)
        self._new_issuer()  # raises for what is unsafe
        self._life: _Life | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keys: Mapping[str, PublicKey] | None = None
        self._calm_until = float("-inf")
        self._verdicts: OrderedDict[Digest, tuple[Principal | None, float]] = OrderedDict()
        self._issuer_away_until = float("-inf")
        self._watched: set[Watched] = set()
        self._looked_at = 0
        self._alarmed = False
        self._introspections = self._alarms = 0

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
            life.task.cancel()
            await asyncio.wait([life.task])

    async def verify(self, token: str, *, on_stale: OnStale | None = None) -> Principal:
        """Who *token* speaks for, now. *on_stale* is for this call, instead of the guard's own.

        Raises Unauthenticated; Unavailable if keys or revocations are not known yet, or too old.
        """
        if is_key(token):
            return await self._verify_key(token)
        principal = self.recall(token)
        if principal is not None:
            return principal
        life = await self._ready()
        try:
            principal = self._judge(token)
        except UnknownKey as unknown:
            if not await life.jwks.unknown_key():
                raise Unauthenticated(unknown.public, detail=str(unknown)) from None
            try:
                principal = self._judge(token)
            except UnknownKey as error:
                raise Unauthenticated(error.public, detail=str(error)) from None
        if time.monotonic() >= self._calm_until:
            await self._despite_staleness(token, principal, on_stale or self._on_stale)
        return principal

    def recall(self, token: str) -> Principal | None:
        """As `verify`, where nobody has to be asked or waited for; None if `verify` must be.

        Raises Unauthenticated.
        """
        if time.monotonic() >= self._calm_until or self._loop is not asyncio.get_running_loop():
            return None
        try:
            return self._judge(token)
        except UnknownKey:
            return None
        except Unauthenticated:
            if is_key(token):
                return None
            raise

    def check(self, principal: Principal) -> None:
        """Return if nothing that *principal* came with was revoked since: for what goes on for long.

        Raises Unauthenticated.
        """
        if self._refuses(principal) is not None:
            raise Unauthenticated("The token was revoked.", detail="revoked meanwhile")

    def watch(self, principal: Principal) -> "Watched":
        """Cancel the task that runs now when *principal* is revoked, until `unwatch`."""
        watched = Watched(principal)
        self._watched.add(watched)
        return watched

    def unwatch(self, watched: "Watched") -> None:
        """What `watch` answered with is done."""
        self._watched.discard(watched)

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
            raise Forbidden(f"This needs the plan {_either(plans)}.")
        if roles is not None and roles.isdisjoint(principal.roles):
            raise Forbidden(f"This needs the role {_either(roles)}.")

    @property
    def status(self) -> Status:
        now, life = time.monotonic(), self._life
        fetched = None if life is None else life.jwks.fetched_at
        return Status(
            staleness=float("inf") if life is None else now - life.follower.as_of,
            following=life is not None and life.follower.streaming,
            revocations=len(self._revocations),
            cursor=None if life is None else life.follower.cursor,
            keys=len(self._verifier),
            keys_age=float("inf") if fetched is None else now - fetched,
            key_fetches=0 if life is None else life.jwks.fetches,
            introspections=self._introspections,
            alarms=self._alarms,
        )

    def exposition(self) -> str:
        """`status` in the text format that Prometheus reads."""
        status = self.status
        labels = f'{{issuer="{self.issuer}",audience="{self.audience}"}}'
        figures = (
            ("staleness_seconds", "gauge", "Since when revocations may be missing.", status.staleness),
            ("following", "gauge", "Whether revocations are followed as a stream.", int(status.following)),
            ("revocations", "gauge", "Revocations that matter.", status.revocations),
            ("keys_age_seconds", "gauge", "Since the issuer's keys were fetched.", status.keys_age),
            ("key_fetches_total", "counter", "Times the issuer was asked for its keys.", status.key_fetches),
            ("introspections_total", "counter", "Times the issuer was asked about a token.", status.introspections),
            ("alarms_total", "counter", "Tokens accepted unasked while the feed was lost.", status.alarms),
        )
        lines = []
        for name, kind, text, value in figures:
            full = f"authwright_guard_{name}"
            shown = "+Inf" if value == float("inf") else f"{value:.9g}"
            lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}", f"{full}{labels} {shown}"]
        return "\n".join(lines) + "\n"

    def _judge(self, token: str) -> Principal:
        try:
            return self._verifier.verify(token, now=self._clock())
        except UnknownKey:
            raise
        except InvalidToken as error:
            raise Unauthenticated(error.public, detail=str(error)) from None

    def _refuses(self, principal: Principal) -> str | None:
        return self._revocations.refuses(
            session=principal.session_id,
            subject=principal.subject,
            epoch=principal.auth_epoch,
            client=principal.client_id,
            token=principal.token_id,
            key=principal.key_id,
        )

    def _begin(self) -> _Life:
        life, loop = self._life, asyncio.get_running_loop()
        if life is None or life.loop is not loop or life.task.done():
            # What was known may be old by now: it is asked for again before anybody is let in.
            self._calm_until = float("-inf")
            life = _Life(self._new_issuer(), self._revocations, clock=self._clock, on_progress=self._progress)
            self._loop, self._life = loop, life
        return life

    async def _ready(self) -> _Life:
        """Wait until keys and revocations were heard of once. Raises Unavailable."""
        life = self._begin()
        try:
            async with asyncio.timeout(FIRST_SECONDS):
                await life.complete.wait()
        except TimeoutError:
            raise Unavailable(detail="keys or revocations are not known yet") from None
        if time.monotonic() >= life.jwks.good_until:
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
        if self._revocations.version != self._looked_at:
            self._looked_at = self._revocations.version
            for watched in self._watched:
                if self._refuses(watched.principal) is not None:
                    watched.revoked = True
                    watched.task.cancel()
        if self._alarmed and time.monotonic() < self._calm_until:
            self._alarmed = False
            log.warning("revocations are followed again")

    async def _despite_staleness(self, token: str, principal: Principal, on_stale: OnStale) -> None:
        """Return if *principal* may pass although revocations may be missing. Raises Unauthenticated, Unavailable."""
        if on_stale == "allow":
            return
        if on_stale == "refuse":
            raise Unavailable(detail="revocations were not heard of for too long")
        try:
            if await self._ask(token, VERDICT_SECONDS) is None:
                raise Unauthenticated(detail="the issuer says: not active")
        except IssuerRefuses:
            raise Unavailable(detail="the issuer does not accept this guard's key") from None
        except IssuerAway as away:
            self._alarms += 1
            if not self._alarmed:
                self._alarmed = True
                log.error("revocations are not followed, and the issuer cannot be asked (%s): tokens pass", away)

    async def _verify_key(self, key: str) -> Principal:
        """Who an API key or a client key speaks for. Raises Unauthenticated, Unavailable."""
        if not self.accept_keys:
            raise Unauthenticated("Keys are not accepted here; log in with one for a token.", detail="a key")
        if key_digest(key, API_KEY_PREFIX) is None and key_digest(key, CLIENT_KEY_PREFIX) is None:
            raise Unauthenticated("The key is not valid.", detail="not a key")
        await self._ready()
        seconds = KEY_SECONDS if time.monotonic() < self._calm_until else VERDICT_SECONDS
        try:
            principal = await self._ask(key, seconds)
            if principal is not None and self._refuses(principal) is not None:
                # Something of it was revoked: only the issuer knows whether this key still is one.
                self._verdicts.pop(_digest(key), None)
                principal = await self._ask(key, seconds)
        except (IssuerAway, IssuerRefuses) as away:
            raise Unavailable(detail=f"a key cannot be looked up: {away}") from None
        if principal is None or principal.expires_at * MICROSECONDS <= self._clock():
            raise Unauthenticated("The key is not valid.", detail="the issuer says: not active")
        if self._refuses(principal) is not None:
            raise Unauthenticated("The key is not valid.", detail="revoked")
        return principal

    async def _ask(self, token: str, seconds: float) -> Principal | None:
        """The issuer's word on *token*, at most *seconds* old; None: not active, or not for this audience.

        Raises IssuerAway, IssuerRefuses.
        """
        name = _digest(token)
        now = time.monotonic()
        known = self._verdicts.get(name)
        if known is not None and now < known[1] + seconds:
            return known[0]
        if now < self._issuer_away_until:
            raise IssuerAway("it was away a moment ago")
        life = self._begin()
        asking = life.asking.get(name)
        if asking is None:
            # Whoever asks for the same meanwhile waits for the same answer.
            asking = life.asking[name] = asyncio.create_task(self._introspect(life, token))
            asking.add_done_callback(lambda _: life.asking.pop(name))
        return await asyncio.shield(asking)

    async def _introspect(self, life: _Life, token: str) -> Principal | None:
        begun = time.monotonic()
        try:
            async with asyncio.timeout(FIRST_SECONDS), life.questions:
                self._introspections += 1
                answer = await life.issuer.introspect(token)
        except (IssuerAway, TimeoutError) as away:
            self._issuer_away_until = time.monotonic() + 1
            raise IssuerAway(str(away) or "no answer") from None
        principal = self._principal(answer)
        self._verdicts[_digest(token)] = (principal, begun)
        self._verdicts.move_to_end(_digest(token))
        while len(self._verdicts) > MOST_VERDICTS:
            self._verdicts.popitem(last=False)
        return principal

    def _principal(self, answer: Mapping[str, Any]) -> Principal | None:
        """The caller an introspection tells of (RFC 7662 section 2.2). Raises IssuerAway for what makes no sense."""
        if answer.get("active") is not True:
            return None
        aud = answer.get("aud")
        if answer.get("iss") != self.issuer or self.audience not in (aud if isinstance(aud, list) else [aud]):
            return None
        roles, epoch = answer.get("roles", []), answer.get("auth_epoch", 0)
        issued_at, expires_at = answer.get("iat"), answer.get("exp")
        scope, subject, client_id = answer.get("scope", ""), answer.get("sub"), answer.get("client_id")
        texts = (scope, subject, client_id)
        numbers = (issued_at, expires_at, epoch)
        if not all(type(each) is str for each in texts) or not all(type(each) is int for each in numbers):
            raise IssuerAway("an introspection without its claims")
        optional = [answer.get(name) for name in ("sid", "username", "plan")]
        if not all(each is None or type(each) is str for each in optional) or not isinstance(roles, list):
            raise IssuerAway("an introspection without its claims")
        return Principal(
            issuer=self.issuer,
            subject=str(subject),
            client_id=str(client_id),
            session_id=optional[0],
            token_id=str(answer.get("jti", client_id)),
            username=optional[1],
            scopes=frozenset(str(scope).split()),
            roles=tuple(str(role) for role in roles),
            plan=optional[2],
            auth_epoch=int(numbers[2] or 0),
            issued_at=int(numbers[0] or 0),
            expires_at=int(numbers[1] or 0),
            key_id="",
        )


def require_on_stale(on_stale: str) -> None:
    """Raises ValueError unless *on_stale* is one of `introspect`, `allow`, `refuse`."""
    if on_stale not in get_args(OnStale):
        raise ValueError(f"on_stale is {_either(get_args(OnStale))}")


def _digest(token: str) -> Digest:
    return digest(token.encode("utf-8", "surrogatepass"))


def _either(names: Any) -> str:
    return " or ".join(repr(name) for name in sorted(names))
