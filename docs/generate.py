"""Writes the pages that are read off the code: `make docs`. A test compares them with what is committed."""

import json
import re
from pathlib import Path
from typing import Any

import typer

from authwright.app.routes import DESCRIPTION, create_app
from authwright.cli.main import app as commands
from authwright.config import SETTINGS, Settings, setting_names
from authwright.domain import errors
from authwright.domain.event import EVENT_KINDS, Event
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
        "settings\nthat cannot be used, 3 the server is not installed or cannot listen, or some rows of\nan import were refused.\n",
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
    about, *examples = text.split("Example:")
    return f"{' '.join(about.split())}\n\n```bash\n{chr(10).join(each.strip() for each in examples)}\n```"


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

`/token`, `/revoke` and `/introspect` answer `{{"error", "error_description", "request_id"}}` (RFC 6749 section 5.2). Everything else answers problem
details, `application/problem+json` (RFC 9457): `type`, `title`, `status`, `detail`, `request_id` and the stable `error` of this
table. `request_id` is in the header `X-Request-Id` and in the log, too, as is `trace_id` where requests are traced. What was sent is
never repeated.

| error | status | usual text |
|---|---|---|
{codes}
"""


_EVENTS = {
    "login": "somebody or a program logged in, or tried to; the detail says how",
    "logout": "a session was ended by whoever had it",
    "logout_everywhere": "all sessions of a subject were ended",
    "session_ended": "a session was ended by its owner from another one, or by an administrator",
    "token_revoked": "a client revoked one access token at `/revoke`; its detail is the token's `jti`",
    "refresh_reused": "a refresh token was used that had been used before; its session is ended",
    "store_rolled_back": "a refresh token or a cursor was seen that is ahead of the store",
    "registered": "somebody made an account",
    "user_created": "an administrator or a command made an account",
    "user_changed": "name, address, role or plan were changed; the detail says which",
    "user_disabled": "an account was disabled",
    "user_enabled": "an account was enabled",
    "user_deleted": "an account was deleted",
    "password_changed": "a password was changed by its owner",
    "password_confirmed": "the password was asked for once more, before a change, and was wrong or right",
    "password_reset": "a password was set with a reset link",
    "reset_link_made": "a reset link was made",
    "api_key_created": "a user made a key",
    "api_key_deleted": "a key was deleted",
    "client_created": "an API client was made",
    "client_key_rotated": "a client got another key; the one before is not good any more",
    "client_disabled": "a client was disabled",
    "client_authenticated": "a client showed a wrong key",
    "signing_key_rotated": "a signing key was added",
    "signing_key_withdrawn": "a signing key was withdrawn for ever",
    "keys_rewrapped": "the stored keys were encrypted under another SECRET_KEY",
    "store_restored": "a backup was put back",
    "events_sealed": "the events of a range of numbers were sealed",
    "events_forgotten": "events up to a number were deleted, being old",
}


def events_page() -> str:
    rows = "\n".join(f"| `{kind}` | {_EVENTS[kind]} |" for kind in EVENT_KINDS)
    members = " ".join(f"`{name}`" for name in Event._fields if name != "tell")
    return f"""{_NOTE}# Events

What is on record of what happened: `GET /admin/events`, `authwright events export` and the webhook show events with the members
{members}. An event is stored in the transaction of the act itself
([0012](../decisions/0012-every-act-writes-its-event.md)), and sealed within a minute ([0022](../decisions/0022-seals-are-events.md)).

`outcome` is `success` or `failure`. `actor` did it to `subject`; both are ids (`usr_...`, `cli_...`), `command` for the command line,
`system` for the server itself, and empty where nobody is known: a name that was tried and does not exist is never on record.

| kind | what happened |
|---|---|
{rows}
"""


def llms_txt() -> str:
    """What the site has, for programs that read it (llmstxt.org)."""
    pages = []
    for page in sorted((ROOT / "docs").rglob("*.md")):
        if page.name in ("README.md", "index.md") or page.parent.name == "decisions":
            continue
        title, _, rest = page.read_text(encoding="utf-8").removeprefix(_NOTE).partition("\n")
        first = (
            " ".join(rest.strip().partition("\n\n")[0].split())
            if not rest.strip().startswith(("|", "```", "#"))
            else ""
        )
        first = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", first)
        address = page.relative_to(ROOT / "docs").with_suffix("").as_posix()
        pages.append(f"- [{title.removeprefix('# ')}]({address}/): {first}".rstrip(": "))
    return "\n".join(
        [
            "# Authwright",
            "",
            "> An auth server and library in Python: accounts, API clients, tokens that verify locally, a logout that every API",
            "> honours within a second, and plans with limits.",
            "",
            "Install the guard, which protects an API, with `pip install authwright`, the server with `authwright[server]`.",
            "Nothing is published yet: give pip a checkout (`pip install './authwright[server]'`). Try it with",
            "`authwright dev`; `authwright serve` is for production. Never verify its tokens by hand: use `authwright.guard`.",
            "",
            "## Pages",
            "",
            *pages,
            "",
        ]
    )


PAGES = {
    "docs/llms.txt": llms_txt,
    "docs/reference/events.md": events_page,
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
