"""The reports of /analytics as pages: charts in SVG, drawn here, with nothing fetched from anywhere and no scripts."""

import html
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, Final

from authwright.web.endpoint import Reply

_HEADERS: Final = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"vary", b"accept"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-frame-options", b"DENY"),
)
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #66707d; --line: #d9dee5; --paper: #fff; --bar: #2f6fde; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ecf1; --soft: #9aa5b3; --line: #343d49; --paper: #14181e; --bar: #6ea0ff; }
}
body { font: 1rem/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 48rem;
  margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .5rem; }
p { margin: .25rem 0; color: var(--soft); }
dl { display: flex; flex-wrap: wrap; gap: .5rem 2.5rem; margin: 1.5rem 0 0; }
dt { color: var(--soft); font-size: .875rem; }
dd { margin: 0; font-size: 1.75rem; font-variant-numeric: tabular-nums; }
svg { display: block; width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
svg rect { fill: var(--bar); }
svg line { stroke: var(--line); }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .5rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 500; }
"""
_WIDTH: Final = 720
_HEIGHT: Final = 160
_ROW: Final = 26
_MOST_ROWS: Final = 20


def analytics_page(report: Mapping[str, Any], *, title: str) -> Reply:
    """The page of a basic or full *report*."""
    calls, predictions, units = report["calls"], report["predictions"], report["units"]
    days = _days(report["since"], report["until"])
    by_status = calls["by_status"]
    refused = sum(count for status, count in by_status.items() if status[0] in "45")
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{report['since']} to {report['until']}, days of UTC</p>",
        _figures(
            ("Calls", calls["total"]),
            ("Refused or failed", refused),
            ("Units spent", units["total"]),
            ("Predictions", predictions["total"]),
            ("Callers", sum(report["callers_by_plan"].values())),
        ),
        _columns("Calls by day", days, calls["by_day"]),
        _columns("Units spent by day", days, units["by_day"]),
        _bars("Calls by route", calls["by_route"]),
        _bars("Answers by status", by_status),
        _bars("Callers by plan", report["callers_by_plan"]),
        _bars("Predicted classes", _summed(predictions["by_day"].values())),
        _table(
            "Latency in milliseconds",
            ("Route", "p50", "p90", "p99"),
            [
                (route, *(_decimal(quantiles[name]) for name in ("p50", "p90", "p99")))
                for route, quantiles in report["latency_ms"].items()
            ],
        ),
    ]
    if "callers" in report:
        parts += [
            _table(
                "Busiest callers",
                ("Caller", "Plan", "Calls", "Refused", "Predictions"),
                [
                    (each["id"], each["plan"], *(_number(each[name]) for name in ("calls", "refused", "predictions")))
                    for each in report["callers"][:50]
                ],
            ),
            _columns("Failed logins by day", days, report["failed_logins"]),
            _columns("Revocations by day", days, report["revocations"]),
            _bars("Security events", report["events"]),
        ]
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n"
        '<link rel="icon" href="data:,">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )
    return Reply(200, page.encode("utf-8"), _HEADERS)


def _figures(*figures: tuple[str, int]) -> str:
    shown = "".join(f"<div><dt>{html.escape(name)}</dt><dd>{_number(value)}</dd></div>" for name, value in figures)
    return f"<dl>{shown}</dl>"


def _columns(title: str, days: Sequence[str], values: Mapping[str, int]) -> str:
    """A column for each of *days*."""
    most = max((values.get(day, 0) for day in days), default=0)
    if most <= 0:
        return ""
    step, top, base = _WIDTH / len(days), 20, _HEIGHT - 24
    drawn = [f'<line x1="0" y1="{top}" x2="{_WIDTH}" y2="{top}"/><text x="0" y="{top - 6}">{_number(most)}</text>']
    for place, day in enumerate(days):
        value = max(0, values.get(day, 0))
        height = (base - top) * value / most
        if value:
            height = max(1.0, height)
        drawn.append(
            f'<rect x="{place * step + 2:.1f}" y="{base - height:.1f}" width="{step - 4:.1f}" height="{height:.1f}">'
            f"<title>{day}: {_number(value)}</title></rect>"
        )
    drawn.append(f'<line x1="0" y1="{base}" x2="{_WIDTH}" y2="{base}"/>')
    drawn.append(f'<text x="0" y="{_HEIGHT - 6}">{days[0]}</text>')
    drawn.append(f'<text x="{_WIDTH}" y="{_HEIGHT - 6}" text-anchor="end">{days[-1]}</text>')
    return _chart(title, _HEIGHT, drawn, f"at most {_number(most)} on a day")


def _bars(title: str, values: Mapping[str, int]) -> str:
    """A bar for each name, the largest first; the smallest together."""
    rows = sorted(((name, value) for name, value in values.items() if value > 0), key=lambda row: (-row[1], row[0]))
    if not rows:
        return ""
    if len(rows) > _MOST_ROWS:
        rest = rows[_MOST_ROWS - 1 :]
        rows = [*rows[: _MOST_ROWS - 1], (f"{len(rest)} others", sum(value for _, value in rest))]
    most = max(value for _, value in rows)
    drawn = []
    for place, (name, value) in enumerate(rows):
        width = max(1.0, 400 * value / most)
        line = place * _ROW
        drawn.append(
            f'<text x="228" y="{line + 17}" text-anchor="end">{html.escape(_short(name))}</text>'
            f'<rect x="240" y="{line + 5}" width="{width:.1f}" height="{_ROW - 10}">'
            f"<title>{html.escape(name)}: {_number(value)}</title></rect>"
            f'<text x="{248 + width:.1f}" y="{line + 17}">{_number(value)}</text>'
        )
    return _chart(title, len(rows) * _ROW, drawn, ", ".join(f"{name} {_number(value)}" for name, value in rows))


def _chart(title: str, height: int, drawn: Iterable[str], said: str) -> str:
    label = html.escape(f"{title}: {said}", quote=True)
    return (
        f"<h2>{html.escape(title)}</h2>\n"
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}">{"".join(drawn)}</svg>'
    )


def _table(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<h2>{html.escape(title)}</h2>\n<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _days(since: str, until: str) -> list[str]:
    first, last = date.fromisoformat(since), date.fromisoformat(until)
    return [(first + timedelta(days=day)).isoformat() for day in range((last - first).days + 1)]


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return total


def _number(value: int) -> str:
    return f"{value:,}".replace(",", "\u202f")


def _decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _short(name: str) -> str:
    return name if len(name) <= 32 else name[:31] + "…"
