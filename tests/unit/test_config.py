"""config: every refusal one by one, and all of them together."""

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from authwright.config import Settings, SettingsError, check_settings, load_settings, new_secret_key, secret_key_problem

GOOD = {
    "SECRET_KEY": "q3Z0cFh1bW9yZSByYW5kb20gdGhhbiB0aGlzIQ0-AbCdEfGh",
    "AUTHWRIGHT_ISSUER": "https://auth.example.com",
}


def serve(dotenv: Path | None = None, **environ: str) -> Settings:
    return load_settings("serve", environ={**GOOD, **environ}, dotenv=dotenv)


def problems_of(mode: Any = "serve", **environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load_settings(mode, environ=environ, dotenv=None)
    return caught.value.problems


def test_good_settings_are_taken() -> None:
    settings = serve(PORT="9000", WEB_CONCURRENCY="3", AUTHWRIGHT_DOCS="on", AUTHWRIGHT_HOSTS="a.example, b.example")
    assert (settings.port, settings.workers, settings.docs, settings.hosts) == (
        9000,
        3,
        True,
        ("a.example", "b.example"),
    )
    assert (settings.registration, settings.password_min_length, settings.mode) == ("admin", 15, "serve")


REFUSALS = {
    "no secret": ({"SECRET_KEY": ""}, "SECRET_KEY is required"),
    "short secret": ({"SECRET_KEY": "shortly"}, "shorter than 32"),
    "hex of 16 bytes": ({"SECRET_KEY": "3f9a" * 8}, "shorter than 32"),
    "one letter": ({"SECRET_KEY": "x" * 64}, "not random"),
    "tutorial's": ({"SECRET_KEY": "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7"}, "known example"),
    "placeholder": ({"SECRET_KEY": "please-change-me-please-change-me-please-change-me"}, "known example"),
    "previous weak": ({"SECRET_KEY_PREVIOUS": "weak"}, "SECRET_KEY_PREVIOUS"),
    "no issuer": ({"AUTHWRIGHT_ISSUER": "", "AUTHWRIGHT_HOST": "0.0.0.0"}, "AUTHWRIGHT_ISSUER is required"),
    "http issuer": ({"AUTHWRIGHT_ISSUER": "http://auth.example.com"}, "must be https"),
    "http behind a public bind": (
        {"AUTHWRIGHT_ISSUER": "http://127.0.0.1:8000", "AUTHWRIGHT_HOST": "0.0.0.0"},
        "must be https",
    ),
    "issuer with slash": ({"AUTHWRIGHT_ISSUER": "https://auth.example.com/"}, "trailing slash"),
    "issuer with query": ({"AUTHWRIGHT_ISSUER": "https://auth.example.com?a"}, "without query"),
    "issuer with user": ({"AUTHWRIGHT_ISSUER": "https://a@auth.example.com"}, "without query"),
    "issuer not ASCII": ({"AUTHWRIGHT_ISSUER": "https://aüth.example.com"}, "ASCII"),
    "issuer no URL": ({"AUTHWRIGHT_ISSUER": "auth"}, "URL"),
    "slash in a password": ({"DATABASE_URL": "postgresql://u:top/secret@h/db"}, "%2F"),
    "slash in another": ({"MONGO_URI": "mongodb://u:top/secret@h/db"}, "%2F"),
    "mail by HTTP": ({"SMTP_URL": "https://mail.example.com", "AUTHWRIGHT_MAIL_FROM": "a@example.com"}, "must be smtp"),
    "mail without a host": ({"SMTP_URL": "smtp://", "AUTHWRIGHT_MAIL_FROM": "a@example.com"}, "must be smtp"),
    "mail port": ({"SMTP_URL": "smtp://a:99999", "AUTHWRIGHT_MAIL_FROM": "a@example.com"}, "must be smtp"),
    "mail password": ({"SMTP_URL": "smtp://ada@mail", "AUTHWRIGHT_MAIL_FROM": "a@example.com"}, "must be smtp"),
    "mail from nobody": ({"SMTP_URL": "smtp://mail.example.com"}, "AUTHWRIGHT_MAIL_FROM is required"),
    "mail from two": (
        {"SMTP_URL": "smtp://mail", "AUTHWRIGHT_MAIL_FROM": "a@example.com, b@example.com"},
        "AUTHWRIGHT_MAIL_FROM is required",
    ),
    "mail by nothing": ({"AUTHWRIGHT_MAIL_FROM": "a@example.com"}, "no SMTP_URL"),
    "database": ({"DATABASE_URL": "mysql://x"}, "sqlite:///"),
    "no database on the server": ({"DATABASE_URL": "postgresql://ada:secret@db.example.com"}, "server and database"),
    "no server": ({"DATABASE_URL": "postgres:///authwright"}, "server and database"),
    "database host": ({"DATABASE_URL": "sqlite://host/x.db"}, "sqlite:///"),
    "memory": ({"DATABASE_URL": "sqlite://"}, "in memory"),
    "missing folder": ({"DATABASE_URL": "sqlite:////nowhere/at/all/x.db"}, "not a folder"),
    "issuer with newline": ({"AUTHWRIGHT_ISSUER": "https://auth.example.com\r\nx: y"}, "ASCII URL"),
    "issuer with quote": ({"AUTHWRIGHT_ISSUER": 'https://auth.example.com/"'}, "ASCII URL"),
    "issuer with password": ({"AUTHWRIGHT_ISSUER": "https://:pw@auth.example.com"}, "ASCII URL"),
    "issuer with fragment": ({"AUTHWRIGHT_ISSUER": "https://auth.example.com#"}, "ASCII URL"),
    "issuer with empty query": ({"AUTHWRIGHT_ISSUER": "https://auth.example.com?"}, "ASCII URL"),
    "issuer with a port beyond": ({"AUTHWRIGHT_ISSUER": "https://auth.example.com:99999"}, "ASCII URL"),
    "issuer with half an address": ({"AUTHWRIGHT_ISSUER": "https://[::1"}, "ASCII URL"),
    "issuer in capitals": ({"AUTHWRIGHT_ISSUER": "https://Auth.example.com"}, "ASCII URL"),
    "audience with a blank": ({"AUTHWRIGHT_AUDIENCES": "https://a.example/b c"}, "AUTHWRIGHT_AUDIENCES"),
    "template's secret": ({"SECRET_KEY": "REPLACE_ME_WITH_32_BYTES_OF_SOMETHING_NEW_AND_LONG"}, "known example"),
    "template's words": ({"SECRET_KEY": "<put the output of openssl here, please, ok?>"}, "neither hex nor base64"),
    "digits over and over": ({"SECRET_KEY": "0123456789abcdef" * 5}, "not random"),
    "secret not ASCII": ({"SECRET_KEY": "é" * 50}, "neither hex"),
    "secret not text": ({"SECRET_KEY": "\udcff" * 50}, "neither hex"),
    "most of IPv6": ({"FORWARDED_ALLOW_IPS": "::/8"}, "FORWARDED_ALLOW_IPS"),
    "costly hashes": ({"AUTHWRIGHT_ARGON2_MEMORY_KIB": "262144", "AUTHWRIGHT_ARGON2_PASSES": "9"}, "must not exceed"),
    "host not ASCII": ({"AUTHWRIGHT_HOSTS": "bücher.example"}, "AUTHWRIGHT_HOSTS"),
    "two databases": ({"DATABASE_URL": "sqlite:///x.db", "MONGO_URI": "mongodb://x"}, "DATABASE_URL and MONGO_URI"),
    "MongoDB by another name": ({"MONGO_URI": "postgresql://x/y"}, "MONGO_URI must be a mongodb://"),
    "MongoDB nowhere": ({"MONGO_URI": "mongodb:///x"}, "names no MongoDB server"),
    "any proxy": ({"FORWARDED_ALLOW_IPS": "*"}, "FORWARDED_ALLOW_IPS"),
    "all proxies": ({"FORWARDED_ALLOW_IPS": "0.0.0.0/0"}, "FORWARDED_ALLOW_IPS"),
    "half the net": ({"FORWARDED_ALLOW_IPS": "10.0.0.0/8 0.0.0.0/1"}, "FORWARDED_ALLOW_IPS"),
    "any host": ({"AUTHWRIGHT_HOSTS": "*"}, "AUTHWRIGHT_HOSTS"),
    "weak hashes": ({"AUTHWRIGHT_ARGON2_MEMORY_KIB": "1024"}, "OWASP"),
    "few passes": ({"AUTHWRIGHT_ARGON2_PASSES": "1"}, "OWASP"),
    "short passwords": ({"AUTHWRIGHT_PASSWORD_MIN_LENGTH": "7"}, "AUTHWRIGHT_PASSWORD_MIN_LENGTH"),
    "audience": ({"AUTHWRIGHT_AUDIENCES": "api"}, "AUTHWRIGHT_AUDIENCES"),
    "audience with fragment": ({"AUTHWRIGHT_AUDIENCES": "https://a.example#b"}, "AUTHWRIGHT_AUDIENCES"),
    "idle beyond absolute": ({"AUTHWRIGHT_SESSION_SECONDS": "61", "AUTHWRIGHT_ACCESS_TOKEN_SECONDS": "60"}, "IDLE"),
    "token beyond session": (
        {"AUTHWRIGHT_SESSION_SECONDS": "100", "AUTHWRIGHT_SESSION_IDLE_SECONDS": "100"},
        "ACCESS_TOKEN",
    ),
    "long tokens": ({"AUTHWRIGHT_ACCESS_TOKEN_SECONDS": "604800"}, "from 10 to 3600"),
    "no number": ({"PORT": "80a"}, "PORT must be a whole number"),
    "no port": ({"PORT": "65536"}, "from 1 to 65535"),
    "no switch": ({"AUTHWRIGHT_DOCS": "yes"}, "on, off"),
    "no algorithm": ({"AUTHWRIGHT_SIGNING_ALG": "none"}, "ES256"),
    "misspelt": ({"AUTHWRIGHT_REGISTRATIONS": "open"}, "AUTHWRIGHT_REGISTRATIONS is not a setting"),
    "two names": ({"PORT": "1", "AUTHWRIGHT_PORT": "2"}, "AUTHWRIGHT_PORT and PORT are both set"),
    "value and file": ({"SECRET_KEY_FILE": "/nowhere"}, "SECRET_KEY and SECRET_KEY_FILE are both set"),
    "no file": ({"SECRET_KEY": "", "SECRET_KEY_FILE": "/nowhere"}, "cannot be read"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_r170_each_problem_forbids_the_start(name: str) -> None:
    environ, expected = REFUSALS[name]
    problems = problems_of(**{**GOOD, **environ})
    assert any(expected in problem for problem in problems), problems


def test_r88_only_the_five_algorithms_sign_and_a_shared_secret_only_when_it_is_chosen() -> None:
    assert serve().signing_alg == "ES256"
    for alg in ("RS256", "PS256", "EdDSA", "HS256"):
        assert serve(AUTHWRIGHT_SIGNING_ALG=alg).signing_alg == alg
    for alg in ("RSA1_5", "none", "HS384", "HS512", "RS384", "ES512", "es256", "*"):
        assert problems_of(**GOOD, AUTHWRIGHT_SIGNING_ALG=alg)


DEV_REFUSALS = {
    "public bind": ({"AUTHWRIGHT_HOST": "0.0.0.0"}, "loopback"),
    "proxy": ({"FORWARDED_ALLOW_IPS": "127.0.0.1"}, "forwarded"),
    "workers": ({"WEB_CONCURRENCY": "2"}, "must be 1"),
    "issuer elsewhere": ({"AUTHWRIGHT_ISSUER": "http://auth.example.com"}, "https"),
}


@pytest.mark.parametrize("name", DEV_REFUSALS)
def test_dev_refuses_what_would_open_it_to_others(name: str) -> None:
    environ, expected = DEV_REFUSALS[name]
    assert any(expected in problem for problem in problems_of("dev", **environ))


def test_every_problem_is_named_at_once() -> None:
    problems = problems_of(
        SECRET_KEY="changeme",
        SECRET_KEY_PREVIOUS="short",
        AUTHWRIGHT_ISSUER="http://auth.example.com",
        DATABASE_URL="mysql://x",
        MONGO_URI="mongodb://x",
        FORWARDED_ALLOW_IPS="*",
        AUTHWRIGHT_HOSTS="*",
        AUTHWRIGHT_ARGON2_MEMORY_KIB="8",
        AUTHWRIGHT_AUDIENCES="api",
        AUTHWRIGHT_DOC="on",
        PORT="x",
    )
    assert len(problems) == 11


def test_no_problem_repeats_a_secret() -> None:
    text = "\n".join(problems_of(SECRET_KEY="hunter2-hunter2", SECRET_KEY_PREVIOUS="swordfish"))
    assert "hunter2" not in text
    assert "swordfish" not in text


def test_secrets_are_not_shown_by_repr() -> None:
    settings = serve(SECRET_KEY_PREVIOUS=new_secret_key())
    assert settings.secret_key not in repr(settings)
    assert settings.secret_key_previous not in repr(settings)


def test_generated_secrets_are_good_ones() -> None:
    for _ in range(200):
        secret = new_secret_key()
        assert len(secret) == 43
        assert secret_key_problem(secret) in (None, "is a known example")
    assert secret_key_problem("0f" * 16 + "1e2d3c4b5a69788796a5b4c3d2e1f0ab") is None


def test_the_environment_beats_dotenv_and_files_hold_secrets(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(GOOD["SECRET_KEY"] + "\n")
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"SECRET_KEY_FILE={secret}\nAUTHWRIGHT_ISSUER=https://a.example\nPORT=1234\n")
    settings = load_settings("serve", environ={"PORT": "4321"}, dotenv=dotenv)
    assert (settings.secret_key, settings.issuer, settings.port) == (GOOD["SECRET_KEY"], "https://a.example", 4321)


def test_a_name_in_the_environment_beats_another_spelling_in_dotenv(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("PORT=1234\nAUTHWRIGHT_WORKERS=3\n")
    settings = load_settings("serve", environ={**GOOD, "AUTHWRIGHT_PORT": "1", "WEB_CONCURRENCY": "2"}, dotenv=dotenv)
    assert (settings.port, settings.workers) == (1, 2)


def test_arguments_are_checked_like_settings() -> None:
    for port in (0, 65536):
        with pytest.raises(SettingsError):
            load_settings("dev", environ={}, dotenv=None, port=port)


def test_a_default_issuer_exists_on_loopback_only() -> None:
    assert load_settings("dev", environ={}, dotenv=None).issuer == "http://127.0.0.1:8000"
    assert load_settings("dev", environ={}, dotenv=None, port=8123).issuer == "http://127.0.0.1:8123"
    with pytest.raises(SettingsError):
        load_settings("serve", environ={"SECRET_KEY": GOOD["SECRET_KEY"]}, dotenv=None, host="0.0.0.0")


def test_dev_defaults_give_way_to_what_is_asked_for() -> None:
    assert Settings.dev().docs
    assert not Settings.dev(docs=False).docs
    settings = load_settings("dev", environ={"AUTHWRIGHT_DOCS": "off", "AUTHWRIGHT_REGISTRATION": "admin"}, dotenv=None)
    assert (settings.docs, settings.registration) == (False, "admin")


def test_a_database_that_others_can_read_is_refused(tmp_path: Path) -> None:
    database = tmp_path / "a.db"
    database.touch(0o644)
    database.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        serve(DATABASE_URL=f"sqlite:///{database}")
    database.chmod(0o600)
    assert serve(DATABASE_URL=f"sqlite:///{database}").database_path == database


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("", Path("authwright-data/authwright.db")),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("sqlite:///x/y.db", Path("x/y.db")),
        ("sqlite:////var/y.db", Path("/var/y.db")),
    ],
)
def test_the_database_is_chosen_by_its_url(url: str, path: Path | None) -> None:
    assert Settings(database_url=url).database_path == path


def test_settings_are_one_frozen_value() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]
    with pytest.raises(SettingsError):
        check_settings(Settings(host="0.0.0.0"))


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_a_database_is_named_without_its_password(scheme: str) -> None:
    settings = serve(DATABASE_URL=f"{scheme}://ada:opensesame@db1:5432,db2/authwright?sslmode=require")
    assert not settings.is_sqlite
    assert settings.database_name == "postgresql://db1:5432,db2/authwright"
    assert "opensesame" not in repr(settings)
