"""authwright doctor: what is wrong with an installation, and what to do about it."""

import asyncio
import hashlib
import json
import os
import platform
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email.utils import mktime_tz, parsedate_tz
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal
from urllib.parse import urlsplit

import httpx2
import structlog
import typer
from rich.console import Console
from rich.markup import escape

from authwright.cli.run import store_settings
from authwright.config import Settings, SettingsError, is_loopback
from authwright.domain.instant import MICROSECONDS, isoformat
from authwright.domain.passwords import HashProfile, hash_password
from authwright.domain.secrets import Subject
from authwright.services.keys import UnreadableKey
from authwright.storage.port import EventFilter, IncompatibleStore, StoreUnavailable

if TYPE_CHECKING:
    from authwright.app.server import Server
    from authwright.storage.redis import RedisAllowances

Level = Literal["ok", "warning", "error"]
_COLOURS: Final = {"ok": "green", "warning": "yellow", "error": "red"}
_LEAST_FREE: Final = 1 << 30
_ASK_SECONDS: Final = 5.0
# Password hashes of a build with the processor's wide instructions take about 0.3 of SHA-512 over as many bytes, of a
# build without them 0.55; measured on x86-64.
_SLOW_ARGON2: Final = 0.42
_KEY_DAYS: Final = 400


@dataclass(frozen=True)
class Finding:
    """What was looked at (*about*), what was found, and what to do about it."""

    level: Level
    about: str
    text: str
    remedy: str = ""


