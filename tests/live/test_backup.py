"""`authwright backup` and `restore`: everybody logs in again, and nothing that was issued before is good."""

import json
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from authwright.config import new_secret_key
from processes import free_port, production_environment, run, serving

PASSWORD = "a long and unusual passphrase"


def log_in(http: httpx2.Client, name: str = "ada") -> dict[str, Any]:
    answer = http.post("/login", data={"username": name, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def bearer(login: dict[str, Any]) -> dict[str, str]:
    return {"authorization": f"Bearer {login['access_token']}"}


def register(http: httpx2.Client, name: str = "ada") -> None:
    assert http.post("/register", json={"username": name, "password": PASSWORD}).status_code == 201


@pytest.fixture
def environment() -> dict[str, str]:
    port = free_port()
    return {**production_environment(port), "AUTHWRIGHT_MODE": "serve", "PORT": str(port)}


def test_a_backup_restored_elsewhere_refuses_old_tokens(tmp_path: Path, environment: dict[str, str]) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    port = int(environment.pop("PORT"))
    with serving(here, "serve", port=port, **environment) as server, server.http() as http:
        register(http)
        kept, ended = log_in(http), log_in(http)
        http.post("/logout", headers=bearer(ended))
        made = run(here, "backup", "copy.db", PORT=str(port), **environment)
        assert made.returncode == 0, made.stderr
        # After the backup, so not in it.
        register(http, "eve")
    copy = here / "copy.db"
    assert copy.stat().st_mode & 0o077 == 0
    again = run(here, "backup", "copy.db", PORT=str(port), **environment)
    assert (again.returncode, "exists" in again.stderr) == (1, True)
    restored = run(there, "restore", str(copy), "--yes", PORT=str(port), **environment)
    assert (restored.returncode, "1 sessions ended" in restored.stdout) == (0, True), restored.stderr
    with serving(there, "serve", port=port, **environment) as server, server.http() as http:
        for login in (kept, ended):
            assert http.post("/refresh-token", json={"refresh_token": login["refresh_token"]}).status_code == 400
            assert http.get("/me", headers=bearer(login)).status_code == 401
        assert http.get("/me", headers=bearer(log_in(http))).json()["username"] == "ada"
        assert http.post("/login", data={"username": "eve", "password": PASSWORD}).status_code == 401


@pytest.mark.parametrize("probed", [False, True], ids=["a request comes first", "a probe comes first"])
def test_a_server_that_runs_goes_on_with_what_is_restored_under_it(
    tmp_path: Path, environment: dict[str, str], probed: bool
) -> None:
    port = int(environment["PORT"])
    env = {name: value for name, value in environment.items() if name != "PORT"}
    with serving(tmp_path, "serve", port=port, **env) as server, server.http() as http:
        register(http)
        before = log_in(http)
        assert run(tmp_path, "backup", "copy.db", **environment).returncode == 0
        # Epochs of the store go on, and the ledger grows: the restored one is behind what the server has in memory.
        for _ in range(3):
            http.post("/logout?everywhere=true", headers=bearer(log_in(http)))
        after = log_in(http)
        assert run(tmp_path, "restore", "copy.db", "--yes", **environment).returncode == 0
        if probed:
            assert http.get("/readyz").status_code == 200
        deadline = time.monotonic() + 1
        while http.get("/me", headers=bearer(after)).status_code != 401:
            assert time.monotonic() < deadline
        for login in (before, after):
            assert http.post("/refresh-token", json={"refresh_token": login["refresh_token"]}).status_code == 400
            assert http.get("/me", headers=bearer(login)).status_code == 401
        fresh = log_in(http)
        assert http.get("/me", headers=bearer(fresh)).status_code == 200
        http.post("/logout", headers=bearer(fresh))
        assert http.get("/me", headers=bearer(fresh)).status_code == 401
        made = run(tmp_path, "users", "create", "--username", "root-eve", "--admin", stdin=PASSWORD, **environment)
        assert made.returncode == 0
        events = http.get("/admin/events?kind=store_restored", headers=bearer(log_in(http, "root-eve"))).json()
        assert [event["actor"] for event in events["events"]] == ["command"]


def test_what_is_no_backup_of_this_server_is_refused_and_changes_nothing(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    assert run(tmp_path, "users", "create", "--username", "ada", stdin=PASSWORD, **environment).returncode == 0
    assert run(tmp_path, "backup", "copy.db", **environment).returncode == 0
    (tmp_path / "text.db").write_text("no database " * 1000)
    broken = bytearray((tmp_path / "copy.db").read_bytes())
    broken[5000:9000] = b"\xff" * 4000
    (tmp_path / "broken.db").write_bytes(broken)
    other = {**environment, "SECRET_KEY": new_secret_key()}
    cases = [
        ("text.db", environment, "database"),
        ("broken.db", environment, ""),
        ("none.db", environment, "no file"),
    ]
    for name, env, words in cases:
        refused = run(tmp_path, "restore", name, "--yes", **env)
        assert refused.returncode == 1, name
        assert words in refused.stderr
        assert "Traceback" not in refused.stderr
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    refused = run(elsewhere, "restore", "../copy.db", "--yes", **other)
    assert (refused.returncode, "SECRET_KEY" in refused.stderr) == (1, True)
    asked = run(tmp_path, "restore", "copy.db", stdin="n\n", **environment)
    assert asked.returncode == 1
    listed = run(tmp_path, "users", "list", "--json", **environment).stdout.splitlines()
    assert [json.loads(line)["username"] for line in listed] == ["ada"]
