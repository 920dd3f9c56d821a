"""authwright doctor: every fault that is planted is found, and told with what to do about it."""

import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from authwright.cli import doctor as module
from authwright.config import Settings, new_secret_key
from processes import free_port, production_environment, run, serving

Findings = dict[str, tuple[str, str, str]]


def doctor(folder: Path, *arguments: str, **env: str) -> tuple[int, Findings]:
    """The exit status, and what was found: level, text and remedy by what was looked at; the worst of each."""
    done = run(folder, "doctor", "--json", *arguments, **env)
    assert "Traceback" not in done.stderr, done.stderr
    findings: Findings = {}
    for line in done.stdout.splitlines():
        found = json.loads(line)
        assert found["level"] == "ok" or found["remedy"], found
        worst = findings.get(found["about"], ("ok",))[0]
        if ("ok", "warning", "error").index(found["level"]) >= ("ok", "warning", "error").index(worst):
            findings[found["about"]] = found["level"], found["text"], found["remedy"]
    return done.returncode, findings


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """The environment of a store that was made and is in order."""
    env = production_environment(free_port(), SMTP_URL="smtp://localhost", AUTHWRIGHT_MAIL_FROM="auth@example.com")
    password = "a long and unusual passphrase\n"
    assert run(tmp_path, "users", "create", "--username", "ada", stdin=password, **env).returncode == 0
    return env


