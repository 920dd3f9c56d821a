"""The system's Chromium, which reaches nothing but this machine."""

import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
        )
        yield launched
        launched.close()


@pytest.fixture
def watched(browser: Browser) -> Iterator[Callable[[str], Page]]:
    """Opens a page that may ask nothing of any server but the one given: in the end there must be no complaint."""
    complaints: list[str] = []

    def open_page(base: str) -> Page:
        page = browser.new_page(viewport={"width": 1200, "height": 1400})
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((base, "data:")) else complaints.append(f"asked {request.url}")
            ),
        )
        return page

    yield open_page
    assert complaints == []
