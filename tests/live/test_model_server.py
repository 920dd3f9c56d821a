"""Model servers as docs/howto/protect-a-model-server.md has them: closed by the environment alone, streams included."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
import websockets.sync.client
import yaml
from websockets.exceptions import ConnectionClosed, InvalidStatus

from pages import ROOT, shell, taken
from processes import (
    UNLIMITED,
    Running,
    environment,
    free_port,
    production_environment,
    program,
    run,
    serving,
)

FORM = {"username": "ada", "password": "a long and unusual passphrase"}
MODELS = "https://models.example.com"

PAGE = "docs/howto/protect-a-model-server.md"
PRODUCTS = ROOT / ".venv/products/bin"
FORMED = """class Classifier:
    @bentoml.api
    def predict(self, petal_length: float) -> str:
        return "virginica" if petal_length > 5 else "setosa"
"""

# Stands in for vLLM, which needs what no test machine has: as there the path names a class, which is added to the app;
# the app streams, and has a WebSocket.
_VLLM = (
    f"#!{sys.executable}"
    + """
import asyncio, importlib, inspect, os, sys, uvicorn
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse

app = FastAPI()

@app.get("/health")
@app.get("/v1/models")
async def models(): return ["iris"]

@app.post("/v1/completions")
async def completions():
    async def tokens():
        while True:
            yield "data: token\\n\\n"
            await asyncio.sleep(0.05)
    return StreamingResponse(tokens(), media_type="text/event-stream")

@app.websocket("/v1/realtime")
async def realtime(socket: WebSocket):
    await socket.accept()
    while True:
        await socket.send_text(await socket.receive_text())

