"""Proxies with the shipped files: nginx and Caddy before Authwright; Caddy, Traefik and Envoy before an API."""

import contextlib
import json
import os
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from certificates import certificate
from processes import Running, free_port, production_environment, program, run, serving, wait_for

DEPLOY = Path(__file__).parents[2] / "deploy"
ECHO = Path(__file__).parents[1] / "echo.py"
PRODUCTS = Path(__file__).parents[2] / ".venv/products/bin"
FORM = {"username": "ada", "password": "a long and unusual passphrase"}


@dataclass
class Proxied:
    auth: Running
    env: dict[str, str]
    port: int
    tls: ssl.SSLContext | None
    api: int = 0
    limits_bodies: bool = True

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
        AUTHWRIGHT_HOSTS=f"127.0.0.1:{port},api.example.com",
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
        with program(folder / "nginx.out", *command, at=f"http://127.0.0.1:{port}/"):
            yield Proxied(auth, env, port, ssl.create_default_context(cafile=pem))


@contextmanager
def echo(folder: Path) -> Iterator[int]:
    """An API that says what it was sent, and its port."""
    port = free_port()
    with program(folder / "echo.log", sys.executable, ECHO, str(port), at=f"http://127.0.0.1:{port}/"):
        yield port


@contextmanager
def started(folder: Path, port: int, *command: str | Path) -> Iterator[None]:
    """The proxy, which writes nowhere but into *folder*."""
    env = {"HOME": str(folder), "PATH": os.environ["PATH"]}
    with program(folder / "proxy.log", *command, env=env, at=f"http://127.0.0.1:{port}/"):
        yield


@contextmanager
def caddy(folder: Path) -> Iterator[Proxied]:
    port, api_port = free_port(), free_port()
    with authwright(folder) as (auth, env), echo(folder) as backend:
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
        with started(folder, port, "caddy", "run", "--config", folder / "Caddyfile", "--adapter", "caddyfile"):
            wait_for(f"http://127.0.0.1:{api_port}/")
            yield Proxied(auth, env, port, None, api_port)


@contextmanager
def traefik(folder: Path) -> Iterator[Proxied]:
    port = free_port()
    with authwright(folder) as (auth, env), echo(folder) as backend:
        static = changed(
            (DEPLOY / "traefik/traefik.yml").read_text(),
            ('":8080"', f'"127.0.0.1:{port}"'),
            ("deploy/traefik/api.yml", str(folder / "api.yml")),
        )
        dynamic = changed(
            (DEPLOY / "traefik/api.yml").read_text(),
            ("http://127.0.0.1:8000", auth.base),
            ("127.0.0.1:9000", f"127.0.0.1:{backend}"),
        )
        (folder / "traefik.yml").write_text(static)
        (folder / "api.yml").write_text(dynamic)
        with started(folder, port, PRODUCTS / "traefik", f"--configFile={folder / 'traefik.yml'}"):
            # It listens before it has read where requests go, and knows no page until then.
            wait_for(f"http://127.0.0.1:{port}/models", host="api.example.com", but=404)
            yield Proxied(auth, env, int(auth.base.rpartition(":")[2]), None, port, limits_bodies=False)


@contextmanager
def envoy(folder: Path) -> Iterator[Proxied]:
    port = free_port()
    with authwright(folder) as (auth, env), echo(folder) as backend:
        text = changed(
            (DEPLOY / "envoy.yaml").read_text(),
            ("address: 0.0.0.0, port_value: 8080", f"address: 127.0.0.1, port_value: {port}"),
            ("http://127.0.0.1:8000", auth.base),
            ("port_value: 8000", f"port_value: {auth.base.rpartition(':')[2]}"),
            ("port_value: 9000", f"port_value: {backend}"),
        )
        (folder / "envoy.yaml").write_text(text)
        with started(
            folder, port, PRODUCTS / "envoy", "-c", folder / "envoy.yaml", "--concurrency", "1", "--disable-hot-restart"
        ):
            yield Proxied(auth, env, int(auth.base.rpartition(":")[2]), None, port)


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
        # Of a type that Authwright waits for: an answer before the body is another story (Go's server then forgets
        # the time limit now and again).
        pytest.param(
            b"POST /login HTTP/1.1\r\nHost: auth.example.com\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            b"Content-Length: 99\r\n\r\nx",
            id="body",
        ),
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


