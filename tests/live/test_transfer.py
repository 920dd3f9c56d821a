"""authwright users import and export, from file to file."""

import csv
import json
import stat
from pathlib import Path

from processes import run

HASH = "$2b$04$" + "abcdefghijklmnopqrstuu" + "abcdefghijklmnopqrstuvwxyzABCDE"


def test_users_go_out_and_in_again(tmp_path: Path) -> None:
    env = {"AUTHWRIGHT_MODE": "dev"}
    (tmp_path / "users.csv").write_text(
        f"username,email,password_hash,plan\nada,ada@example.com,{HASH},premium\ngrace,,{HASH},\nno name,,{HASH},\n"
    )
    dry = run(tmp_path, "users", "import", "users.csv", "--dry-run", **env)
    assert dry.returncode == 3
    assert "2 could be imported" in dry.stderr + dry.stdout
    assert "Row 4: " in dry.stderr
    done = run(tmp_path, "users", "import", "users.csv", "--json", **env)
    answer = json.loads(done.stdout)
    assert (answer["imported"], answer["present"], [each["row"] for each in answer["refused"]]) == (2, 0, [4])
    assert json.loads(run(tmp_path, "users", "import", "users.csv", "--json", **env).stdout)["present"] == 2

    assert run(tmp_path, "users", "export", "out.jsonl", **env).returncode == 0
    exported = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {each["username"] for each in exported} == {"ada", "grace"}
    assert stat.S_IMODE((tmp_path / "out.jsonl").stat().st_mode) == 0o600
    assert HASH not in (tmp_path / "out.jsonl").read_text()
    assert run(tmp_path, "users", "export", "out.jsonl", **env).returncode == 1
    table = run(tmp_path, "users", "export", "--format", "csv", "--with-hashes", **env).stdout
    rows = list(csv.DictReader(table.splitlines()))
    assert {(row["username"], row["plan"], row["password_hash"]) for row in rows} == {
        ("ada", "premium", HASH),
        ("grace", "free", HASH),
    }

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "in.csv").write_text(table)
    assert json.loads(run(elsewhere, "users", "import", "in.csv", "--json", **env).stdout)["imported"] == 2


def test_json_in_one_piece_and_in_lines(tmp_path: Path) -> None:
    env = {"AUTHWRIGHT_MODE": "dev"}
    (tmp_path / "realm.json").write_text(
        json.dumps({"realm": "x", "users": [{"username": "ada", "enabled": True}]}, indent=1)
    )
    (tmp_path / "one-line.json").write_text(json.dumps({"realm": "x", "users": [{"username": "eve", "enabled": True}]}))
    (tmp_path / "dump.json").write_text(json.dumps([{"model": "auth.user", "fields": {"username": "grace"}}, 7]))
    (tmp_path / "lines.jsonl").write_text('{"username": "alan"}\n\nnot json\n')
    for name, imported, refused in (
        ("realm.json", 1, []),
        ("one-line.json", 1, []),
        ("dump.json", 1, [2]),
        ("lines.jsonl", 1, [3]),
    ):
        answer = json.loads(run(tmp_path, "users", "import", name, "--json", **env).stdout)
        assert (answer["imported"], [each["row"] for each in answer["refused"]]) == (imported, refused), name
    (tmp_path / "broken.json").write_text('[{"username": ')
    broken = run(tmp_path, "users", "import", "broken.json", **env)
    assert broken.returncode == 1
    assert "cannot be read" in broken.stderr
