"""What is published: the same bytes from the same commit, and a TypeScript client that works."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from processes import free_port, serving

ROOT = Path(__file__).parents[2]
NODE = ROOT / ".venv/node/node_modules"


def built(source: Path, out: Path) -> dict[str, str]:
    command = [sys.executable, "-m", "hatchling", "build", "-d", out]
    environment = {"SOURCE_DATE_EPOCH": "1795000000", "PATH": ""}
    subprocess.run(command, cwd=source, env=environment, check=True, capture_output=True)
    return {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in out.iterdir()}


def test_a_build_is_reproducible_and_holds_what_it_should(tmp_path: Path) -> None:
    left_out = shutil.ignore_patterns(".venv*", ".git", ".site", "dist", "__pycache__", ".*_cache", ".hypothesis")
    for name in ("one", "another-place"):
        shutil.copytree(ROOT, tmp_path / name, ignore=left_out)
    # Neither where it is nor when its files were written matters.
    for file in (tmp_path / "another-place").rglob("*.py"):
        file.touch()
    first, second = (built(tmp_path / name, tmp_path / f"{name}-dist") for name in ("one", "another-place"))
    assert first == second
    (wheel,) = (tmp_path / "one-dist").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "authwright/py.typed",
        "authwright/SKILL.md",
        "authwright/llms.txt",
        "authwright/cli/templates/compose.yml",
    } <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/", "bench/")) or name.endswith(".db")]


@pytest.mark.npm("@hey-api/openapi-ts")
@pytest.mark.program("npm")
def test_the_typescript_client_is_generated_and_does_what_its_page_shows(tmp_path: Path) -> None:
    """Packed twice the same; the page's program compiles and works, and a wrong one does not compile."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        command = [ROOT / "clients/typescript/build.sh", "1.2.3", tmp_path / name]
        named = {**os.environ, "GITHUB_REPOSITORY": "owner/name"}
        subprocess.run(command, check=True, capture_output=True, env=named)
    one, two = (each.read_bytes() for each in tmp_path.glob("*/authwright-client-1.2.3.tgz"))
    assert one == two
    with tarfile.open(tmp_path / "one/authwright-client-1.2.3.tgz") as packed:
        packed.extractall(tmp_path, filter="data")
    about = json.loads((tmp_path / "package/package.json").read_text())
    assert about["repository"] == {"type": "git", "url": "git+https://github.com/owner/name.git"}
    (tmp_path / "node_modules/@authwright").mkdir(parents=True)
    (tmp_path / "package").rename(tmp_path / "node_modules/@authwright/client")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    page = (ROOT / "docs/howto/call-it-from-typescript.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```ts\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)

    def compiled(name: str, text: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / f"{name}.ts").write_text(text)
        options = ["--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom"]
        command = [NODE / ".bin/tsc", *options, f"{name}.ts"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    wrong = compiled("wrong", program.replace("caller?.username", "caller?.password_hash"))
    assert (wrong.returncode != 0, "password_hash" in wrong.stdout) == (True, True)
    port = free_port()
    # Tokens of ten seconds are always about to expire: each request refreshes first.
    with serving(tmp_path, "dev", port=port, AUTHWRIGHT_ACCESS_TOKEN_SECONDS="10") as server, server.http() as http:
        http.post("/register", json={"username": "ada", "password": "a long passphrase"})
        end = """
import { logout } from "@authwright/client";
await logout({ client });
try { await me({ client }); } catch (refusal) { console.log((refusal as { error: string }).error); }
"""
        good = compiled("good", program.replace("https://auth.example.com", server.base) + end)
        assert good.returncode == 0, good.stdout
        done = subprocess.run(
            ["node", "good.js"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        log = server.log.read_text()
    assert done.stdout.startswith("ada undefined\n")
    assert done.stdout.count("virginica") > 1
    assert done.stdout.endswith("\ninvalid_grant\n")
    # The library asks for a token by both schemes that the document allows, one after the other: two refreshes for the
    # first call, two, not four, for those at the same time, two to log out; the last one is refused.
    assert len(re.findall(r"path=/refresh-token", log)) == 7


@pytest.mark.made(".venv/bin/cyclonedx-py")
def test_the_bill_of_materials_names_every_package_of_a_server_and_its_digests(tmp_path: Path) -> None:
    """By the command of `make release`; nothing of when and where it was made is in it."""
    makefile = (ROOT / "Makefile").read_text()
    (command,) = re.findall(r"^\t\$\(BIN\)/(cyclonedx-py .*)$", makefile, re.MULTILINE)
    words = command.replace("dist/authwright.cdx.json", str(tmp_path / "made")).split()
    subprocess.run([ROOT / ".venv/bin" / words[0], *words[1:]], cwd=ROOT, check=True, capture_output=True)
    made = (tmp_path / "made").read_text()
    for each in ("timestamp", "serialNumber", str(ROOT)):
        assert each not in made
    lock = (ROOT / "requirements/run.txt").read_text()
    locked = {
        (name, version): set(re.findall(r"--hash=sha256:(\w{64})", digests))
        for name, version, digests in re.findall(
            r"^([\w.-]+)(?:\[[\w,-]+\])?==([^ ;]+)(.*(?:\n    .*)*)", lock, re.MULTILINE
        )
    }
    listed = {
        (each["name"], each["version"]): {
            digest["content"] for where in each["externalReferences"] for digest in where.get("hashes", ())
        }
        for each in json.loads(made)["components"]
    }
    assert listed == locked
    assert {"argon2-cffi", "cryptography", "fastapi", "sqlalchemy"} <= {name for name, _ in listed}


@pytest.mark.made(".venv/bin/pip-audit")
def test_the_audit_is_about_every_package_of_the_lock() -> None:
    """All but the question itself, which goes to a service elsewhere."""
    makefile = (ROOT / "Makefile").read_text()
    (command,) = re.findall(r"^\t\$\(BIN\)/(pip-audit .*)$", makefile, re.MULTILINE)
    words = [*command.split(), "--dry-run"]
    done = subprocess.run(
        [ROOT / ".venv/bin" / words[0], *words[1:]], cwd=ROOT, capture_output=True, text=True, check=True
    )
    locked = re.findall(r"^[\w.-]+(?:\[[\w,-]+\])?==", (ROOT / "requirements/run.txt").read_text(), re.MULTILINE)
    # What is for another platform or version of Python is not asked about.
    (audited,) = re.findall(r"would have audited (\d+) packages", done.stderr)
    assert len(locked) - 10 < int(audited) <= len(locked)
    assert "--strict" in words
    assert "make audit" in (ROOT / ".github/workflows/release.yml").read_text()


def test_dependency_updates_wait_for_a_week() -> None:
    text = (ROOT / ".github/dependabot.yml").read_text()
    assert text.count("package-ecosystem") == text.count("cooldown: {default-days: 7}") > 3
    assert json.loads((ROOT / "tests/node/package.json").read_text())["private"]


def test_the_workflow_publishes_the_file_that_it_built() -> None:
    """Without the dot npm takes `dist/...` for a repository of somebody called dist."""
    text = (ROOT / ".github/workflows/release.yml").read_text()
    (command,) = re.findall(r"npm publish .*", text)
    assert command.split()[-1] == "./dist/authwright-client-*.tgz"
