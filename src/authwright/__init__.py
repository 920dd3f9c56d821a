"""Authwright: accounts, API clients, tokens that verify locally, and a logout that every API honours.

The server: `create_app(settings)`, `lifespan(app)`, `Settings`, `load_settings`. The guard, which protects an API and
needs nothing of the server: `authwright.guard`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from authwright.app.routes import create_app, lifespan
    from authwright.config import Settings, SettingsError, load_settings

__all__ = ["Settings", "SettingsError", "create_app", "lifespan", "load_settings"]


# A type checker is not told: to it every name would exist.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        # Loaded when asked for: an API that imports the guard must not load the server.
        if name in ("create_app", "lifespan"):
            from authwright.app import routes

            return getattr(routes, name)
        if name in __all__:
            from authwright import config

            return getattr(config, name)
        raise AttributeError(f"module 'authwright' has no attribute {name!r}")
