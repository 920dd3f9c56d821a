"""What commands that work on the store have in common: settings, an open server, errors as sentences."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import structlog

from authwright.config import Mode, Settings, SettingsError, load_settings
from authwright.domain.errors import Refusal

if TYPE_CHECKING:
    from authwright.app import Server

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


def with_server(work: Callable[["Server"], Awaitable[T]]) -> T:
    """Open the store, do *work*, close it; refusals become a sentence and exit status 1."""
    from authwright.app import Server
    from authwright.services.keys import UnreadableKey
    from authwright.storage.port import IncompatibleStore, StoreUnavailable

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    settings = settings_or_exit(store_mode())

    async def run() -> T:
        server = Server(settings)
        async with _opened(server):
            return await work(server)

    try:
        return asyncio.run(run())
    except Refusal as refusal:
        fail(refusal.public)
    except (IncompatibleStore, StoreUnavailable, UnreadableKey) as error:
        fail(str(error))


@contextlib.asynccontextmanager
async def _opened(server: "Server") -> AsyncIterator[None]:
    await server.open()
    try:
        yield
    finally:
        await server.close()
