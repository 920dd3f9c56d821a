"""When revocations are not heard of: how old the knowledge is, what a route does then, and how it heals."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from authwright.domain.errors import Unauthenticated, Unavailable
from authwright.domain.event import COMMAND_LINE
from authwright.guard import Guard
from authwright.guard.jwks import COOLDOWN_SECONDS
from guarded import Issuer, issuing, refused, until
from processes import free_port
from tokens import token


@pytest.fixture
async def issuer(tmp_path: Path):  # type: ignore[no-untyped-def]
    async with issuing(tmp_path) as made:
        yield made


class Proxy:
    """A TCP proxy in front of *port* that can hold back what the issuer says, cut connections and refuse new ones."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.hold_bytes = 0
        self.feed_frozen = False
        self.accepting = True
        self._open: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.accepting:
            writer.close()
            return
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._port)
        both = {writer, other_writer}
        self._open |= both
        await asyncio.gather(self._ask(reader, other_writer), self._answer(other_reader, writer))
        self._open -= both

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not (self.feed_frozen and b"/revocations" in data):
                    writer.write(data)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held = b""
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                held += data
                await self.flowing.wait()
                # As one that fills its buffer; an answer that has an end is passed on.
                if len(held) >= self.hold_bytes or b"content-length" in held.lower():
                    writer.write(held)
                    held = b""
        writer.close()

    def cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()


@pytest.fixture
async def behind(tmp_path: Path) -> AsyncIterator[tuple[Issuer, Proxy]]:
    """An issuer whose name leads to the proxy."""
    port = free_port()
    async with issuing(tmp_path, named_by=port) as issuer:
        proxy = Proxy(issuer.port)
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", port)
        try:
            yield issuer, proxy
        finally:
            proxy.flowing.set()
            proxy.cut()
            server.close()


async def test_a_feed_that_is_cut_is_taken_up_where_it_was(behind: tuple[Issuer, Proxy]) -> None:
    issuer, proxy = behind
    async with issuer.guard() as guard:
        first, second = await issuer.login(), await issuer.login()
        await guard.verify(first["access_token"])
        proxy.accepting = False
        proxy.cut()
        await until(lambda: not guard.status.following)
        http = issuer.service.http
        assert (await http.post("/logout", json={"refresh_token": first["refresh_token"]})).status_code == 200
        # Not heard of, and not stale yet.
        await guard.verify(first["access_token"])
        proxy.accepting = True
        await until(lambda: refused(guard, first["access_token"]))
        await guard.verify(second["access_token"])
        assert guard.status.cursor == str(issuer.service.server.revoke.feed.cursor)


async def test_a_proxy_that_holds_the_stream_back_is_noticed_and_passed_by_asking(
    behind: tuple[Issuer, Proxy],
) -> None:
    issuer, proxy = behind
    proxy.hold_bytes = 100_000
    async with issuer.guard() as guard:
        login = await issuer.login()
        with pytest.raises(Unavailable):
            await guard.verify(login["access_token"])
        await until(lambda: guard.status.staleness < 3, seconds=8)
        assert not guard.status.following
        await guard.verify(login["access_token"])
        for _ in range(3):
            login = await issuer.login()
            await guard.verify(login["access_token"])
            begun = time.monotonic()
            await issuer.service.http.post("/logout", json={"refresh_token": login["refresh_token"]})
            await until(lambda token=login["access_token"]: refused(guard, token))
            assert time.monotonic() - begun < 1
        # Asked again and again, it stays fresh.
        await asyncio.sleep(2.5)
        assert guard.status.staleness < 3


async def test_what_was_under_way_for_long_does_not_count_as_fresh(behind: tuple[Issuer, Proxy]) -> None:
    issuer, proxy = behind
    async with issuer.guard(max_staleness=1.5) as guard:
        await guard.verify(await issuer.token())
        proxy.flowing.clear()
        await until(lambda: guard.status.staleness > 2)
        # What the proxy held back arrives all at once: the newest of it counts for when it was sent.
        before = guard.status.staleness
        proxy.flowing.set()
        await until(lambda: guard.status.staleness < before)
        assert guard.status.following


@pytest.fixture
async def lost(behind: tuple[Issuer, Proxy]) -> AsyncIterator[tuple[Issuer, Proxy, Guard, dict[str, str]]]:
    """A guard that hears of revocations no more, but could ask, and a login that was ended since."""
    issuer, proxy = behind
    async with issuer.guard(max_staleness=1.5) as guard:
        login = await issuer.login()
        await guard.verify(login["access_token"])
        proxy.feed_frozen = True
        proxy.cut()
        await until(lambda: guard.status.staleness > 1.6)
        await issuer.service.http.post("/logout", json={"refresh_token": login["refresh_token"]})
        yield issuer, proxy, guard, login


