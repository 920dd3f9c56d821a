"""The shipped configurations of nginx and Caddy before Authwright, and of Caddy before an API, in the real ones."""

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from certificates import certificate
from processes import Running, free_port, production_environment, run, serving

DEPLOY = Path(__file__).parents[2] / "deploy"
ECHO = Path(__file__).parents[1] / "echo.py"
FORM = {"username": "ada", "password": "a long and unusual passphrase"}


@dataclass
class Proxied:
    auth: Running
    env: dict[str, str]
    port: int
    tls: ssl.SSLContext | None
    api: int = 0

    @property
    def base(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def http(self, **more: str) -> httpx2.Client:
        headers = {"host": "auth.example.com", **more}
        return httpx2.Client(base_url=self.base, verify=self.tls or True, headers=headers, timeout=20)

    def connect(self) -> socket.socket:
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        return raw if self.tls is None else self.tls.wrap_socket(raw, server_hostname="127.0.0.1")


def changed(text: str, *changes: tuple[str, str]) -> str:
    for shipped, here in changes:
        assert shipped in text, shipped
        text = text.replace(shipped, here)
    return text


@contextmanager
def authwright(folder: Path) -> Iterator[tuple[Running, dict[str, str]]]:
    port = free_port()
    env = production_environment(
        port,
        AUTHWRIGHT_ISSUER="https://auth.example.com",
        FORWARDED_ALLOW_IPS="127.0.0.1",
        AUTHWRIGHT_REGISTRATIONS_PER_HOUR="0",
    )
    (folder / "plans.toml").write_text('[free]\npermissions = ["predict"]\nrate = "3/hour"\n')
    env["AUTHWRIGHT_PLANS"] = str(folder / "plans.toml")
    with serving(folder, "serve", port=port, **env) as running:
        yield running, env


@contextmanager
def nginx(folder: Path) -> Iterator[Proxied]:
    port, pem = free_port(), certificate(folder, "127.0.0.1")
    with authwright(folder) as (auth, env):
        paths = "".join(
            f"{kind}_temp_path {folder}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = changed(
            (DEPLOY / "nginx-issuer.conf").read_text(),
            ("server 127.0.0.1:8000", f"server {auth.base.removeprefix('http://')}"),
            ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
            ("/etc/ssl/auth.example.com.pem", str(pem)),
            ("client_header_timeout 10s", "client_header_timeout 1s"),
            ("client_body_timeout 15s", "client_body_timeout 1s"),
            ("worker_processes auto;", f"daemon off;\nuser root;\npid {folder}/pid;\nerror_log {folder}/nginx.log;"),
            ("http {\n", f"http {{\naccess_log off;\n{paths}\n"),
        )
        (folder / "nginx.conf").write_text(text)
        command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", f"{folder}/nginx.log"]
        process = subprocess.Popen(command)
        try:
            proxied = Proxied(auth, env, port, ssl.create_default_context(cafile=pem))
            wait_until_it_listens(port)
            yield proxied
        finally:
            process.terminate()
            process.wait(10)


@contextmanager
def caddy(folder: Path) -> Iterator[Proxied]:
    port, api_port, backend = free_port(), free_port(), free_port()
    with authwright(folder) as (auth, env):
        text = changed(
            (DEPLOY / "Caddyfile").read_text(),
            ("127.0.0.1:8000", auth.base.removeprefix("http://")),
            ("127.0.0.1:9000", f"127.0.0.1:{backend}"),
            ("\nauth.example.com {", f"\nhttp://:{port} {{\n\tbind 127.0.0.1"),
            ("\napi.example.com {", f"\nhttp://:{api_port} {{\n\tbind 127.0.0.1"),
            ("read_header 10s", "read_header 1s"),
            ("read_body 15s", "read_body 1s"),
            ("{\n\tservers {", "{\n\tadmin off\n\tauto_https off\n\tservers {"),
        )
        (folder / "Caddyfile").write_text(text)
        api = subprocess.Popen([sys.executable, ECHO, str(backend)])
        command = ["caddy", "run", "--config", folder / "Caddyfile", "--adapter", "caddyfile"]
        with (folder / "caddy.log").open("w") as log:
            process = subprocess.Popen(
                command, env={"HOME": str(folder), "PATH": os.environ["PATH"]}, stdout=log, stderr=log
            )
        try:
            for each in (port, api_port, backend):
                wait_until_it_listens(each)
            yield Proxied(auth, env, port, None, api_port)
        finally:
            for each in (process, api):
                each.terminate()
                each.wait(10)


def wait_until_it_listens(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(nginx, marks=pytest.mark.program("nginx"), id="nginx"),
        pytest.param(caddy, marks=pytest.mark.program("caddy"), id="caddy"),
    ],
)
def proxied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    with request.param(tmp_path_factory.mktemp("proxy")) as running:
        with running.http() as http:
            assert http.post("/register", json=FORM).status_code == 201
        yield running


