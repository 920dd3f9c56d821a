"""Every code block of the documentation is run, against servers that were started as the pages say.

Changed are names: where the server is, and which file or database of the reader's it is about. Left out is what `pip`
would install (it is looked at), and what never ends is cut off.
"""

import base64
import csv
import hashlib
import json
import re
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from authwright.config import new_secret_key, secret_key_problem
from databases import drop_mongo_database, drop_postgres_database, new_mongo_database, new_postgres_database
from issued import ISSUED
from pages import BLOCKS, ROOT, RUN, places, taken, walked
from processes import (
    Running,
    at_a_terminal,
    environment,
    free_port,
    production_environment,
    program,
    run,
    serving,
)

DEV = "http://127.0.0.1:8000"
ISSUER = "https://auth.example.com"
API = "https://api.example.com"
PASSWORD = "a long and unusual passphrase"

RUN_BY_CI = {
    ("README.md", 0): "run by tests/newcomer.py, on a clean clone",
    ("README.md", 1): "runs this",
}
"""What `.ci/run` runs: the two commands of a newcomer."""
ELSEWHERE = {
    ("docs/howto/protect-a-model-server.md", 0): ("test_model_server.py", "taken(PAGE, 0)"),
    ("docs/howto/protect-a-model-server.md", 1): ("test_model_server.py", "taken(PAGE, 1,"),
    ("docs/howto/protect-a-model-server.md", 2): (
        "test_litellm.py",
        "custom_auth: authwright.guard.litellm.user_api_key_auth",
    ),
    ("docs/howto/protect-a-model-server.md", 3): ("test_model_server.py", "taken(PAGE, 3,"),
    ("docs/howto/protect-a-model-server.md", 4): ("test_model_server.py", "taken(PAGE, 4)"),
    ("docs/howto/protect-a-model-server.md", 5): ("test_model_server.py", "taken(PAGE, 5,"),
    ("docs/howto/call-it-from-typescript.md", 0): (
        "test_release.py",
        '(ROOT / "docs/howto/call-it-from-typescript.md")',
    ),
    **{("docs/howto/deploy.md", place): ("test_ways_to_deploy.py", f"taken(PAGE, {place})") for place in range(5)},
}
"""What the tests of another file run: the file, and what stands in it."""


def ran(script: str, folder: Path, **env: str) -> str:
    """What the Python *script* printed; it must end well."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=folder,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def done_well(script: str, folder: Path, *, answer: str = "", **env: str) -> str:
    """What the shell commands *script* printed, with *answer* typed where they ask; they must end well."""
    done = walked(script, folder, answer=answer, **env)
    ISSUED.note_text(done.stdout)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def in_order(out: str, story: list[str]) -> None:
    """Raises unless *out* has all of *story*, in this order."""
    at = 0
    for line in story:
        at = out.find(line, at)
        assert at >= 0, f"{line} is missing in:\n{out}"
        at += len(line)


@contextmanager
def served_as(line: str, folder: Path, port: int | None = None, **env: str) -> Iterator[Running]:
    """The server that the shell command *line* starts, on a port of its own."""
    words = shlex.split(line.replace(".venv/bin/", ""), comments=True)
    named = [word.split("=", 1) for word in words[: words.index("authwright")]]
    arguments = [word.replace("0.0.0.0", "127.0.0.1") for word in words[len(named) + 1 :]]
    with serving(folder, *arguments, port=port, **env, **dict(named)) as server:
        yield server


@contextmanager
def api_of(folder: Path, app: str, port: int, **env: str) -> Iterator[str]:
    """The app `module:name` of *folder*, and where it answers."""
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port)]
    base = f"http://127.0.0.1:{port}"
    with program(folder / "api.log", *command, env=environment(**env), at=f"{base}/docs"):
        yield base


def key_of(folder: Path, name: str, *options: str, **env: str) -> str:
    made = run(folder, "clients", "create", name, "--json", *options, AUTHWRIGHT_MODE="dev", **env)
    return str(json.loads(made.stdout)["client_key"])


def bearer(http: httpx2.Client, username: str, password: str, **more: str) -> dict[str, str]:
    login = http.post("/login", data={"username": username, "password": password, **more}).json()
    return {"Authorization": f"Bearer {login['access_token']}"}


@pytest.mark.program("curl")
@pytest.mark.npm("newman")
def test_the_collection_of_the_readme_is_green(tmp_path: Path) -> None:
    with serving(tmp_path, "dev") as server:
        here = {"--output /tmp": f"--output . --base-url {server.base}", "/tmp/authwright": "authwright"}
        key = key_of(tmp_path, "nightly-scoring")
        out = done_well(taken("README.md", 8, here=here), tmp_path, KEY=key)
    assert "Every request" in out


@pytest.mark.program("curl")
def test_the_walk_of_the_readme(tmp_path: Path) -> None:
    """With the page's own API in the other terminal."""
    port = free_port()
    with serving(tmp_path, "dev") as server:
        api = f"http://127.0.0.1:{port}"
        assert BLOCKS["README.md", 11].title == "api.py"
        assert taken("README.md", 12) == ".venv/bin/uvicorn api:api --port 9000\n"
        (tmp_path / "api.py").write_text(taken("README.md", 11, here={DEV: server.base}))
        here = {DEV: server.base, "http://127.0.0.1:9000": api}
        with api_of(tmp_path, "api:api", port):
            out = done_well(
                taken("README.md", *(place for place in places("README.md", "bash") if place != 8), here=here), tmp_path
            )
    # In the order of the page.
    in_order(
        out,
        [
            '"plan":"premium"',
            '"username":"bholay"',
            '"class":"versicolor"',
            '"class":"virginica"',
            '"message":"You are in."',
            '"status":"logged_out"',
            '"error":"invalid_token"',
            '"email":"user@example.com"',
            '"token_type":"bearer"',
            '"token_type":"bearer"',
            '"user_id":"cli_',
            '"class":"versicolor"',
            '"calls"',
            '"username":"grace"',
            '"plan":"free"',
            '"kind":',
            '{"price":195000.0,"for":"bholay"}',
            "logged_out",
            "The token is not valid",
        ],
    )


