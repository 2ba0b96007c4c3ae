"""The page in a real browser: it sorts, filters, opens samples, and runs nothing that a model said."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.chromium import chromium, needs_chromium

pytestmark = [needs_chromium, pytest.mark.slow]


@pytest.fixture(scope="module")
def browser(report_folder: Path) -> Iterator[Any]:
    with chromium(report_folder / "report.html") as driver:
        yield driver


def texts(browser: Any, selector: str) -> list[str]:
    return list(
        browser.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent.trim())", selector
        )
    )


def click_header(browser: Any, name: str) -> Any:
    headers = browser.find_elements("css selector", "table.sortable")[0].find_elements("css selector", "thead th")
    header = next(cell for cell in headers if cell.get_property("textContent") == name)
    header.find_element("css selector", "button").click()
    return header


def column(browser: Any, index: int) -> list[str]:
    rows = "[...document.querySelector('table.sortable').tBodies[0].rows]"
    script = f"return {rows}.map(row => row.cells[arguments[0]].textContent)"
    return list(browser.execute_script(script, index))


def test_a_click_on_a_heading_sorts_and_another_one_turns_the_order(browser: Any) -> None:
    headers = [name.rstrip("↕↑↓") for name in texts(browser, "table.sortable thead th")]
    value = headers.index("Value")
    header = click_header(browser, "Value")
    assert header.get_attribute("aria-sort") == "ascending"
    numbers = [float(text) for text in column(browser, value)]
    assert numbers == sorted(numbers)
    assert numbers[0] < numbers[-1]
    click_header(browser, "Value")
    assert header.get_attribute("aria-sort") == "descending"
    assert [float(text) for text in column(browser, value)] == sorted(numbers, reverse=True)
    assert "Sorted by Value" in texts(browser, "#status")[0]
    # What has no number stands last in either order.
    kl = headers.index("KL")
    for _ in range(2):
        click_header(browser, "KL")
        cells = column(browser, kl)
        filled = [bool(cell) for cell in cells]
        assert filled == sorted(filled, reverse=True)
        assert not all(filled)


def test_every_column_sorts_by_keyboard(browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    for header in browser.find_elements("css selector", "table.sortable thead th"):
        header.find_element("css selector", "button").send_keys(Keys.ENTER)
        assert header.get_attribute("aria-sort") in ("ascending", "descending")


def test_samples_are_drawn_on_demand_and_opened(browser: Any) -> None:
    items = browser.find_elements("css selector", ".list > li")
    assert len(items) == 50
    browser.find_element("css selector", ".more").click()
    assert len(browser.find_elements("css selector", ".list > li")) == 100
    summary = items[5].find_element("css selector", "summary")
    summary.click()
    opened = items[5].find_element("css selector", ".opened")
    assert "Document 5." in opened.find_element("css selector", "blockquote").text
    assert "the Rhine" in opened.find_element("css selector", ".answer").text
    assert len(opened.find_elements("css selector", ".run")) == 4
    strips = opened.find_elements("css selector", ".strip")
    assert len(strips) == 2
    cells = [cell.text for cell in strips[0].find_elements("css selector", "li")]
    assert [cell.split("\n")[0] for cell in cells] == ["a", "␣b", "\\n", "<"]
    assert all(float(cell.split("\n")[1]) >= 0 for cell in cells)


def change(browser: Any, name: str, value: str) -> str:
    """Set a filter and return the count that the page then tells."""
    script = """
const field = document.querySelector(`.browser [name=${arguments[0]}]`), done = arguments[2];
field.value = arguments[1];
field.dispatchEvent(new Event("input", {bubbles: true}));
setTimeout(() => done(document.querySelector(".browser .count").textContent), 250);
"""
    return str(browser.execute_async_script(script, name, value))


def test_samples_are_filtered_by_task_disagreement_and_text(browser: Any, whole_board: dict[str, Any]) -> None:
    assert change(browser, "task", "toy_choice").startswith("120 of 240 samples")
    samples = whole_board["samples"]["toy_choice"]
    differing = sum(len({run["score"] for run in sample["runs"].values()}) > 1 for sample in samples)
    assert change(browser, "which", "scores").startswith(f"{differing} of 240 samples")
    change(browser, "which", "")
    assert change(browser, "text", "document 17. rhine").startswith("2 of 240 samples")
    assert texts(browser, ".list .doc") == ["toy_choice #17", "toy_choice #117"]
    change(browser, "text", "")
    change(browser, "task", "")


def test_what_models_and_data_say_stays_text(browser: Any) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    browser.refresh()
    item = browser.find_elements("css selector", ".list > li")[3]
    item.find_element("css selector", "summary").click()
    # A sample is drawn when its `toggle` event arrives, after the click.
    (opened,) = WebDriverWait(browser, 10).until(lambda _: item.find_elements("css selector", ".opened"))
    hostile = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
    assert hostile in opened.find_element("css selector", "blockquote").text
    assert hostile in opened.find_element("css selector", ".answer").text
    assert hostile in opened.find_element("css selector", ".run .said").text
    assert hostile in browser.find_element("css selector", ".warnings").text
    assert browser.execute_script("return window.hacked") is None
    assert browser.execute_script("return document.querySelectorAll('img').length") == 0
    assert browser.execute_script("return document.querySelectorAll('script:not([type])').length") == 1


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_window(browser: Any, width: int, scheme: str) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.refresh()
    browser.execute_script("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    ink, paper = browser.execute_script(
        "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor].map(c => parseInt(c.slice(4)))"
    )
    assert (ink < paper) == (scheme == "light")


def test_paper_shows_a_stated_part_of_the_samples(browser: Any) -> None:
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    shown = "return getComputedStyle(document.querySelector(arguments[0])).display"
    assert browser.execute_script(shown, ".printed") == "block"
    assert browser.execute_script(shown, ".browser") == "none"
    assert "12 of 240 samples" in texts(browser, ".printed")[0]
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"]
    assert len(base64.b64decode(pdf)) > 50_000
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_the_page_asks_for_nothing_and_complains_of_nothing(browser: Any) -> None:
    """Last, so that it sees what all the tests above made the page do."""
    import json

    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert asked
    assert {url.split("/")[-1] for url in asked if not url.startswith("data:")} == {"report.html"}
