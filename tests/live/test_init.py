"""authwright init: three questions, and a server that starts with what they wrote."""

import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from processes import COMMAND, at_a_terminal, environment, free_port, run, serving

ISSUER = "https://auth.example.com"


def test_three_answers_make_a_server_with_an_administrator(tmp_path: Path) -> None:
    port = free_port()
    code, shown = at_a_terminal(tmp_path, f"http://127.0.0.1:{port}", "by-hand", "grace")
    assert code == 0, shown
    assert sum(shown.count(word) for word in ("Under which https URL", "How will it run", "first administrator")) == 3
    assert {each.name for each in tmp_path.iterdir()} == {".env", "authwright-data"}
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    made = re.search(r"Made the administrator grace\. The password, shown this once: (\S+)", shown)
    assert made is not None
    with serving(tmp_path, "serve", port=port) as server, server.http() as http:
        login = http.post("/login", data={"username": "grace", "password": made[1]}).json()
        answer = http.get("/me", headers={"Authorization": f"Bearer {login['access_token']}"})
        assert answer.json()["role"] == "admin"


def test_nobody_is_asked_where_nobody_answers(tmp_path: Path) -> None:
    done = run(tmp_path, "init")
    assert (done.returncode, "Under which" in done.stdout) == (0, False)
    assert "# AUTHWRIGHT_ISSUER=" in (tmp_path / ".env").read_text()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--issuer", "http://auth.example.com"), "must be https"),
        (("--issuer", "https://auth.example.com/"), "trailing slash"),
        (("--run", "kubernetes"), "by-hand, systemd, compose"),
    ],
)
def test_a_wrong_answer_writes_nothing(tmp_path: Path, arguments: tuple[str, ...], word: str) -> None:
    done = run(tmp_path, "init", *arguments)
    assert (done.returncode, word in done.stderr) == (2, True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [".env", "compose.yml"])
def test_what_exists_is_left_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    done = run(tmp_path, "init", "--run", "compose")
    assert (done.returncode, f"{name} exists" in done.stderr) == (1, True)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["mine"]


def test_a_refused_administrator_is_told_with_what_to_do(tmp_path: Path) -> None:
    done = run(tmp_path, "init", "--issuer", ISSUER, "--admin", "me")
    assert (done.returncode, (tmp_path / ".env").exists()) == (1, True)
    assert "authwright users create --username me --admin" in done.stderr


@pytest.mark.program("systemd-analyze")
def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    assert run(tmp_path, "init", "--issuer", ISSUER, "--run", "systemd").returncode == 0
    unit = tmp_path / "authwright.service"
    checked = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False, timeout=60
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    text = unit.read_text()
    assert f"WorkingDirectory={tmp_path}\n" in text
    assert f"ExecStart={COMMAND} serve " in text
    # Nobody runs it as root, whoever wrote it.
    assert ("User=root" in text, "User=" in text) == (False, True)
    # What it says about exposure is a figure of its own; unprotected services have 9.6.
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", unit],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert told.returncode == 0, told.stdout[-500:]


def test_a_module_that_is_run_names_the_command_and_odd_folders_are_refused(tmp_path: Path) -> None:
    odd = tmp_path / "a folder"
    odd.mkdir()
    done = run(odd, "init", "--run", "systemd")
    assert (done.returncode, list(odd.iterdir())) == (2, [])
    (tmp_path / "100%").mkdir()
    command = [sys.executable, "-m", "authwright", "init", "--run", "systemd"]
    subprocess.run(
        command, cwd=tmp_path / "100%", env=environment(), check=True, capture_output=True, stdin=subprocess.DEVNULL
    )
    text = (tmp_path / "100%/authwright.service").read_text()
    assert f"ExecStart={COMMAND} serve " in text
    assert f"WorkingDirectory={tmp_path}/100%%\n" in text


def test_the_compose_file_starts_what_it_names_and_holds_no_secret(tmp_path: Path) -> None:
    assert run(tmp_path, "init", "--issuer", ISSUER, "--run", "compose", "--admin", "ada").returncode == 0
    text = (tmp_path / "compose.yml").read_text()
    services = yaml.safe_load(text)["services"]
    assert list(services) == ["postgres", "migrate", "authwright"]
    written = dict(line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines() if line[0] != "#")
    assert set(written) == {"SECRET_KEY", "AUTHWRIGHT_ISSUER", "POSTGRES_PASSWORD"}
    assert not [name for name, value in written.items() if value in text]
    server = services["authwright"]
    assert server["environment"]["DATABASE_URL"].startswith("postgresql://authwright:${POSTGRES_PASSWORD}@postgres/")
    assert (server["read_only"], server["cap_drop"], server["ports"]) == (True, ["ALL"], ["127.0.0.1:8000:8000"])
    assert "{{" not in text
    # Nothing is fetched by a name that somebody else could have.
    assert (server["image"], "pip install" in text) == ("authwright", False)
    gateway = yaml.safe_load(text)["networks"]["default"]["ipam"]["config"][0]["gateway"]
    assert server["environment"]["FORWARDED_ALLOW_IPS"] == gateway
    # The settings are those of a server that starts.
    given = {**written, **server["environment"], "DATABASE_URL": "", "AUTHWRIGHT_MODE": "serve"}
    given.pop("POSTGRES_PASSWORD")
    checked = subprocess.run(
        [sys.executable, "-c", "from authwright.config import load_settings; print(load_settings('serve').issuer)"],
        cwd=tmp_path,
        env=environment(**given),
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.stdout == f"{ISSUER}\n", checked.stderr
