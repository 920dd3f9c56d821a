"""The wheel without extras, in an environment that holds nothing else: it protects an app, and says how to get more."""

import importlib.metadata
import json
import re
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

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


def base_dependencies() -> set[str]:
    """The names of the distributions that the base declares, and of all that those need here."""
    needed: set[str] = set()
    open_ = [text for text in importlib.metadata.requires("authwright") or () if "extra ==" not in text]
    while open_:
        requirement = Requirement(open_.pop())
        extras = [*requirement.extras, ""]
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name not in needed:
            needed.add(name)
            open_ += importlib.metadata.requires(name) or []
    return needed


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the built wheel and the base's dependencies, and nothing else."""
    folder = tmp_path_factory.mktemp("alone")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    (packages,) = (folder / "venv/lib").glob("python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    for name in base_dependencies():
        # What pip would put there, as it lies here.
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or ():
            source = Path(str(distribution.locate_file(file)))
            target = packages / str(file)
            if source.is_file() and ".." not in file.parts and "__pycache__" not in file.parts:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source.resolve())
    return folder / "venv/bin/python"


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
    done = subprocess.run([alone, "-m", "authwright", "dev"], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "pip install 'authwright[server]'" in done.stderr


def test_the_fastapi_part_says_what_it_needs(alone: Path) -> None:
    done = subprocess.run([alone, "-c", "import authwright.guard.fastapi"], capture_output=True, text=True, check=False)
    assert "fastapi" in done.stderr.splitlines()[-1]
