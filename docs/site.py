"""Builds the documentation site into `.site`, with the files that its pages lead to: part of `make docs`."""

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
        for name in BESIDE:
            text = re.sub(rf'href="(?:\.\./)+{re.escape(name)}(?=["/])', f'href="{up}{name}', text)
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
