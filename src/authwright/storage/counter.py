"""The counter page: eight bytes shared by the processes of one machine (`storage.port.Counter`).

Whoever writes the ledger or the keys raises the counter before it answers; whoever accepts a token looks at it first.
A look is a memory read, so every request can afford it.
"""

import fcntl
import hashlib
import mmap
import os
import stat
import tempfile
from pathlib import Path


def shared_page(store: str) -> Path:
    """Where the processes of this user and machine that use the database *store* have their counter.

    Whoever spells the name of the database in another way has another page, and follows as another machine does. Raises
    OSError if somebody else made the folder.
    """
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"authwright-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a folder of this user alone")
    return folder / f"{hashlib.sha256(store.encode()).hexdigest()[:32]}.counter"


class CounterPage:
    """A counter in a file that all processes map. *path* None: private to this process, for a store in memory."""

    def __init__(self, path: Path | None) -> None:
        self._file = -1
        if path is None:
            self._map = mmap.mmap(-1, mmap.PAGESIZE)
        else:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if os.fstat(self._file).st_size < mmap.PAGESIZE:
                os.ftruncate(self._file, mmap.PAGESIZE)
            self._map = mmap.mmap(self._file, mmap.PAGESIZE)
        self._words = memoryview(self._map).cast("Q")

    def read(self) -> int:
        return self._words[0]

    def raise_(self) -> None:
        if self._file >= 0:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            self._words[0] += 1
        finally:
            if self._file >= 0:
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        self._words.release()
        self._map.close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
