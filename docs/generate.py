"""Writes the pages that are read off the code: `make docs`. A test compares them with what is committed."""

import json
from pathlib import Path
from typing import Any

import typer

from authwright.app import DESCRIPTION, create_app
from authwright.cli.main import app as commands
from authwright.config import SETTINGS, Settings, setting_names
from authwright.domain import errors
from authwright.web.docs import openapi_document

ROOT = Path(__file__).parents[1]
_NOTE = "<!-- Written by `make docs`; do not edit. -->\n\n"


def settings_page() -> str:
    dev = Settings.dev()
    rows = "\n".join(
        f"| {' '.join(f'`{name}`' for name in setting_names(setting.name))} | {_default(setting)} "
        f"| {_default(setting, dev)} | {setting.metadata['about']} |"
        for setting in SETTINGS
    )
    return f"""{_NOTE}# Settings

Read from the environment, or from `.env` in the working directory; the environment beats `.env`. Each name also works with
`_FILE` appended: then it names a file that holds the value, as container platforms mount secrets. A name that begins with
`AUTHWRIGHT_` and is not in this table is refused: it would be a typing error that nobody notices. Every problem is named
at once, and the server does not start.

| name | default in `serve` | default in `dev` | meaning |
|---|---|---|---|
{rows}

In `dev`, what says in `.env` who a production server is (`SECRET_KEY`, issuer, hosts, proxies, workers) is not read.

`AUTHWRIGHT_MODE` (`dev` or `serve`) tells commands like `authwright users create` whose store to work on; without it they
take the one that `authwright serve` is configured for, else the one that `authwright dev` made.
"""


def _default(setting: Any, settings: Settings | None = None) -> str:
    value = getattr(settings, setting.name) if settings else setting.default
    if value in ("", ()):
        return ""
    return f"`{('on' if value else 'off') if isinstance(value, bool) else value}`"


def env_example() -> str:
    lines = [
        "# Copy to .env and uncomment what you need; `authwright init` writes one with a fresh SECRET_KEY.",
        "# What each setting means is in docs/reference/settings.md.",
    ]
    for setting in SETTINGS:
        name = setting_names(setting.name)[-1]
        default = _default(setting).strip("`")
        lines.append(f"\n# {setting.metadata['about']}\n# {name}={default}")
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    page = [
        f"{_NOTE}# Commands\n",
        "Every command has `--help`. Exit status: 0 done, 1 refused (the reason is on standard error), 2 wrong usage or "
        "settings\nthat cannot be used, 3 the server is not installed or cannot listen.\n",
    ]
    root: Any = typer.main.get_command(commands)

    def walk(command: Any, path: str) -> None:
        if hasattr(command, "commands"):
            for name in command.commands:
                walk(command.commands[name], f"{path} {name}")
            return
        page.append(f"## `{path}`\n\n{_plain(command.help)}\n")
        rows = [
            f"| `{'`, `'.join(parameter.opts)}` | {getattr(parameter, 'help', '') or ''} |"
            for parameter in command.params
            if parameter.name != "help"
        ]
        if rows:
            page.append("| option | meaning |\n|---|---|\n" + "\n".join(rows) + "\n")

    walk(root, "authwright")
    return "\n".join(page)


def _plain(text: str) -> str:
    about, _, example = text.partition("Example:")
    return f"{' '.join(about.split())}\n\n```\n{example.strip()}\n```"


def openapi_json() -> str:
    document = openapi_document(create_app(Settings.dev(database_url="sqlite://")), description=DESCRIPTION)
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def http_page() -> str:
    document = json.loads(openapi_json())
    rows = [
        f"| `{method.upper()} {path}` | {operation['summary']} | {'yes' if operation.get('security') else ''} "
        f"| {' '.join(sorted(operation['responses']))} |"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    refusals = sorted(
        {
            (kind.code, kind.status, kind.default)
            for kind in vars(errors).values()
            if isinstance(kind, type) and issubclass(kind, errors.Refusal)
        }
    )
    codes = "\n".join(f"| `{code}` | {status} | {default} |" for code, status, default in refusals)
    return f"""{_NOTE}# HTTP

The whole surface with bodies and examples is in [`openapi.json`](../../openapi.json), served at `/openapi.json` and shown at
`/docs`. Both spellings of a path answer, with and without a slash at the end; nothing redirects.

| request | does | token needed | answers |
|---|---|---|---|
{chr(10).join(rows)}

## Refusals

`/token` answers `{{"error", "error_description", "request_id"}}` (RFC 6749 section 5.2). Everything else answers problem
details, `application/problem+json` (RFC 9457): `type`, `title`, `status`, `detail`, `request_id` and the stable `error` of this
table. `request_id` is in the header `X-Request-Id` and in the log, too. What was sent is never repeated.

| error | status | usual text |
|---|---|---|
{codes}
"""


PAGES = {
    "docs/reference/settings.md": settings_page,
    "docs/reference/commands.md": commands_page,
    "docs/reference/http.md": http_page,
    ".env.example": env_example,
    "openapi.json": openapi_json,
}


def main() -> None:
    """Write all pages."""
    for name, make in PAGES.items():
        (ROOT / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
