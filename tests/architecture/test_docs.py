"""The documentation says what the code says: generated pages, the "Where is ...?" table, links, commands."""

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from authwright.domain.secrets import CLIENT_KEY_PREFIX, new_key
from authwright.guard import Guard
from authwright.services.metrics import Metrics

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
    table = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8").partition("| Where is |")[2]
    assert len(where_is()) == len(re.findall(r"^\| .+\? \|", table, re.MULTILINE)) > 20


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


def test_a_dead_link_of_the_site_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make docs` looks at every link of what it built."""
    spec = importlib.util.spec_from_file_location("docs_site", ROOT / "docs/site.py")
    assert spec is not None
    assert spec.loader is not None
    docs_site = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(docs_site)
    monkeypatch.setattr(docs_site, "SITE", tmp_path)
    (tmp_path / "howto/deploy").mkdir(parents=True)
    (tmp_path / "howto/deploy/index.html").touch()
    page = tmp_path / "howto/index.html"
    page.write_text(
        '<a href="deploy/#top"><a href="../howto/"><a href="../deploy/Dockerfile"><a href="https://x.example">'
    )
    assert docs_site.dead_links(page) == ["../deploy/Dockerfile"]


def named_metrics(page: str) -> set[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`authwright_[^|]+)\|", text, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def exposed_metrics(exposition: str) -> set[str]:
    return {line.split()[2] for line in exposition.splitlines() if line.startswith("# TYPE authwright_")}


def test_every_metric_is_described_and_no_other() -> None:
    told = exposed_metrics(Metrics().exposition().decode())
    assert named_metrics("docs/reference/metrics.md") == {name for name in told if not name.endswith("_created")}


async def test_every_metric_of_the_guard_is_described_and_no_other() -> None:
    guard = Guard(
        issuer="https://auth.example.com",
        audience="https://api.example.com",
        key=new_key(CLIENT_KEY_PREFIX),
        limits=True,
    )
    told = exposed_metrics(guard.exposition())
    await guard.close()
    assert named_metrics("docs/howto/protect-an-api.md") == told


@pytest.mark.parametrize("path", sorted((ROOT / "bench").glob("*.py")), ids=lambda path: path.stem)
def test_what_measures_can_be_loaded(path: Path) -> None:
    if path.stem not in ("__main__", "peer"):
        command = [sys.executable, "-c", f"import bench.{path.stem}"]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