async def test_r102_a_stale_guard_asks_its_issuer(lost: tuple[Issuer, Proxy, Guard, dict[str, str]]) -> None:
    issuer, _, guard, login = lost
    assert guard.recall(login["access_token"]) is None
    with pytest.raises(Unauthenticated):
        await guard.verify(login["access_token"])
    good = await issuer.token()
    before = guard.status.introspections
    # Many at once are one question, and its answer is good for a moment.
    await asyncio.gather(*(guard.verify(good) for _ in range(50)))
    await guard.verify(good)
    assert guard.status.introspections == before + 1
    assert guard.status.alarms == 0


async def test_a_stale_route_may_allow_or_refuse(lost: tuple[Issuer, Proxy, Guard, dict[str, str]]) -> None:
    _, _, guard, login = lost
    await guard.verify(login["access_token"], on_stale="allow")
    with pytest.raises(Unavailable):
        await guard.verify(login["access_token"], on_stale="refuse")
    assert guard.status.introspections == 0


async def test_if_the_issuer_is_away_too_tokens_pass_until_they_expire_with_an_alarm(
    lost: tuple[Issuer, Proxy, Guard, dict[str, str]],
) -> None:
    issuer, proxy, guard, login = lost
    proxy.accepting = False
    proxy.cut()
    for _ in range(3):
        assert (await guard.verify(login["access_token"])).username == "bholay"
    assert guard.status.alarms == 3
    assert "authwright_guard_alarms_total" in guard.exposition()
    issuer.service.clock.advance(306)
    with pytest.raises(Unauthenticated, match="expired"):
        await guard.verify(login["access_token"])
    proxy.accepting = True


async def test_a_guard_whose_key_is_refused_lets_nobody_pass_unasked(
    lost: tuple[Issuer, Proxy, Guard, dict[str, str]],
) -> None:
    issuer, _, guard, login = lost
    for client in await issuer.service.server.clients.all():
        await issuer.service.server.clients.disable(client.id, origin=COMMAND_LINE, now=issuer.service.clock())
    with pytest.raises(Unavailable):
        await guard.verify(login["access_token"])


async def test_r89_unknown_key_ids_lead_to_one_fetch_per_cooldown(issuer: Issuer) -> None:
    async with issuer.guard() as guard:
        good = await issuer.token()
        await guard.verify(good)
        assert guard._life
        jwks, now = guard._life.jwks, [0.0]
        now[0] = jwks._time()
        jwks._time = lambda: now[0]

        async def flooded(name: str) -> int:
            before = guard.status.key_fetches
            flood = [token("ES256", kid=f"{name} {number}") for number in range(500)]
            answers = await asyncio.gather(*(guard.verify(each) for each in flood), return_exceptions=True)
            assert {type(answer) for answer in answers} == {Unauthenticated}
            return guard.status.key_fetches - before

        assert await flooded("first") == 1
        # That one has come back, and found nothing: for a while nobody asks again.
        assert await flooded("second") == 0
        now[0] += COOLDOWN_SECONDS - 1
        assert await flooded("third") == 0
        now[0] += 2
        assert await flooded("fourth") == 1
        await guard.verify(good)


async def test_r89_keys_are_kept_when_they_cannot_be_fetched(behind: tuple[Issuer, Proxy]) -> None:
    issuer, proxy = behind
    async with issuer.guard() as guard:
        good = await issuer.token()
        await guard.verify(good)
        proxy.accepting = False
        proxy.cut()
        life = guard._life
        assert life
        assert not await life.jwks.fetch()
        await guard.verify(good)
        assert guard.status.keys == 1


async def test_a_restored_backup_gives_guards_a_snapshot(issuer: Issuer, tmp_path: Path) -> None:
    service = issuer.service
    async with issuer.guard() as guard:
        await service.server.backup(tmp_path / "backup.db")
        login = await issuer.login()
        await guard.verify(login["access_token"])
        await service.http.post("/logout", json={"refresh_token": login["refresh_token"]})
        await until(lambda: refused(guard, login["access_token"]))
        before = (guard.status.cursor or "").partition(".")[0]
        other = await issuer.token()
        await guard.verify(other)
        await service.server.restore(tmp_path / "backup.db")
        # Keys of before are withdrawn with a restore, so no token of before is good.
        await until(lambda: refused(guard, other))
        assert (guard.status.cursor or "").partition(".")[0] not in ("", before)
        await until(lambda: _verifies(guard, issuer))


async def _verifies(guard: Guard, issuer: Issuer) -> bool:
    return not await refused(guard, await issuer.token())
