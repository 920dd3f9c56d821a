"""R35, R178: after a whole story, no secret that was issued or typed stands in a log or in a file of the server."""

import json
from pathlib import Path

from processes import run, serving

PASSWORD, NEXT_PASSWORD = "unmistakable-passphrase-1", "unmistakable-passphrase-2"


def test_r35_r178_no_secret_is_found_in_logs_or_files(tmp_path: Path) -> None:
    secrets: set[str] = {PASSWORD, NEXT_PASSWORD}
    planted = "planted-user-agent"
    with serving(tmp_path, "dev", AUTHWRIGHT_LOG_LEVEL="debug") as server, server.http() as http:
        form = {"username": "ada", "password": PASSWORD}

        def keep(answer: dict[str, str]) -> dict[str, str]:
            secrets.update(answer[name] for name in ("access_token", "refresh_token") if name in answer)
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
        http.post("/logout", headers=bearer(login))
        http.post("/refresh-token", json={"refresh_token": login["refresh_token"]})
        assert server.stop() is not None
    # What makes keys is secret, too, but has its own file, which nobody else may read.
    master = (tmp_path / ".authwright/secret_key").read_text().strip()
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "secret_key"}
    assert {path.name for path in files} >= {"server.log", "authwright.db"}
    assert any(planted.encode() in content for content in files.values()), "the search finds nothing at all"
    for secret in (*secrets, master):
        # A token's last part alone would be enough to complete it.
        for part in {secret, secret.rpartition(".")[2], secret[-40:]}:
            for path, content in files.items():
                assert part.encode() not in content, path.name
    assert len(secrets) >= 9
