"""The examples do what they say."""

import subprocess
import sys
from pathlib import Path

from processes import environment

ROOT = Path(__file__).parents[2]


def test_logout_everywhere(tmp_path: Path) -> None:
    script = ROOT / "examples/logout_everywhere/run.py"
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum("predictions: 401   search: 401   billing: 401" in line for line in lines) == 4
    assert lines[-1].strip() == "The phone's token passes until it expires, the laptop's stays refused."
    assert not list(tmp_path.iterdir())
