"""Measure, and print tables: `python -m bench [service] [guard] [logout] [limits] [--write]`; no name: everything.

`--write` puts them into docs/performance.md; parts that were not measured stay as they are there. Those of plans stand
at the end of docs/explanation/plans.md.
"""

import importlib
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from bench.figures import Figure, machine, table

PAGE = Path(__file__).parents[1] / "docs/performance.md"
PLANS = PAGE.parent / "explanation/plans.md"
PARTS = {"service": "The server", "guard": "The guard", "logout": "Logging out", "limits": "Figures"}
HEAD = """# Performance

Every figure is measured by `make bench ARGS=--write`, beside a peer or the bare limit in the same run, and stands here
as it came out. `.venv/bin/python -m bench guard --write` measures one part again.
"""


def part(name: str) -> tuple[str, list[Figure]]:
    """The section *name* of the page, and its figures."""
    said, figures = importlib.import_module(f"bench.{name}").section()
    when = f"Measured on {datetime.now(UTC):%Y-%m-%d}, {machine()}, by `.venv/bin/python -m bench {name} --write`."
    return f"## {PARTS[name]}\n\n{when} {said}\n\n{table(figures)}\n", figures


def written(sections: dict[str, str]) -> str:
    """The page with *sections* in the place of those of the same title."""
    before = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    kept = {
        each.partition("\n")[0][3:]: each for each in re.findall(r"^## (?:.|\n)*?(?=^## |\Z)", before, re.MULTILINE)
    }
    every = [sections.get(name) or kept.get(title, "") for name, title in PARTS.items() if name != "limits"]
    return "\n".join([HEAD, *(each.rstrip() + "\n" for each in every if each)])


def main() -> None:
    names = [name for name in sys.argv[1:] if name != "--write"] or list(PARTS)
    if unknown := set(names) - set(PARTS):
        sys.exit(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    sections, met = {}, True
    for name in names:
        sections[name], figures = part(name)
        print(sections[name], flush=True)
        met = met and all(figure.met is not False for figure in figures)
    if "--write" in sys.argv:
        PAGE.write_text(written(sections), encoding="utf-8")
        if "limits" in sections:
            before = PLANS.read_text(encoding="utf-8").partition("## Figures")[0]
            PLANS.write_text(before + sections["limits"], encoding="utf-8")
    sys.exit(not met)


main()
