"""The documentation says what the code says: generated pages, the "Where is ...?" table, links, commands."""

import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))
import generate  # noqa: E402

PAGES = sorted(path for path in ROOT.rglob("*.md") if not {".venv", ".venv-peer", "node_modules"} & set(path.parts))


@pytest.mark.parametrize("name", generate.PAGES)
def test_generated_pages_are_those_the_code_makes(name: str) -> None:
    made = generate.PAGES[name]()
    assert (ROOT / name).read_text(encoding="utf-8") == made, "run `make docs`"


def where_is() -> list[tuple[str, str]]:
    table = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
    return re.findall(r"^\| .+ \| `([^`]+)` `([^`]+)` \|$", table, re.MULTILINE)


def test_the_where_is_table_is_read() -> None:
    assert len(where_is()) > 20


@pytest.mark.parametrize(("path", "name"), where_is())
def test_every_place_of_the_where_is_table_exists(path: str, name: str) -> None:
    source = (ROOT / path).read_text(encoding="utf-8")
    assert re.search(rf"^\s*(?:(?:async )?def|class) {name}\b|^{name}\b.*=", source, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_every_page_of_decisions_is_listed() -> None:
    folder = ROOT / "docs/decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    for page in folder.glob("*.md"):
        assert page.name == "README.md" or page.name in index


def test_make_targets_named_in_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"\bmake ([a-z]+)", (ROOT / "README.md").read_text(encoding="utf-8"))):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_locks_carry_digests_and_no_addresses() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        text = lock.read_text(encoding="utf-8")
        assert "://" not in text
        assert text.count("--hash=sha256:") > text.count("==")


def test_every_page_is_in_the_sites_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r": ([\w/.-]+\.md)$", text, re.MULTILINE))
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if not page.startswith("decisions/0")} == listed


def test_the_skill_for_agents_is_in_the_package_and_names_what_there_is() -> None:
    text = (ROOT / "src/authwright/SKILL.md").read_text(encoding="utf-8")
    assert text.startswith("---\nname: authwright\ndescription: ")
    for module, name in re.findall(r"from (authwright[\w.]*) import (\w+)", text):
        assert hasattr(importlib.import_module(module), name)
