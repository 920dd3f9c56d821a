"""Copies of a whole SQLite database, made while others read and write it."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from authwright.storage.port import IncompatibleStore, StoreUnavailable

# Pages copied at a time, and the pause in between, in which others may write.
_PAGES: Final = 512
_PAUSE_SECONDS: Final = 0.002
_BUSY_SECONDS: Final = 30.0


def copy_database(source: Path, target: Path, *, at_once: bool = False) -> None:
    """Copy the database *source* over *target*, which is made, for its owner alone, if it is not there.

    The copy is as *source* is at one moment. Whoever has *target* open sees it before or after, never in between;
    *at_once* copies without pauses. Raises StoreUnavailable, IncompatibleStore (*source* is no database).
    """
    try:
        if not target.exists():
            os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(_connect(source, "ro")) as read, closing(_connect(target, "rw")) as written:
            (verdict,) = read.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise IncompatibleStore(f"{source} is damaged: {verdict}")
            read.backup(written, pages=-1 if at_once else _PAGES, sleep=_PAUSE_SECONDS)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise StoreUnavailable(f"cannot copy {source} to {target}: {error}") from error
        raise IncompatibleStore(f"{source} is not a database") from error
    except OSError as error:
        raise StoreUnavailable(f"cannot copy {source} to {target}: {error.strerror}") from error


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=_BUSY_SECONDS)
