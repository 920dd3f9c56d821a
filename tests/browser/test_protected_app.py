"""The Swagger UI of somebody else's app, protected by the guard: its Authorize button logs in at the issuer."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from processes import Running, free_port, program, serving

pytestmark = pytest.mark.program("chromium")
API = "https://api.example.com"

_APP = """
import sys, uvicorn
from typing import Annotated
from fastapi import FastAPI, Security
from fastapi_swagger import patch_fastapi
from authwright.guard.fastapi import Guard, Principal

guard = Guard(issuer=sys.argv[1], audience="https://api.example.com", password_form=sys.argv[3] == "form")
Caller = Annotated[Principal, Security(guard, scopes=["predict"])]
app = FastAPI(docs_url=None)
patch_fastapi(app, docs_url="/docs")

@app.get("/who", operation_id="who")
async def who(caller: Caller) -> dict[str, str | None]:
    return {"username": caller.username, "plan": caller.plan}

uvicorn.run(app, port=int(sys.argv[2]))
"""


@pytest.fixture(params=["form", "pasted"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, browser: Browser) -> Iterator[tuple[Running, Page]]:
    """An issuer, and the documentation of an app that it protects, on another origin."""
    port = free_port()
    app = f"http://127.0.0.1:{port}"
    with serving(tmp_path, "dev", AUTHWRIGHT_AUDIENCES=API, AUTHWRIGHT_CORS_ORIGINS=app) as issuer:
        with issuer.http() as http:
            http.post("/register", json={"username": "bholay", "password": "test123", "plan": "premium"})
        command = [sys.executable, "-c", _APP, issuer.base, str(port), request.param]
        with program(tmp_path / "app.log", *command, at=f"{app}/docs"):
            page = browser.new_page(viewport={"width": 1200, "height": 1200})
            page.goto(f"{app}/docs")
            yield issuer, page


def test_authorize_opens_the_app(opened: tuple[Running, Page], request: pytest.FixtureRequest, tmp_path: Path) -> None:
    issuer, page = opened
    page.get_by_role("button", name="Authorize", exact=True).click()
    if "form" in request.node.name:
        page.locator("#oauth_username").fill("bholay")
        page.locator("#oauth_password").fill("test123")
        page.get_by_role("button", name="Apply given OAuth2 credentials").click()
    else:
        with issuer.http() as http:
            form = {"username": "bholay", "password": "test123", "resource": API}
            token = http.post("/login", data=form).json()["access_token"]
        page.locator(".auth-container").get_by_role("textbox").fill(token)
        page.get_by_role("button", name="Apply credentials").click()
    expect(page.get_by_role("button", name="Remove authorization")).to_be_visible()
    page.screenshot(path=tmp_path / "authorized.png")
    page.get_by_role("button", name="Close", exact=True).last.click()
    block = page.locator("[id$='-who']")
    block.locator(".opblock-summary").click()
    block.get_by_role("button", name="Execute").click()
    shown = block.locator(".live-responses-table .response .highlight-code, .live-responses-table .microlight").first
    expect(shown).to_contain_text('"username": "bholay"')
    page.screenshot(path=tmp_path / "who.png", full_page=True)
