"""Hosts that run the server for the length of a request: the shipped entries, invoked with events as they are sent."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import asyncpg
import httpx2
import pytest

from authwright.config import SettingsError, load_settings
from authwright.serverless import Serverless
from databases import new_postgres_database, own_postgres
from harness import Clock, bearer, production
from issued import ISSUED
from processes import environment, free_port, production_environment, program, run
from receivers import collecting, mail_server, taking

DEPLOY = Path(__file__).parents[2] / "deploy"
HOST = "auth.example.com"
ISSUER = f"https://{HOST}"
FORM = {"username": "ada", "password": "a long and unusual passphrase"}

# What Lambda does: the module is loaded once, and nothing runs between two calls of the handler.
_CONTAINER = """
import json, sys
sys.path.insert(0, sys.argv[1])
from handler import handler
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(handler(json.loads(line), None)), flush=True)
"""


def http_api(method: str, path: str, query: str, headers: dict[str, str], body: str) -> dict[str, Any]:
    """API Gateway's HTTP API and function URLs (payload format 2.0)."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "api-id",
            "domainName": HOST,
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
                "userAgent": "agent",
            },
            "requestId": "id",
            "routeKey": "$default",
            "stage": "$default",
            "time": "22/Nov/2026:10:00:00 +0000",
            "timeEpoch": 1795341600000,
        },
        "body": base64.b64encode(body.encode()).decode(),
        "isBase64Encoded": True,
    }


def rest_api(method: str, path: str, query: str, headers: dict[str, str], body: str) -> dict[str, Any]:
    """API Gateway's REST API (payload format 1.0)."""
    pairs = [pair.split("=", 1) for pair in query.split("&") if pair]
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": dict(pairs) or None,
        "multiValueQueryStringParameters": {name: [value] for name, value in pairs} or None,
        "requestContext": {
            "resourcePath": "/{proxy+}",
            "httpMethod": method,
            "path": f"/prod{path}",
            "stage": "prod",
            "identity": {"sourceIp": "192.0.2.1", "userAgent": "agent"},
        },
        "body": body,
        "isBase64Encoded": False,
    }


def load_balancer(method: str, path: str, query: str, headers: dict[str, str], body: str) -> dict[str, Any]:
    """An application load balancer."""
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/x/y"}},
        "httpMethod": method,
        "path": path,
        "queryStringParameters": dict(pair.split("=", 1) for pair in query.split("&") if pair),
        "headers": {**headers, "x-forwarded-for": "203.0.113.9, 192.0.2.1", "x-forwarded-proto": "https"},
        "body": body,
        "isBase64Encoded": False,
    }


