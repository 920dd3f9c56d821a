"""Verdicts beside independent libraries, one of them not in Python: nothing that they refuse is accepted."""

import base64
import json
import random
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

import jwt
import pytest
from joserfc import jwk as joserfc_jwk
from joserfc import jws as joserfc_jws
from joserfc import jwt as joserfc_jwt

from authwright.domain.instant import Instant
from authwright.domain.revocation import Revocations
from authwright.guard.verifier import Verifier
from authwright.jose.encoding import b64url_encode
from authwright.jose.envelope import KeySet
from authwright.jose.errors import InvalidToken
from authwright.jose.keys import Algorithm
from authwright.jose.sign import PrivateKey, SigningSecret
from tokens import EVERY, encoded, key, token, verifying

MUTATIONS = 1500
NODE = Path(__file__).parents[2] / ".venv/node/node_modules"


def ours(alg: Algorithm, text: str) -> bytes | None:
    try:
        return KeySet({key(alg).kid: verifying(alg)}, typ="at+jwt").open(text)[0]
    except InvalidToken:
        return None


def by_joserfc(alg: Algorithm, text: str) -> bytes | None:
    signing = key(alg)
    if isinstance(signing, SigningSecret):
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
    oracle: Any = signing._secret if isinstance(signing, SigningSecret) else signing.public._key
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


def by_jose_of_node(alg: Algorithm, texts: list[str], claims: dict[str, Any] | None = None) -> list[bytes | None]:
    """The verdicts of npm's jose, all by one process; with *claims* on those, too."""
    signing = key(alg)
    if isinstance(signing, SigningSecret):
        jwk: dict[str, str] = {"kty": "oct", "k": b64url_encode(signing._secret)}
    else:
        jwk = {name: value for name, value in signing.public.jwk().items() if name != "alg"}
    algorithms = ["EdDSA", "Ed25519"] if alg == "EdDSA" else [alg]
    question = {"key": jwk, "algorithms": algorithms} | ({} if claims is None else {"claims": claims})
    asked = "".join(json.dumps({**question, "token": text}) + "\n" for text in texts)
    script = Path(__file__).parents[1] / "node/verify.mjs"
    done = subprocess.run(["node", script, NODE], input=asked, capture_output=True, text=True, check=True)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return [None if payload is None else base64.b64decode(payload) for payload in told]


@pytest.mark.program("node")
@pytest.mark.npm("jose")
@pytest.mark.parametrize("alg", EVERY)
def test_whatever_is_accepted_is_accepted_in_javascript_too(alg: Algorithm) -> None:
    chance = random.Random(f"authwright {alg}")
    count = MUTATIONS if alg not in ("RS256", "PS256") else MUTATIONS // 5
    texts = [token(alg, payload={"n": number}) for number in range(20)]
    texts += [mutated(token(alg, payload={"sub": "me"}), alg, chance) for _ in range(count)]
    theirs = by_jose_of_node(alg, texts)
    assert len(theirs) == len(texts)
    accepted = 0
    for text, verdict in zip(texts, theirs, strict=True):
        own = ours(alg, text)
        if own is not None:
            accepted += 1
            assert own == verdict, text
    # It refuses, too: the comparison did happen.
    assert 20 < accepted < len([verdict for verdict in theirs if verdict is not None]) < len(texts)


def test_tokens_of_other_libraries_are_accepted() -> None:
    for alg in EVERY:
        signing = key(alg)
        secret: Any = signing._key if isinstance(signing, PrivateKey) else signing._secret
        text = jwt.encode({"sub": "me"}, secret, algorithm=alg, headers={"typ": "at+jwt", "kid": signing.kid})
        assert ours(alg, text) == b'{"sub":"me"}'


# The whole verdict: not only who signed, but for whom, by whom, and when.
ISSUER, AUDIENCE, LEEWAY, LIFETIME = "https://auth.example.com", "https://api.example.com", 5, 3600
REQUIRED = ["iss", "sub", "aud", "exp", "iat", "jti", "client_id"]