def doctor(
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the issuer's URL.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON, a line for each finding.")] = False,
) -> None:
    """Look at settings, files, clock, keys, database, migrations, proxy and password hashes; say what to do.

    Exit status 1 if anything keeps the server from working; with warnings alone it is 0. Nothing is changed, but a
    store without keys gets its first ones.

    Example:  authwright doctor
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    examination = Examination()
    asyncio.run(examination.run(offline=offline))
    console = Console(highlight=False, soft_wrap=True)
    for finding in examination.findings:
        if as_json:
            typer.echo(json.dumps(asdict(finding)))
            continue
        label = f"[{_COLOURS[finding.level]}]{finding.level:8}[/]"
        console.print(f"{label}{finding.about}: {escape(finding.text)}")
        if finding.remedy:
            console.print(f"        do: {escape(finding.remedy)}")
    raise typer.Exit(1 if any(finding.level == "error" for finding in examination.findings) else 0)


_SETTINGS_REMEDY: Final = "change it in .env or in the environment; docs/reference/settings.md has what each may be"


class Examination:
    """Looks at one thing after the other, and keeps what it finds."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._kids: set[str] = set()

    def _find(self, level: Level, about: str, text: str, remedy: str = "") -> None:
        self.findings.append(Finding(level, about, text, remedy))

    async def run(self, *, offline: bool) -> None:
        """Look at everything; without settings there is nothing else to look at."""
        try:
            settings = store_settings()
        except SettingsError as error:
            for problem in error.problems:
                self._find("error", "settings", problem, _SETTINGS_REMEDY)
            return
        self._find("ok", "settings", f"authwright {settings.mode} for {settings.issuer}")
        self._files(settings)
        await self._store(settings)
        if not offline and not settings.is_dev:
            await asyncio.to_thread(self._issuer, settings)
        self._proxy(settings)
        self._choices(settings)
        self._argon2(settings)

    def _files(self, settings: Settings) -> None:
        dotenv = Path(".env")
        if dotenv.is_file() and stat.S_IMODE(dotenv.stat().st_mode) & 0o077:
            self._find("error", "files", ".env can be read by others, and holds secrets", "chmod 600 .env")
        folder = settings.data_path if settings.data_path.exists() else Path()
        free = shutil.disk_usage(folder).free
        if free < _LEAST_FREE:
            self._find("warning", "files", f"{free // 2**20:,} MiB are free in {folder.resolve()}", "make room")
        if not os.access(folder, os.W_OK):
            self._find("error", "files", f"{folder.resolve()} cannot be written to", "run as the user that owns it")

    async def _store(self, settings: Settings) -> None:
        """Open the store as a server does, but bring nothing up to date."""
        from authwright.app.server import Server

        name, file = settings.database_name, settings.database_path if settings.is_sqlite else None
        if file is not None and not file.exists():
            self._find("warning", "database", f"{name} does not exist yet", f"authwright {settings.mode} makes it")
            return
        try:
            server = Server(settings)
        except SettingsError as error:
            for problem in error.problems:
                self._find("error", "settings", problem, _SETTINGS_REMEDY)
            return
        try:
            if missing := await server.store.migrate(check=True):
                self._find("error", "migrations", f"{len(missing)} to do in {name}", "authwright migrate")
                return
            await server.open()
        except IncompatibleStore as error:
            self._find("error", "database", str(error))
            return
        except UnreadableKey as error:
            remedy = "set the SECRET_KEY that this store was made with (SECRET_KEY_PREVIOUS if it was changed since)"
            self._find("error", "keys", str(error), remedy)
            return
        except (StoreUnavailable, OSError) as error:
            self._find("error", "database", f"{name}: {error}", "start it, or correct DATABASE_URL")
            return
        self._find("ok", "database", name)
        self._find("ok", "migrations", "none to do")
        try:
            self._keys(server)
            await self._clock(server)
            await self._events(server)
            if server.redis is not None:
                await self._redis(server.redis)
        finally:
            await server.close()

    def _keys(self, server: "Server") -> None:
        now = server.clock()
        self._kids = {key["kid"] for key in server.keyring.jwks(now)["keys"]}
        for key in server.keyring.signing_keys(now):
            record, age = key.record, (now - key.record.active_from) // (86_400 * MICROSECONDS)
            if key.state != "active":
                continue
            if age > _KEY_DAYS:
                self._find("warning", "keys", f"{record.id} has signed for {age} days", "authwright keys rotate")
            else:
                since = isoformat(record.active_from)
                self._find("ok", "keys", f"{record.id} signs with {record.alg} since {since}")
        if server.settings.secret_key_previous:
            text = "SECRET_KEY_PREVIOUS is set: what it encrypted can still be read with it"
            self._find("warning", "keys", text, "authwright keys rewrap, then take it away")

    async def _clock(self, server: "Server") -> None:
        """What was recorded cannot be of the future; a clock that was set back makes tokens live longer."""
        newest = await server.events.list(EventFilter(), before=None, most=1)
        now = server.clock()
        if newest and newest[0].at > now + server.settings.leeway_seconds * MICROSECONDS:
            text = f"it is {isoformat(now)}, but the newest event is of {isoformat(newest[0].at)}"
            self._find("error", "clock", text, "set this machine's clock, and keep it with NTP")
        else:
            self._find("ok", "clock", f"{isoformat(now)}, and nothing on record is later")

    async def _events(self, server: "Server") -> None:
        verdict = await server.audit.verify(server.clock())
        for problem in verdict.problems:
            remedy = "somebody changed the database: compare with an export (authwright events export) made before"
            self._find("error", "events", problem, remedy)
        for remark in verdict.remarks:
            remedy = "let a server run, which seals once a minute; look whether its log has events_not_sealed"
            self._find("warning", "events", remark, remedy)
        if not verdict.problems and not verdict.remarks:
            self._find("ok", "events", f"{verdict.events:,} events; {verdict.sealed:,} are sealed and as they were")

    async def _redis(self, redis: "RedisAllowances") -> None:
        try:
            await redis.read(Subject("usr_doctor"))
        except StoreUnavailable as error:
            text = f"{error}: units of rates are leased from the database meanwhile"
            self._find("warning", "redis", text, "start it, or correct REDIS_URL")
        else:
            self._find("ok", "redis", "it answers")

    def _issuer(self, settings: Settings) -> None:
        """Ask the issuer's URL, as everybody does who verifies a token."""
        where = f"{settings.issuer}/.well-known/jwks.json"
        begun = time.time()
        try:
            answer = httpx2.get(where, timeout=_ASK_SECONDS)
        except httpx2.HTTPError as error:
            text, remedy = (
                f"{where} cannot be reached from here: {error}",
                "start the server and its proxy; check the name",
            )
            self._find("warning", "issuer", text, remedy)
            return
        asked = (begun + time.time()) / 2
        try:
            served = {str(key["kid"]) for key in answer.json()["keys"]} if answer.status_code == 200 else None
        except (ValueError, KeyError, TypeError):
            served = None
        if served is None:
            remedy = "let the proxy pass requests on with their Host header and path, and redirect none of them"
            self._find("error", "issuer", f"{where} answers {answer.status_code} and no key set", remedy)
        elif not self._kids <= served:
            text = f"{where} answers without the keys of this store"
            self._find("error", "issuer", text, "let the issuer's name lead to servers with this DATABASE_URL alone")
        else:
            self._find("ok", "issuer", f"{where} answers with the keys of this store")
        if (date := parsedate_tz(answer.headers.get("date", ""))) is not None:
            difference = abs(mktime_tz(date) - asked)
            # The header has whole seconds.
            if difference > settings.leeway_seconds + 1:
                text = f"the issuer's clock and this machine's differ by {difference:.0f} s"
                self._find("error", "clock", text, "keep both with NTP")

    def _proxy(self, settings: Settings) -> None:
        if settings.is_dev or is_loopback(urlsplit(settings.issuer).hostname or ""):
            return
        if settings.forwarded_allow_ips:
            self._find("ok", "proxy", f"X-Forwarded-For is believed from {', '.join(settings.forwarded_allow_ips)}")
        else:
            text = "no proxy is named, so all callers seem to have its address, and share its throttle"
            self._find("warning", "proxy", text, "FORWARDED_ALLOW_IPS=address of the proxy that speaks TLS")

    def _choices(self, settings: Settings) -> None:
        if settings.signing_alg == "HS256":
            text = "HS256 signs tokens: whoever can verify one can make one"
            self._find("warning", "settings", text, "AUTHWRIGHT_SIGNING_ALG=ES256, unless the system is closed")
        if not settings.is_dev and not settings.smtp_url:
            text = "users are not told of changes to their accounts, for there is no mail server"
            self._find("warning", "settings", text, "SMTP_URL and AUTHWRIGHT_MAIL_FROM")

    def _argon2(self, settings: Settings) -> None:
        """How long a password hash takes, beside SHA-512 over as many bytes on the same processor."""
        profile = HashProfile(settings.argon2_memory_kib, settings.argon2_passes, settings.argon2_lanes)
        data = bytes(1 << 20)

        def digest() -> None:
            whole = hashlib.sha512()
            for _ in range(max(1, profile.memory * profile.passes // 1024)):
                whole.update(data)

        hashing = _least(lambda: hash_password("a password to measure with", profile=profile))
        text = f"a password hash takes {hashing * 1000:.0f} ms of CPU"
        if platform.machine() in ("x86_64", "AMD64") and hashing > _SLOW_ARGON2 * _least(digest):
            remedy = (
                "build Argon2 for this processor, which halves it: CFLAGS='-O3 -march=native' pip install "
                "--force-reinstall --no-deps --no-binary argon2-cffi-bindings argon2-cffi-bindings"
            )
            self._find("warning", "passwords", text, remedy)
        else:
            self._find("ok", "passwords", text)


def _least(work: Callable[[], object]) -> float:
    """CPU seconds that *work* takes when nothing gets in its way."""

    def once() -> float:
        begun = time.thread_time()
        work()
        return time.thread_time() - begun

    return min(once() for _ in range(5))
