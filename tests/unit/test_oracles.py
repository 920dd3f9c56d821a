"""Verdicts beside two independent libraries: nothing that both refuse is accepted."""

import json
import random
import warnings
from typing import Any

import jwt
import pytest
from joserfc import jwk as joserfc_jwk
from joserfc import jws as joserfc_jws

from authwright.jose.encoding import b64url_encode
from authwright.jose.envelope import KeySet
from authwright.jose.errors import InvalidToken
from authwright.jose.keys import Algorithm, PrivateKey, SharedSecret
from tokens import EVERY, encoded, key, token, verifying

MUTATIONS = 1500


def ours(alg: Algorithm, text: str) -> bytes | None:
    try:
        return KeySet({key(alg).kid: verifying(alg)}, typ="at+jwt").open(text).payload
    except InvalidToken:
        return None


def by_joserfc(alg: Algorithm, text: str) -> bytes | None:
    signing = key(alg)
    if isinstance(signing, SharedSecret):
        oracle: Any = joserfc_jwk.OctKey.import_key(signing._secret)
    else:
        oracle = joserfc_jwk.import_key({name: value for name, value in signing.public.jwk().items() if name != "alg"})
    algorithms = ["EdDSA", "Ed25519"] if alg == "EdDSA" else [alg]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joserfc warns of EdDSA, for which it prefers the newer name
        try:
            return joserfc_jws.deserialize_compact(text, oracle, algorithms=algorithms).payload
        except Exception:
            return None


def by_pyjwt(alg: Algorithm, text: str) -> bytes | None:
    signing = key(alg)
    oracle: Any = signing._secret if isinstance(signing, SharedSecret) else signing.public._key
    try:
        return jwt.PyJWS(algorithms=[alg]).decode(text, oracle, algorithms=[alg])
    except Exception:
        return None


@pytest.mark.parametrize("alg", EVERY)
def test_good_tokens_are_accepted_by_all_three(alg: Algorithm) -> None:
    for number in range(20):
        text = token(alg, payload={"n": number, "text": "é" * number})
        assert ours(alg, text) == by_joserfc(alg, text) == by_pyjwt(alg, text) is not None


def mutated(text: str, alg: Algorithm, chance: random.Random) -> str:
    """*text* with something wrong, or not quite: bytes, parts, header members, encodings."""
    head, body, signature = text.split(".")
    alphabet = 'ABCDEFabcdef0189-_.=+/ \n{}"é'
    kind = chance.randrange(9)
    if kind == 0:
        at = chance.randrange(len(text))
        return text[:at] + chance.choice(alphabet) + text[at + 1 :]
    if kind == 1:
        at = chance.randrange(len(text))
        return text[:at] + text[at + 1 :]
    if kind == 2:
        at = chance.randrange(len(text) + 1)
        return text[:at] + chance.choice(alphabet) + text[at:]
    if kind == 3:
        parts = [head, body, signature]
        chance.shuffle(parts)
        return ".".join(parts)
    if kind == 4:
        return ".".join((head, body, signature, *([signature] * chance.randrange(1, 3))))
    if kind == 5:
        return ".".join((head, body, chance.choice(["", signature[:-1], signature * 2, "A" * len(signature)])))
    member = chance.choice(
        [
            {"alg": chance.choice([*EVERY, "none", "ES384", "", None])},
            {"typ": chance.choice(["JWT", None, "at+jwt ", 1])},
            {"crit": chance.choice([["exp"], [], "b64", ["b64"]])},
            {"b64": chance.choice([True, False])},
            {"kid": chance.choice(["", "x", None, 1])},
            {"jwk": {"kty": "oct", "k": "AAAA"}},
            {"zip": "DEF"},
        ]
    )
    changed = {"alg": alg, "kid": key(alg).kid, "typ": "at+jwt", **member}
    raw = json.dumps(changed).encode()
    if kind == 7:
        raw = chance.choice([b"\xef\xbb\xbf" + raw, raw[:-1] + b',"alg":"none"}', raw + b" ", b"[" + raw + b"]"])
    signed = f"{encoded(raw)}.{body}"
    # With a good signature over what is wrong, so that the signature does not hide the fault.
    return f"{signed}.{b64url_encode(key(alg).sign(signed.encode()))}"


@pytest.mark.parametrize("alg", EVERY)
def test_nothing_that_both_refuse_is_accepted(alg: Algorithm) -> None:
    chance = random.Random(f"authwright {alg}")
    accepted = 0
    for _ in range(MUTATIONS if alg not in ("RS256", "PS256") else MUTATIONS // 5):
        text = mutated(token(alg, payload={"sub": "me"}), alg, chance)
        verdict = ours(alg, text)
        if verdict is not None:
            accepted += 1
            assert verdict in (by_joserfc(alg, text), by_pyjwt(alg, text)), text
    # Some mutations change nothing that matters (a member that repeats what was there): the comparison did happen.
    assert accepted


def test_tokens_of_other_libraries_are_accepted() -> None:
    for alg in EVERY:
        signing = key(alg)
        secret: Any = signing._key if isinstance(signing, PrivateKey) else signing._secret
        text = jwt.encode({"sub": "me"}, secret, algorithm=alg, headers={"typ": "at+jwt", "kid": signing.kid})
        assert ours(alg, text) == b'{"sub":"me"}'
