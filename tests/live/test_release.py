"""What is published: the same bytes from the same commit, and types of the HTTP surface that TypeScript takes."""

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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
    assert {"authwright/py.typed", "authwright/SKILL.md", "authwright/cli/templates/compose.yml"} <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/", "bench/")) or name.endswith(".db")]


_USES = """
import type { paths } from "./authwright";
type Login = paths["/login"]["post"]["responses"]["200"]["content"]["application/json"];
type Me = paths["/me"]["get"]["responses"]["200"]["content"]["application/json"];
export function told(login: Login, me: Me): string {
  return login.access_token + me.id;
}
"""


@pytest.mark.npm("openapi-typescript")
def test_the_types_of_the_surface_are_good_and_catch_what_is_not(tmp_path: Path) -> None:
    tool = NODE / ".bin/openapi-typescript"
    made = [tool, ROOT / "openapi.json", "--output", tmp_path / "authwright.d.ts"]
    subprocess.run(made, check=True, capture_output=True, cwd=tmp_path)
    (tmp_path / "good.ts").write_text(_USES)
    (tmp_path / "bad.ts").write_text(_USES.replace("me.id", "me.password_hash"))

    def checked(name: str) -> subprocess.CompletedProcess[str]:
        command = [NODE / ".bin/tsc", "--strict", "--noEmit", "--target", "es2022", name]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    good, bad = checked("good.ts"), checked("bad.ts")
    assert good.returncode == 0, good.stdout
    assert (bad.returncode != 0, "password_hash" in bad.stdout) == (True, True)


def test_dependency_updates_wait_for_a_week() -> None:
    text = (ROOT / ".github/dependabot.yml").read_text()
    assert text.count("package-ecosystem") == text.count("cooldown: {default-days: 7}") > 3
    assert json.loads((ROOT / "tests/node/package.json").read_text())["private"]
