"""What the pages show is run as they show it, against a server that was started as they say."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from processes import environment, free_port, run, serving, wait_for

ROOT = Path(__file__).parents[2]


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def walked(script: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """What *script* did in *folder*, all of it or up to its first failure."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.program("curl")
def test_the_walk_of_the_readme(tmp_path: Path) -> None:
    with serving(tmp_path, "dev") as server:
        binaries = Path(sys.executable).parent
        script = "\n".join(blocks("README.md", "bash")).replace("http://127.0.0.1:8000", server.base)
        script = script.replace(".venv/bin/", f"{binaries}/")
        done = walked(script, tmp_path)
        assert done.returncode == 0, done.stderr
        out = done.stdout
        # In the order of the page: the account, the caller, two predictions, the data, the end, and the refusal.
        story = [
            '"plan":"premium"',
            '"username":"bholay"',
            '"class":"versicolor"',
            '"class":"virginica"',
            '"message":"You are in."',
            '"status":"logged_out"',
            '"error":"invalid_token"',
            '"email":"user@example.com"',
            '"token_type":"bearer"',
            '"token_type":"bearer"',
            '"user_id":"cli_',
        ]
        at = 0
        for line in story:
            at = out.find(line, at)
            assert at >= 0, f"{line} is missing in:\n{out}"
            at += len(line)


@pytest.mark.parametrize("page", ["docs/explanation/tokens.md"])
def test_the_python_of_a_page_runs_block_after_block(page: str, tmp_path: Path) -> None:
    with serving(tmp_path, "dev") as server:
        script = "\n".join(blocks(page, "python")).replace("http://127.0.0.1:8000", server.base)
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "'typ': 'at+jwt'" in done.stdout
        assert done.stdout.endswith("refused\n")


@pytest.mark.program("curl")
def test_the_tutorial_ends_with_a_protected_model_of_ones_own(tmp_path: Path) -> None:
    """Its files, its API and its commands, with other ports and nothing else changed."""
    page = (ROOT / "docs/tutorial/protect-your-first-model.md").read_text(encoding="utf-8")
    port = free_port()
    api = f"http://127.0.0.1:{port}"
    with serving(tmp_path, "dev", AUTHWRIGHT_AUDIENCES=api, AUTHWRIGHT_PLANS="") as server:

        def here(text: str) -> str:
            return text.replace("http://127.0.0.1:8000", server.base).replace("http://127.0.0.1:9000", api)

        written = re.findall(r'^```python title="(\S+)"\n(.*?)^```$', page, re.MULTILINE | re.DOTALL)
        assert [name for name, _ in written] == ["model.py", "api.py"]
        for name, text in written:
            (tmp_path / name).write_text(here(text))
        command = [sys.executable, "-m", "uvicorn", "api:app", "--port", str(port)]
        with (tmp_path / "api.log").open("w") as log:
            process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=log, stderr=log)
        try:
            wait_for(f"{api}/docs")
            script = here("\n".join(re.findall(r"^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)))
            done = walked(script, tmp_path)
        finally:
            process.terminate()
            process.wait(20)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "A valid access token is needed" in lines[0]
    assert '"plan":"free"' in lines[1]
    assert lines[2] == '{"class":"virginica","for":"grace"}'
    counted = {status: int(count) for count, status in (line.split() for line in lines[3:5])}
    # One was spent before; a few seconds give a few back.
    assert 55 <= counted["200"] <= 64
    assert counted["200"] + counted["429"] == 65
    assert '"logged_out"' in lines[5]
    assert "The token is not valid" in lines[6]


@pytest.mark.program("curl")
def test_an_app_of_the_tutorial_comes_over_with_its_users(tmp_path: Path) -> None:
    """The page's app, its export, the import, and the app that takes its place; the old tokens are refused by it."""
    page = (ROOT / "docs/howto/come-from-elsewhere.md").read_text(encoding="utf-8")
    port = free_port()
    api = f"http://127.0.0.1:{port}"
    files = re.findall(r'^```python title="(\S+)"\n(.*?)^```$', page, re.MULTILINE | re.DOTALL)
    with serving(tmp_path, "dev", AUTHWRIGHT_AUDIENCES=api) as server, server.http() as http:
        for name, text in files:
            here = text.replace("http://127.0.0.1:8000", server.base).replace("http://127.0.0.1:9000", api)
            (tmp_path / name).write_text(here)
        assert [name for name, _ in files] == ["before.py", "export.py", "after.py"]
        binaries = Path(sys.executable).parent
        script = re.findall(r"^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[0]
        done = walked(script.replace(".venv/bin/", f"{binaries}/"), tmp_path, AUTHWRIGHT_MODE="dev")
        assert done.returncode == 0, done.stderr
        form = {"username": "johndoe", "password": "secret", "resource": api}
        token = http.post("/login", data=form).json()["access_token"]
        assert http.post("/login", data={**form, "username": "alice"}).status_code == 401
        code = """
import sys
from starlette.testclient import TestClient
import after, before
with TestClient(before.app) as old, TestClient(after.app) as new:
    week = before.create_access_token("johndoe")
    for app, token in ((old, week), (new, week), (new, sys.argv[1])):
        answer = app.get("/users/me", headers={"Authorization": f"Bearer {token}"})
        print(answer.status_code, answer.text if answer.status_code == 200 else "")
"""
        asked = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, token],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert asked.stdout.splitlines() == ['200 {"username":"johndoe"}', "401 ", '200 {"username":"johndoe"}'], (
        asked.stderr
    )


_ASKED = """
from starlette.testclient import TestClient
with TestClient({app}) as http:
    assert http.get("{path}").status_code == 401
    print(http.get("{path}", headers={{"Authorization": "Bearer {token}"}}).text)
"""


@pytest.mark.parametrize(
    ("page", "app", "path", "shown"),
    [
        ("README.md", "api", "/who", '"bholay"'),
        ("docs/howto/protect-an-api.md", "app", "/predict", '{"for":"bholay","plan":"premium"}'),
    ],
)
def test_the_protected_apis_of_the_pages_work(page: str, app: str, path: str, shown: str, tmp_path: Path) -> None:
    audience = "https://api.example.com"
    with serving(tmp_path, "dev", AUTHWRIGHT_AUDIENCES=audience) as server, server.http() as http:
        made = run(tmp_path, "clients", "create", "guard", "--scope", "revocations", "--json", AUTHWRIGHT_MODE="dev")
        http.post("/register", json={"username": "bholay", "password": "test123", "plan": "premium"})
        wanted = {} if page == "README.md" else {"resource": audience}
        login = http.post("/login", data={"username": "bholay", "password": "test123", **wanted})
        script = blocks(page, "python")[0]
        for issuer in ("http://127.0.0.1:8000", "https://auth.example.com"):
            script = script.replace(issuer, server.base)
        script += _ASKED.format(app=app, path=path, token=login.json()["access_token"])
        key = json.loads(made.stdout)["client_key"]
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env=environment(AUTHWRIGHT_GUARD_KEY=key),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == shown


def test_the_app_of_the_readme_works(tmp_path: Path) -> None:
    _, script = blocks("README.md", "python")
    script += """
from starlette.testclient import TestClient
with TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 1)) as http:
    body = {"username": "ada", "password": "test123"}
    assert http.post("/auth/register", json=body).status_code == 201
    token = http.post("/auth/login", data=body).json()["access_token"]
    assert http.get("/auth/me", headers={"Authorization": f"Bearer {token}"}).status_code == 200
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