@contextmanager
def issuer(status: int, body: object, **headers: str) -> Iterator[int]:
    """Something else that answers under the issuer's URL; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(status)
            for name, value in {"Date": formatdate(usegmt=True), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_all_is_well(tmp_path: Path) -> None:
    port = free_port()
    env = production_environment(port, SMTP_URL="smtp://localhost", AUTHWRIGHT_MAIL_FROM="auth@example.com")
    with serving(tmp_path, "serve", port=port, **env):
        code, found = doctor(tmp_path, **env)
    assert code == 0
    levels = {about: level for about, (level, _, _) in found.items() if about != "passwords"}
    assert levels == dict.fromkeys(("settings", "database", "migrations", "keys", "clock", "events", "issuer"), "ok")
    # What this machine's build of Argon2 is like is another matter.
    assert "ms of CPU" in found["passwords"][1]
    shown = run(tmp_path, "doctor", "--offline", **env)
    assert (shown.returncode, "ok      migrations: none to do" in shown.stdout) == (0, True)


def test_wrong_settings_are_all_named(tmp_path: Path) -> None:
    done = run(tmp_path, "doctor", "--json", SECRET_KEY="changeme", FORWARDED_ALLOW_IPS="*", AUTHWRIGHT_DOC="on")
    assert done.returncode == 1
    texts = [json.loads(line)["text"] for line in done.stdout.splitlines()]
    assert [any(word in text for text in texts) for word in ("SECRET_KEY", "FORWARDED", "AUTHWRIGHT_DOC")] == [True] * 3
    assert "changeme" not in done.stdout + done.stderr


def test_a_secret_that_others_can_read(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / ".env").write_text(f"SECRET_KEY={env['SECRET_KEY']}\n")
    (tmp_path / ".env").chmod(0o644)
    code, found = doctor(tmp_path, "--offline", **env)
    assert (code, found["files"][0], found["files"][2]) == (1, "error", "chmod 600 .env")


def test_another_secret_key(tmp_path: Path, env: dict[str, str]) -> None:
    code, found = doctor(tmp_path, "--offline", **{**env, "SECRET_KEY": new_secret_key()})
    assert (code, found["keys"][0], "SECRET_KEY_PREVIOUS" in found["keys"][2]) == (1, "error", True)
    code, found = doctor(tmp_path, "--offline", **{**env, "SECRET_KEY_PREVIOUS": new_secret_key()})
    assert (code, found["keys"][0], "keys rewrap" in found["keys"][2]) == (0, "warning", True)


def test_a_database_that_is_away_and_one_that_was_never_made(tmp_path: Path, env: dict[str, str]) -> None:
    url = f"postgresql://authwright:in-no-output@127.0.0.1:{free_port()}/authwright"
    done = run(tmp_path, "doctor", "--offline", **env, DATABASE_URL=url)
    assert (done.returncode, "DATABASE_URL" in done.stdout) == (1, True)
    assert "in-no-output" not in done.stdout + done.stderr
    code, found = doctor(tmp_path, "--offline", **env, DATABASE_URL="sqlite:///other.db")
    assert (code, found["database"][0]) == (0, "warning")
    assert not (tmp_path / "other.db").exists()


def test_a_schema_of_an_earlier_version(tmp_path: Path, env: dict[str, str]) -> None:
    with closing(sqlite3.connect(tmp_path / "authwright-data/authwright.db")) as store:
        store.execute("UPDATE alembic_version SET version_num = '3'")
        assert store.total_changes
        store.commit()
    code, found = doctor(tmp_path, "--offline", **env)
    assert (code, found["migrations"][0], found["migrations"][2]) == (1, "error", "authwright migrate")


def test_a_clock_that_was_set_back(tmp_path: Path, env: dict[str, str]) -> None:
    with closing(sqlite3.connect(tmp_path / "authwright-data/authwright.db")) as store:
        store.execute("UPDATE events SET at = at + 3600000000")
        store.commit()
    code, found = doctor(tmp_path, "--offline", **env)
    assert (code, found["clock"][0], "NTP" in found["clock"][2]) == (1, "error", True)


def test_a_rotation_that_was_forgotten(tmp_path: Path, env: dict[str, str]) -> None:
    with closing(sqlite3.connect(tmp_path / "authwright-data/authwright.db")) as store:
        store.execute("UPDATE keys SET active_from = active_from - 500 * 86400 * 1000000 WHERE purpose = 'sign'")
        assert store.total_changes
        store.commit()
    _, found = doctor(tmp_path, "--offline", **env)
    assert (found["keys"][0], found["keys"][2]) == ("warning", "authwright keys rotate")


@pytest.mark.parametrize(
    ("status", "body", "headers", "about", "word"),
    [
        (404, {}, {}, "issuer", "Host header"),
        (200, "not a key set", {}, "issuer", "Host header"),
        (308, {}, {"Location": "https://elsewhere.example"}, "issuer", "redirect"),
        (200, {"keys": []}, {}, "issuer", "DATABASE_URL"),
        (200, {"keys": []}, {"Date": formatdate(time.time() - 90, usegmt=True)}, "clock", "NTP"),
        (200, {"keys": []}, {"Date": "garbage"}, "issuer", "DATABASE_URL"),
    ],
)
def test_something_else_answers_under_the_issuers_name(
    tmp_path: Path, status: int, body: object, headers: dict[str, str], about: str, word: str
) -> None:
    with issuer(status, body, **headers) as port:
        env = production_environment(port)
        assert run(tmp_path, "keys", "list", **env).returncode == 0
        code, found = doctor(tmp_path, **env)
    assert (code, found[about][0], word in found[about][2]) == (1, "error", True), found


def test_plans_that_cannot_be_read_and_an_answer_that_cannot_be(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "plans.toml").write_text("nonsense")
    code, found = doctor(tmp_path, "--offline", **{**env, "AUTHWRIGHT_PLANS": str(tmp_path / "plans.toml")})
    assert (code, "AUTHWRIGHT_PLANS" in found["settings"][1]) == (1, True)
    with issuer(200, {"keys": []}, **{"Content-Encoding": "gzip"}) as port:
        other = production_environment(port)
        assert run(tmp_path, "keys", "list", **other, AUTHWRIGHT_DATA="other").returncode == 0
        code, found = doctor(tmp_path, **other, AUTHWRIGHT_DATA="other")
    assert found["issuer"][0] == "warning"


def test_what_is_only_worth_a_warning(tmp_path: Path, env: dict[str, str]) -> None:
    code, found = doctor(tmp_path, **env, AUTHWRIGHT_SIGNING_ALG="HS256", REDIS_URL=f"redis://127.0.0.1:{free_port()}")
    assert code == 0
    warned = {about for about, (level, _, _) in found.items() if level == "warning"} - {"passwords"}
    assert warned == {"issuer", "settings", "redis"}
    elsewhere = {**env, "AUTHWRIGHT_ISSUER": "https://auth.example.com"}
    _, found = doctor(tmp_path / "..", "--offline", **elsewhere, AUTHWRIGHT_DATA=str(tmp_path / "new"))
    assert found["proxy"][0] == "warning"
    _, found = doctor(tmp_path, "--offline", **elsewhere, FORWARDED_ALLOW_IPS="10.0.0.1", AUTHWRIGHT_DATA="new")
    assert found["proxy"] == ("ok", "X-Forwarded-For is believed from 10.0.0.1", "")


def test_development_is_examined_too(tmp_path: Path) -> None:
    with serving(tmp_path, "dev"):
        code, found = doctor(tmp_path)
    assert (code, "issuer" in found, found["settings"][0]) == (0, False, "ok")


@pytest.mark.parametrize(("beside", "level"), [(0.3, "ok"), (0.55, "warning")])
def test_a_slow_build_of_argon2_is_told_from_a_slow_machine(
    monkeypatch: pytest.MonkeyPatch, beside: float, level: str
) -> None:
    """By what a hash takes beside SHA-512: here *beside* of it, at whatever speed."""
    seconds = iter((beside * 7, 7.0))
    monkeypatch.setattr(module, "_least", lambda _: next(seconds))
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    examination = module.Examination()
    examination._argon2(Settings.dev())
    (finding,) = examination.findings
    assert (finding.level, "-march=native" in finding.remedy) == (level, level == "warning")


def test_a_full_disk_and_a_folder_that_is_not_ours_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**40, 2**40 - 2**20, 2**20))
    monkeypatch.setattr(module.os, "access", lambda *_: False)
    examination = module.Examination()
    examination._files(Settings.dev(data=str(tmp_path)))
    assert [(each.level, bool(each.remedy)) for each in examination.findings] == [("warning", True), ("error", True)]