@pytest.mark.program("nginx")
def test_no_network_fills_the_memory_of_the_guards(tmp_path: Path) -> None:
    with nginx(tmp_path) as proxied, proxied.http() as http:

        def passed(path: str, **data: str) -> int:
            """How many requests came through, before the proxy answered one by itself."""
            for number in range(5000):
                answer = http.post(path, data=data)
                if "x-request-id" not in answer.headers:
                    assert (answer.status_code, answer.json()["error"]) == (429, "too_many_attempts")
                    assert (answer.headers["retry-after"], answer.headers["content-type"]) == ("1", "application/json")
                    return number
            raise AssertionError("nothing was refused")

        began = time.monotonic()
        assert 500 < passed("/login", api_key="x") <= 502 + 50 * (time.monotonic() - began)
        assert passed("/revoke", token="x") < 100
        # An ending is never refused, nor what guards and readers ask.
        for method, path in (("POST", "/logout"), ("POST", "/refresh-token"), ("POST", "/introspect"), ("GET", "/me")):
            assert "x-request-id" in http.request(method, path).headers


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(caddy, marks=pytest.mark.program("caddy"), id="caddy"),
        pytest.param(traefik, marks=pytest.mark.made(".venv/products/installed"), id="traefik"),
        pytest.param(envoy, marks=pytest.mark.made(".venv/products/installed"), id="envoy"),
    ],
)
def protecting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    with request.param(tmp_path_factory.mktemp("protecting")) as running:
        yield running


def api_of(protecting: Proxied) -> httpx2.Client:
    return httpx2.Client(base_url=f"http://127.0.0.1:{protecting.api}", headers={"host": "api.example.com"}, timeout=20)


def new_caller(protecting: Proxied, name: str) -> dict[str, str]:
    """The header with a token of somebody who has called nothing yet."""
    form = {"username": name, "password": "a long and unusual passphrase"}
    with protecting.http() as http:
        assert http.post("/register", json=form).status_code == 201
        return {"authorization": f"Bearer {http.post('/login', data=form).json()['access_token']}"}


def test_r176_who_may_pass_is_told_to_the_api_and_nobody_else_is(protecting: Proxied) -> None:
    spoofed = dict.fromkeys(
        (
            "X-Auth-Subject",
            "X-Auth-Roles",
            "X-Auth-Status",
            "X-Auth-User",
            "X.Auth.Subject",
            "X!Auth!Subject",
            "X~Auth~Subject",
            "X*Auth*Subject",
            "X`Auth`Subject",
            "X-Rewrite-URL",
            "X-Original-URL",
            "X-Forwarded-User",
            "X-Forwarded-Email",
            "X-Forwarded-Uri",
            "Remote-User",
            "X-Real-IP",
        ),
        "root",
    )
    underscored = dict.fromkeys(("X_Auth_Subject", "X-Auth_Subject", "Remote_User"), "root")
    caller = new_caller(protecting, "ada")
    with api_of(protecting) as api:
        dropping = {**caller, "connection": "X-Auth-Subject, X-Auth-Roles, X-Auth-Plan, X-Auth-Username"}
        for headers in ({**caller, **spoofed}, {**caller, **spoofed, **underscored, "x-api-key": ""}, dropping):
            answer = api.post("/models?x=1", headers=headers, content=b"input")
            if answer.status_code == 400 and headers.keys() & underscored.keys():
                # Envoy refuses those.
                continue
            assert answer.status_code == 200, answer.text
            assert (answer.json()["path"], answer.json()["body"]) == ("/models?x=1", "input")
            told = answer.json()["headers"]
            assert (told["x-auth-plan"], told["x-auth-roles"], told["x-auth-username"]) == ("free", "user", "ada")
            assert told["x-auth-subject"].startswith("usr_")
            assert not [name for name, value in told.items() if "root" in value]
            assert not {"authorization", "x-api-key", "x-auth-status"} & told.keys()


def test_no_connection_is_upgraded(protecting: Proxied) -> None:
    """It would never be judged again."""
    caller = new_caller(protecting, "upgrader")
    for upgrade in ("h2c", "websocket", "other"):
        headers = {**caller, "connection": "Upgrade, HTTP2-Settings", "upgrade": upgrade, "http2-settings": "AAMAAABk"}
        with api_of(protecting) as api:
            answer = api.get("/models", headers=headers)
        assert answer.status_code in (200, 400, 403)
        assert answer.status_code != 200 or "upgrade" not in answer.json()["headers"]


