"""The blocks of docs/howto/deploy.md, as they stand.

What belongs to somebody else (an engine of containers, a cluster, a platform with an account) is stood in for by a
program that keeps what it was told; everything of ours runs, and what they were told is held against our files.
"""

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from authwright.config import secret_key_problem
from databases import drop_postgres_database, new_postgres_database
from issued import ISSUED
from pages import ROOT, taken, walked
from processes import environment, free_port, program, serving

PAGE = "docs/howto/deploy.md"
HOST = {"host": "auth.example.com"}
_STAND_IN = """#!{python}
import json, subprocess, sys
with open({calls!r}, "a") as kept:
    kept.write(json.dumps([{name!r}, *sys.argv[1:]]) + "\\n")
{then}
"""


class Unit(configparser.RawConfigParser):
    """What systemd reads: upper and lower case are told apart."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


class StandIns:
    """Programs of these names in a folder of their own, and what they were called with."""

    def __init__(self, folder: Path, **programs: str) -> None:
        self._calls = folder / "calls"
        for name, then in programs.items():
            program = folder / name
            text = _STAND_IN.format(python=sys.executable, calls=str(self._calls), name=name, then=then)
            program.write_text(text)
            program.chmod(0o755)

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self._calls.read_text().splitlines()]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is committed, or would be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    folder = tmp_path_factory.mktemp("shipped")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture
def checkout(shipped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped, tmp_path / "checkout"))


def done(script: str, checkout: Path, programs: Path, *, answer: str = "", **env: str) -> str:
    path = f"{programs}:{environment()['PATH']}"
    ended = walked(f'export PATH="{programs}:$PATH"\n{script}', checkout, answer=answer, PATH=path, **env)
    ISSUED.note_text(ended.stdout)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def option(call: list[str], name: str) -> str:
    return call[call.index(name) + 1]


def login(base: str, username: str, password: str) -> dict[str, Any]:
    with httpx2.Client(base_url=base, headers=HOST, timeout=30) as http:
        answer = http.post("/login", data={"username": username, "password": password})
        assert answer.status_code == 200, answer.text
        return dict(http.get("/me", headers={"authorization": f"Bearer {answer.json()['access_token']}"}).json())


@pytest.mark.program("systemd-analyze")
def test_systemd(checkout: Path, tmp_path: Path) -> None:
    """For `systemctl`: the unit is verified by systemd's own program, and its lines are run as they stand."""
    programs = tmp_path / "programs"
    programs.mkdir()
    stood_in = StandIns(programs, sudo="sys.exit(subprocess.call(sys.argv[1:]))", systemctl="")
    said = done(taken(PAGE, 0), checkout, programs)
    unit = checkout / "authwright.service"
    assert stood_in.calls()[-1] == ["systemctl", "enable", "--now", str(unit)]
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stderr

    read = Unit(strict=False)
    read.read(unit)
    service, port = read["Service"], free_port()
    assert service["WorkingDirectory"] == str(checkout)
    before = shlex.split(service["ExecStartPre"])
    subprocess.run(before, cwd=checkout, env=environment(), check=True, capture_output=True)
    start = shlex.split(service["ExecStart"].replace("--port 8000", f"--port {port}"))
    assert start[-5:] == ["127.0.0.1", "--port", str(port), "--workers", "2"]
    with program(checkout / "log", *start, at=f"http://127.0.0.1:{port}/readyz") as process:
        password = re.findall(r"password, shown this once: (\S+)", said)[0]
        assert login(f"http://127.0.0.1:{port}", "ada", password)["role"] == "admin"
    assert process.returncode == 0


# As `docker` does it: what a Dockerfile copies is all there is when the wheel is built; and with the file that `init`
# wrote, `migrate` is done before anything of ours runs.
_DOCKER = """
import os, re, shutil, tempfile, yaml
if sys.argv[1] == "build":
    allowed = [line[1:] for line in open(".dockerignore").read().split() if line[0] == "!"]
    copied = re.findall("^COPY (?!--from)(.*) (\\S+)$", open(sys.argv[sys.argv.index("--file") + 1]).read(), re.M)
    with tempfile.TemporaryDirectory() as context:
        for sources, target in copied:
            for source in sources.split():
                assert source in allowed, source
                to = os.path.join(context, source if target == "./" else target)
                os.makedirs(os.path.dirname(to), exist_ok=True)
                (shutil.copytree if os.path.isdir(source) else shutil.copy)(source, to)
        wheel = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", context, context]
        subprocess.run(wheel, check=True)
if sys.argv[1] == "compose":
    services = yaml.safe_load(open("compose.yml"))["services"]
    assert "migrate" in services["authwright"]["depends_on"]
    os.environ.update(line.strip().split("=", 1) for line in open(".env") if "=" in line and line[0] != "#")
    os.environ.update(DATABASE_URL=os.environ["STORE"], AUTHWRIGHT_MODE="serve")
    subprocess.run(["authwright", *services["migrate"]["command"].split()], check=True)
    if sys.argv[2] == "run":
        rest = [word for word in sys.argv[3:] if word != "--rm"]
        assert rest[0] in services
        sys.exit(subprocess.call(["authwright", *rest[1:]]))
"""


