"""The guard: what protects an API. Verifies tokens by itself, honours revocations, and cannot sign.

Installs and imports nothing of the server. `Verifier` is one issuer's and one audience's judge of access tokens;
`Principal` is who is calling.
"""

from authwright.guard.principal import Principal
from authwright.guard.verifier import Verifier

__all__ = ["Principal", "Verifier"]
