"""The report's page in a real browser: headless Chromium, driven through Selenium."""

import json
import time

import pytest

import report
from tests.test_explore_browser import PATIENCE, pytestmark, start  # noqa: F401, the mark skips where there is no browser
from tests.test_report import write_run


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for seed in range(2):
        for i, strategy in enumerate(("random", "hard", "a_strategy_with_a_very_long_name")):
            write_run(folder / "runs" / f"{strategy}-{seed}", strategy, 0.1, seed, 0.5 + i / 10 + seed / 99)
    report.main([str(folder)])
    driver = start(folder)
    driver.get((folder / "report" / "report.html").as_uri())
    yield driver
    driver.quit()


def names(driver) -> list[str]:
    """The first column of the first table, from the top."""
    cells = "document.querySelectorAll('#at-a-glance tbody tr td:first-child')"
    return driver.execute_script(f"return [...{cells}].map((cell) => cell.textContent)")


def click(driver, css: str, nth: int = 0) -> None:
    driver.execute_script("document.querySelectorAll(arguments[0])[arguments[1]].click()", css, nth)


def test_a_click_on_a_header_sorts_by_number_down_then_up(driver):
    click(driver, "#at-a-glance th button", 1)
    down = names(driver)
    assert down == ["a_strategy_with_a_very_long_name", "hard", "random"]
    click(driver, "#at-a-glance th button", 1)
    assert names(driver) == down[::-1]


def test_a_figure_is_enlarged_and_closed_again(driver):
    click(driver, "figure button")
    assert driver.execute_script("return document.querySelector('dialog').open")
    end = time.monotonic() + PATIENCE
    while driver.execute_script("return document.querySelector('dialog img').getBoundingClientRect().width") < 1300:
        assert time.monotonic() < end
    click(driver, "dialog")
    assert not driver.execute_script("return document.querySelector('dialog').open")


@pytest.mark.parametrize("width", [1400, 400])
def test_nothing_is_wider_than_the_screen_and_headers_stay(driver, width):
    metrics = {"width": width, "height": 500, "deviceScaleFactor": 1, "mobile": width < 700}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    top, left = driver.execute_script(
        "const box = document.querySelector('#every-run .scroll'), table = box.querySelector('table');"
        "box.style.maxHeight = '90px'; box.scrollTo(500, 60);"
        "const [a, b] = [box, table.querySelector('th.name')].map((one) => one.getBoundingClientRect());"
        "return [b.top - a.top, b.left - a.left]"
    )
    assert abs(top) < 3 and left > -3


def test_no_request_leaves_the_page_and_nothing_goes_wrong(driver):
    sent = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = {one["params"]["request"]["url"] for one in sent if one["method"] == "Network.requestWillBeSent"}
    assert urls and all(url.startswith(("data:", "file:")) for url in urls)
    assert driver.get_log("browser") == []
