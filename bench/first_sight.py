"""A token that is seen for the first time: what it costs here, and with others."""

import time
from typing import Any

from joserfc import jwk
from joserfc import jwt as joserfc_jwt

from authwright.domain.instant import Instant
from authwright.domain.revocation import Revocations
from authwright.guard import Verifier
from authwright.jose.sign import PrivateKey
from bench.yardstick import API, FIRST, ISSUER, checks, in_turns, minted


def verifier(key: PrivateKey, **more: Any) -> Verifier:
    options = {"revocations": Revocations(), "leeway": 5, "max_lifetime": 3600, **more}
    return Verifier({key.kid: key.public}, issuer=ISSUER, audience=API, **options)


def first_sight() -> tuple[dict[str, float], float]:
    """What a token costs that was never seen: the bare check of its signature, and what each adds to it; and how much
    slower than elsewhere the machine was meanwhile. What the guard remembered of the tokens it forgets in between."""
    now = int(time.time())
    key = PrivateKey.generate("ES256")
    tokens = minted(key, FIRST, now)
    bare, pyjwt = checks(key, tokens)

    judge = verifier(key)

    def forget() -> None:
        judge.use_keys({key.kid: key.public})

    def ours() -> None:
        for token in tokens:
            judge.verify(token, now=Instant(now * 1_000_000))

    imported = jwk.import_key({**key.public.jwk()})
    registry = joserfc_jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": ISSUER}, aud={"essential": True, "value": API}, exp={"essential": True}
    )

    def joserfc() -> None:
        for token in tokens:
            registry.validate(joserfc_jwt.decode(token, imported, algorithms=["ES256"]).claims)

    works = {"bare": bare, "forget": forget, "guard": ours, "PyJWT": pyjwt, "joserfc": joserfc}
    costs, slow = in_turns(works, FIRST)
    return {name: cost if name == "bare" else cost - costs["bare"] for name, cost in costs.items()}, slow
