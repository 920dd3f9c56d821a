"""A newcomer's way: runs nothing but the README's code blocks, on a clean clone and with an empty HOME.

`python3 tests/newcomer.py` needs what the README says (Python, make, curl; newman for one line) and the ports 8000 and
9000. It ends with an API of the newcomer's own, protected, and a token that it refuses after a logout.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
INSTALL_SECONDS = 600
_FENCE = re.compile(r'^```([a-z]+)(?: title="(\S+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def answers(at: str) -> bool:
    try:
        urllib.request.urlopen(at, timeout=2)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def started(command: str, at: str, folder: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """*command*, as in a terminal of its own, once it answers at *at*, where nobody may have answered before."""
    if answers(at):
        sys.exit(f"Something answers at {at} already: end it first.")
    with (folder.parent / "terminal.log").open("ab") as log:
        process = subprocess.Popen(
            ["sh", "-c", command], cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.monotonic() + INSTALL_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if answers(at):
            return process
        time.sleep(0.2)
    stop(process)
    sys.exit(f"{command!r} does not answer at {at}:\n{(folder.parent / 'terminal.log').read_text()}")


def stop(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    process.wait(30)


def main() -> None:
    with tempfile.TemporaryDirectory() as top:
        home, clone = Path(top, "home"), Path(top, "authwright")
        home.mkdir()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        path = f"{os.environ['PATH']}:{ROOT}/.venv/node/node_modules/.bin"
        env = {"PATH": path, "HOME": str(home), "LANG": os.environ.get("LANG", "C.UTF-8")}
        # Where packages come from is the machine's matter.
        env |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
        blocks = _FENCE.findall((clone / "README.md").read_text(encoding="utf-8"))
        commands = [text for language, _, text in blocks if language == "sh"]
        for _, title, text in blocks:
            if title:
                (clone / title).write_text(text, encoding="utf-8")
        script = "".join(text for language, _, text in blocks if language == "bash")
        if shutil.which("newman", path=path) is None:
            print("newman is not here: its line is left out", file=sys.stderr)
            script = re.sub(r"^newman .*\n", "", script, flags=re.MULTILINE)
        running = []
        try:
            running.append(started(commands[0], "http://127.0.0.1:8000/readyz", clone, env))
            (api,) = (text for text in commands if "uvicorn api:api" in text)
            running.append(started(api, "http://127.0.0.1:9000/docs", clone, env))
            shell = ["bash", "-euo", "pipefail", "-c", script]
            walk = subprocess.run(shell, cwd=clone, env=env, capture_output=True, text=True, timeout=300, check=False)
        finally:
            for each in reversed(running):
                stop(each)
    if walk.returncode != 0:
        sys.exit(f"{walk.stdout}\n{walk.stderr}")
    end = walk.stdout[walk.stdout.rindex('{"price"') :]
    print(end)
    if not re.fullmatch(
        r'\{"price":195000\.0,"for":"bholay"\}.*"logged_out".*The token is not valid.*', end, re.DOTALL
    ):
        sys.exit("The walk did not end as the README says.")


if __name__ == "__main__":
    main()
