"""Builds the documentation site into `.site`, with the files that its pages lead to: part of `make docs`.

A link that leads nowhere ends it.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SITE = ROOT / ".site"
# What pages link to beside them in the repository: in the site it lies at its top.
BESIDE = ("deploy", "openapi.json")


def main() -> None:
    """Build; end with exit status 1 if there is a warning."""
    zensical = Path(sys.executable).with_name("zensical")
    command = [zensical, "build", "--clean", "--strict", "--config-file", "mkdocs.yml"]
    subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603 - nothing of it comes from outside
    for name in BESIDE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, SITE / name, dirs_exist_ok=True)
        else:
            shutil.copy(ROOT / name, SITE / name)
    shutil.copy(ROOT / "docs/llms.txt", SITE / "llms.txt")
    for page in SITE.rglob("*.html"):
        up = "../" * len(page.parent.relative_to(SITE).parts)
        text = page.read_text(encoding="utf-8")
        # One step more than leads to the top: it leads out of `docs`.
        names = "|".join(map(re.escape, BESIDE))
        text = re.sub(rf'href="{re.escape(up)}\.\./({names})(?=["/])', rf'href="{up}\1', text)
        page.write_text(text, encoding="utf-8")
    if dead := [f"{page.relative_to(SITE)}: {link}" for page in SITE.rglob("*.html") for link in dead_links(page)]:
        sys.exit("Links that lead nowhere:\n" + "\n".join(dead))


def dead_links(page: Path) -> list[str]:
    """The links of *page* to files of the site that are not there."""
    links = re.findall(r'(?:href|src)="?([^"\s>]+)', page.read_text(encoding="utf-8"))
    files = [link for link in links if not re.match(r"[a-z]+:|//|#", link)]
    # What is not found has links to the top of wherever the site is put.
    top = SITE if page.name == "404.html" else page.parent
    return [link for link in files if not _leads(top, re.split("[?#]", link)[0])]


def _leads(folder: Path, link: str) -> bool:
    target = SITE / link.lstrip("/") if link.startswith("/") else folder / link
    return (target / "index.html").exists() or target.is_file()


if __name__ == "__main__":
    main()