@dataclass
class Container:
    process: subprocess.Popen[str]
    event: Any = http_api

    def invoke(self, event: dict[str, Any]) -> tuple[int, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(event) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        body = answer["body"]
        text = base64.b64decode(body).decode() if answer.get("isBase64Encoded") else body
        ISSUED.note_text(text)
        return answer["statusCode"], json.loads(text)

    def ask(self, method: str, path: str, token: str = "", **body: Any) -> tuple[int, Any]:
        path, _, query = path.partition("?")
        headers = {"host": HOST, **({"content-type": "application/json"} if body else {})}
        if token:
            headers["authorization"] = f"Bearer {token}"
        return self.invoke(self.event(method, path, query, headers, json.dumps(body) if body else ""))

    def login(self) -> Any:
        headers = {"host": HOST, "content-type": "application/x-www-form-urlencoded"}
        status, login = self.invoke(self.event("POST", "/login", "", headers, urlencode(FORM)))
        assert status == 200, login
        return login


class Containers:
    """Starts containers with one environment, and ends them."""

    def __init__(self, folder: Path, env: dict[str, str], stack: ExitStack) -> None:
        self.folder = folder
        self.env = env
        self._stack = stack

    def start(self, event: Any = http_api) -> Container:
        process = subprocess.Popen(
            [sys.executable, "-c", _CONTAINER, DEPLOY / "lambda"],
            cwd=self.folder,
            env=environment(**self.env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stack.enter_context((self.folder / "lambda.log").open("a")),
            text=True,
        )
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return Container(process, event)


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with own_postgres() as running:
        yield running


@pytest.fixture
async def containers(tmp_path: Path, server: Any) -> AsyncIterator[Containers]:
    (tmp_path / "plans.toml").write_text('[free]\npermissions = ["predict"]\nrate = "600/minute"\nquota = "8/day"\n')
    env = production_environment(
        8000,
        AUTHWRIGHT_ISSUER=ISSUER,
        DATABASE_URL=await new_postgres_database(server.url),
        AUTHWRIGHT_PLANS=str(tmp_path / "plans.toml"),
        AUTHWRIGHT_DATA=str(tmp_path / "data"),
    )
    assert run(tmp_path, "migrate", **env).returncode == 0
    with ExitStack() as stack:
        yield Containers(tmp_path, env, stack)


@pytest.mark.parametrize("event", [http_api, rest_api, load_balancer], ids=lambda each: each.__name__)
async def test_the_handler_serves_what_aws_sends(containers: Containers, event: Any) -> None:
    container = containers.start(event)
    assert container.ask("POST", "/register", **FORM)[0] == 201
    login = container.login()
    assert container.ask("GET", "/me", login["access_token"])[1]["username"] == "ada"
    (session,) = container.ask("GET", "/me/sessions", login["access_token"])[1]["sessions"]
    assert session["address"] == "192.0.2.1"
    status, predicted = container.ask(
        "GET", "/predict?sepal_length=6.3&sepal_width=3.3&petal_length=6.0&petal_width=2.5", login["access_token"]
    )
    assert (status, predicted["class"]) == (200, "virginica")
    status, refreshed = container.ask("POST", "/refresh-token", refresh_token=login["refresh_token"])
    assert status == 200
    assert container.ask("POST", "/logout", refreshed["access_token"])[0] == 200
    assert container.ask("GET", "/me", refreshed["access_token"])[0] == 401
    # Another host's name is not answered there, either.
    headers = {"host": "evil.example.com"}
    assert container.invoke(event("GET", "/me", "", headers, ""))[0] == 421


async def test_a_logout_is_honoured_by_a_container_that_was_frozen_meanwhile(containers: Containers) -> None:
    one, other = containers.start(), containers.start()
    one.ask("POST", "/register", **FORM)
    login = one.login()
    for container in (one, other):
        assert container.ask("GET", "/secure-data", login["access_token"])[0] == 200
    assert one.ask("POST", "/logout", login["access_token"])[0] == 200
    assert other.ask("GET", "/secure-data", login["access_token"])[0] == 401
    # A key that was withdrawn, too.
    login = other.login()
    assert one.ask("GET", "/me", login["access_token"])[0] == 200
    kid = json.loads(run(containers.folder, "keys", "list", "--json", **containers.env).stdout)[0]["kid"]
    assert run(containers.folder, "keys", "withdraw", kid, **containers.env).returncode == 0
    for container in (one, other):
        assert container.ask("GET", "/me", login["access_token"])[0] == 401
    assert one.ask("GET", "/me", other.login()["access_token"])[0] == 200


async def test_what_was_counted_is_stored_with_the_answer_and_shared(containers: Containers) -> None:
    one, other = containers.start(), containers.start()
    one.ask("POST", "/register", **FORM)
    token = one.login()["access_token"]
    assert [one.ask("GET", "/me", token)[0] for _ in range(3)] == [200] * 3
    one.process.send_signal(signal.SIGKILL)
    assert other.ask("GET", "/me/usage", token)[1]["total"] == 3
    another = containers.start()
    served = [container.ask("GET", "/me", token)[0] for container in (other, another) * 3]
    assert served == [200] * 5 + [429]


async def test_without_its_database_it_answers_503_and_heals(containers: Containers, server: Any) -> None:
    container = containers.start()
    container.ask("POST", "/register", **FORM)
    token = container.login()["access_token"]
    server.kill()
    status, problem = container.ask("GET", "/me", token)
    assert (status, problem["error"]) == (503, "temporarily_unavailable")
    server.start()
    back = time.monotonic()
    while container.ask("GET", "/me", token)[0] != 200:
        assert time.monotonic() < back + 5


async def test_now_and_then_it_does_what_a_server_does_all_the_time(containers: Containers) -> None:
    containers.start().ask("POST", "/register", **FORM)
    told = run(containers.folder, "events", "verify", "--json", **containers.env)
    assert json.loads(told.stdout) == {"events": 2, "sealed": 1, "problems": [], "remarks": []}


async def test_spans_are_sent_before_the_answer_ends(containers: Containers) -> None:
    with collecting() as collector:
        containers.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
        container = containers.start()
        assert container.ask("POST", "/register", **FORM)[0] == 201
        # Frozen from here on, it could not send anything.
        container.process.send_signal(signal.SIGSTOP)
        assert collector.named("POST /register")


@asynccontextmanager
async def hosted(containers: Containers, clock: Clock, **env: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the app in this process, on a *clock* of its own; what the host does around it, Mangum does above."""
    app = Serverless(load_settings("serve", environ=containers.env | env, dotenv=None), clock=clock)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=ISSUER) as http:
        yield http
    # A host ends it without a word; this process lives on.
    await app._server.close()


@pytest.fixture
def logs_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authwright.serverless.configure_logs", lambda **_: None)


@pytest.mark.usefixtures("logs_of_this_process")
async def test_r164_mail_goes_out_before_the_answer_ends_or_with_a_later_request(containers: Containers) -> None:
    clock = Clock()
    async with mail_server() as mail:
        smtp = {"SMTP_URL": f"smtp://127.0.0.1:{mail.port}", "AUTHWRIGHT_MAIL_FROM": "auth@example.com"}
        async with hosted(containers, clock, **smtp) as http:
            await http.post("/register", json={**FORM, "email": "ada@example.com"})
            token = (await http.post("/login", data=FORM)).json()["access_token"]
            change = {"current_password": FORM["password"], "new_password": "another long passphrase"}
            answer = await http.post("/me/password", json=change, headers=bearer(token))
            assert mail.got == [("ada@example.com", "The password of your account was changed")]
            mail.answer = "450 try again later"
            token = answer.json()["access_token"]
            answer = await http.post("/me/keys", json={"name": "notebook"}, headers=bearer(token))
            assert (answer.status_code, len(mail.got)) == (201, 1)
        mail.answer = ""
        clock.advance(3600)
        # Another container, whose first request changes nothing.
        async with hosted(containers, clock, **smtp) as http:
            assert (await http.get("/health")).status_code == 200
        assert mail.got[1:] == [("ada@example.com", "An API key was made for your account")]


@pytest.mark.usefixtures("logs_of_this_process")
async def test_events_are_pushed_and_forgotten_and_old_rows_with_them(containers: Containers) -> None:
    clock = Clock()
    # What has not come yet when the command below looks at it would be a forgery.
    clock.advance(-32 * 86_400)
    with taking() as taker:
        hook = {
            "AUTHWRIGHT_EVENTS_WEBHOOK": taker.url,
            "AUTHWRIGHT_EVENTS_WEBHOOK_SECRET": "whsec_" + base64.b64encode(b"s" * 32).decode(),
            "AUTHWRIGHT_EVENTS_WEBHOOK_NETWORKS": "127.0.0.0/8",
            "AUTHWRIGHT_EVENTS_DAYS": "30",
        }
        async with hosted(containers, clock, **hook) as http:
            assert (await http.post("/register", json=FORM)).status_code == 201
            token = (await http.post("/login", data=FORM)).json()["access_token"]
            assert (await http.post("/logout", headers=bearer(token))).status_code == 200
        # The chores of this container came after its first request, and are not due again.
        assert [event["kind"] for event in taker.events[0]] == ["registered"]
        clock.advance(60)
        async with hosted(containers, clock, **hook) as http:
            await http.get("/health")
        assert [event["kind"] for event in taker.events[1]] == ["events_sealed", "login", "logout"]
        assert await rows(containers, "sessions") == 1
        clock.advance(31 * 86_400)
        async with hosted(containers, clock, **hook) as http:
            await http.get("/health")
    assert await rows(containers, "sessions") == 0
    assert await rows(containers, "events WHERE kind IN ('registered', 'login', 'logout')") == 0
    verdict = run(containers.folder, "events", "verify", "--json", **containers.env)
    assert (verdict.returncode, json.loads(verdict.stdout)["problems"]) == (0, [])


async def rows(containers: Containers, table: str) -> int:
    connection = await asyncpg.connect(containers.env["DATABASE_URL"])
    try:
        return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))
    finally:
        await connection.close()


@pytest.mark.usefixtures("logs_of_this_process")
async def test_r159_how_long_imported_hashes_take_is_known_before_the_first_login(containers: Containers) -> None:
    """Else the time of a refusal told who came from elsewhere."""
    hashed = "$2b$12$rconrgOMxFNxH2bBv43sXel3JC0gW2XBGeE7apa1D1Z.c9ysUyNl."
    (containers.folder / "users.csv").write_text(f"username,password_hash\nada,{hashed}\n")
    assert run(containers.folder, "users", "import", "users.csv", **containers.env).returncode == 0
    app = Serverless(load_settings("serve", environ=containers.env, dotenv=None))
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=ISSUER)
    assert (await http.get("/health")).status_code == 200
    assert app._server.hashing._slowest > 0
    await app._server.close()


def test_a_store_in_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="keeps no files"):
        Serverless(production(tmp_path, issuer=ISSUER))


async def test_vercels_entry_is_an_app_whose_lifespan_means_nothing(containers: Containers) -> None:
    port = free_port()
    with vercel(containers, port) as base, httpx2.Client(base_url=base) as http:
        assert http.post("/register", json=FORM).status_code == 201
        token = http.post("/login", data=FORM).json()["access_token"]
        assert http.get("/me", headers={"authorization": f"Bearer {token}"}).status_code == 200
    rewritten = json.loads((DEPLOY / "vercel/vercel.json").read_text())["rewrites"]
    assert rewritten == [{"source": "/(.*)", "destination": "/api/index"}]


@contextmanager
def vercel(containers: Containers, port: int) -> Iterator[str]:
    base = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "uvicorn", "index:app", "--app-dir", DEPLOY / "vercel/api", "--port", str(port)]
    env = environment(**containers.env | {"AUTHWRIGHT_ISSUER": base})
    with program(containers.folder / "vercel.log", *command, env=env, at=f"{base}/health") as process:
        yield base
    assert process.returncode in (0, -signal.SIGTERM)


def test_the_procfile_runs_in_a_runner_of_procfiles(tmp_path: Path) -> None:
    """As platform hosts do it: the release command once, then the web process on the port that they name."""
    port = free_port()
    env = environment(**production_environment(port, PORT=str(port), AUTHWRIGHT_ISSUER=ISSUER))
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    procfile = DEPLOY / "Procfile"
    release = dict(line.split(": ", 1) for line in procfile.read_text().splitlines())["release"]
    subprocess.run(release, shell=True, cwd=tmp_path, env=env, check=True, capture_output=True)
    command = [Path(sys.executable).parent / "honcho", "--app-root", tmp_path, "--procfile", procfile, "start", "web"]
    with program(tmp_path / "honcho.log", *command, env=env, at=f"http://127.0.0.1:{port}/readyz"):
        pass
    assert "web.1" in (tmp_path / "honcho.log").read_text()
