"""The installed command: what it does, prints and returns."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from authwright.config import new_secret_key
from databases import new_mongo_database
from processes import COMMAND, environment, free_port, production_environment, program, run, serving

HELP = [
    (),
    ("dev",),
    ("serve",),
    ("init",),
    ("doctor",),
    ("events",),
    ("events", "export"),
    ("events", "verify"),
    ("openapi",),
    ("postman",),
    ("users",),
    ("users", "create"),
    ("clients",),
    ("clients", "create"),
    ("clients", "list"),
    ("clients", "rotate-key"),
    ("clients", "disable"),
    ("keys",),
    ("keys", "list"),
    ("keys", "rotate"),
    ("keys", "withdraw"),
    ("keys", "share"),
    ("keys", "rewrap"),
]


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_every_command_explains_itself(command: tuple[str, ...], tmp_path: Path) -> None:
    done = run(tmp_path, *command, "--help")
    assert done.returncode == 0
    if command and command[-1] not in ("users", "clients", "keys", "events"):
        assert "Example:" in done.stdout
    assert not list(tmp_path.iterdir())


def test_serve_names_every_problem_at_once_and_starts_nothing(tmp_path: Path) -> None:
    done = run(
        tmp_path, "serve", "--host", "0.0.0.0", SECRET_KEY="changeme", FORWARDED_ALLOW_IPS="*", AUTHWRIGHT_DOC="on"
    )
    assert done.returncode == 2
    for word in ("SECRET_KEY", "AUTHWRIGHT_ISSUER", "FORWARDED_ALLOW_IPS", "AUTHWRIGHT_DOC"):
        assert word in done.stderr
    assert "changeme" not in done.stderr
    assert "Traceback" not in done.stderr


def test_init_writes_a_private_file_that_serve_takes(tmp_path: Path) -> None:
    assert run(tmp_path, "init").returncode == 0
    dotenv = tmp_path / ".env"
    assert stat.S_IMODE(dotenv.stat().st_mode) == 0o600
    before = dotenv.read_text()
    again = run(tmp_path, "init")
    assert (again.returncode, dotenv.read_text()) == (1, before)
    port = free_port()
    # In place of the https URL that a person fills in.
    dotenv.write_text(
        before.replace("# AUTHWRIGHT_ISSUER=https://auth.example.com", f"AUTHWRIGHT_ISSUER=http://127.0.0.1:{port}")
    )
    made = run(tmp_path, "users", "create", "--username", "ada", "--admin", stdin="a long and unusual passphrase\n")
    assert made.returncode == 0, made.stderr
    with serving(tmp_path, "serve", port=port) as server, server.http() as http:
        form = {"username": "ada", "password": "a long and unusual passphrase"}
        token = http.post("/login", data=form).json()["access_token"]
        assert http.get("/me", headers={"Authorization": f"Bearer {token}"}).json()["role"] == "admin"
        assert http.post("/register", json=form).status_code == 403


def test_a_store_made_by_dev_is_refused_by_serve(tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, "dev", port=port):
        pass
    env = production_environment(port, DATABASE_URL=f"sqlite:///{tmp_path}/.authwright/authwright.db")
    done = run(tmp_path, "clients", "list", AUTHWRIGHT_MODE="serve", **env)
    assert done.returncode == 1
    assert "dev" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_forbids_a_start_is_a_sentence(tmp_path: Path) -> None:
    port = free_port()
    env = production_environment(port)
    assert run(tmp_path, "clients", "list", AUTHWRIGHT_MODE="serve", **env).returncode == 0
    reasons = {"SECRET_KEY": new_secret_key(), "AUTHWRIGHT_ISSUER": "https://a.example"}
    for name, value in reasons.items():
        done = run(tmp_path, "serve", "--port", str(port), **{**env, name: value})
        assert done.returncode == 1
        assert name in done.stderr
        assert "Traceback" not in done.stderr


def test_dev_is_not_led_astray_by_the_env_file_of_production(tmp_path: Path) -> None:
    with serving(tmp_path, "dev"):
        pass
    assert run(tmp_path, "init").returncode == 0
    with (tmp_path / ".env").open("a") as dotenv:
        dotenv.write("AUTHWRIGHT_ISSUER=https://auth.example.com\nWEB_CONCURRENCY=4\n")
    with serving(tmp_path, "dev") as server, server.http() as http:
        body = {"username": "ada", "password": "test123"}
        assert http.post("/register", json=body).status_code == 201
        token = http.post("/login", data=body).json()["access_token"]
        assert http.get("/me", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    listed = run(tmp_path, "clients", "list", AUTHWRIGHT_MODE="dev")
    assert (listed.returncode, ".authwright/authwright.db (authwright dev)" in listed.stderr) == (0, True)


def test_the_version_is_shown(tmp_path: Path) -> None:
    assert run(tmp_path, "--version").stdout.strip() == "0.1.0"


def test_files_of_dev_are_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with serving(tmp_path, "dev"):
            folder = tmp_path / ".authwright"
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            for file in folder.iterdir():
                if file.name != "port":
                    assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    finally:
        os.umask(old)


def test_commands_work_on_the_store_of_the_dev_server_that_runs(tmp_path: Path) -> None:
    with serving(tmp_path, "dev") as server, server.http() as http:
        made = json.loads(run(tmp_path, "clients", "create", "scoring", "--json").stdout)
        login = http.post("/login", json={"client_key": made["client_key"]})
        assert login.status_code == 200
        bearer = {"Authorization": f"Bearer {login.json()['access_token']}"}
        assert http.get("/me", headers=bearer).json()["id"] == made["client_id"]
        listed = json.loads(run(tmp_path, "clients", "list", "--json").stdout)
        assert [each["client_id"] for each in listed] == [made["client_id"]]
        assert made["client_key"] not in json.dumps(listed)
        again = json.loads(run(tmp_path, "clients", "rotate-key", made["client_id"], "--json").stdout)
        assert http.get("/me", headers=bearer).status_code == 401
        assert http.post("/login", json={"client_key": made["client_key"]}).status_code == 401
        login = http.post("/login", json={"client_key": again["client_key"]})
        bearer = {"Authorization": f"Bearer {login.json()['access_token']}"}
        assert run(tmp_path, "clients", "disable", made["client_id"]).returncode == 0
        assert http.get("/me", headers=bearer).status_code == 401


def test_keys_are_listed_rotated_withdrawn_and_rewrapped_beside_a_running_server(tmp_path: Path) -> None:
    port = free_port()
    env = production_environment(port, AUTHWRIGHT_MODE="serve")
    form = {"username": "ada", "password": "a long and unusual passphrase"}
    with serving(tmp_path, "serve", port=port, **env) as server, server.http() as http:
        assert http.post("/register", json=form).status_code == 201
        login = http.post("/login", data=form).json()
        bearer = {"Authorization": f"Bearer {login['access_token']}"}
        (first,) = json.loads(run(tmp_path, "keys", "list", "--json", **env).stdout)
        assert first["state"] == "active"
        assert run(tmp_path, "keys", "rotate", **env).returncode == 0
        assert http.get("/me", headers=bearer).status_code == 200
        assert run(tmp_path, "keys", "withdraw", first["kid"], **env).returncode == 0
        assert http.get("/me", headers=bearer).status_code == 401
        refreshed = http.post("/refresh-token", json={"refresh_token": login["refresh_token"]}).json()
        bearer = {"Authorization": f"Bearer {refreshed['access_token']}"}
        assert http.get("/me", headers=bearer).status_code == 200
        for unknown in ("unknown", "-SI1oIQLJGfD5jjvsOBDuGmAZJeDnTiVdEGYaDu-3cY"):
            done = run(tmp_path, "keys", "withdraw", unknown, **env)
            assert (done.returncode, "no signing key" in done.stderr) == (1, True)
        states = [key["state"] for key in json.loads(run(tmp_path, "keys", "list", "--json", **env).stdout)]
        # The one that was waiting its turn was overtaken by the one made in haste.
        assert states == ["withdrawn", "retired", "active"]
    moved = {**env, "SECRET_KEY": new_secret_key(), "SECRET_KEY_PREVIOUS": env["SECRET_KEY"]}
    assert run(tmp_path, "keys", "rewrap", **moved).returncode == 0
    refused = run(tmp_path, "keys", "list", **env)
    assert refused.returncode == 1
    assert "SECRET_KEY" in refused.stderr
    del moved["SECRET_KEY_PREVIOUS"]
    with serving(tmp_path, "serve", port=port, **moved) as server, server.http() as http:
        assert http.get("/me", headers=bearer).status_code == 200
        assert http.post("/refresh-token", json={"refresh_token": refreshed["refresh_token"]}).status_code == 200


def test_users_are_created_with_a_hash_made_elsewhere_or_refused_with_a_reason(tmp_path: Path) -> None:
    with serving(tmp_path, "dev") as server, server.http() as http:
        hashed = "$2b$04$DvMz6eNEqprwPxKG.xnfTeBWYYykK4fgswiEaqrbluJ2s.z/atYaS"
        made = run(tmp_path, "users", "create", "--username", "old", "--password-hash", hashed, "--json")
        assert json.loads(made.stdout)["username"] == "old"
        form = {"username": "old", "password": "correct horse battery staple é"}
        assert http.post("/login", data=form).status_code == 200
        for arguments, reason in (
            (("--username", "x", "--password-hash", "md5$x"), "hash"),
            (("--username", "old", "--password-hash", hashed), "registered"),
            (("--username", "a b", "--password-hash", hashed), "user name"),
            ((), "name"),
        ):
            done = run(tmp_path, "users", "create", *arguments, stdin="test123\n")
            assert done.returncode == 1
            assert reason in done.stderr
            assert "Traceback" not in done.stderr


def test_odd_arguments_end_in_a_sentence(tmp_path: Path) -> None:
    with serving(tmp_path, "dev") as server, server.http() as http:
        for arguments in (
            ("clients", "create", "x\udcff"),
            ("clients", "create", ""),
            ("clients", "create", "x" * 1000),
            ("clients", "create", "x", "--scope", "everything"),
            ("clients", "create", "x", "--plan", "gold"),
            ("clients", "disable", "cli_none"),
            ("clients", "rotate-key", "cli_none"),
            ("openapi", "--output", "/nowhere/at/all.json"),
            ("init", "--path", "/nowhere/at/all"),
        ):
            done = run(tmp_path, *arguments)
            assert done.returncode == 1, arguments
            assert done.stderr.strip()
            assert "Traceback" not in done.stderr
        assert http.get("/readyz").status_code == 200
    assert run(tmp_path, "dev", "--port", "0").returncode == 2
    assert run(tmp_path, "nonsense").returncode == 2


def test_without_the_server_the_command_says_how_to_install_it(tmp_path: Path) -> None:
    script = "import sys; sys.modules['typer'] = None; from authwright.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "pip install 'authwright[server]'" in done.stderr


def test_a_new_interpreter_serves_with_workers_and_all_that_they_can_use(
    tmp_path: Path, mongo_server: str, redis_server: str
) -> None:
    """The command as it is installed: what `run` and `serving` start has loaded these modules already."""
    port = free_port()
    url = new_mongo_database(mongo_server)
    env = environment(**production_environment(port, DATABASE_URL=url, REDIS_URL=redis_server, AUTHWRIGHT_DOCS="on"))
    subprocess.run([COMMAND, "migrate"], cwd=tmp_path, env=env, check=True, capture_output=True)
    command = [COMMAND, "serve", "--workers", "2", "--port", str(port)]
    with program(tmp_path / "server.log", *command, env=env, at=f"http://127.0.0.1:{port}/readyz") as process:
        assert httpx2.get(f"http://127.0.0.1:{port}/openapi.json").json()["paths"]
    assert process.returncode in (0, -signal.SIGTERM)


def test_the_secrets_of_an_audience_are_shown_and_never_the_issuers(tmp_path: Path) -> None:
    api = "https://api.example.com"
    env = {"AUTHWRIGHT_MODE": "dev", "AUTHWRIGHT_AUDIENCES": f"{api} http://127.0.0.1:8000"}
    closed = {**env, "AUTHWRIGHT_SIGNING_ALG": "HS256"}
    shown = run(tmp_path, "keys", "share", api, **closed)
    ((kid, secret),) = json.loads(shown.stdout).items()
    (listed,) = json.loads(run(tmp_path, "keys", "list", "--json", **closed).stdout)
    assert (kid, len(secret)) == (listed["kid"], 43)
    for unknown in ("http://127.0.0.1:8000", "https://other.example.com"):
        refused = run(tmp_path, "keys", "share", unknown, **closed)
        assert (refused.returncode, refused.stdout) == (1, "")
    (tmp_path / "open").mkdir()
    public = run(tmp_path / "open", "keys", "share", api, **env)
    assert (public.returncode, "public keys" in public.stderr) == (1, True)