def test_r176_a_caller_has_no_other_address_than_its_own(protecting: Proxied) -> None:
    caller = new_caller(protecting, "elsewhere")
    spoofed = {"x-forwarded-for": "203.0.113.9", "forwarded": "for=203.0.113.9", "x-forwarded-host": "203.0.113.9"}
    with api_of(protecting) as api:
        told = api.get("/models", headers={**caller, **spoofed}).json()["headers"]
    assert "203.0.113.9" not in str({name: value for name, value in told.items() if not name.endswith("-host")})
    assert "203.0.113.9" not in protecting.auth.log.read_text()


def test_a_stream_is_passed_on_as_it_comes(protecting: Proxied) -> None:
    with api_of(protecting) as api:
        with api.stream("GET", "/stream", headers=new_caller(protecting, "streamer")) as answer:
            assert next(answer.iter_lines()) == "first"
            # The API sends the second line when it is asked to, by another request.
            assert api.get("/go-on", headers=new_caller(protecting, "other")).status_code == 200


def test_a_key_passes_in_all_its_forms(protecting: Proxied) -> None:
    made = run(protecting.auth.folder, "clients", "create", "scoring", "--json", **protecting.env)
    key = json.loads(made.stdout)["client_key"]
    with api_of(protecting) as api:
        for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
            assert api.get("/", headers=headers).json()["headers"]["x-auth-username"] == "scoring"
        assert api.get("/", auth=("anything", key)).json()["headers"]["x-auth-username"] == "scoring"


def test_refusals_arrive_as_they_were_meant(protecting: Proxied) -> None:
    caller = new_caller(protecting, "grace")
    with api_of(protecting) as api:
        for headers in ({}, dict.fromkeys(("X-Auth-Subject", "X_Auth_Subject"), "root")):
            refused = api.get("/models", headers=headers)
            if refused.status_code != 400 or "X_Auth_Subject" not in headers:
                assert (refused.status_code, refused.json()["error"]) == (401, "invalid_token")
                assert refused.headers["www-authenticate"].startswith("Bearer")
        limited = [api.get("/models", headers=caller) for _ in range(4)][-1]
        assert (limited.status_code, limited.json()["error"]) == (429, "limit_exceeded")
        assert int(limited.headers["retry-after"]) > 600


@pytest.mark.parametrize(
    "path", ["/models/../admin", "/models/%2e%2e/admin", "/models/%2Fadmin", "//admin", "/models/..%2fadmin", "/a\\b"]
)
def test_a_path_means_one_place(protecting: Proxied, path: str) -> None:
    """What is asked about is what the API gets, or nothing is (CVE-2026-33494, CVE-2026-40575)."""
    caller = new_caller(protecting, f"walker{abs(hash(path)) % 10**9}")
    with socket.create_connection(("127.0.0.1", protecting.api), timeout=10) as client:
        head = f"GET {path} HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n"
        client.sendall((head + f"Authorization: {caller['authorization']}\r\n\r\n").encode())
        with client.makefile("rb") as answer:
            status, body = answer.readline().split()[1], answer.read().partition(b"\r\n\r\n")[2]
    if status == b"200":
        assert json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])["path"] in ("/admin", "/models/admin", "/a/b")
    else:
        # Traefik and Envoy send to the place that is meant.
        assert status in (b"301", b"307", b"308", b"400", b"404")


def test_a_body_that_is_too_large_does_not_reach_the_api(protecting: Proxied) -> None:
    """But through Traefik, which has no limit that lets streams pass: deploy/traefik/api.yml."""
    caller = new_caller(protecting, "large")
    with api_of(protecting) as api, contextlib.suppress(httpx2.TransportError):
        # It may close while this is sent.
        status = api.post("/models", headers=caller, content=b"x" * 1_100_000).status_code
        assert status in ((413, 502) if protecting.limits_bodies else (200,))


def test_nothing_passes_while_authwright_is_away(protecting: Proxied) -> None:
    """The last of this file: it is not started again."""
    caller = new_caller(protecting, "late")
    with api_of(protecting) as api:
        assert api.get("/models", headers=caller).status_code == 200
        protecting.auth.kill()
        assert api.get("/models", headers=caller).status_code in (500, 502, 503)
