"""What commands that work on the store have in common: settings, an open server, errors as sentences."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import structlog

from authwright.config import Mode, Settings, SettingsError, load_settings
from authwright.domain.errors import Refusal

if TYPE_CHECKING:
    from authwright.app.server import Server
    from authwright.storage.port import Store

T = TypeVar("T")

EXIT_REFUSED = 1
EXIT_SETTINGS = 2


def fail(message: str, code: int = EXIT_REFUSED) -> NoReturn:
    """End with *message* on standard error and the exit status *code*."""
    print(message, file=sys.stderr)
    sys.exit(code)


def settings_or_exit(mode: Mode, **overrides: Any) -> Settings:
    """The settings for *mode*, or an end that names every problem."""
    try:
        return load_settings(mode, **overrides)
    except SettingsError as error:
        fail(f"authwright {mode} cannot start:\n{error}", EXIT_SETTINGS)


def open_once(settings: Settings) -> None:
    """Open the store and close it again, so that what forbids a start is a sentence and not a traceback."""

    async def run() -> None:
        from authwright.app.server import Server
        from authwright.storage.port import OutdatedStore

        server = Server(settings)
        try:
            async with _opened(server):
                pass
        except OutdatedStore as error:
            # It starts all the same, and is ready when that was done.
            print(f"Not ready yet: {error}", file=sys.stderr)

    _run_or_exit(run, f"authwright {settings.mode} cannot start: ")


def store_mode() -> Mode:
    """The mode whose store a command works on: what AUTHWRIGHT_MODE says; else serve's if it is configured."""
    named = os.environ.get("AUTHWRIGHT_MODE")
    if named in ("dev", "serve"):
        return "dev" if named == "dev" else "serve"
    try:
        load_settings("serve")
    except SettingsError:
        development = Settings(mode="dev").data_path
        return "dev" if development.exists() else "serve"
    return "serve"


def remember_dev_port(settings: Settings) -> None:
    """Note where dev runs, for commands that work on its store: the port is part of its issuer."""
    if not settings.is_sqlite or settings.database_path is not None:
        settings.data_path.mkdir(parents=True, exist_ok=True, mode=0o700)
        (settings.data_path / "port").write_text(str(settings.port), encoding="ascii")


def store_settings() -> Settings:
    """The settings whose store commands work on. Raises SettingsError."""
    settings = load_settings(store_mode())
    noted = settings.data_path / "port"
    if settings.is_dev and noted.exists() and (text := noted.read_text(encoding="ascii")).isdigit():
        return load_settings("dev", port=int(text))
    return settings


def _store_settings_or_exit() -> Settings:
    try:
        return store_settings()
    except SettingsError as error:
        mode = store_mode()
        what = f"There is no store to work on; this would be the one of `authwright {mode}` (AUTHWRIGHT_MODE chooses)"
        fail(f"{what}:\n{error}", EXIT_SETTINGS)


def with_store(work: Callable[["Store"], Awaitable[T]]) -> T:
    """As `with_server`, but the store is not opened."""
    settings = _store_settings_or_exit()
    print(f"Store: {settings.database_name} (authwright {settings.mode})", file=sys.stderr)

    async def run() -> T:
        from authwright.app.server import Server

        return await work(Server(settings).store)

    return _run_or_exit(run, "")


def with_server(work: Callable[["Server"], Awaitable[T]]) -> T:
    """Open the store, say which, do *work*, close it; refusals become a sentence and exit status 1."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    settings = _store_settings_or_exit()
    print(f"Store: {settings.database_name} (authwright {settings.mode})", file=sys.stderr)

    async def run() -> T:
        from authwright.app.server import Server

        server = Server(settings)
        async with _opened(server):
            return await work(server)

    return _run_or_exit(run, "")


def _run_or_exit(run: Callable[[], Coroutine[Any, Any, T]], before: str) -> T:
    from authwright.services.keys import UnreadableKey
    from authwright.storage.port import IncompatibleStore, StoreUnavailable

    try:
        return asyncio.run(run())
    except Refusal as refusal:
        fail(before + refusal.public)
    except UnicodeError:
        fail("An argument holds bytes that are not text.")
    except (IncompatibleStore, StoreUnavailable, UnreadableKey, OSError) as error:
        fail(f"{before}{error}")


@contextlib.asynccontextmanager
async def _opened(server: "Server") -> AsyncIterator[None]:
    from authwright.services.revoke import POLL_SECONDS

    await server.open()
    try:
        yield
        if server.revoke.wrote and not server.settings.is_sqlite:
            # Servers on other machines, or in another mount namespace, read the ledger every POLL_SECONDS.
            await asyncio.sleep(2 * POLL_SECONDS)
    finally:
        await server.close()