def test_the_python_of_the_page_about_tokens(tmp_path: Path) -> None:
    page = "docs/explanation/tokens.md"
    with serving(tmp_path, "dev") as server:
        out = ran(taken(page, *places(page, "python"), here={DEV: server.base}), tmp_path)
    assert "'typ': 'at+jwt'" in out
    assert out.endswith("refused\n")


@pytest.mark.program("curl")
def test_the_tutorial_ends_with_a_protected_model_of_ones_own(tmp_path: Path) -> None:
    """Its files, its server, its API and its commands, with other ports and nothing else changed."""
    page = "docs/tutorial/protect-your-first-model.md"
    port = free_port()
    api = f"http://127.0.0.1:{port}"
    assert [BLOCKS[page, place].title for place in (0, 1)] == ["model.py", "api.py"]
    dev, served = taken(page, 2), taken(page, 3)
    with served_as(dev.replace("http://127.0.0.1:9000", api), tmp_path, AUTHWRIGHT_PLANS="") as server:
        here = {DEV: server.base, "http://127.0.0.1:9000": api}
        (tmp_path / "model.py").write_text(taken(page, 0))
        (tmp_path / "api.py").write_text(taken(page, 1, here=here))
        assert "uvicorn api:app --port 9000" in served
        with api_of(tmp_path, "api:app", port):
            lines = done_well(taken(page, *places(page, "bash"), here=here), tmp_path).splitlines()
    assert "A valid access token is needed" in lines[0]
    assert '"plan":"free"' in lines[1]
    assert lines[2] == '{"class":"virginica","for":"grace"}'
    counted = {status: int(count) for count, status in (line.split() for line in lines[3:5])}
    # One was spent before; a few seconds give a few back.
    assert 55 <= counted["200"] <= 64
    assert counted["200"] + counted["429"] == 65
    assert '"logged_out"' in lines[5]
    assert "The token is not valid" in lines[6]


_OLD_AND_NEW = """
import sys
from starlette.testclient import TestClient
import after, before
with TestClient(before.app) as old, TestClient(after.app) as new:
    week = before.create_access_token("johndoe")
    for app, token in ((old, week), (new, week), (new, sys.argv[1])):
        answer = app.get("/users/me", headers={"Authorization": f"Bearer {token}"})
        print(answer.status_code, answer.text if answer.status_code == 200 else "")
"""


