"""The pages of the documentation and their code blocks, and which of those were run."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

from processes import environment

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "src/authwright/SKILL.md"]
_FENCE = re.compile(r"^( *)```([a-z]*)(?: title=\"(\S+)\")?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_PIP = re.compile(r"^(?:\S*/)?pip install (.*?)(?:\s+#.*)?$", re.MULTILINE)


class Block(NamedTuple):
    """The code block *place* (from 0) of *page*; *title*: the file that it is."""

    page: str
    place: int
    language: str
    title: str
    text: str


def every_block() -> Iterator[Block]:
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        for place, found in enumerate(_FENCE.finditer(page.read_text(encoding="utf-8"))):
            text = re.sub(rf"^{found[1]}", "", found[4], flags=re.MULTILINE)
            yield Block(name, place, found[2], found[3] or "", text)


BLOCKS = {(block.page, block.place): block for block in every_block()}
RUN: set[tuple[str, int]] = set()


def taken(page: str, *places: int, here: dict[str, str] | None = None) -> str:
    """The blocks *places* of *page*, to be run, with other names for what stands elsewhere *here*."""
    RUN.update((page, place) for place in places)
    text = "\n".join(BLOCKS[page, place].text for place in places)
    for there, replaced in (here or {}).items():
        assert there in text, f"{page} says nothing of {there}"
        text = text.replace(there, replaced)
    return text


def places(page: str, *languages: str) -> list[int]:
    return [block.place for block in BLOCKS.values() if block.page == page and block.language in languages]


def shell(script: str, **env: str) -> tuple[list[str], dict[str, str]]:
    """The command that runs the shell commands *script*, all of them or up to the first failure, and its environment.

    What they would install is looked at, and is installed already.
    """
    for each in _PIP.finditer(script):
        _require_installable(shlex.split(each[1]))
    binaries = f"{Path(sys.executable).parent}:{ROOT}/.venv/node/node_modules/.bin"
    known = environment(**env)
    known["PATH"] = f"{binaries}:{known['PATH']}"
    return ["bash", "-euo", "pipefail", "-c", _PIP.sub("", script).replace(".venv/bin/", "")], known


def walked(script: str, folder: Path, *, answer: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """What the shell commands *script* did in *folder*. *answer*: what is typed where they ask."""
    command, known = shell(script, **env)
    return subprocess.run(
        command, cwd=folder, env=known, input=answer, capture_output=True, text=True, timeout=90, check=False
    )


def _require_installable(words: list[str]) -> None:
    """Raises if `pip install` *words* names a file or an extra that there is not."""
    for before, word in zip(["", *words], words, strict=False):
        if before == "-r":
            assert (ROOT / word).exists()
        elif not word.startswith("-") and word != ".":
            wanted = Requirement(word)
            assert wanted.name == "authwright"
            assert wanted.extras <= set(metadata("authwright").get_all("Provides-Extra") or ())
