"""The plans of a TOML file, read again when it changes: what is not understood then changes nothing."""

import asyncio
from pathlib import Path
from typing import Final

import structlog

from authwright.domain.plan import Plans, read_plans

LOOK_SECONDS: Final = 1.0

log = structlog.get_logger("authwright.plans")


class PlanFile:
    """Keeps *plans* what the file *path* says; None: the built-in ones. Raises ValueError, saying what is wrong."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen = self._stamp()
        self.plans = Plans() if path is None else self._read(path)

    def _read(self, path: Path) -> Plans:
        try:
            return read_plans(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror}") from None

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = None if self._path is None else self._path.stat()
        except OSError:
            return None
        # A mounted file may be replaced by an older one of the same size.
        return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)

    def look(self, *, again: bool = False) -> bool:
        """Read the file if it changed (*again*: in any case); whether the plans are those of the file now."""
        if self._path is None:
            return True
        stamp = self._stamp()
        if stamp == self._seen and not again:
            return True
        self._seen = stamp
        try:
            self.plans.become(self._read(self._path))
        except ValueError as error:
            log.error("plans_not_read", detail=f"the file {error}; the plans stay as they were")
            return False
        log.info("plans_read", plans=[plan.name for plan in self.plans])
        return True

    async def follow(self) -> None:
        """Look every LOOK_SECONDS, until cancelled."""
        while self._path is not None:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self.look()
            except Exception:
                log.exception("plans_not_read")
