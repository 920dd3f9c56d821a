"""Ask the issuer about a token or a key (RFC 7662), and remember its word for a moment.

Much may want to be asked at once, strangers can make up what looks like a key, and the issuer may be away: each of
these must not decide about anything but itself.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from authwright.domain.errors import Unavailable
from authwright.domain.secrets import Digest, digest, is_key
from authwright.guard.issuer import ANSWER_SECONDS, Issuer, IssuerAway, IssuerDropped, IssuerRefuses
from authwright.guard.principal import Principal

WAIT_SECONDS: Final = 2.0
"""How long a question waits for its turn."""
MOST_VERDICTS: Final = 10_000
MOST_QUESTIONS: Final = 32
"""Questions to the issuer at a time; of these few may be about credentials that never were good here."""
MOST_STRANGE_QUESTIONS: Final = 8
AWAY_AFTER: Final = 3
"""Questions in a row that found no issuer, after which one at a time tries whether it is back."""
AGAIN_SECONDS: Final = 1.0
REFUSED_SECONDS: Final = 10.0

V = TypeVar("V")


class TooManyQuestions(Unavailable):
    """This guard is busy; that says nothing about the issuer, or the token."""


class Questions:
    """Asks *client* about tokens of *issuer* for *audience*, on one event loop. *time*: a clock that never jumps."""

    def __init__(self, client: Issuer, *, issuer: str, audience: str, time: Callable[[], float]) -> None:
        self._client = client
        self._issuer = issuer
        self._audience = audience
        self._time = time
        # The issuer's word, and since when; what is not good in a table of its own, which strangers can fill.
        self._good: OrderedDict[Digest, tuple[Principal, float]] = OrderedDict()
        self._bad: OrderedDict[Digest, float] = OrderedDict()
        self._asking: dict[Digest, asyncio.Task[Principal | None]] = {}
        self._places = asyncio.Semaphore(MOST_QUESTIONS)
        self._strange_places = asyncio.Semaphore(MOST_STRANGE_QUESTIONS)
        # Of the last questions, how many in a row found nobody; when to try again, and whether somebody does.
        self._unanswered = 0
        self._again_at = float("-inf")
        self._trying = False
        self._refused_until = float("-inf")
        self.asked = 0

    async def ask(self, token: str, seconds: float) -> Principal | None:
        """The issuer's word on *token*, at most *seconds* old; None: not active, or not for this audience.

        Raises IssuerAway, IssuerRefuses; TooManyQuestions.
        """
        name, now = _digest(token), self._time()
        known = self._good.get(name)
        if known is not None and now < known[1] + seconds:
            return known[0]
        if now < self._bad.get(name, float("-inf")) + seconds:
            return None
        asking = self._asking.get(name)
        if asking is None:
            # Whoever asks for the same meanwhile waits for the same answer.
            asking = self._asking[name] = asyncio.create_task(self._ask(token, name))
            asking.add_done_callback(lambda task: self._asked(name, task))
        return await asyncio.shield(asking)

    def forget(self, token: str) -> None:
        """What was said of *token* counts no more."""
        self._good.pop(_digest(token), None)

    def _asked(self, name: Digest, task: "asyncio.Task[Principal | None]") -> None:
        del self._asking[name]
        if not task.cancelled():
            # Whoever waited was told; if nobody waited any more, nobody needs to know.
            task.exception()

    async def _ask(self, token: str, name: Digest) -> Principal | None:
        # Anybody can make up what looks like a key: only some places are for what never was good.
        places = self._strange_places if is_key(token) and name not in self._good else self._places
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await places.acquire()
        except TimeoutError:
            raise TooManyQuestions(detail="too many questions to the issuer") from None
        try:
            begun = self._time()
            answer = await self._answer(token)
        finally:
            places.release()
        principal = self._principal(answer)
        if principal is None:
            self._good.pop(name, None)
            _put(self._bad, name, begun)
        else:
            self._bad.pop(name, None)
            _put(self._good, name, (principal, begun))
        return principal

    async def _answer(self, token: str) -> dict[str, Any]:
        """The issuer's answer. Once several questions found nobody, one at a time tries whether somebody is back.

        Raises IssuerAway, IssuerRefuses.
        """
        if self._time() < self._refused_until:
            raise IssuerRefuses("it refused a moment ago")
        lost = self._unanswered >= AWAY_AFTER
        if lost and (self._trying or self._time() < self._again_at):
            raise IssuerAway("it was away a moment ago")
        self._trying = lost
        self.asked += 1
        try:
            try:
                answer = await self._introspected(token)
            except IssuerDropped:
                # A connection that was kept and had ended meanwhile.
                answer = await self._introspected(token)
        except IssuerRefuses:
            # Asking on would be counted as guessing.
            self._refused_until = self._time() + REFUSED_SECONDS
            raise
        except (IssuerAway, TimeoutError) as away:
            self._unanswered += 1
            self._again_at = self._time() + AGAIN_SECONDS
            raise IssuerAway(str(away) or "no answer") from None
        finally:
            if lost:
                self._trying = False
        self._unanswered = 0
        return answer

    async def _introspected(self, token: str) -> dict[str, Any]:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await self._client.introspect(token)

    def _principal(self, answer: Mapping[str, Any]) -> Principal | None:
        """The caller an introspection tells of (RFC 7662 section 2.2). Raises IssuerRefuses for what makes no sense."""
        if answer.get("active") is not True:
            return None
        aud = answer.get("aud")
        if answer.get("iss") != self._issuer or self._audience not in (aud if isinstance(aud, list) else [aud]):
            return None
        roles, epoch = answer.get("roles", []), answer.get("auth_epoch", 0)
        issued_at, expires_at = answer.get("iat"), answer.get("exp")
        scope, subject, client_id = answer.get("scope", ""), answer.get("sub"), answer.get("client_id")
        texts = (scope, subject, client_id)
        numbers = (issued_at, expires_at, epoch)
        if not all(type(each) is str for each in texts) or not all(type(each) is int for each in numbers):
            raise IssuerRefuses("an introspection without its claims")
        optional = [answer.get(name) for name in ("sid", "username", "plan")]
        if not all(each is None or type(each) is str for each in optional) or not isinstance(roles, list):
            raise IssuerRefuses("an introspection without its claims")
        return Principal(
            issuer=self._issuer,
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


def _digest(token: str) -> Digest:
    return digest(token.encode("utf-8", "surrogatepass"))


def _put(table: OrderedDict[Digest, V], name: Digest, value: V) -> None:
    table[name] = value
    table.move_to_end(name)
    while len(table) > MOST_VERDICTS:
        table.popitem(last=False)
