"""The Postman collection in Postman's own command-line runner: every flow and every request of it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from processes import Running, free_port, production_environment, run, serving

ROOT = Path(__file__).parents[2]
NEWMAN = ROOT / ".venv/node/node_modules/.bin/newman"
PASSWORD = "a long and unusual passphrase"
pytestmark = pytest.mark.npm("newman")


def newman(folder: Path, **variables: str) -> tuple[int, dict[str, Any]]:
    """The exit status of newman, and its report."""
    command = [NEWMAN, "run", "authwright.postman_collection.json", "-e", "authwright.postman_environment.json"]
    command += ["--reporters", "json", "--reporter-json-export", "report.json", "--timeout", "60000"]
    for name, value in variables.items():
        command += ["--env-var", f"{name}={value}"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    report = json.loads((folder / "report.json").read_text())["run"]
    # It holds what was issued; where secrets must not stand, the tests look after this one.
    (folder / "report.json").unlink()
    return ended.returncode, dict(report, said=ended.stdout + ended.stderr)


def served(report: dict[str, Any]) -> list[tuple[str, int]]:
    return [
        (execution["item"]["name"], execution["response"]["code"])
        for execution in report["executions"]
        if "response" in execution
    ]


def written(server: Running) -> list[str]:
    """Write the collection; the titles of the steps of its flows."""
    made = run(server.folder, "postman", "--base-url", server.base)
    assert made.returncode == 0, made.stderr
    document = json.loads((server.folder / "authwright.postman_collection.json").read_text())
    return [step["name"] for flow in document["item"] if flow["name"] != "Every request" for step in flow["item"]]


@pytest.mark.parametrize("mode", ["dev", "serve"])
def test_every_flow_and_every_request_is_green(tmp_path: Path, mode: str) -> None:
    port = free_port()
    env = production_environment(port) if mode == "serve" else {}
    with serving(tmp_path, mode, port=port, **env) as server:
        titles = written(server)
        client = json.loads(run(tmp_path, "clients", "create", "postman", "--json", **env).stdout)
        made = run(tmp_path, "users", "create", "--username", "boss-ada", "--admin", stdin=PASSWORD + "\n", **env)
        assert made.returncode == 0, made.stderr
        code, report = newman(
            tmp_path, client_key=client["client_key"], admin_username="boss-ada", admin_password=PASSWORD
        )
    assert report["failures"] == []
    assert code == 0, report["said"]
    answers = served(report)
    assert [name for name, _ in answers[: len(titles)]] == titles
    paths = json.loads((ROOT / "openapi.json").read_text())["paths"]
    assert len(answers) == len(titles) + sum(len(methods) for methods in paths.values())
    assert not [answer for answer in answers if answer[1] >= 500]


def test_flows_without_their_credentials_are_skipped_and_a_wrong_answer_is_told(tmp_path: Path) -> None:
    with serving(tmp_path, "dev") as server:
        titles = written(server)
        code, report = newman(tmp_path)
        assert (code, report["failures"]) == (0, [])
        assert [name for name, _ in served(report)][:11] == [*titles[:10], "Register"]
        # Somebody else's name cannot be registered again, so the flow fails.
        code, report = newman(tmp_path, username="bholay", password="test123")
        assert code == 1
        assert report["failures"][0]["source"]["name"] == "Register"