def test_callers_are_known_by_their_own_address(proxied: Proxied) -> None:
    with proxied.http(**{"x-forwarded-for": "203.0.113.9", "forwarded": "for=203.0.113.9"}) as http:
        login = http.post("/login", data=FORM).json()
        sessions = http.get("/me/sessions", headers={"authorization": f"Bearer {login['access_token']}"}).json()
    # Not the one that they say they have.
    assert {each["address"] for each in sessions["sessions"]} == {"127.0.0.1"}


def test_a_large_body_is_refused_before_it_is_read(proxied: Proxied) -> None:
    with proxied.http() as http:
        try:
            answer = http.post("/login", content=b"x" * 300_000, headers={"content-type": "application/json"})
            status = answer.status_code
            # The proxy's own answer; Caddy has passed the beginning on, and Authwright may have refused it.
            assert "x-request-id" not in answer.headers or not proxied.tls
        except httpx2.TransportError:
            status = 0
    if proxied.tls:
        assert status == 413
    else:
        # Caddy 2.6 cuts the body off, takes that for a fault of the server behind it, and may close while it is sent.
        assert status in (0, 413, 502)


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"GET /health HTTP/1.1\r\nHost: auth.exa", id="head"),
        pytest.param(b"POST /login HTTP/1.1\r\nHost: auth.example.com\r\nContent-Length: 99\r\n\r\nx", id="body"),
    ],
)
def test_a_slow_client_is_cut_off(proxied: Proxied, begun: bytes) -> None:
    with proxied.connect() as client:
        client.sendall(begun)
        waiting = time.monotonic()
        while client.recv(4096):
            pass
        # Before Authwright itself would do it.
        assert time.monotonic() - waiting < 8


def test_the_feed_is_passed_on_as_it_comes(proxied: Proxied) -> None:
    made = run(proxied.auth.folder, "clients", "create", "guard", "--scope", "revocations", "--json", **proxied.env)
    key = json.loads(made.stdout)["client_key"]
    headers = {"authorization": f"Bearer {key}", "accept": "text/event-stream"}
    with proxied.http() as http, http.stream("GET", "/revocations", headers=headers) as feed:
        lines = feed.iter_lines()
        assert "snapshot" in next(line for line in lines if line)
        login = http.post("/login", data=FORM).json()
        http.post("/logout", headers={"authorization": f"Bearer {login['access_token']}"})
        ended = time.monotonic()
        session = next(line for line in lines if '"session"' in line)
        assert session
        assert time.monotonic() - ended < 2


@pytest.mark.program("caddy")
def test_caddy_protects_an_api_that_knows_no_tokens(tmp_path: Path) -> None:
    with caddy(tmp_path) as proxied, httpx2.Client(base_url=f"http://127.0.0.1:{proxied.api}") as api:
        with proxied.http() as http:
            http.post("/register", json=FORM)
            token = http.post("/login", data=FORM).json()["access_token"]
        spoofed = (
            "X-Auth-Subject",
            "X-Auth-Roles",
            "X_Auth_Subject",
            "X-Auth_Subject",
            "Remote_User",
            "Remote-User",
            "X-Real-IP",
        )
        headers = {"authorization": f"Bearer {token}", "x-api-key": "", **dict.fromkeys(spoofed, "root")}
        refused = api.get("/models", headers=dict.fromkeys(spoofed, "root"))
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_token")
        assert refused.headers["www-authenticate"].startswith("Bearer")
        del headers["x-api-key"]
        told = api.get("/models", headers=headers).json()["headers"]
        assert (told["x-auth-plan"], told["x-auth-roles"], told["x-auth-username"]) == ("free", "user", "ada")
        assert told["x-auth-subject"].startswith("usr_")
        assert not [name for name, value in told.items() if value == "root"]
        assert not {"authorization", "x-api-key"} & told.keys()
        with contextlib.suppress(httpx2.TransportError):
            # It may close while this is sent.
            assert api.post("/models", headers=headers, content=b"x" * 1_100_000).status_code in (413, 502)
        limited = [api.get("/models", headers=headers) for _ in range(3)][-1]
        assert (limited.status_code, limited.json()["error"]) == (429, "limit_exceeded")
        assert int(limited.headers["retry-after"]) > 600
        assert api.get("/models/../admin", headers=headers).status_code in (400, 429)