@pytest.mark.program("sqlite3")
def test_users_come_from_elsewhere(tmp_path: Path) -> None:
    """The page's app, its export, the import, and the app that takes its place; the old tokens are refused by it.

    Then the table of fastapi-users, a realm of Keycloak's and an export of Auth0's: all of them log in as before.
    """
    page = "docs/howto/come-from-elsewhere.md"
    api = f"http://127.0.0.1:{free_port()}"
    with serving(tmp_path, "dev", AUTHWRIGHT_AUDIENCES=api) as server, server.http() as http:
        for place in (0, 1):
            (tmp_path / BLOCKS[page, place].title).write_text(taken(page, place))
        here = {DEV: server.base, "http://127.0.0.1:9000": api}
        (tmp_path / BLOCKS[page, 3].title).write_text(taken(page, 3, here=here))
        done_well(taken(page, 2), tmp_path, AUTHWRIGHT_MODE="dev")
        token = bearer(http, "johndoe", "secret", resource=api)["Authorization"].removeprefix("Bearer ")
        assert http.post("/login", data={"username": "alice", "password": "secret"}).status_code == 401
        script = f"import sys; sys.argv = ['', {token!r}]\n{_OLD_AND_NEW}"
        assert ran(script, tmp_path).splitlines() == [
            '200 {"username":"johndoe"}',
            "401 ",
            '200 {"username":"johndoe"}',
        ]

        bcrypt = "$2b$12$rconrgOMxFNxH2bBv43sXel3JC0gW2XBGeE7apa1D1Z.c9ysUyNl."
        with sqlite3.connect(tmp_path / "app.db") as table:
            table.execute(
                "CREATE TABLE user (email VARCHAR(320), hashed_password VARCHAR(1024), is_active BOOLEAN,"
                " is_superuser BOOLEAN, is_verified BOOLEAN, id CHAR(36))"
            )
            table.execute(
                "INSERT INTO user VALUES ('grace@example.com', ?, 1, 0, 1, '6c7e1d3c2ad94f4c8b0e4f2f5f1e9a10')",
                (bcrypt,),
            )
        table.close()
        done_well(taken(page, 4), tmp_path, AUTHWRIGHT_MODE="dev")
        assert bearer(http, "grace@example.com", "secret")
        (tmp_path / "realm.json").write_text(
            json.dumps({"realm": "x", "users": [_of_keycloak("eve", "eve's password")]})
        )
        done_well(taken(page, 5), tmp_path, AUTHWRIGHT_MODE="dev")
        assert bearer(http, "eve", "eve's password")
        of_auth0 = {"email": "alan@example.com", "email_verified": True, "passwordHash": bcrypt.replace("$2b$", "$2a$")}
        (tmp_path / "export.json").write_text(json.dumps(of_auth0) + "\n")
        done_well(taken(page, 6), tmp_path, AUTHWRIGHT_MODE="dev")
        assert bearer(http, "alan@example.com", "secret")


def _of_keycloak(username: str, password: str) -> dict[str, Any]:
    salt, rounds = b"sixteen bytes of", 1000
    value = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds, 64)
    secret = {"value": base64.b64encode(value).decode(), "salt": base64.b64encode(salt).decode()}
    about = {"hashIterations": rounds, "algorithm": "pbkdf2-sha512", "additionalParameters": {}}
    credential = {"type": "password", "secretData": json.dumps(secret), "credentialData": json.dumps(about)}
    return {"username": username, "enabled": True, "credentials": [credential]}


def test_users_are_brought_along_and_taken_away(tmp_path: Path) -> None:
    page = "docs/howto/bring-users-along.md"
    (tmp_path / "users.csv").write_text("username,email\nada,ada@example.com\n")
    done_well(taken(page, 0), tmp_path, AUTHWRIGHT_MODE="dev")
    (tmp_path / "users.csv").unlink()
    done_well(taken(page, 1), tmp_path, AUTHWRIGHT_MODE="dev")
    (line,) = (tmp_path / "users.jsonl").read_text().splitlines()
    (row,) = csv.DictReader((tmp_path / "users.csv").read_text().splitlines())
    assert json.loads(line)["username"] == row["username"] == "ada"


_ASKED = """
from starlette.testclient import TestClient
with TestClient(app) as http:
    assert http.get("/predict").status_code == 401
    print(http.get("/predict", headers={{"Authorization": "Bearer {token}"}}).text)
"""


@pytest.mark.parametrize("page", ["docs/howto/protect-an-api.md", "src/authwright/SKILL.md"])
def test_the_protected_apis_of_the_pages_work(page: str, tmp_path: Path) -> None:
    place, shown = {
        "docs/howto/protect-an-api.md": (1, '{"for":"bholay","plan":"premium"}'),
        "src/authwright/SKILL.md": (0, "null"),
    }[page]
    with serving(tmp_path, "dev", AUTHWRIGHT_AUDIENCES=API) as server, server.http() as http:
        http.post("/register", json={"username": "bholay", "password": "test123", "plan": "premium"})
        token = bearer(http, "bholay", "test123", resource=API)["Authorization"].removeprefix("Bearer ")
        script = taken(page, place, here={ISSUER: server.base})
        key = key_of(tmp_path, "guard", "--scope", "revocations limits", AUTHWRIGHT_AUDIENCES=API)
        script = f"GUARD_KEY = {key!r}\n{script}" + _ASKED.format(token=token)
        assert ran(script, tmp_path, AUTHWRIGHT_GUARD_KEY=key).strip() == shown


