"""deploy/nginx.conf in a real nginx: what Authwright refuses arrives as it was meant, and nothing passes for it."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from authwright.domain.secrets import CLIENT_KEY_PREFIX, new_key
from processes import Running, free_port, production_environment, program, run, serving

ROOT = Path(__file__).parents[2]
ECHO = ROOT / "tests/echo.py"
FORM = {"username": "ada", "password": "a long and unusual passphrase"}
API = "https://api.example.com"
_CURL = ("curl", "-sS", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}")


@dataclass
class Setup:
    auth: Running
    environment: dict[str, str]
    base: str

    def http(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.base, timeout=10)

    def login(self, **more: str) -> dict[str, Any]:
        with self.auth.http() as http:
            answer = http.post("/login", data={**FORM, **more})
            assert answer.status_code == 200, answer.text
            return dict(answer.json())

    def command(self, *arguments: str) -> Any:
        return json.loads(run(self.auth.folder, *arguments, "--json", **self.environment).stdout)


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    folder = tmp_path_factory.mktemp("nginx")
    auth_port, api_port, port, judged_port = (free_port() for _ in range(4))
    plans = folder / "plans.toml"
    plans.write_text(
        '[free]\npermissions = ["predict"]\nrate = "unlimited"\n[tiny]\npermissions = ["predict"]\nrate = "2/hour"\n'
    )
    environment = production_environment(
        auth_port,
        AUTHWRIGHT_MODE="serve",
        AUTHWRIGHT_AUDIENCES=API,
        AUTHWRIGHT_HOSTS="auth.example.com",
        AUTHWRIGHT_PLANS=str(plans),
        FORWARDED_ALLOW_IPS="127.0.0.1",
    )
    text = (ROOT / "deploy/nginx.conf").read_text(encoding="utf-8")
    for shipped, here in (
        ("127.0.0.1:8000", f"127.0.0.1:{auth_port}"),
        ("127.0.0.1:9000", f"127.0.0.1:{api_port}"),
        ("listen 8080", f"listen 127.0.0.1:{port}"),
        ("server 127.0.0.1:8081", f"server 127.0.0.1:{judged_port}"),
        ("listen 127.0.0.1:8081", f"listen 127.0.0.1:{judged_port}"),
        ("client_header_timeout 10s", "client_header_timeout 1s"),
        ("worker_processes auto;", f"daemon off;\nuser root;\npid {folder}/pid;\nerror_log {folder}/nginx.log;"),
    ):
        assert text.count(shipped) == 1
        text = text.replace(shipped, here)
    paths = "\n".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = text.replace("http {", f"http {{\naccess_log off;\n{paths}", 1)
    configuration = folder / "nginx.conf"
    configuration.write_text(text)
    with serving(folder, "serve", port=auth_port, **environment) as auth:
        with auth.http() as http:
            assert http.post("/register", json=FORM).status_code == 201
        command = ["nginx", "-p", str(folder), "-c", str(configuration), "-e", f"{folder}/nginx.log"]
        api, base = f"http://127.0.0.1:{api_port}/", f"http://127.0.0.1:{port}"
        with (
            program(folder / "echo.log", sys.executable, ECHO, str(api_port), at=api),
            program(folder / "nginx.out", *command, at=f"{base}/"),
        ):
            yield Setup(auth, environment, base)


pytestmark = pytest.mark.program("nginx")


def test_who_may_pass_is_told_to_the_api_and_nobody_else_is(setup: Setup) -> None:
    token = setup.login()["access_token"]
    key = setup.command("clients", "create", "scoring")["client_key"]
    spoofed = {"X-Auth-Subject": "usr_root", "X-Auth-Roles": "admin", "X-Auth-Plan": "admin", "X_Auth_Subject": "root"}
    spoofed |= {"X.Auth.Subject": "root", "X!Auth!Subject": "root", "Connection": "X-Auth-Subject, X-Auth-Roles"}
    nobodys = {"x-auth-user", "x-auth-email", "x-auth-reason", "x-auth-status", "x-forwarded-user", "remote-user"}
    nobodys |= {"x-forwarded-email", "x-forwarded-uri", "x-original-uri", "x-original-url", "x-real-ip", "forwarded"}
    spoofed |= dict.fromkeys(sorted(nobodys - {"x-forwarded-uri", "x-original-uri", "x-original-url"}), "admin")
    # One that is ambiguous would be refused, if it came as far as Authwright.
    spoofed |= dict.fromkeys(
        ("x-forwarded-uri", "x-original-uri", "x-original-url", "x-envoy-original-path"), "/a/../b"
    )
    spoofed |= {"X-Auth-Client": "cli_root", "X-Auth-Scope": "admin", "X-Auth-Username": ""}
    with setup.http() as http:
        for credential in (
            {"authorization": f"Bearer {token}"},
            {"authorization": f"Bearer {key}"},
            {"x-api-key": key},
        ):
            answer = http.post("/models/predict?x=1", headers={**credential, **spoofed}, content=b"input")
            assert answer.status_code == 200, answer.text
            told = answer.json()
            assert (told["path"], told["body"]) == ("/models/predict?x=1", "input")
            headers = told["headers"]
            assert headers["x-auth-plan"] == "free"
            assert headers["x-auth-roles"] == "user"
            assert re.fullmatch("(usr|cli)_.*", headers["x-auth-subject"])
            assert re.fullmatch("(usr|cli)_(?!root).*", headers["x-auth-client"])
            assert headers["x-auth-username"] in ("ada", "scoring")
            assert headers["x-auth-scope"] in ("account predict", "predict")
            assert (
                not {"authorization", "x-api-key", "x_auth_subject", "x.auth.subject", "x!auth!subject", *nobodys}
                & headers.keys()
            )
        # Also as the password of HTTP Basic, for programs that know nothing else.
        assert http.get("/", auth=("anything", key)).json()["headers"]["x-auth-username"] == "scoring"
        # What the API itself refuses is its own.
        own = http.get("/own-refusal", headers={"authorization": f"Bearer {token}"})
        assert (own.status_code, own.json()["path"]) == (403, "/own-refusal")


def test_refusals_arrive_as_they_were_meant(setup: Setup) -> None:
    with setup.http() as http:
        refused = http.get("/")
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_token")
        realm = f'realm="{setup.auth.base}"'
        assert refused.headers.get_list("www-authenticate") == [f'Bearer {realm}, Basic {realm}, charset="UTF-8"']
        wrong = http.get("/", headers={"authorization": "Bearer x"})
        assert (wrong.status_code, "invalid_token" in wrong.headers["www-authenticate"]) == (401, True)
        narrow = setup.login(scope="account")["access_token"]
        refused = http.get("/", headers={"authorization": f"Bearer {narrow}"})
        assert (refused.status_code, refused.json()["error"]) == (403, "insufficient_scope")
        assert 'scope="predict"' in refused.headers["www-authenticate"]
        other = setup.login(resource=API)["access_token"]
        assert http.get("/", headers={"authorization": f"Bearer {other}"}).status_code == 401
        two = http.get("/", headers={"authorization": "Bearer x", "x-api-key": "y"})
        assert (two.status_code, two.json()["error"]) == (400, "invalid_request")
        for each in (wrong, refused, two):
            # All of the answer, as Authwright gives it itself.
            told = each.json()
            assert (told["status"], told["type"]) == (each.status_code, f"urn:authwright:error:{told['error']}")
            assert {"title", "detail", "request_id"} <= told.keys()
            assert each.headers["content-type"] == "application/problem+json"
            assert each.headers["cache-control"] == "no-store"


def test_what_asks_about_a_request_is_not_for_anybody_to_ask(setup: Setup) -> None:
    with setup.http() as http:
        for path in ("/_auth", "/_auth?proxy=nginx"):
            answer = http.get(path, headers={"authorization": f"Bearer {setup.login()['access_token']}"})
            assert answer.status_code == 404
            assert not [name for name in answer.headers if name.startswith("x-auth-")]


def test_the_limits_of_a_plan_are_told_and_their_refusal_arrives_whole(setup: Setup) -> None:
    key = setup.command("clients", "create", "narrow", "--plan", "tiny")["client_key"]
    with setup.http() as http:
        answers = [http.get("/", headers={"x-api-key": key}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        for answer in answers:
            assert answer.headers["ratelimit-policy"] == '"rate";q=2;w=3600'
            assert answer.headers["ratelimit"].startswith('"rate";r=')
        told = answers[2].json()
        assert (told["error"], told["limit"], told["violated-policies"]) == ("limit_exceeded", "rate", ["rate"])
        assert told["opens_at"]
        assert 0 < int(answers[2].headers["retry-after"]) <= 3600


def test_programs_that_wait_to_be_asked_for_basic_get_through(setup: Setup) -> None:
    key = setup.command("clients", "create", "old program")["client_key"]
    done = subprocess.run(
        [*_CURL, "--anyauth", "-u", f"anything:{key}", setup.base + "/"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "200"
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, setup.base, "anything", key)
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords))
    with opener.open(setup.base + "/", timeout=10) as answer:
        assert json.load(answer)["headers"]["x-auth-username"] == "old program"


def test_what_is_too_large_or_too_slow_ends_at_the_proxy(setup: Setup) -> None:
    token = setup.login()["access_token"]
    headers = {"authorization": f"Bearer {token}"}
    with setup.http() as http:
        assert http.post("/", headers=headers, content=b"x" * 1_000_000).status_code == 200
        assert http.post("/", headers=headers, content=b"x" * 1_100_000).status_code == 413
    with socket.create_connection(("127.0.0.1", urlsplit(setup.base).port or 0), timeout=30) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: api.example.com\r\nX-")
        waiting = time.monotonic()
        while client.recv(4096):
            pass
        assert time.monotonic() - waiting < 8


def test_a_logout_is_refused_from_the_answer_on(setup: Setup) -> None:
    token = setup.login()["access_token"]
    headers = {"authorization": f"Bearer {token}"}
    with setup.http() as http, setup.auth.http() as auth:
        assert http.get("/", headers=headers).status_code == 200
        assert auth.post("/logout", headers=headers).status_code == 200
        assert http.get("/", headers=headers).status_code == 401


def test_r102_a_request_that_began_before_the_logout_and_is_whole_after_it_is_refused(setup: Setup) -> None:
    token = setup.login()["access_token"]
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 8\r\n\r\nxxxx"
    with (
        socket.create_connection(("127.0.0.1", urlsplit(setup.base).port or 0), timeout=5) as whole,
        socket.create_connection(("127.0.0.1", urlsplit(setup.base).port or 0), timeout=5) as slow,
    ):
        slow.sendall(head.encode())
        # nginx has long read the one when it answers the other.
        whole.sendall(head.encode() + b"xxxx")
        assert whole.recv(12) == b"HTTP/1.1 200"
        with setup.auth.http() as auth:
            assert auth.post("/logout", headers={"authorization": f"Bearer {token}"}).status_code == 200
        slow.sendall(b"xxxx")
        assert slow.recv(12) == b"HTTP/1.1 401"


def test_cve_2026_33494_paths_that_could_mean_two_places_are_refused(setup: Setup) -> None:
    token = setup.login()["access_token"]
    for path in (
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public/.%2E/admin",
        "//admin",
        "/public//admin",
        "/public%2f..%2fadmin",
        "/public%5cadmin",
        "/public/%252e%252e/admin",
        "/public/..;/admin",
    ):
        done = subprocess.run(
            [*_CURL, "-H", f"Authorization: Bearer {token}", setup.base + path],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "400", path


def test_a_wrong_key_is_slowed_down_with_its_time(setup: Setup) -> None:
    # Late in this file: afterwards the network is closed for wrong keys for a while.
    with setup.http() as http:
        for number in range(200):
            # Whatever network the caller claims to come from.
            claimed = dict.fromkeys(("x-real-ip", "x-forwarded-for", "forwarded"), f"203.0.113.{number}")
            refused = http.get("/", headers={"x-api-key": new_key(CLIENT_KEY_PREFIX), **claimed})
            if refused.status_code == 429:
                break
            assert refused.status_code == 401
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["error"] == "too_many_attempts"


def test_while_authwright_is_away_nobody_passes(setup: Setup) -> None:
    token = setup.login()["access_token"]
    setup.auth.stop()
    with setup.http() as http:
        refused = http.get("/", headers={"authorization": f"Bearer {token}"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"] == "temporarily_unavailable"