async def test_compose(checkout: Path, tmp_path: Path, postgres_server: str) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    stood_in = StandIns(programs, docker=_DOCKER)
    store = await new_postgres_database(postgres_server)
    password = "a long and unusual passphrase\n"
    done(taken(PAGE, 1), checkout, programs, answer=2 * password, STORE=store)
    build, up, created = stood_in.calls()
    assert (checkout / option(build, "--file")).is_file()
    assert build[-1] == "."
    services = yaml.safe_load((checkout / "compose.yml").read_text())["services"]
    assert {services[name]["image"] for name in ("migrate", "authwright")} == {option(build, "--tag")}
    for service in ("migrate", "authwright"):
        # The image's volume is there, and belongs to its user; what is mounted over it may belong to root.
        assert (services[service]["read_only"], services[service]["tmpfs"]) == (True, ["/tmp"])
    assert (up[1:], created[4]) == (["compose", "up", "--detach"], "authwright")
    line, port = services["authwright"]["command"].replace("0.0.0.0", "127.0.0.1").split(), free_port()
    with serving(checkout, *line, port=port, DATABASE_URL=store) as server:
        assert login(server.base, "ada", password.strip())["role"] == "admin"
    await drop_postgres_database(postgres_server, store)


@pytest.mark.program("openssl")
def test_kubernetes(checkout: Path, tmp_path: Path) -> None:
    """The chart is not rendered here: what it is given is what it takes, and what it needs."""
    programs = tmp_path / "programs"
    programs.mkdir()
    stood_in = StandIns(programs, docker=_DOCKER, kubectl="", helm="")
    done(taken(PAGE, 2), checkout, programs)
    build, push, secret, install = stood_in.calls()
    image = option(build, "--tag")
    assert (checkout / option(build, "--file")).is_file()
    assert push[1:] == ["push", image]
    assert secret[1:5] == ["create", "secret", "generic", "authwright"]
    literals = dict(word.partition("=")[2].split("=", 1) for word in secret if word.startswith("--from-literal="))
    assert secret_key_problem(literals["SECRET_KEY"]) is None
    assert literals["DATABASE_URL"].startswith("postgresql://")
    chart = checkout / install[3]
    given = dict(install[place + 1].split("=", 1) for place, word in enumerate(install) if word == "--set")
    values = yaml.safe_load((chart / "values.yaml").read_text())
    for name in given:
        at = values
        for part in name.split("."):
            assert part in at, f"the chart has no value {name}"
            at = at[part]
    templates = (chart / "templates/authwright.yaml").read_text()
    assert set(re.findall(r'required ".*?" \.Values\.(\w+)', templates)) <= given.keys()
    assert f"{given['image.repository']}:{given['image.tag']}" == image
    assert given["secretName"] == secret[4]


@pytest.mark.program("openssl")
def test_a_platform_with_a_procfile(checkout: Path, tmp_path: Path) -> None:
    """What is pushed installs with hashes, as pip there does it. The Procfile in a runner: test_serverless.py."""
    programs = tmp_path / "programs"
    programs.mkdir()
    stood_in = StandIns(programs, heroku="")
    subprocess.run(["git", "init", "--quiet"], cwd=checkout, check=True)
    known = {f"GIT_{who}_{what}": "ada@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for _ in range(2):
        # Again at the next version: nothing of the one before is left.
        (checkout / "authwright-0.0.1-py3-none-any.whl").write_bytes(b"")
        done(
            taken(PAGE, 3).replace("git commit", "git commit --allow-empty"),
            checkout,
            programs,
            PIP_NO_BUILD_ISOLATION="0",
            **known,
        )
    assert (checkout / "Procfile").read_bytes() == (ROOT / "deploy/Procfile").read_bytes()
    pushed = subprocess.run(
        ["git", "ls-tree", "--name-only", "HEAD"], cwd=checkout, check=True, capture_output=True, text=True
    )
    (wheel,) = checkout.glob("authwright-*.whl")
    assert set(pushed.stdout.split()) == {"Procfile", "requirements.txt", wheel.name}
    install = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--require-hashes"]
    ended = subprocess.run(
        [*install, "-r", "requirements.txt"], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    told = stood_in.calls()[-1]
    settings = dict(word.split("=", 1) for word in told[2:])
    assert told[1] == "config:set"
    assert secret_key_problem(settings["SECRET_KEY"]) is None
    assert settings["AUTHWRIGHT_ISSUER"] == "https://auth.example.com"


def test_aws(checkout: Path, tmp_path: Path) -> None:
    """The wheel is built; what `sam` is pointed at is there. The handler itself: test_serverless.py."""
    programs = tmp_path / "programs"
    programs.mkdir()
    stood_in = StandIns(programs, sam="")
    done(taken(PAGE, 4), checkout, programs, PIP_NO_BUILD_ISOLATION="0")
    build, deploy = stood_in.calls()
    assert deploy[1:] == ["deploy", "--guided"]
    template = checkout / option(build, "--template")

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!Ref", lambda loader, node: loader.construct_scalar(node))
    properties = yaml.load(template.read_text(), Loader)["Resources"]["Authwright"]["Properties"]
    code = template.parent / properties["CodeUri"]
    assert (code / f"{properties['Handler'].partition('.')[0]}.py").is_file()
    local = [line for line in (code / "requirements.txt").read_text().splitlines() if line.startswith("./")]
    assert [(code / line.partition("[")[0]).is_file() for line in local] == [True]