_OTHER_WAYS = """
import asyncio, json, os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated
from fastapi import Depends, FastAPI, Request, Security, WebSocket
from fastapi.responses import StreamingResponse
from authwright.guard.fastapi import Guard, Principal
TOKEN = {token!r}
HEADERS = {{"Authorization": "Bearer " + TOKEN}}
guard = Guard(issuer={issuer!r}, audience="https://api.example.com", key={key!r})
Caller = Annotated[Principal, Security(guard, scopes=["predict"])]
"""
_STREAM = """
from starlette.testclient import TestClient

async def generate():
    for word in ("one ", "two"):
        yield word

{block}
with TestClient(app) as http:
    assert http.get("/tokens").status_code == 401
    print(http.get("/tokens", headers=HEADERS).text)
    with http.websocket_connect("/chat", headers=HEADERS) as chat:
        chat.send_text("hello")
        print(chat.receive_text())
"""
_MIDDLEWARE = """
from starlette.testclient import TestClient
inner = FastAPI()

@inner.get("/health")
@inner.get("/predict")
@inner.get("/admin")
async def told(request: Request):
    return getattr(caller(request.scope), "username", None)

app = inner
{block}
with TestClient(app) as http:
    asked = [(path, sent) for path in ("/health", "/predict", "/admin") for sent in ({{}}, HEADERS)]
    print([http.get(path, headers=sent).status_code for path, sent in asked])
    print(http.get("/predict", headers=HEADERS).text)
"""
_BARE = """
async def main():
    token = TOKEN
{block}
    print(principal.username)
    await guard.close()
asyncio.run(main())
"""
_COSTLY = """
from starlette.testclient import TestClient
app, rows = FastAPI(), 5
{block}
with TestClient(app) as http:
    answer = http.post("/train", headers=HEADERS)
    print(answer.status_code, answer.headers["ratelimit"])
"""


def test_the_other_ways_to_protect_an_api(tmp_path: Path) -> None:
    page = "docs/howto/protect-an-api.md"
    plans = tmp_path / "plans.toml"
    plans.write_text('[free]\npermissions = ["predict"]\nrate = "100/hour"\n')
    made = "authwright clients create api-guard --scope revocations --json"
    assert taken(page, 0).splitlines()[0].startswith(f"export AUTHWRIGHT_AUDIENCES={API} ")
    with (
        serving(tmp_path, "dev", AUTHWRIGHT_AUDIENCES=API, AUTHWRIGHT_PLANS=str(plans)) as server,
        server.http() as http,
    ):
        known = {"AUTHWRIGHT_MODE": "dev", "AUTHWRIGHT_PLANS": str(plans)}
        answer = json.loads(done_well(taken(page, 0), tmp_path, **known))
        assert made in taken(page, 0)
        http.post("/register", json={"username": "bholay", "password": "test123"})
        token = bearer(http, "bholay", "test123", resource=API)["Authorization"].removeprefix("Bearer ")
        given = _OTHER_WAYS.format(token=token, issuer=server.base, key=answer["client_key"])
        limits = key_of(tmp_path, "limits", "--scope", "revocations limits", AUTHWRIGHT_AUDIENCES=API)
        here = {ISSUER: server.base, "awk_...": limits}

        stream = taken(page, 2) + taken(page, 4)
        assert ran(given + _STREAM.format(block=stream), tmp_path) == "one two\nbholay says: hello\n"
        wrapped = ran(given + _MIDDLEWARE.format(block=taken(page, 3, here=here)), tmp_path)
        assert wrapped == '[200, 200, 401, 200, 401, 403]\n"bholay"\n'
        indented = "".join(f"    {line}\n" for line in taken(page, 5).splitlines())
        assert ran(given + _BARE.format(block=indented), tmp_path) == "bholay\n"
        # 20 before it began and 5 afterwards; the header is of before.
        costly = ran(given + _COSTLY.format(block=taken(page, 6, here=here)), tmp_path)
        assert costly.startswith('200 "rate";r=80')
        assert http.get("/me/usage", headers=bearer(http, "bholay", "test123")).json()["total"] == 25


def test_an_api_of_a_closed_system(tmp_path: Path) -> None:
    hs256 = {"AUTHWRIGHT_AUDIENCES": API, "AUTHWRIGHT_SIGNING_ALG": "HS256"}
    with serving(tmp_path, "dev", **hs256) as server, server.http() as http:
        http.post("/register", json={"username": "bholay", "password": "test123"})
        token = bearer(http, "bholay", "test123", resource=API)["Authorization"].removeprefix("Bearer ")
        shared = run(tmp_path, "keys", "share", API, AUTHWRIGHT_MODE="dev", **hs256).stdout
        script = "import asyncio, json, os\nfrom authwright.guard import Guard\n"
        script += taken("docs/howto/protect-an-api.md", 7, here={ISSUER: server.base})
        script += f"\nprint(asyncio.run(guard.verify({token!r})).username)"
        assert ran(script, tmp_path, API_SECRETS=shared) == "bholay\n"