assert sys.argv[1:4] == ["serve", "MODEL", "--middleware"]
module, name = sys.argv[4].rsplit(".", 1)
middleware = getattr(importlib.import_module(module), name)
assert inspect.isclass(middleware)
app.add_middleware(middleware)
uvicorn.run(app, port=int(os.environ["PORT"]))
"""
)


@dataclass
class Setup:
    auth: Running
    base: str
    key: str
    tiny: str
    environment: dict[str, str]
    """That of the model server."""

    def login(self, **more: str) -> dict[str, Any]:
        with self.auth.http() as http:
            return dict(http.post("/login", data={**FORM, "resource": MODELS, **more}).json())

    def logout(self, login: dict[str, Any]) -> None:
        with self.auth.http() as http:
            assert http.post("/logout", json={"refresh_token": login["refresh_token"]}).status_code == 200


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    folder = tmp_path_factory.mktemp("models")
    auth_port, port = free_port(), free_port()
    plans = folder / "plans.toml"
    plans.write_text(UNLIMITED.read_text() + '[tiny]\npermissions = ["predict"]\nrate = "3/hour"\n')
    env = production_environment(
        auth_port, AUTHWRIGHT_MODE="serve", AUTHWRIGHT_AUDIENCES=MODELS, AUTHWRIGHT_PLANS=str(plans)
    )
    with serving(folder, "serve", port=auth_port, **env) as auth:
        with auth.http() as http:
            assert http.post("/register", json=FORM).status_code == 201
        made = run(folder, "clients", "create", "models", "--scope", "revocations limits", "--json", **env)
        (folder / "guard.key").write_text(json.loads(made.stdout)["client_key"] + "\n")
        other = run(folder, "clients", "create", "caller", "--json", **env)
        tiny = run(folder, "clients", "create", "tiny", "--plan", "tiny", "--json", **env)
        configured = {
            "AUTHWRIGHT_ISSUER": auth.base,
            "AUTHWRIGHT_AUDIENCE": MODELS,
            "AUTHWRIGHT_GUARD_KEY_FILE": str(folder / "guard.key"),
            "AUTHWRIGHT_GUARD_SCOPES": "predict",
            "AUTHWRIGHT_GUARD_OPEN_PATHS": "/health",
            "AUTHWRIGHT_GUARD_ACCEPT_KEYS": "true",
            "AUTHWRIGHT_GUARD_LIMITS": "true",
        }
        (folder / "vllm").write_text(_VLLM)
        (folder / "vllm").chmod(0o755)
        command, known = shell(f"PATH={folder}:$PATH\n{taken(PAGE, 0)}", **configured, PORT=str(port))
        base = f"http://127.0.0.1:{port}"
        with program(folder / "models.log", *command, env=known, at=f"{base}/health"):
            keys = [json.loads(made.stdout)["client_key"] for made in (other, tiny)]
            yield Setup(auth, base, *keys, configured)


def test_every_path_is_closed_but_those_named(setup: Setup) -> None:
    token, narrow = setup.login()["access_token"], setup.login(scope="account")["access_token"]
    with httpx2.Client(base_url=setup.base) as http:
        assert http.get("/health").status_code == 200
        for path in ("/v1/models", "/health/", "/%68ealth", "/docs", "/openapi.json", "/metrics", "/nowhere"):
            assert http.get(path).status_code == 401
        for credential in (token, setup.key):
            assert http.get("/v1/models", headers={"authorization": f"Bearer {credential}"}).json() == ["iris"]
        refused = http.get("/v1/models", headers={"authorization": f"Bearer {narrow}"})
        assert (refused.status_code, refused.json()["error"]) == (403, "insufficient_scope")


def test_a_plan_limits_what_a_key_may_ask_of_a_model(setup: Setup) -> None:
    with httpx2.Client(base_url=setup.base, headers={"authorization": f"Bearer {setup.tiny}"}) as http:
        answers = [http.get("/v1/models") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["ratelimit"] == '"rate";r=2'
    assert (answers[3].json()["policy"], int(answers[3].headers["retry-after"]) > 1000) == ("3/hour", True)


def test_a_stream_ends_with_its_login(setup: Setup) -> None:
    login = setup.login()
    headers = {"authorization": f"Bearer {login['access_token']}"}
    with httpx2.Client(base_url=setup.base) as http:
        with http.stream("POST", "/v1/completions", headers=headers) as answer:
            chunks = answer.iter_raw()
            assert b"token" in next(chunks)
            setup.logout(login)
            begun = time.monotonic()
            with pytest.raises(httpx2.RemoteProtocolError):
                list(chunks)
            assert time.monotonic() - begun < 1
        assert http.get("/v1/models", headers=headers).status_code == 401


def test_a_websocket_needs_a_token_and_ends_with_its_login(setup: Setup) -> None:
    url = setup.base.replace("http", "ws") + "/v1/realtime"
    with pytest.raises(InvalidStatus) as refused:
        websockets.sync.client.connect(url)
    assert refused.value.response.status_code == 401
    assert "Bearer" in refused.value.response.headers["www-authenticate"]
    login = setup.login()
    headers = {"authorization": f"Bearer {login['access_token']}"}
    with websockets.sync.client.connect(url, additional_headers=headers) as socket:
        socket.send("hello")
        assert socket.recv(timeout=5) == "hello"
        setup.logout(login)
        begun = time.monotonic()
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=5)
        assert time.monotonic() - begun < 1
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008


@pytest.mark.made(".venv/products/installed")
def test_bentoml(setup: Setup, tmp_path: Path) -> None:
    """BentoML itself, with a service of one line more than the page's."""
    (tmp_path / "service.py").write_text(taken(PAGE, 1, here={"class Classifier: ...\n": FORMED}))
    port = free_port()
    known = environment(**setup.environment, BENTOML_HOME=str(tmp_path / "home"), BENTOML_DO_NOT_TRACK="True")
    command = [PRODUCTS / "bentoml", "serve", "service:Classifier", "--host", "127.0.0.1", "--port", str(port)]
    login = setup.login()
    with (
        program(tmp_path / "models.log", *command, env=known, at=f"http://127.0.0.1:{port}/livez", seconds=60),
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as http,
    ):

        def predict(credential: str) -> httpx2.Response:
            return http.post("/predict", json={"petal_length": 6}, headers={"authorization": f"Bearer {credential}"})

        for path in ("/livez", "/docs.json", "/metrics", "/predict"):
            assert http.get(path).status_code == 401
        for credential in (login["access_token"], setup.key):
            answer = predict(credential)
            assert (answer.status_code, answer.text) == (200, "virginica")
        setup.logout(login)
        ended = time.monotonic()
        while predict(login["access_token"]).status_code != 401:
            assert time.monotonic() < ended + 1


def test_what_istio_is_told_fits_the_tokens(setup: Setup) -> None:
    """The rule of the page, judged by another JOSE library as Istio judges: issuer, keys, audience, principal."""
    here = {"https://auth.example.com": setup.auth.base, "https://models.example.com": MODELS}
    authentication, policy = yaml.safe_load_all(taken(PAGE, 3, here=here))
    (rule,) = authentication["spec"]["jwtRules"]
    (allowed,) = policy["spec"]["rules"][0]["from"][0]["source"]["requestPrincipals"]

    def passes(token: str) -> bool:
        try:
            key = jwt.PyJWKClient(rule["jwksUri"]).get_signing_key_from_jwt(token)
            claims = jwt.decode(token, key, algorithms=["ES256"], issuer=rule["issuer"], audience=rule["audiences"])
        except jwt.PyJWTError:
            return False
        return fnmatchcase(f"{claims['iss']}/{claims['sub']}", allowed)

    token = setup.login()["access_token"]
    assert passes(token)
    with setup.auth.http() as http:
        assert not passes(http.post("/login", data=FORM).json()["access_token"])
    head, claims, signature = token.split(".")
    assert not passes(f"{head}.{claims}.{signature[::-1]}")


