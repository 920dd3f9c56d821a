"""Every code block of every page: what no other test runs is at least of its language, and names what exists."""

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from authwright.cli.main import app
from authwright.config import SETTINGS, setting_names
from authwright.guard import environment
from pages import BLOCKS, PAGES, ROOT

_GUARD = set(re.findall(r"AUTHWRIGHT_[A-Z_]+", Path(environment.__file__).read_text(encoding="utf-8")))
_KNOWN = {name for setting in SETTINGS for name in setting_names(setting.name)} | _GUARD | {"AUTHWRIGHT_MODE"}


def blocks(*languages: str) -> list[Any]:
    return [
        pytest.param(block.text, id=f"{block.page}-{block.place}")
        for block in BLOCKS.values()
        if block.language in languages
    ]


@pytest.mark.parametrize("text", blocks("python"))
def test_python_is_python_and_imports_what_there_is(text: str) -> None:
    tree = compile(text, "block", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("authwright"):
            module = importlib.import_module(node.module or "")
            for each in node.names:
                assert hasattr(module, each.name), f"{node.module} has no {each.name}"


@pytest.mark.parametrize("text", blocks("toml"))
def test_toml_is_toml(text: str) -> None:
    assert tomllib.loads(text)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_is_yaml(text: str) -> None:
    assert all(each is not None for each in yaml.safe_load_all(text))


def commands(text: str) -> Iterator[list[str]]:
    """The words after `authwright` in each command of a shell block."""
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"(?<!\S)#.*$", "", line)
        for part in re.split(r"\|\||&&|[|;()]", line):
            words = part.split(">")[0].split()
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                del words[0]
            if words and words[0].rpartition("/")[2] == "authwright":
                yield words[1:]


@pytest.mark.parametrize("text", blocks("", "sh", "bash", "console"))
def test_commands_of_shell_blocks_exist_with_their_options(text: str) -> None:
    root: Any = typer.main.get_command(app)
    for words in commands(text):
        command = root
        while words and hasattr(command, "commands") and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        if words and words[0] in ("--help", "--version"):
            continue
        assert not hasattr(command, "commands"), f"there is no command {words}"
        options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in options, f"{command.name} has no {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_that_a_page_names_exist(page: Path) -> None:
    named = set(re.findall(r"\bAUTHWRIGHT_[A-Z0-9_]+[A-Z0-9]\b", page.read_text(encoding="utf-8")))
    assert {name.removesuffix("_FILE") for name in named} <= _KNOWN


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_block_is_overlooked(page: Path) -> None:
    fences = re.findall(r"^ *(?:```|~~~)", page.read_text(encoding="utf-8"), re.MULTILINE)
    found = [block for block in BLOCKS.values() if block.page == str(page.relative_to(ROOT))]
    assert len(fences) == 2 * len(found)


def test_blocks_are_found() -> None:
    assert len(blocks("python")) > 20
    assert sum(len(list(commands(each.values[0]))) for each in blocks("", "sh", "bash")) > 40