_API = """
from typing import Annotated
from authwright.guard.fastapi import Guard, Principal
from fastapi import FastAPI, Security
guard = Guard(issuer={issuer!r}, audience={audience!r})
app = FastAPI()
@app.post("/score")
@app.get("/predict")
async def score(caller: Annotated[Principal, Security(guard)]) -> list[str | None]:
    return [caller.client_id]
"""


def test_calls_from_python(tmp_path: Path) -> None:
    page, skill = "docs/howto/call-it-from-python.md", "src/authwright/SKILL.md"
    port = free_port()
    audience = f"http://127.0.0.1:{port}"
    with serving(tmp_path, "dev", AUTHWRIGHT_AUDIENCES=audience) as server:
        (tmp_path / "api.py").write_text(_API.format(issuer=server.base, audience=audience))
        given = f"KEY, rows = {key_of(tmp_path, 'nightly', AUTHWRIGHT_AUDIENCES=audience)!r}, [1, 2]\n"
        given += "import asyncio, httpx2\nfrom authwright.client import TokenAuth\n"
        here = {ISSUER: server.base}
        script = taken(page, 0, here=here) + "    print(answer.json()['class'])\n"
        script += taken(page, 1, here={**here, API: audience}) + "print(scores)\n"
        script += taken(page, 2, here={**here, API: audience})
        script += f"print(asyncio.run(http.get('{audience}/predict')).json())\n"
        script += taken(skill, 1, here={**here, API: audience}).replace("api.get(", "print(api.get(") + "    .text)"
        with api_of(tmp_path, "api:app", port):
            out = ran(given + script, tmp_path).splitlines()
    assert out[1] == "virginica"
    assert out[2].startswith("['cli_")
    assert out[2] == out[3]
    assert out[4].startswith('["cli_')


@pytest.mark.program("curl")
def test_users_keys_and_plans_are_managed(tmp_path: Path) -> None:
    page = "docs/howto/manage-users-keys-and-plans.md"
    plans = tmp_path / "plans.toml"
    plans.write_text(taken(page, 3))
    with serving(tmp_path, "dev", AUTHWRIGHT_PLANS=str(plans)) as server, server.http() as http:
        known = {"AUTHWRIGHT_MODE": "dev", "AUTHWRIGHT_PLANS": str(plans)}
        done_well(taken(page, 0), tmp_path, PASSWORD="test123", **known)
        # The plan of that name is asked for on this page, and is one that the reader added.
        http.post("/register", json={"username": "bholay", "password": "test123", "plan": "team"})
        tokens = {
            "ADMIN": bearer(http, "ada", "test123")["Authorization"].removeprefix("Bearer "),
            "TOKEN": bearer(http, "bholay", "test123")["Authorization"].removeprefix("Bearer "),
            "KEY": http.post("/me/keys", headers=bearer(http, "bholay", "test123"), json={"name": "mine"}).json()[
                "key"
            ],
        }
        here = {ISSUER: server.base}
        in_order(
            done_well(taken(page, 1, here=here), tmp_path, **tokens),
            ['"username":"ada"', '"users"', '"username":"grace"', '"plan":"premium"'],
        )
        in_order(done_well(taken(page, 2, here=here), tmp_path, **tokens), ['"nightly scoring"', '"class":'])
        # The days of the page are those of its month.
        today = datetime.now(UTC).date()
        days = {"2026-11-01": str(today), "2026-11-30": str(today + timedelta(days=1))}
        assert '"units":2' in done_well(taken(page, 4, here={**here, **days}), tmp_path, **tokens)
    rows = list(csv.DictReader((tmp_path / "usage.csv").read_text().splitlines()))
    assert rows


@pytest.mark.program("curl")
def test_the_feed_is_followed(tmp_path: Path) -> None:
    page = "docs/explanation/logout.md"
    with serving(tmp_path, "dev") as server:
        create, _, follow = taken(page, 1, here={ISSUER: server.base}).strip().partition("\n")
        key = json.loads(done_well(create, tmp_path, AUTHWRIGHT_MODE="dev"))["client_key"]
        followed = walked(follow.replace("curl -N", "curl -N --max-time 1"), tmp_path, KEY=key)
    # Out of time, as it would go on for ever.
    assert followed.returncode == 28
    assert "event: snapshot" in followed.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/howto/run-in-production.md"])
