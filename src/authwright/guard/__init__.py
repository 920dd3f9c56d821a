"""The guard: what protects an API. Verifies tokens by itself, honours revocations, and cannot sign.

Installs and imports nothing of the server. `Guard` protects one API; for FastAPI there is `authwright.guard.fastapi`,
for any other ASGI app `authwright.guard.asgi`. `Principal` is who is calling.
"""

from authwright.domain.errors import Forbidden, InsufficientScope, Refusal, Unauthenticated, Unavailable
from authwright.guard.guard import Guard
from authwright.guard.policy import OnStale
from authwright.guard.principal import Principal
from authwright.guard.status import Status
from authwright.guard.verifier import Verifier

__all__ = [
    "Forbidden",
    "Guard",
    "InsufficientScope",
    "OnStale",
    "Principal",
    "Refusal",
    "Status",
    "Unauthenticated",
    "Unavailable",
    "Verifier",
]
