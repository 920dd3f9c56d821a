"""/reset-password: where a reset link leads. A page without scripts, and the same for programs."""

import html
from collections.abc import Callable
from typing import Final

from pydantic import Field

from authwright.domain.errors import Busy, InvalidGrant, Refusal, TooManyAttempts, WeakPassword
from authwright.domain.instant import Instant
from authwright.services.password import RESET_PATH, Passwords
from authwright.web.accounts import BODY_REFUSALS, Done
from authwright.web.caller import origin_of
from authwright.web.endpoint import FORM, Body, Call, Endpoints, Reply, as_model, json_reply

_HEADERS: Final = (
    (b"content-type", b"text/html; charset=utf-8"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    # The address holds the token.
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>New password</title>
<link rel="icon" href="data:,">
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 24rem; margin: 12vh auto; padding: 0 1rem; }}
label, input, button {{ display: block; width: 100%; box-sizing: border-box; font: inherit; }}
input, button {{ padding: .5rem; margin: .25rem 0 1rem; }}
[role=alert] {{ border-left: .25rem solid #b00; padding-left: .75rem; }}
</style>
</head>
<body>
<main>
<h1>New password</h1>
{content}
</main>
</body>
</html>
"""
_FORM: Final = """{message}<form method="post" action="reset-password">
<input type="hidden" name="token" value="{token}">
<label for="new_password">Choose a new password. You will be logged out everywhere.</label>
<input id="new_password" name="new_password" type="password" autocomplete="new-password" required autofocus>
<button>Set password</button>
</form>"""


class Reset(Body):
    """The token of a reset link, and the password to set."""

    token: str = Field(min_length=1, examples=["awp_..."])
    new_password: str = Field(min_length=1, json_schema_extra={"format": "password"})


class ResetQuery(Body):
    token: str | None = Field(default=None, description="Of the link.")


def add_reset(endpoints: Endpoints, *, passwords: Passwords, clock: Callable[[], Instant]) -> None:
    """The page, and what it sends its form to."""

    async def page(call: Call) -> Reply:
        """The page that a reset link leads to. Looking at it spends nothing."""
        return _form(call.query().get("token", ""))

    async def reset(call: Call) -> Reply:
        """Set a new password with the token of a reset link. Every session of the account ends; nobody is logged in."""
        if call.content_type() != FORM:
            wanted = await call.json(Reset)
            await passwords.reset(wanted.token, wanted.new_password, origin=origin_of(call), now=clock())
            return json_reply({"status": "password_set"})
        wanted = as_model(Reset, await call.form())
        try:
            await passwords.reset(wanted.token, wanted.new_password, origin=origin_of(call), now=clock())
        except Refusal as refusal:
            retry = () if refusal.retry_after is None else ((b"retry-after", b"%d" % refusal.retry_after),)
            reply = _form(wanted.token, refusal.public)
            return Reply(refusal.status, reply.body, (*reply.headers, *retry))
        return _reply("<p>The password is set. You can log in with it now.</p>")

    endpoints.add(
        "GET",
        RESET_PATH,
        page,
        name="reset_page",
        summary="Reset page",
        tag="accounts",
        answer=Done,
        query=ResetQuery,
        media="text/html",
    )
    endpoints.add(
        "POST",
        RESET_PATH,
        reset,
        name="reset_password",
        summary="Reset a password",
        tag="accounts",
        answer=Done,
        json=(Reset,),
        form=Reset,
        refusals=(*BODY_REFUSALS, InvalidGrant, WeakPassword, TooManyAttempts, Busy),
        example={"status": "password_set"},
    )


def _form(token: str, message: str = "") -> Reply:
    shown = f'<p role="alert">{html.escape(message)}</p>\n' if message else ""
    return _reply(_FORM.format(message=shown, token=html.escape(token, quote=True)))


def _reply(content: str) -> Reply:
    return Reply(200, _PAGE.format(content=content).encode("utf-8"), _HEADERS)