def test_three_answers_a_server_and_a_doctor(page: str, tmp_path: Path) -> None:
    if page == "README.md":
        init, serve, doctor = taken(page, 15).replace(".venv/bin/", "").splitlines()
    else:
        *install, init = taken(page, 0, here={"/opt/authwright": "installed"}).strip().splitlines()
        done_well("\n".join(install), tmp_path)
        assert (tmp_path / "installed/bin/pip").exists()
        serve, doctor = taken(page, 2), taken(page, 3)
    assert shlex.split(init, comments=True) == ["authwright", "init"]
    port = free_port()
    code, shown = at_a_terminal(tmp_path, f"http://127.0.0.1:{port}", "by-hand", "grace")
    assert code == 0, shown
    with served_as(serve, tmp_path, port):
        out = done_well(doctor.replace("doctor", "doctor --json"), tmp_path, AUTHWRIGHT_MODE="serve")
    levels = {found["about"]: found["level"] for found in map(json.loads, out.splitlines())}
    # How fast the machine hashes, and that there is no mail server, is for the reader to decide on.
    assert {about for about, level in levels.items() if level != "ok"} <= {"passwords", "settings"}, out


@pytest.mark.program("openssl")
async def test_a_server_in_production_is_looked_after(tmp_path: Path, otel: str) -> None:
    page = "docs/howto/run-in-production.md"
    port = free_port()
    known = production_environment(port, AUTHWRIGHT_MODE="serve")
    mail = dict(line.split("=", 1) for line in shlex.split(taken(page, 6), comments=True))
    hook = dict(line.split("=", 1) for line in shlex.split(taken(page, 9), comments=True))
    made = walked('echo "whsec_$(openssl rand -base64 32)"', tmp_path).stdout.strip()
    assert made.startswith("whsec_")
    assert 'echo "whsec_$(openssl rand -base64 32)"' in taken(page, 9)
    hook["AUTHWRIGHT_EVENTS_WEBHOOK_SECRET"] = made
    install, serve = taken(page, 10, here={"http://collector:4318": otel}).strip().splitlines()
    done_well(install, tmp_path)
    with served_as(serve, tmp_path, port, **known, **mail, **hook) as server, server.http() as http:
        created = run(tmp_path, *shlex.split(taken(page, 1))[1:], stdin=PASSWORD + "\n", **known)
        assert created.returncode == 0, created.stderr
        assert bearer(http, "ada", PASSWORD)
        kid = http.get("/.well-known/jwks.json").json()["keys"][0]["kid"]
        done_well(taken(page, 4, here={"KID": kid}), tmp_path, **known)
        assert kid not in [each["kid"] for each in http.get("/.well-known/jwks.json").json()["keys"]]
        here = {"/var/backups": str(tmp_path), "2026-11-21": "$(date +%F)"}
        done_well(taken(page, 5, here=here), tmp_path, answer="y\n", **known)
        done_well(taken(page, 8), tmp_path, **known)
        assert '"login"' in (tmp_path / "events.jsonl").read_text()
    done_well(taken(page, 7), tmp_path, **known)


@pytest.fixture
def otel() -> str:
    """Where a collector would be; nobody listens, and a server that cannot send its traces serves all the same."""
    return f"http://127.0.0.1:{free_port()}"


async def test_servers_on_other_databases_and_a_move(tmp_path: Path, postgres_server: str, mongo_server: str) -> None:
    port = free_port()
    known = production_environment(port, AUTHWRIGHT_MODE="serve")
    form = {"username": "ada", "password": PASSWORD}
    postgres, mongo = await new_postgres_database(postgres_server), new_mongo_database(mongo_server)
    serve, migrate = taken("README.md", 16).strip().splitlines()
    serve = serve.replace("postgresql://authwright@db.example.com/authwright", postgres)
    with served_as(serve, tmp_path, port, **known) as server, server.http() as http:
        assert http.post("/register", json=form).status_code == 201
    move = migrate.replace("mongodb://db.example.com/authwright", mongo)
    done_well(move, tmp_path, DATABASE_URL=postgres, **known)
    (tmp_path / "moved").mkdir()
    for page, there, here in (
        ("postgresql", "postgresql://authwright:password@db.example.com/authwright", postgres),
        ("mongodb", "mongodb://authwright:password@db1,db2,db3/authwright?replicaSet=rs0", mongo),
    ):
        install, serve = taken(f"docs/howto/use-{page}.md", 0, here={there: here}).strip().splitlines()
        done_well(install, tmp_path)
        with served_as(serve, tmp_path / "moved", port, **known) as server, server.http() as http:
            assert http.post("/login", data=form).status_code == 200
    await drop_postgres_database(postgres_server, postgres)
    await drop_mongo_database(mongo)


