"""Settings to store to services. It builds every adapter; nobody else does."""

import asyncio
import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, MutableMapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from authwright.config import (
    MAX_ACCESS_TOKEN_SECONDS,
    Settings,
    SettingsError,
    check_settings,
    new_secret_key,
)
from authwright.domain.instant import Instant
from authwright.domain.passwords import HashProfile, PasswordPolicy
from authwright.domain.revocation import Revocations
from authwright.jose.claims import MAX_LEEWAY
from authwright.services.analytics import Analytics
from authwright.services.api_keys import ApiKeys
from authwright.services.audit import Audit
from authwright.services.cleanup import Cleanup
from authwright.services.clients import Clients
from authwright.services.confirm import Confirm
from authwright.services.event_push import EventPush
from authwright.services.events import Events
from authwright.services.feed import Feed
from authwright.services.hashing import Hashing
from authwright.services.introspect import Introspect
from authwright.services.keys import Keyring, KeyWrap, UnreadableKey
from authwright.services.lease import Lease
from authwright.services.limits import Limits
from authwright.services.login import Lifetimes, Login
from authwright.services.logout import Logout
from authwright.services.metrics import Metrics
from authwright.services.move import MoveFailed, move
from authwright.services.notices import Notices
from authwright.services.password import Passwords
from authwright.services.plan_file import PlanFile
from authwright.services.predict import Predict
from authwright.services.quotas import Quotas
from authwright.services.rates import Rates, Shared
from authwright.services.refresh import Refresh
from authwright.services.register import Register, RegistrationRules
from authwright.services.restore import begin_anew
from authwright.services.revoke import Revoke
from authwright.services.revoke_token import RevokeToken
from authwright.services.throttle import Throttle
from authwright.services.tokens import Tokens
from authwright.services.transfer import Transfer
from authwright.services.usage import Usage
from authwright.services.usage_report import UsageReport
from authwright.services.users import Users
from authwright.services.verify import Verify
from authwright.services.whoami import WhoAmI
from authwright.smtp import Smtp
from authwright.storage.counter import CounterPage, shared_page
from authwright.storage.port import Allowances, IncompatibleStore, OutdatedStore, Store, StoreUnavailable
from authwright.storage.sql import postgres_store, sqlite_store
from authwright.storage.sql.copy import copy_database
from authwright.webhook import Webhook

if TYPE_CHECKING:
    from authwright.storage.redis import RedisAllowances
    from authwright.tracing import Tracing