def payload_of(chance: random.Random, now: int) -> bytes:
    """Claims of an access token, right, or wrong in one or two places."""
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "sub": f"usr_{chance.randrange(10**6)}",
        "aud": chance.choice([AUDIENCE, [AUDIENCE], ["https://other.example.com", AUDIENCE]]),
        "exp": now + chance.randrange(60, 300),
        "iat": now - chance.randrange(60),
        "jti": "j",
        "client_id": "cli_1",
        "scope": "predict",
    }
    odd_texts = ["", None, 1, True, [], {}, "x"]
    odd_times = [-1, 0, 1, True, False, None, "", str(now + 60), 1e400, -1e400, float("nan"), 2**63, 10**30, [now + 60]]
    near = [now + each for each in (-400, -60, -LEEWAY - 2, -LEEWAY + 2, LEEWAY - 2, LEEWAY + 2, 60, 400)]
    kinds: dict[str, list[Any]] = {
        "iss": [*odd_texts, ISSUER + "/", ISSUER.upper(), [ISSUER], f" {ISSUER}"],
        "aud": [*odd_texts, AUDIENCE + "/", AUDIENCE.upper(), [], [1], [[AUDIENCE]], AUDIENCE[:-1], "*"],
        "sub": [*odd_texts, "usr_" + "x" * 300, "a\x00b"],
        "exp": [*odd_times, *near, now + 60.5, now + LIFETIME + 100],
        "iat": [*odd_times, *near, now - 60.5],
        "nbf": [*odd_times, *near],
        "jti": odd_texts,
        "client_id": odd_texts,
        "scope": [1, [], "a  b", "a\tb", None],
        "cnf": [{"jkt": "x"}],
        "new": [1, "x", {"deep": [1]}],
    }
    for _ in range(chance.choice([0, 1, 1, 1, 2])):
        name = chance.choice(list(kinds))
        if name in claims and chance.random() < 0.2:
            del claims[name]
        else:
            claims[name] = chance.choice(kinds[name])
    raw = json.dumps(claims).encode()
    if chance.random() < 0.05:
        first = chance.choice(["iss", "aud", "exp", "sub"])
        wrong = json.dumps({first: claims.get(first, 1)}).encode()
        raw = chance.choice(
            [raw[:-1] + b"," + wrong[1:], b"[" + raw + b"]", b"\xef\xbb\xbf" + raw, raw + b"x", raw[:-1]]
        )
    return raw


def subject_by_us(alg: Algorithm, text: str, now: int) -> str | None:
    verifier = Verifier(
        {key(alg).kid: verifying(alg)},
        issuer=ISSUER,
        audience=AUDIENCE,
        revocations=Revocations(),
        leeway=LEEWAY,
        max_lifetime=LIFETIME,
    )
    try:
        return verifier.verify(text, now=Instant(now * 1_000_000)).subject
    except InvalidToken:
        return None


def subject_by_pyjwt(alg: Algorithm, text: str, now: int) -> Any:
    signing = key(alg)
    oracle: Any = signing._secret if isinstance(signing, SigningSecret) else signing.public._key
    # It reads the clock itself; what is near a limit is two seconds away from it.
    assert abs(time.time() - now) < 1.5
    try:
        required = {"require": REQUIRED, "strict_aud": False}
        return jwt.decode(
            text, oracle, algorithms=[alg], issuer=ISSUER, audience=AUDIENCE, leeway=LEEWAY, options=required
        )["sub"]
    except Exception:
        return None


def subject_by_joserfc(alg: Algorithm, text: str, now: int) -> Any:
    payload = by_joserfc(alg, text)
    essential: dict[str, Any] = {name: {"essential": True} for name in REQUIRED}
    essential["iss"]["value"], essential["aud"]["value"] = ISSUER, AUDIENCE
    try:
        claims = json.loads(payload or b"")
        joserfc_jwt.JWTClaimsRegistry(now=now, leeway=LEEWAY, **essential).validate(claims)
        return claims["sub"]
    except Exception:
        return None


@pytest.mark.program("node")
@pytest.mark.npm("jose")
@pytest.mark.parametrize("alg", EVERY)
def test_r67_r85_no_token_with_its_claims_is_accepted_that_all_three_refuse(alg: Algorithm) -> None:
    chance = random.Random(f"claims {alg}")
    accepted, by_all, refused = 0, 0, 0
    for _ in range(4 if alg not in ("RS256", "PS256") else 1):
        now = int(time.time())
        texts = []
        for _ in range(400):
            text = token(alg, payload=payload_of(chance, now))
            texts.append(mutated(text, alg, chance) if chance.random() < 0.1 else text)
        ours_ = [subject_by_us(alg, text, now) for text in texts]
        pyjwts = [subject_by_pyjwt(alg, text, now) for text in texts]
        options = {"issuer": ISSUER, "audience": AUDIENCE, "clockTolerance": LEEWAY, "requiredClaims": REQUIRED}
        payloads = by_jose_of_node(alg, texts, {**options, "typ": "at+jwt", "now": now})
        for text, own, pyjwt, payload in zip(texts, ours_, pyjwts, payloads, strict=True):
            theirs = [pyjwt, subject_by_joserfc(alg, text, now)]
            theirs.append(None if payload is None else json.loads(payload)["sub"])
            by_all += None not in theirs
            refused += theirs == [None] * 3
            if own is not None:
                accepted += 1
                # Whoever of them accepts it, too, takes it for the same caller's.
                assert own in theirs, text
                assert {each for each in theirs if each is not None} == {own}, text
    # Much is right, much is wrong, and we are the strictest: the comparison did happen.
    assert 100 < accepted < by_all
    assert refused > 50
