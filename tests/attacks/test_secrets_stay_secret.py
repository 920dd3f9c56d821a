"""R35, R178: no secret that was issued or typed stands in a log or in a file of the server.

This is one whole story, with what was typed. What was issued is looked for after the whole test run, too: `issued.py`.
"""

import json
from pathlib import Path

from authwright.domain.secrets import API_KEY_PREFIX, new_key
from issued import ISSUED
from processes import run, serving

PASSWORD, NEXT_PASSWORD = "unmistakable-passphrase-1", "unmistakable-passphrase-2"


def test_r35_r178_no_secret_is_found_in_logs_or_files(tmp_path: Path) -> None:
    secrets: set[str] = {PASSWORD, NEXT_PASSWORD}
    # A secret that does leak: a client sends it where names of programs stand. The search must find this one.
    planted = new_key(API_KEY_PREFIX)
    ISSUED.plant(planted)
    with serving(tmp_path, "dev", AUTHWRIGHT_LOG_LEVEL="debug") as server, server.http() as http:
        form = {"username": "ada", "password": PASSWORD}

        def keep(answer: dict[str, str]) -> dict[str, str]:
            names = ("access_token", "refresh_token", "key", "client_key")
            secrets.update(answer[name] for name in names if name in answer)
            return answer

        def bearer(login: dict[str, str]) -> dict[str, str]:
            return {"Authorization": f"Bearer {login['access_token']}"}

        http.post("/register", json=form)
        login = keep(http.post("/login", data=form, headers={"user-agent": planted}).json())
        http.post("/login", data={**form, "password": NEXT_PASSWORD})
        http.post("/login", json={"username": PASSWORD, "password": "x"})
        http.get("/me", headers=bearer(login))
        http.get("/me", headers={"Authorization": "Bearer " + login["access_token"][:-3] + "AAA"})
        login = keep(http.post("/refresh-token", json={"refresh_token": login["refresh_token"]}).json())
        body = {"current_password": PASSWORD, "new_password": NEXT_PASSWORD}
        login |= keep(http.post("/me/password", json=body, headers=bearer(login)).json())
        client = json.loads(run(tmp_path, "clients", "create", "scoring", "--json").stdout)
        secrets.add(client["client_key"])
        keep(http.post("/login", json={"client_key": client["client_key"]}).json())
        http.post("/login", json={"client_key": client["client_key"] + "x"})
        rotated = run(tmp_path, "clients", "rotate-key", client["client_id"], "--json")
        secrets.add(json.loads(rotated.stdout)["client_key"])
        keep(http.post("/me/keys", json={"name": "x"}, headers=bearer(login)).json())
        created = run(tmp_path, "users", "create", "--username", "root-ada", "--admin", stdin=PASSWORD)
        assert created.returncode == 0
        admin = keep(http.post("/login", data={"username": "root-ada", "password": PASSWORD}).json())
        grace = http.post("/users/", json={"username": "grace"}, headers=bearer(admin)).json()
        reset = grace["reset_link"]["url"].partition("token=")[2]
        secrets.add(reset)
        http.get("/reset-password", params={"token": reset})
        http.post("/reset-password", json={"token": reset + "x", "new_password": PASSWORD})
        http.post("/reset-password", json={"token": reset, "new_password": PASSWORD})
        secrets.add(json.loads(run(tmp_path, "users", "reset-link", "ada", "--json").stdout)["url"].partition("=")[2])
        keep(http.post("/admin/clients", json={"name": "x"}, headers=bearer(admin)).json())
        http.get("/me", headers={"Authorization": f"Bearer {reset}"})
        events = http.get("/admin/events?limit=200", headers=bearer(admin)).text
        metrics = http.get("/metrics").text
        assert run(tmp_path, "backup", "copy.db").returncode == 0
        http.post("/logout", headers=bearer(login))
        http.post("/refresh-token", json={"refresh_token": login["refresh_token"]})
        assert server.stop() is not None
    # What makes keys is secret, too, but has its own file, which nobody else may read.
    master = (tmp_path / ".authwright/secret_key").read_text().strip()
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "secret_key"}
    files |= {Path("events"): events.encode(), Path("metrics"): metrics.encode()}
    assert {path.name for path in files} >= {"server.log", "authwright.db", "copy.db", "events", "metrics"}
    assert {path.name for path in leaks(planted, files)} >= {"authwright.db", "copy.db", "events"}
    for secret in (*secrets, master):
        assert not leaks(secret, files)
    assert len(secrets) >= 16


def leaks(secret: str, files: dict[Path, bytes]) -> list[Path]:
    """Where *secret* stands, or enough of it: a token's last part alone would be enough to complete it."""
    parts = {part.encode() for part in (secret, secret.rpartition(".")[2], secret[-40:])}
    return [path for path, content in files.items() if any(part in content for part in parts)]