MIGRATED_SECONDS = 1.0
"""How often a server that waits for `authwright migrate` looks whether that was done."""
LOOK_AROUND_SECONDS = 1.0
"""How often a server reads which keys other machines have made, and which foreign hashes there are."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = structlog.get_logger("authwright")


def system_clock() -> Instant:
    """Now."""
    return Instant(time.time_ns() // 1000)


class Server:
    """Everything behind the routes, built from *settings* and open between `open` and `close`."""

    def __init__(self, settings: Settings, *, clock: Callable[[], Instant] = system_clock) -> None:
        self.settings = settings = check_settings(settings)
        self.clock = clock
        self.is_open = False
        self.plan_file = _plan_file(settings)
        self.plans = self.plan_file.plans
        self.metrics = Metrics()
        self.store, self.counter = _store_of(settings)
        self.tracing = _tracing_of(settings, self.store)
        secret = settings.secret_key or _development_secret(settings)
        # What was revoked matters to a guard as long as the most lenient of them could take a token.
        leeway, matters = settings.leeway_seconds, MAX_ACCESS_TOKEN_SECONDS + MAX_LEEWAY
        self.keyring = Keyring(
            self.store,
            self.counter,
            issuer=settings.issuer,
            alg=settings.signing_alg,
            wrap=KeyWrap(secret, settings.secret_key_previous),
            keep=matters,
            adopt=settings.is_dev,
        )
        self.revoke = Revoke(
            self.store,
            self.counter,
            Revocations(),
            Feed(time.monotonic, matters=matters),
            self.metrics,
        )
        self.usage = Usage(self.store, self.metrics, clock)
        self.usage_report = UsageReport(self.store, self.usage)
        self.analytics = Analytics(self.store, self.usage)
        # One process on a file of its own needs to agree with nobody.
        alone = settings.is_sqlite and settings.workers == 1
        self.redis = _redis_of(settings)
        fleet: Allowances | None = self.redis
        if fleet is not None and self.tracing is not None:
            fleet = self.tracing.traced(fleet, name="allowances", system="redis")
        shared = [] if fleet is None else [Shared(fleet, clock, exact=True)]
        shared += [] if alone else [Shared(self.store.allowances, clock, exact=False)]
        self.rates = Rates(clock, *shared)
        self.quotas = Quotas(self.store, self.usage, clock, alone=alone)
        self.limits = Limits(self.plans, self.rates, self.quotas, self.usage, self.metrics)
        self.cleanup = Cleanup(self.store, lambda: self.revoke.feed.forgotten)
        self.verify = Verify(
            self.keyring,
            self.revoke,
            issuer=settings.issuer,
            audiences=settings.audiences,
            leeway=leeway,
            max_lifetime=MAX_ACCESS_TOKEN_SECONDS,
        )
        self.revoke.on_restore = self._restored
        self.revoke.on_key_withdrawn = lambda: self.verify.replace_withdrawn(self.clock())
        self.tokens = Tokens(
            self.keyring,
            self.revoke,
            self.plans,
            self.metrics,
            issuer=settings.issuer,
            audiences=settings.audiences,
            lifetime=settings.access_token_seconds,
        )
        threads = settings.hash_threads or max(1, (os.cpu_count() or 1) // settings.workers)
        self.hashing = Hashing(
            profile=HashProfile(settings.argon2_memory_kib, settings.argon2_passes, settings.argon2_lanes),
            threads=threads,
            places=settings.hash_queue,
        )
        self.throttle = Throttle(
            self.store,
            self.keyring,
            self.metrics,
            account=settings.failed_logins_account,
            network=settings.failed_logins_network,
            registrations=settings.registrations_per_hour,
        )
        lifetimes = Lifetimes(settings.session_idle_seconds, settings.session_seconds, settings.refresh_grace_seconds)
        passwords = PasswordPolicy(settings.password_min_length, block_list=not settings.is_dev)
        rules = RegistrationRules(settings.registration == "open", any_plan=settings.is_dev, passwords=passwords)
        self.register = Register(self.store, self.keyring, self.hashing, self.throttle, self.plans, rules)
        self.login = Login(
            self.store,
            self.keyring,
            self.tokens,
            self.hashing,
            self.throttle,
            self.revoke,
            self.plans,
            self.metrics,
            lifetimes,
        )
        self.refresh = Refresh(self.store, self.keyring, self.tokens, self.revoke, self.metrics, lifetimes)
        self.logout = Logout(self.store, self.keyring, self.revoke)
        mail = Smtp(settings.smtp_url, sender=settings.mail_from) if settings.smtp_url else None
        self.notices = Notices(self.store, self.throttle, mail, issuer=settings.issuer)
        confirm = Confirm(self.store, self.hashing, self.throttle)
        self.passwords = Passwords(
            self.store,
            self.tokens,
            self.hashing,
            confirm,
            self.throttle,
            self.revoke,
            self.notices,
            policy=passwords,
            issuer=settings.issuer,
        )
        self.users = Users(self.store, self.keyring, confirm, self.throttle, self.revoke, self.plans, self.notices)
        audiences = self.tokens.known_audiences
        self.clients = Clients(self.store, self.revoke, self.throttle, self.plans, audiences=audiences)
        self.api_keys = ApiKeys(
            self.store,
            self.revoke,
            self.throttle,
            self.plans,
            self.notices,
            issuer=settings.issuer,
            audiences=audiences,
        )
        self.introspect = Introspect(self.store, self.revoke, self.verify, self.api_keys, audiences=audiences)
        self.revoke_token = RevokeToken(self.store, self.keyring, self.verify, self.revoke, self.logout)
        self.lease = Lease(self.store, self.introspect, self.limits, self.usage)
        self.transfer = Transfer(self.store, self.keyring, self.hashing, self.plans)
        self.events = Events(self.store)
        self.webhook = _webhook_of(settings)
        self.event_push = EventPush(self.store, self.keyring, self.webhook, time=time.monotonic)
        self.audit = Audit(self.store, self.keyring, days=settings.events_days, time=time.monotonic)
        self.whoami = WhoAmI(self.store)
        self.predict = Predict()
        self._follower: asyncio.Task[None] | None = None
        self._look_around_due = 0.0

    async def open(self) -> None:
        """Open the store and load the keys. Raises IncompatibleStore, UnreadableKey, StoreUnavailable.

        An older store is brought up to date in development; otherwise it raises OutdatedStore.
        """
        try:
            await self.store.open()
        except OutdatedStore:
            if not self.settings.is_dev:
                raise
            await self.store.migrate()
            await self.store.open()
        try:
            made_by = await self.store.facts.establish("made_by", self.settings.mode)
            if made_by != self.settings.mode:
                raise IncompatibleStore(
                    f"The store was made by `authwright {made_by}`; `{self.settings.mode}` does not open it, "
                    "because other rules decided what is in it."
                )
            await self.verify.load_keys(self.clock())
            await self.revoke.start(self.clock())
            # What was withdrawn in between is not news any more.
            await self.verify.load_keys(self.clock())
        except BaseException:
            await self.store.close()
            raise
        try:
            await self.hashing.start()
        except BaseException:
            await self.store.close()
            raise
        self.is_open = True

    async def _restored(self) -> bool:
        """A backup was put back, it seems: load its keys; whether none of those before is good any more."""
        now = self.clock()
        before = {key.record.id for key in self.keyring.signing_keys(now) if key.state != "withdrawn"}
        self.audit.restart()
        await self.verify.load_keys(now)
        after_ = {key.record.id for key in self.keyring.signing_keys(now) if key.state != "withdrawn"}
        return before.isdisjoint(after_)

    async def backup(self, target: Path) -> None:
        """Copy the store to *target*, a new file, while it is in use. Raises StoreUnavailable."""
        source = self._database_file()
        if target.exists():
            raise StoreUnavailable(f"{target} exists; it is left as it is")
        await asyncio.to_thread(copy_database, source, target)

    async def restore(self, source: Path | None) -> int:
        """Put the backup *source* in the place of the store; how many sessions of it were ended.

        Everybody logs in again (services.restore). A server that has the store open goes on with what was restored.
        None: the store is a server's, and was put back with that server's own tools, before any process has it open.
        Raises IncompatibleStore, UnreadableKey, StoreUnavailable; then the store is as it was.
        """
        if source is None and not self.settings.is_sqlite:
            return await begin_anew(self.store, self.keyring, self.clock())
        target = self._database_file()
        if source is None:
            raise StoreUnavailable("a store in a file is restored from a file: name it")
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            draft = Path(folder) / "restored.db"
            await asyncio.to_thread(copy_database, source, draft)
            url = f"sqlite:///{draft.resolve()}"
            secret = self.settings.secret_key or _development_secret(self.settings)
            settings = replace(self.settings, database_url=url, secret_key=secret)
            restored = Server(settings, clock=self.clock)
            # A backup may be older than this version.
            await restored.store.migrate()
            await restored.open()
            try:
                ended = await begin_anew(restored.store, restored.keyring, self.clock())
            finally:
                await restored.close()
            await asyncio.to_thread(copy_database, draft, target, at_once=True)
        self.counter.raise_()
        return ended

    async def move(self, url: str, *, tell: Callable[[str, int], None]) -> None:
        """Copy the store to the empty database *url*. Raises SettingsError, MoveFailed, StoreUnavailable."""
        settings = check_settings(replace(self.settings, database_url=url))
        if settings.database_name == self.settings.database_name:
            raise MoveFailed("the target is where the store is already")
        target, counter = _store_of(settings)
        counter.close()
        await target.open()
        try:
            await move(self.store, target, tell=tell)
        finally:
            await target.close()

    def _database_file(self) -> Path:
        if not self.settings.is_sqlite:
            raise StoreUnavailable(
                "a database server is copied and put back with its own tools (pg_dump and pg_restore, mongodump and "
                "mongorestore); afterwards, before any process starts, run `authwright restore` without a file"
            )
        path = self.settings.database_path
        if path is None:
            raise StoreUnavailable("a store in memory cannot be copied")
        return path

    async def follow(self) -> None:
        """What goes on beside the requests, until cancelled; first, if need be, the wait for `authwright migrate`."""
        while not self.is_open:
            await asyncio.sleep(MIGRATED_SECONDS)
            try:
                await self.open()
            except OutdatedStore:
                continue
            except (IncompatibleStore, StoreUnavailable, UnreadableKey) as error:
                log.error("store_not_open", detail=str(error))
            except Exception:
                log.exception("store_not_open")
            else:
                log.info("store_migrated")
        async with asyncio.TaskGroup() as group:
            group.create_task(self.revoke.follow(self.clock, self.keep_up))
            group.create_task(self.usage.flush_regularly())
            group.create_task(self.rates.tidy_regularly())
            group.create_task(self.quotas.follow())
            group.create_task(self.plan_file.follow())
            group.create_task(self.cleanup.run_regularly(self.clock))
            group.create_task(self.notices.run_regularly(self.clock))
            group.create_task(self.audit.run_regularly(self.clock))
            group.create_task(self.event_push.run_regularly(self.clock))

    async def look_around(self) -> None:
        """Read what others may have changed: the keys, and which foreign hashes there are. Raises StoreUnavailable."""
        await self.verify.reload_keys(self.clock())
        await self.hashing.measure(await self.store.users.password_formats())

    async def keep_up(self) -> None:
        """Read the keys if this machine changed anything, and every LOOK_AROUND_SECONDS what others may have. Raises
        StoreUnavailable."""
        await self.verify.reload_keys(self.clock(), anyway=False)
        if time.monotonic() >= self._look_around_due:
            await self.look_around()
            self._look_around_due = time.monotonic() + LOOK_AROUND_SECONDS

    async def close(self) -> None:
        """Finish and let go."""
        if self.is_open:
            self.is_open = False
            await self.rates.close()
            with contextlib.suppress(StoreUnavailable):
                await self.usage.flush()
        self.predict.stop()
        self.hashing.stop()
        if self.redis is not None:
            await self.redis.close()
        if self.webhook is not None:
            await self.webhook.close()
        await self.store.close()
        self.counter.close()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)

    async def ready(self) -> None:
        """Return if requests can be answered, and what this machine changed is known. Raises StoreUnavailable."""
        try:
            async with asyncio.timeout(2):
                await self.store.ping()
                # The ledger first: it tells of a restored backup, whose keys are to be compared with those of before.
                await self.revoke.look()
                await self.verify.reload_keys(self.clock(), anyway=False)
        except IncompatibleStore as error:
            raise StoreUnavailable(str(error)) from None
        except TimeoutError:
            raise StoreUnavailable("no answer within two seconds") from None

    def observe(self, scope: MutableMapping[str, Any], route: str, status: int, nanoseconds: int) -> None:
        """Count a request (its ASGI *scope*) that was answered."""
        caller = scope.get("authwright.caller")
        if (running := scope.get("authwright.running")) is not None:
            self.limits.end(running)
        method = scope["method"] if scope["method"] in _METHODS else "(other)"
        self.metrics.request(method, route or "(none)", status, nanoseconds / 1e9)
        if caller is None:
            self.usage.called(route or "(none)", "", "", status, nanoseconds // 1000)
        else:
            self.usage.called(route, caller.subject, caller.plan or "", status, nanoseconds // 1000)

    def exposition(self) -> bytes:
        """The metrics, as Prometheus reads them."""
        self.metrics.hash_queue.set(self.hashing.taken)
        self.metrics.ledger_head.set(self.revoke.revocations.head)
        return self.metrics.exposition()


def _store_of(settings: Settings) -> tuple[Store, CounterPage]:
    """The store, and the counter that all processes of this machine share which use it."""
    url, connections = settings.database_url, settings.database_connections
    if settings.database_kind == "postgresql":
        return postgres_store(url, connections=connections), CounterPage(shared_page(settings.database_name))
    if settings.database_kind == "mongodb":
        # Loaded where it is used: the driver is an extra.
        from authwright.storage.mongo import mongo_store

        return mongo_store(url, connections=connections), CounterPage(shared_page(settings.database_name))
    path = settings.database_path
    if path is None:
        return sqlite_store(None), CounterPage(None)
    if path.parent == settings.data_path:
        _make_private_folder(settings)
    return sqlite_store(path), CounterPage(path.with_name(f"{path.name}.counter"))


def _redis_of(settings: Settings) -> "RedisAllowances | None":
    """Where a fleet agrees on rates, if that is configured."""
    if not settings.redis_url:
        return None
    # Loaded where it is used: the driver is an extra.
    from authwright.storage.redis import RedisAllowances

    name = hashlib.sha256(settings.issuer.encode("utf-8")).hexdigest()[:16]
    return RedisAllowances(settings.redis_url, name=name)


def _webhook_of(settings: Settings) -> Webhook | None:
    if not settings.events_webhook:
        return None
    return Webhook(
        settings.events_webhook, secret=settings.events_webhook_secret, networks=settings.events_webhook_networks
    )


def _tracing_of(settings: Settings, store: Store) -> "Tracing | None":
    """What traces requests and the verbs of *store*, if there is somewhere to send it."""
    if not settings.otlp_endpoint:
        return None
    # Loaded where it is used: the exporter is an extra.
    from authwright.tracing import Tracing

    tracing = Tracing(settings.otlp_endpoint, version=version("authwright"), base_path=settings.base_path)
    tracing.trace(store, system=settings.database_kind)
    return tracing


def _make_private_folder(settings: Settings) -> None:
    settings.data_path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if settings.is_dev:
        settings.data_path.chmod(0o700)


def _plan_file(settings: Settings) -> PlanFile:
    """The plans of the file that the settings name, or the built-in ones. Raises SettingsError."""
    try:
        return PlanFile(Path(settings.plans) if settings.plans else None)
    except ValueError as error:
        raise SettingsError([f"The file that AUTHWRIGHT_PLANS names {error}."]) from None


def _development_secret(settings: Settings) -> str:
    """The secret that dev made at the first start, beside its database or in the data folder."""
    if not settings.is_dev:
        raise SettingsError(["SECRET_KEY is required; `authwright init` writes one to .env."])
    folder = settings.data_path
    if settings.is_sqlite:
        if settings.database_path is None:
            return new_secret_key()
        folder = settings.database_path.parent
    else:
        _make_private_folder(settings)
    file = folder / "secret_key"
    if not file.exists():
        _write_once(file, new_secret_key())
    file.chmod(0o600)
    return file.read_text(encoding="ascii").strip()


def _write_once(file: Path, text: str) -> None:
    """Write *file* whole and durably, unless another process was first."""
    with tempfile.NamedTemporaryFile("w", dir=file.parent, encoding="ascii") as draft:
        draft.write(text)
        draft.flush()
        os.fsync(draft.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft.name, file)
