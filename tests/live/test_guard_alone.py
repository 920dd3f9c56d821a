"""The wheel without extras, in an environment that holds nothing else: it protects an app, and says how to get more."""

import importlib.metadata
import json
import re
import subprocess
import sys
import venv
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from packaging.requirements import Requirement

from processes import Running, serving

ROOT = Path(__file__).parents[2]

# An app of one line, the middleware around it, and three requests: without a token, with one, after its logout.
_APP = """
import asyncio, json, sys, urllib.request
from authwright.guard import Guard
from authwright.guard.asgi import GuardMiddleware, caller

issuer, token = sys.argv[1:]

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": caller(scope).username.encode()})

async def call(app, *headers):
    sent = []
    async def send(message): sent.append(message)
    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": headers}
    await app(scope, None, send)
    return sent[0]["status"], sent[1]["body"].decode()

async def main():
    bearer = (b"authorization", b"Bearer " + token.encode())
    async with Guard(issuer=issuer, audience=issuer) as guard:
        protected = GuardMiddleware(app, guard=guard)
        print(*await call(protected))
        print(*await call(protected, bearer))
        headers = {"authorization": "Bearer " + token}
        request = urllib.request.Request(issuer + "/logout", method="POST", headers=headers)
        await asyncio.to_thread(urllib.request.urlopen, request)
        for _ in range(100):
            status, _ = await call(protected, bearer)
            if status != 200: break
            await asyncio.sleep(0.01)
        print(status)
    print(*sorted(sys.modules))

asyncio.run(main())
"""

# Requests to `app` of a code block: without a token, and with those of two callers, the second until it logs out.
_REQUESTS = """
import asyncio, json, sys, httpx2

issuer, *tokens = sys.argv[1:]

async def main():
    transport = httpx2.ASGITransport(app=app)
    client = httpx2.AsyncClient(transport=transport, base_url="http://api")
    async with guard, client as http, httpx2.AsyncClient() as other:
        async def told(path, token=None):
            answer = await http.get(path, headers={"authorization": f"Bearer {token}"} if token else {})
            return [answer.status_code, answer.json()]
        print(json.dumps(await told("/predict")))
        print(json.dumps(await told("/predict", tokens[0])))
        print(json.dumps(await told("/report", tokens[0])))
        status, text = await told("/report", tokens[1])
        print(json.dumps([status, "report" if text.startswith("for usr_") else text]))
        await other.post(issuer + "/logout", headers={"authorization": f"Bearer {tokens[1]}"})
        for _ in range(100):
            refused = await told("/report", tokens[1])
            if refused[0] != 200: break
            await asyncio.sleep(0.01)
        print(json.dumps(refused))
        document = (await http.get("/openapi.json")).json()
        (scheme,) = document["components"]["securitySchemes"].values()
        print(json.dumps(scheme["flows"]["password"]["tokenUrl"]))

asyncio.run(main())
"""


def base_dependencies() -> set[str]:
    """The names of the distributions that the base declares, and of all that those need here."""
    return needed_by(text for text in importlib.metadata.requires("authwright") or () if "extra ==" not in text)


def needed_by(requirements: Iterable[str]) -> set[str]:
    """The names of the distributions that *requirements* name, and of all that those need here."""
    needed: set[str] = set()
    # Each with the extras that were asked for of whoever requires it.
    open_: list[tuple[str, set[str]]] = [(text, set()) for text in requirements]
    while open_:
        text, extras = open_.pop()
        requirement = Requirement(text)
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            continue
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name not in needed or requirement.extras:
            needed.add(name)
            open_ += [(each, requirement.extras) for each in importlib.metadata.requires(name) or []]
    return needed


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


