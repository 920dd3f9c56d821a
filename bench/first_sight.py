"""A token that is seen for the first time: what it costs here, and with others; and so how fast this machine is."""

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from joserfc import jwk
from joserfc import jwt as joserfc_jwt

from authwright.domain.instant import Instant
from authwright.domain.revocation import Revocations
from authwright.guard import Verifier
from authwright.jose.encoding import b64url_decode
from authwright.jose.keys import PrivateKey
from authwright.jose.sign import Signer
from bench.figures import PYJWT_ADDS, ROUNDS, TRIED, same_work

API = "https://api.example.com"
ISSUER = "https://auth.example.com"
FIRST = 400


def minted(key: PrivateKey, count: int, now: int, issuer: str = ISSUER) -> list[str]:
    """*count* tokens with all claims that the server puts into one."""
    signer = Signer(key, typ="at+jwt")
    claims = {
        "iss": issuer,
        "aud": API,
        "exp": now + 3000,
        "iat": now,
        "client_id": "cli_first_party",
        "scope": "account analytics predict",
        "roles": ["user"],
        "plan": "premium",
        "auth_epoch": 3,
    }
    return [
        signer.sign(
            {
                **claims,
                "sub": f"usr_{number:022d}",
                "jti": f"{number:022d}",
                "sid": f"{number:022d}",
                "preferred_username": f"user{number}",
            }
        )
        for number in range(count)
    ]


def verifier(key: PrivateKey, **more: Any) -> Verifier:
    options = {"revocations": Revocations(), "leeway": 5, "max_lifetime": 3600, **more}
    return Verifier({key.kid: key.public}, issuer=ISSUER, audience=API, **options)


def timed(work: Callable[[], None], times: int) -> float:
    """CPU microseconds of *work*, each of *times*."""
    before = time.thread_time()
    work()
    return (time.thread_time() - before) / times * 1e6


def in_turns(works: dict[str, Callable[[], None]], times: int) -> dict[str, float]:
    """Of each of *works* the median of its calmest rounds; they take turns, so that all meet the same machine."""
    rounds = []
    for _ in range(TRIED):
        gc.collect()
        before = same_work()
        costs = {name: timed(work, times) for name, work in works.items()}
        rounds.append((max(before, same_work()), costs))
    rounds.sort(key=lambda each: each[0])
    return {name: statistics.median(costs[name] for _, costs in rounds[:ROUNDS]) for name in works}


def first_sight() -> dict[str, float]:
    """What a token costs that was never seen: the bare check of its signature, and what each adds to it.

    Of three times that when the machine was fastest: slow moments must not make the bounds of others wider.
    """
    return min((_first_sight() for _ in range(3)), key=lambda costs: costs["PyJWT"])


def _first_sight() -> dict[str, float]:
    now = int(time.time())
    key = PrivateKey.generate("ES256")
    tokens = minted(key, FIRST, now)
    public: Any = key.public._key
    signing = ec.ECDSA(hashes.SHA256())
    signed = []
    for token in tokens:
        message, _, encoded = token.rpartition(".")
        raw = b64url_decode(encoded.encode())
        signed.append((_der(raw), message.encode()))

    def bare() -> None:
        for signature, message in signed:
            public.verify(signature, message, signing)

    def ours() -> None:
        judge = verifier(key)
        for token in tokens:
            judge.verify(token, now=Instant(now * 1_000_000))

    def pyjwt() -> None:
        for token in tokens:
            jwt.decode(token, public, algorithms=["ES256"], audience=API, issuer=ISSUER)

    imported = jwk.import_key({**key.public.jwk()})
    registry = joserfc_jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": ISSUER}, aud={"essential": True, "value": API}, exp={"essential": True}
    )

    def joserfc() -> None:
        for token in tokens:
            registry.validate(joserfc_jwt.decode(token, imported, algorithms=["ES256"]).claims)

    costs = in_turns({"bare": bare, "guard": ours, "PyJWT": pyjwt, "joserfc": joserfc}, FIRST)
    return {name: cost if name == "bare" else cost - costs["bare"] for name, cost in costs.items()}


def slower() -> float:
    """How much slower this machine is than that for which the bounds in microseconds were set."""
    return first_sight()["PyJWT"] / PYJWT_ADDS


def _der(raw: bytes) -> bytes:
    return encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
