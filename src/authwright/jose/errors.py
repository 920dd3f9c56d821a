"""Why a token was refused: one tree, so that a caller may catch as widely or as narrowly as it likes.

    JoseError
    ├── InvalidKey            key material that must not be used (raised when loading, never when verifying)
    └── InvalidToken          the token must not be believed
        ├── MalformedToken    not a strict compact JWS, or its JSON is not strict
        ├── LimitExceeded     larger or deeper than is looked at
        ├── SignatureRefused  unknown key, algorithm not allowed, or the signature does not verify
        └── ClaimRefused      the signature is good, a claim is not
            └── TokenExpired  `exp` has passed

No message contains a token, a secret or a key. A bad signature and an unknown key share one public text (`public`);
the reason is in `str(error)`, which is for the log.
"""


class JoseError(Exception):
    """Base of everything this package raises."""


class InvalidKey(JoseError):
    """Key material that is too weak, of the wrong kind, or not what it claims to be."""


class InvalidToken(JoseError):
    """The token must not be believed."""

    public = "The token is not valid."


class MalformedToken(InvalidToken):
    """Not a strict compact JWS (RFC 7515 section 7.1), or its JSON is not strict (RFC 8725 section 3.7)."""


class LimitExceeded(InvalidToken):
    """Larger or deeper than this library looks at; raised before any cryptography."""


class SignatureRefused(InvalidToken):
    """Unknown key, algorithm not allowed, or the signature does not verify."""


class UnknownKey(SignatureRefused):
    """No configured key answers to the header's `kid`. A caller may load keys again, once, and retry."""


class ClaimRefused(InvalidToken):
    """The signature is good, but a claim is missing, malformed or not what this verifier accepts."""


class TokenExpired(ClaimRefused):
    """`exp` has passed, leeway included."""

    public = "The token has expired."