def environment_with(folder: Path, wheel: Path, names: set[str]) -> Path:
    """The Python of a new environment in which pip installed *wheel*, and found all that it needs among *names*."""
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv/bin/python"
    (packages,) = (folder / "venv/lib").glob("python*/site-packages")
    for name in names:
        # What pip would put there, as it lies here.
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or ():
            source = Path(str(distribution.locate_file(file)))
            target = packages / str(file)
            if source.is_file() and ".." not in file.parts and "__pycache__" not in file.parts:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source.resolve())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    # Not what pip finds elsewhere: it installs if all that the wheel declares is there.
    subprocess.run([*pip, "install", "--no-index", str(wheel)], check=True, capture_output=True, text=True)
    subprocess.run([*pip, "check"], check=True, capture_output=True, text=True)
    return python


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The Python of an environment with the wheel and what its base needs, and nothing else."""
    return environment_with(tmp_path_factory.mktemp("alone"), wheel, base_dependencies())


@pytest.fixture(scope="module")
def with_fastapi(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The same, with FastAPI beside it."""
    names = base_dependencies() | needed_by(["fastapi"])
    return environment_with(tmp_path_factory.mktemp("fastapi"), wheel, names)


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[Running]:
    with serving(tmp_path, "dev") as server:
        yield server


def test_the_base_is_small(alone: Path) -> None:
    names = base_dependencies()
    assert {"cryptography", "joserfc", "httpx2", "msgspec"} <= names
    assert len(names) <= 14, names
    assert not {"fastapi", "starlette", "pydantic", "sqlalchemy", "uvicorn", "structlog", "typer"} & names


def test_an_app_is_protected_with_the_wheel_alone(alone: Path, issuer: Running) -> None:
    with issuer.http() as http:
        http.post("/register", json={"username": "bholay", "password": "test123"})
        token = http.post("/login", data={"username": "bholay", "password": "test123"}).json()["access_token"]
    done = subprocess.run([alone, "-c", _APP, issuer.base, token], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    refused, passed, ended, modules = done.stdout.splitlines()
    assert refused.startswith("401 ")
    assert json.loads(refused[4:])["error"] == "invalid_token"
    assert (passed, ended) == ("200 bholay", "401")
    assert not {"authwright.jose.sign", "authwright.services", "authwright.app"} & set(modules.split())


def test_the_command_says_how_to_install_the_server(alone: Path) -> None:
    for command in ([alone, "-m", "authwright", "dev"], [alone.with_name("authwright"), "dev"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 3
        assert "pip install 'authwright[server]'" in done.stderr


def test_three_lines_protect_a_fastapi_app(with_fastapi: Path, issuer: Running) -> None:
    """Those of docs/howto/protect-an-api.md, as they stand there."""
    page = (ROOT / "docs/howto/protect-an-api.md").read_text(encoding="utf-8")
    block = page.partition("## FastAPI")[2].partition("```python\n")[2].partition("```")[0]
    assert "Guard(" in block
    assert "Security(guard" in block
    for shipped in ("https://auth.example.com", "https://api.example.com"):
        assert shipped in block
        block = block.replace(shipped, issuer.base)
    block = block.replace(', key=os.environ["AUTHWRIGHT_GUARD_KEY"]', "")
    with issuer.http() as http:
        for name, plan in (("bholay", "free"), ("rani", "premium")):
            http.post("/register", json={"username": name, "password": "test123", "plan": plan})
        tokens = [
            http.post("/login", data={"username": name, "password": "test123"}).json()["access_token"]
            for name in ("bholay", "rani")
        ]
    done = subprocess.run(
        [with_fastapi, "-c", block + _REQUESTS, issuer.base, *tokens], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        [401, {"detail": "A valid access token is needed."}],
        [200, {"for": "bholay", "plan": "free"}],
        [403, {"detail": "This needs the plan 'admin' or 'premium'."}],
        [200, "report"],
        [401, {"detail": "The token is not valid."}],
        # Swagger's Authorize has where to ask.
        f"{issuer.base}/token?resource={quote(issuer.base, safe='')}",
    ]


def test_the_fastapi_part_says_what_it_needs(alone: Path) -> None:
    done = subprocess.run([alone, "-c", "import authwright.guard.fastapi"], capture_output=True, text=True, check=False)
    assert "fastapi" in done.stderr.splitlines()[-1]
