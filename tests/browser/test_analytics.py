"""/analytics as pages, in the system's Chromium, with every other host refused: charts of what was really called."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from processes import Running, serving

pytestmark = pytest.mark.program("chromium")
ROW = {"sepal_length": 6.3, "sepal_width": 3.3, "petal_length": 6.0, "petal_width": 2.5}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("analytics"), "dev", AUTHWRIGHT_PLANS="") as running:
        with running.http() as http:
            for name, plan in (("ada", "premium"), ("bob", "free"), ("boss-ada", "admin")):
                body = {"username": name, "password": "test123", "plan": plan}
                assert http.post("/register", json=body).status_code == 201
                headers = bearer(running, name)
                for _ in range(5):
                    assert http.get("/me", headers=headers).status_code == 200
                answer = http.post("/predict", json={"rows": [ROW] * 20}, headers=headers)
                assert answer.status_code == 200
        yield running


def bearer(server: Running, name: str) -> dict[str, str]:
    with server.http() as http:
        login = http.post("/login", data={"username": name, "password": "test123"}).json()
    return {"Authorization": f"Bearer {login['access_token']}"}


@pytest.fixture
def page(server: Running, watched: Callable[[str], Page]) -> Page:
    return watched(server.base)


def test_the_basic_report_is_a_page_with_charts(server: Running, page: Page, tmp_path: Path) -> None:
    page.set_extra_http_headers(bearer(server, "ada"))
    page.goto(f"{server.base}/analytics/basic")
    expect(page.get_by_role("heading", name="Usage", exact=True)).to_be_visible()
    for title in ("Calls by day", "Units spent by day", "Calls by route", "Callers by plan", "Predicted classes"):
        chart = page.get_by_role("img", name=title)
        expect(chart).to_be_visible()
        box = chart.locator("rect").last.bounding_box()
        assert box is not None
        assert box["width"] > 1
        assert box["height"] > 1
    # Three callers with 25 units each, and this call itself.
    assert page.locator("dd").nth(2).inner_text() in ("75", "76")
    assert page.get_by_role("img", name="Predicted classes").get_attribute("aria-label") == (
        "Predicted classes: virginica 60"
    )
    assert page.get_by_text("Busiest callers").count() == 0
    page.screenshot(path=tmp_path / "basic.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_the_full_report_shows_callers_too(server: Running, page: Page) -> None:
    with server.http() as http:
        http.post("/login", data={"username": "ada", "password": "wrong"})
    page.set_extra_http_headers(bearer(server, "boss-ada"))
    page.goto(f"{server.base}/analytics/full")
    expect(page.get_by_role("heading", name="Usage and security")).to_be_visible()
    expect(page.get_by_role("img", name="Failed logins by day")).to_be_visible()
    assert page.get_by_role("row").filter(has_text="usr_").count() == 3
    # On a telephone, too.
    page.set_viewport_size({"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_who_may_not_see_it_gets_no_page(server: Running) -> None:
    with server.http() as http:
        headers = {**bearer(server, "bob"), "Accept": "text/html"}
        answer = http.get("/analytics/basic", headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")
        answer = http.get("/analytics/basic", headers=bearer(server, "ada"))
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["vary"] == "accept"