# In the place of Ray: the app that the page has it build is made here, and asked.
_RAY = """
import asyncio, json, sys, types, httpx2

built = []
serve = types.SimpleNamespace()
serve.ingress = lambda build: lambda: build
serve.deployment = lambda build: types.SimpleNamespace(bind=lambda: built.append(build))
sys.modules["ray"] = types.SimpleNamespace(serve=serve)
{block}
async def main():
    app = built[0]()
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://models") as http:
        for headers in ({{}}, {{"authorization": "Bearer " + sys.argv[1]}}):
            answer = await http.get("/predict", headers=headers)
            print(answer.status_code, answer.json() if answer.status_code == 200 else answer.json()["error"])

asyncio.run(main())
"""
# In the place of JupyterHub: what it does with an authenticator.
_HUB = """
import asyncio, sys, types, urllib.request

class Authenticator:
    def normalize_username(self, username):
        return username.lower()

sys.modules["jupyterhub"] = types.ModuleType("jupyterhub")
sys.modules["jupyterhub.auth"] = types.SimpleNamespace(Authenticator=Authenticator)
c = types.SimpleNamespace(JupyterHub=types.SimpleNamespace(), Authenticator=types.SimpleNamespace())
{block}
async def main(name, password):
    hub = c.JupyterHub.authenticator_class()
    print(await hub.authenticate(None, {{"username": name, "password": "wrong"}}))
    user = types.SimpleNamespace(name=name)
    print(await hub.refresh_user(user))
    print(await hub.authenticate(None, {{"username": name, "password": password}}))
    print(await hub.refresh_user(user))
    form = {{"username": name, "password": password}}
    async with httpx2.AsyncClient(base_url=ISSUER) as http:
        token = (await http.post("/login", data=form)).json()["access_token"]
        await http.post("/logout?everywhere=true", headers={{"authorization": "Bearer " + token}})
    for _ in range(100):
        if not await hub.refresh_user(user): break
        await asyncio.sleep(0.01)
    print(await hub.refresh_user(user))
    await guard.close()

asyncio.run(main(*sys.argv[1:]))
"""


def printed(script: str, *arguments: str, **known: str) -> list[str]:
    command = [sys.executable, "-W", "ignore", "-c", script, *arguments]
    done = subprocess.run(command, env=environment(**known), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_lines_for_ray_serve(setup: Setup) -> None:
    token = setup.login()["access_token"]
    told = printed(_RAY.format(block=taken(PAGE, 4)), token, **setup.environment)
    assert told == ["401 invalid_token", "200 a prediction"]


def test_the_lines_for_jupyterhub(setup: Setup) -> None:
    here = {"https://auth.example.com": setup.auth.base, "https://hub.example.com": MODELS}
    key = Path(setup.environment["AUTHWRIGHT_GUARD_KEY_FILE"]).read_text().strip()
    script = _HUB.format(block=taken(PAGE, 5, here=here))
    told = printed(script, FORM["username"], FORM["password"], AUTHWRIGHT_GUARD_KEY=key)
    assert told == ["None", "False", str({"name": FORM["username"], "admin": False}), "True", "False"]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"AUTHWRIGHT_AUDIENCE": ""}, "AUTHWRIGHT_AUDIENCE is needed"),
        ({"AUTHWRIGHT_GUARD_SCOPE": "predict"}, "AUTHWRIGHT_GUARD_SCOPE is not a setting"),
        ({"AUTHWRIGHT_GUARD_ON_STALE": "pass"}, "introspect, allow or refuse"),
        ({"AUTHWRIGHT_GUARD_ACCEPT_KEYS": "yes"}, "true or false"),
        ({"AUTHWRIGHT_GUARD_LIMITS": "1"}, "true or false"),
        ({"AUTHWRIGHT_GUARD_KEY": "secret"}, "not a client key"),
        ({"AUTHWRIGHT_GUARD_KEY_FILE": "/nowhere"}, "cannot be read"),
        ({"AUTHWRIGHT_GUARD_KEY": "a", "AUTHWRIGHT_GUARD_KEY_FILE": "b"}, "both"),
        ({"AUTHWRIGHT_ISSUER": "http://auth.example.com"}, "https"),
    ],
)
def test_what_makes_no_sense_stops_the_start(wrong: dict[str, str], named: str) -> None:
    good = {"AUTHWRIGHT_ISSUER": "https://auth.example.com", "AUTHWRIGHT_AUDIENCE": MODELS}
    script = "from authwright.guard.asgi import EnvironmentGuard; EnvironmentGuard(None)"
    run_ = [sys.executable, "-c", script]
    assert subprocess.run(run_, env=environment(**good), check=False).returncode == 0
    done = subprocess.run(run_, env=environment(**{**good, **wrong}), capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ValueError")
    assert named in last
