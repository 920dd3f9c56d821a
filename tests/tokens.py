"""Keys of every kind, made once, and tokens put together by hand, right or wrong."""

import json
from functools import cache
from typing import Any

from authwright.jose.encoding import b64url_encode
from authwright.jose.keys import Algorithm
from authwright.jose.sign import PrivateKey, SigningSecret

ASYMMETRIC: tuple[Algorithm, ...] = ("ES256", "RS256", "PS256", "EdDSA")
EVERY: tuple[Algorithm, ...] = (*ASYMMETRIC, "HS256")


@cache
def key(alg: Algorithm) -> PrivateKey | SigningSecret:
    return SigningSecret(bytes(range(100, 164)), kid="shared") if alg == "HS256" else PrivateKey.generate(alg)


def key_pair(alg: Algorithm) -> PrivateKey:
    """As `key`, of an algorithm that has a public one."""
    made = key(alg)
    assert isinstance(made, PrivateKey)
    return made


def verifying(alg: Algorithm) -> Any:
    signing = key(alg)
    return signing if isinstance(signing, SigningSecret) else signing.public


def encoded(value: object) -> str:
    return b64url_encode(value if isinstance(value, bytes) else json.dumps(value).encode())


def token(alg: Algorithm, /, header: object = None, payload: object = None, **more: Any) -> str:
    """A token signed with the key for *alg*, whatever its header claims."""
    signing = key(alg)
    head = {"alg": alg, "kid": signing.kid, "typ": "at+jwt", **more} if header is None else header
    signed = f"{encoded(head)}.{encoded({'sub': 'me'} if payload is None else payload)}"
    return f"{signed}.{b64url_encode(signing.sign(signed.encode()))}"