@pytest.mark.program("openssl")
def test_the_secrets_that_pages_make_are_taken(tmp_path: Path) -> None:
    made = [re.findall(r"SECRET_KEY=\"\$\((.*?)\)\"", block.text) for block in BLOCKS.values()]
    commands = [command for each in made for command in each]
    assert len(commands) == 2
    for command in commands:
        secret = done_well(command, tmp_path).strip()
        ISSUED.note({"key": secret})
        assert secret_key_problem(secret) is None


def test_the_app_of_the_readme_works(tmp_path: Path) -> None:
    script = taken("README.md", 17)
    script += """
from starlette.testclient import TestClient
with TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 1)) as http:
    body = {"username": "ada", "password": "test123"}
    assert http.post("/auth/register", json=body).status_code == 201
    token = http.post("/auth/login", data=body).json()["access_token"]
    assert http.get("/auth/me", headers={"Authorization": f"Bearer {token}"}).status_code == 200
"""
    ran(script, tmp_path)


def test_the_example_of_the_readme(tmp_path: Path) -> None:
    out = done_well(taken("README.md", 14, here={"examples/": f"{ROOT}/examples/"}), tmp_path)
    lines = out.splitlines()
    assert sum("predictions: 401   search: 401   billing: 401" in line for line in lines) == 4
    assert lines[-1].strip() == "The phone's token passes until it expires, the laptop's stays refused."
    assert not list(tmp_path.iterdir())


@pytest.mark.npm("newman")
async def test_the_examples_of_the_commands(tmp_path: Path, postgres_server: str) -> None:
    """Each line of the page, with other names for what is the reader's, in an order in which one leads to another."""
    page = "docs/reference/commands.md"
    left = [line for line in taken(page, *places(page, "bash")).splitlines() if line]

    def done(line: str, *more: str, here: dict[str, str] | None = None, **env: str) -> str:
        left.remove(line)
        for there, replaced in (here or {}).items():
            assert there in line
            line = line.replace(there, replaced)
        known = {"AUTHWRIGHT_MODE": "serve", "AUTHWRIGHT_PLANS": "", **env}
        if re.search(r"[|&$]", line):
            return done_well(line, tmp_path, **known)
        named = re.match(r"(?:[A-Z_]+=\S+ )*", line)
        assert named is not None
        known |= dict(each.split("=", 1) for each in named[0].split())
        words = shlex.split(line[named.end() :])
        ended = run(tmp_path, *words[1:], *more, **known)
        assert (words[0], ended.returncode) == ("authwright", 0), ended.stderr
        return ended.stdout

    assert "systemctl" in done("authwright init --issuer https://auth.example.com --run systemd --admin ada")
    written = (tmp_path / ".env").rename(tmp_path / "written")
    assert "Wrote .env" in done("authwright init")
    written.replace(tmp_path / ".env")
    secret = re.findall(r"^SECRET_KEY=(.+)$", (tmp_path / ".env").read_text(), re.MULTILINE)[0]

    password = {"PASSWORD": PASSWORD}
    create = 'echo "$PASSWORD" | authwright users create --username ada --email ada@example.com --admin'
    done(create, here={"--username ada": "--username grace"}, **password)
    assert "grace" in done("authwright users show ada@example.com")
    done("authwright users update ada --plan premium")
    assert "ada" in done("authwright users list --plan premium")
    assert f"{ISSUER}/reset-password?token=" in done("authwright users reset-link ada")
    done("authwright users disable ada")
    realm = {"realm": "x", "users": [_of_keycloak("eve", "eve's password")]}
    (tmp_path / "realm-export.json").write_text(json.dumps(realm))
    done("authwright users import realm-export.json --dry-run")
    done("authwright users export users.jsonl")
    users = [json.loads(line)["username"] for line in (tmp_path / "users.jsonl").read_text().splitlines()]
    assert users == ["ada", "grace"]

    client = json.loads(done("authwright clients create nightly-scoring --json"))["client_id"]
    assert client in done("authwright clients list")
    changed = json.loads(done("authwright clients rotate-key cli_... --json", here={"cli_...": client}))
    assert changed["client_id"] == client
    done("authwright clients disable cli_...", here={"cli_...": client})

    kid = done("authwright keys list", "--json")
    done("authwright keys rotate")
    done("authwright keys withdraw 3q2-7w...", here={"3q2-7w...": json.loads(kid)[0]["kid"]})
    closed = {"AUTHWRIGHT_SIGNING_ALG": "HS256", "AUTHWRIGHT_AUDIENCES": API, "AUTHWRIGHT_MODE": "dev"}
    assert json.loads(done("authwright keys share https://api.example.com", **closed))
    new = {"SECRET_KEY=new": f"SECRET_KEY={new_secret_key()}", "PREVIOUS=old": f"PREVIOUS={secret}"}
    done("SECRET_KEY=new SECRET_KEY_PREVIOUS=old authwright keys rewrap", here=new)
    secret = new["SECRET_KEY=new"].removeprefix("SECRET_KEY=")

    known = {"SECRET_KEY": secret}
    day = {"2026-11-01": str(datetime.now(UTC).date() - timedelta(days=1))}
    done("authwright events export --since 2026-11-01 --output events.jsonl", here=day, **known)
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert {"user_disabled", "client_created", "keys_rewrapped"} <= set(kinds)
    done("authwright events verify", **known)
    done("authwright backup authwright-2026-11-21.db", **known)
    done("authwright restore authwright-2026-11-21.db --yes", **known)
    done("authwright migrate --check || authwright migrate", **known)
    database = await new_postgres_database(postgres_server)
    there = "postgresql://authwright@db.example.com/authwright"
    done(f"authwright migrate --to {there}", here={there: database}, **known)
    done("authwright openapi --output openapi.json")
    assert json.loads((tmp_path / "openapi.json").read_text())["openapi"]

    serve = "AUTHWRIGHT_ISSUER=https://auth.example.com authwright serve --host 0.0.0.0"
    port = free_port()
    moved = {**known, "DATABASE_URL": database}
    left.remove(serve)
    with served_as(serve, tmp_path, port, **moved):
        # It says of all there is how it is, and asks in vain for the server under a name that is not ours.
        assert ISSUER in done("authwright doctor", **moved)
    await drop_postgres_database(postgres_server, database)
    left.remove("authwright dev --port 8000")
    with serving(tmp_path, "dev") as server:
        newman = (
            "authwright postman && newman run authwright.postman_collection.json -e authwright.postman_environment.json"
        )
        asked = {"authwright postman ": f"authwright postman --base-url {server.base} "}
        assert "Every request" in done(newman, here=asked, AUTHWRIGHT_MODE="dev")
    assert left == []


