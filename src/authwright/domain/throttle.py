"""Slowing guesses down: how long a bucket stays closed after so many failures.

An attempt is counted when it begins, and taken back if it was none: however many run at once, no more are let through
than one after the other would be.
"""

from dataclasses import dataclass
from typing import Final, NewType

Bucket = NewType("Bucket", bytes)
"""Keyed digest of what failures are counted by."""

MOST_SECONDS: Final = 900
"""No bucket stays closed for longer (the longest delay that a stranger can cause)."""
FAMILIAR_DAYS: Final = 30
"""How long a network stays familiar to an account that logged in from there."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """*free* attempts; the one that reaches the number closes the bucket for a second, each further one for twice as
    long as the one before, MOST_SECONDS at most. After *memory* seconds without an attempt all is forgotten."""

    free: int
    memory: int

    def closed_for(self, failures: int) -> int:
        """Seconds for which the attempt that made it *failures* closes the bucket."""
        if failures < self.free:
            return 0
        return min(MOST_SECONDS, 1 << min(failures - self.free, 20))
