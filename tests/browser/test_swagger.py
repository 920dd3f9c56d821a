"""Swagger UI in the system's Chromium, with every other host refused: the Authorize button logs in."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Page, expect

from processes import Running, serving

pytestmark = pytest.mark.program("chromium")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("browser"), "dev") as running:
        with running.http() as http:
            body = {"username": "bholay", "password": "test123", "plan": "premium"}
            assert http.post("/register", json=body).status_code == 201
        yield running


@pytest.fixture
def page(server: Running, watched: Callable[[str], Page]) -> Page:
    """The documentation, opened."""
    opened = watched(server.base)
    opened.goto(f"{server.base}/docs")
    expect(opened.get_by_role("button", name="Authorize", exact=True)).to_be_visible()
    return opened


def authorize(page: Page) -> None:
    page.get_by_role("button", name="Authorize", exact=True).click()
    expect(page.get_by_role("heading", name="Available authorizations")).to_be_visible()


def try_out(page: Page, operation: str) -> str:
    """The response body that Swagger UI shows for *operation*."""
    block = page.locator(f"[id$='-{operation}']")
    block.locator(".opblock-summary").click()
    block.get_by_role("button", name="Try it out").click()
    block.get_by_role("button", name="Execute").click()
    shown = block.locator(".live-responses-table .response .highlight-code, .live-responses-table .microlight").first
    expect(shown).to_be_visible()
    return shown.inner_text()


def test_authorize_logs_in_with_user_name_and_password(page: Page, tmp_path: Path) -> None:
    authorize(page)
    page.locator("#oauth_username").fill("bholay")
    page.locator("#oauth_password").fill("test123")
    page.get_by_role("button", name="Apply given OAuth2 credentials").click()
    expect(page.get_by_role("button", name="Remove authorization")).to_be_visible()
    page.screenshot(path=tmp_path / "authorized.png")
    page.get_by_role("button", name="Close", exact=True).last.click()
    assert '"username": "bholay"' in try_out(page, "me")
    page.screenshot(path=tmp_path / "me.png", full_page=True)
    assert (tmp_path / "me.png").stat().st_size > 10_000


def test_a_pasted_token_works_as_well(page: Page, server: Running) -> None:
    form = {"username": "bholay", "password": "test123"}
    token = httpx2.post(f"{server.base}/login", data=form).json()["access_token"]
    authorize(page)
    pasted = page.locator(".auth-container").filter(has_text="Paste an access token")
    pasted.get_by_role("textbox").fill(token)
    pasted.get_by_role("button", name="Apply credentials").click()
    expect(pasted.get_by_role("button", name="Remove authorization")).to_be_visible()
    page.get_by_role("button", name="Close", exact=True).last.click()
    assert '"plan": "premium"' in try_out(page, "users_me")


def test_no_token_is_stored_and_none_taken_from_the_address(page: Page, server: Running) -> None:
    authorize(page)
    page.locator("#oauth_username").fill("bholay")
    page.locator("#oauth_password").fill("test123")
    page.get_by_role("button", name="Apply given OAuth2 credentials").click()
    expect(page.get_by_role("button", name="Remove authorization")).to_be_visible()
    assert page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])") == '[{},{},""]'
    page.goto(f"{server.base}/docs?url=https://evil.example/openapi.json&configUrl=https://evil.example/config.json")
    expect(page.get_by_role("heading", name="Authwright")).to_be_visible()