@pytest.mark.program("prometheus")
def test_prometheus_reads_the_metrics(tmp_path: Path) -> None:
    """The real one, with the page's configuration, and its own word on what it was given."""
    page, port, token = "docs/reference/metrics.md", free_port(), "a token of sixteen or more letters".replace(" ", "-")
    (tmp_path / "metrics_token").write_text(token)
    with serving(tmp_path, "dev", METRICS_TOKEN=token) as server, server.http() as http:
        here = {
            "scheme: https": "scheme: http",
            "auth.example.com": server.base.removeprefix("http://"),
            "/run/secrets/metrics_token": str(tmp_path / "metrics_token"),
        }
        (tmp_path / "prometheus.yml").write_text(f"global: {{scrape_interval: 200ms}}\n{taken(page, 0, here=here)}")
        given = http.get("/metrics", headers={"Authorization": f"Bearer {token}"}).text
        for command, typed in (("config prometheus.yml", ""), ("metrics", given)):
            checked = subprocess.run(
                f"promtool check {command}", shell=True, cwd=tmp_path, input=typed, capture_output=True, text=True
            )
            assert checked.returncode == 0, checked.stderr
        command = [
            "prometheus",
            "--config.file=prometheus.yml",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with program(tmp_path / "prometheus.log", *command, at=f"http://127.0.0.1:{port}/-/ready"):
            assert http.post("/register", json={"username": "ada", "password": PASSWORD}).status_code == 201
            asked = {"query": 'authwright_http_requests_total{route="/register",status="201",job="authwright"}'}
            deadline = time.monotonic() + 20
            while not (
                found := httpx2.get(f"http://127.0.0.1:{port}/api/v1/query", params=asked).json()["data"]["result"]
            ):
                assert time.monotonic() < deadline
                # Prometheus tells nobody when it has looked: it is asked until it has, or for 20 seconds.
                time.sleep(0.1)
            assert found[0]["value"][1] == "1"


def test_every_block_was_run(request: pytest.FixtureRequest) -> None:
    """The last of this file: what the others took, what is named above with its reason, and nothing else is there."""
    mine = [item for item in request.session.items if item.path == request.path]
    written = re.findall(r"^(?:async )?def (test_\w+)", Path(__file__).read_text(encoding="utf-8"), re.MULTILINE)
    if {item.originalname for item in mine if isinstance(item, pytest.Function)} != set(written):
        pytest.skip("the other tests of this file were not chosen")
    if any(item.get_closest_marker("skip") for item in mine):
        pytest.skip("a program is missing that another test of this file needs")
    for file, what in ELSEWHERE.values():
        assert what in (Path(__file__).parent / file).read_text(encoding="utf-8")
    code = {where for where, block in BLOCKS.items() if block.language != "text"}
    assert code - RUN - ELSEWHERE.keys() == RUN_BY_CI.keys()
