"""The explorer in a real browser: headless Chromium, driven through Selenium. `make test-browser` installs both."""

import itertools
import json
import os
import shutil
import time

import numpy as np
import pytest

from tests import explored
from utils.selection.own_files import read_ranking

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: make test-browser")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
WANTED = os.environ.get("TEST_BROWSER") and CHROMIUM and DRIVER
pytestmark = pytest.mark.skipif(not WANTED, reason="it needs chromium and chromedriver; make test-browser runs it")

N = 300
FLAGS = (
    "--headless=new --no-sandbox --disable-dev-shm-usage --use-angle=swiftshader --enable-unsafe-swiftshader".split()
)
PATIENCE = 30  # seconds; the machine may be busy


class Page:
    """A page that was opened, and what a person does with it."""

    def __init__(self, driver, path):
        self.driver = driver
        driver.get(path.as_uri())
        self.until("return document.body.dataset.ready === 'yes'")

    def run(self, script, *args):
        return self.driver.execute_script(script, *args)

    def until(self, script, *args):
        """Wait for what the script returns to be true."""
        end = time.monotonic() + PATIENCE
        while not (found := self.run(script, *args)):
            assert time.monotonic() < end, f"did not happen within {PATIENCE} s: {script}"
            time.sleep(0.05)
        return found

    def text(self, css) -> str:
        return self.run("return document.querySelector(arguments[0])?.innerText", css)

    def click(self, css, nth=0) -> None:
        self.run("document.querySelectorAll(arguments[0])[arguments[1]].click()", css, nth)

    def mouse(self, kind, x, y, **more) -> None:
        event = {"type": kind, "x": x, "y": y, "button": "left" if kind != "mouseMoved" else "none", "clickCount": 1}
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event | more)

    def pixels(self, plot: int, points) -> list:
        """Where points (x, y) of a map are in the window."""
        return self.run(
            "scrollTo(0, 0); const plot = plots[arguments[0]], { left, top } = plot.getBoundingClientRect();"
            "const { xaxis, yaxis } = plot._fullLayout;"
            "return arguments[1].map(([x, y]) => [left + xaxis._offset + xaxis.d2p(x), top + yaxis._offset + yaxis.d2p(y)])",
            plot,
            [[float(x), float(y)] for x, y in points],
        )

    def listed(self) -> list[int]:
        """Row numbers in the table, all pages of it."""
        return self.run("return Array.from(state.list, (i) => rows[i])")

    def everything(self) -> None:
        self.click("#everything")
        self.until("return state.list.length === n && !document.querySelector('#search').value")


def start(downloads):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS, "--window-size=1400,1000"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    return driver


@pytest.fixture(scope="module")
def made():
    return explored.world(N)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, made):
    folder = tmp_path_factory.mktemp("explorer")
    explored.write(folder, made)
    return folder


@pytest.fixture(scope="module")
def driver(folder):
    driver = start(folder)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def opened(driver, folder):
    return Page(driver, folder / "explorer.html")


@pytest.fixture
def page(opened):
    opened.everything()
    return opened


def places(made, plot: int) -> np.ndarray:
    """(n, 2): where the examples are on a map."""
    from utils.explore.columns import maps_of, measures_of
    from utils.selection.cluster_quality import pair_facts

    found = maps_of(made[1], pair_facts(made[0]), measures_of(made[1].runs))[plot]
    return np.stack([found.x, found.y], axis=1)


def lonely(points: np.ndarray) -> int:
    """The point that is farthest from its nearest neighbour."""
    scaled = np.nan_to_num((points - np.nanmean(points, 0)) / np.nanstd(points, 0), nan=50)
    distances = np.linalg.norm(scaled[:, None] - scaled[None], axis=2) + 1e9 * np.eye(len(points))
    return int(np.where(np.isnan(points[:, 0]), 0, distances.min(1)).argmax())


def hover(page, plot: int, point) -> None:
    ((x, y),) = page.pixels(plot, [point])
    page.mouse("mouseMoved", x - 30, y)
    page.mouse("mouseMoved", x, y)
    page.until("return !document.querySelector('#card').hidden")


@pytest.mark.parametrize("plot", [0, 1])
def test_hovering_shows_the_texts_and_what_is_known(page, made, plot):
    examples, inputs, _ = made
    points = places(made, plot)
    i = lonely(points)
    hover(page, plot, points[i])
    card = page.text("#card")
    assert examples.texts[0][i] in card and examples.texts[1][i] in card and f"row {i}" in card
    facts = dict(
        zip(
            *(
                page.run(f"return [...document.querySelectorAll('#card {t}')].map((e) => e.innerText)")
                for t in ("dt", "dd")
            ),
            strict=True,
        )
    )
    assert facts["gold label"] == examples.label_names[examples.labels[i]]
    assert facts["prediction"] == examples.label_names[int(inputs.dynamics.logits[-1, i].argmax())]
    assert float(facts["confidence"]) == pytest.approx(inputs.dynamics.confidence()[i], rel=0.01)
    assert page.run("return plots.filter((plot) => !plot.ring.hidden).length") == 2  # linked: a ring on both maps


def test_choosing_a_colour_repaints_both_maps_and_the_legend(page):
    def look():
        return [page.driver.find_element("id", f"plot{k}").screenshot_as_png for k in (0, 1)]

    before, legends = look(), []
    for wanted in ("cluster", "confidence", "half of it", "HANS heuristic that holds", "genre"):
        page.run(
            "const select = document.querySelector('#colour');"
            "select.value = [...select.options].find((option) => option.text === arguments[0]).value; select.onchange()",
            wanted,
        )
        page.until("return state.colour.name === arguments[0]", wanted)
        time.sleep(0.3)  # WebGL paints in the next frame
        now = look()
        assert all(a != b for a, b in zip(before, now, strict=True)), f"{wanted}: the maps look the same"
        before = now
        legends.append(page.text("#legend"))
    assert (
        "0 (" in legends[0] and "or more" in legends[1] and "not chosen (270)" in legends[2] and "none (" in legends[3]
    )
    assert explored.HOSTILE in legends[4]


def test_a_lasso_lists_what_is_inside_it_and_double_click_everything(page, made):
    points = places(made, 0)
    middle = np.median(points, 0)
    low = points.min(0) - 0.02 * np.ptp(points, 0)
    inside = np.flatnonzero((points < middle).all(1))
    assert 20 < len(inside) < 200
    corners = page.pixels(0, [low, (middle[0], low[1]), middle, (low[0], middle[1]), low])
    page.mouse("mousePressed", *corners[0], buttons=1)
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        for part in np.linspace(0.1, 1, 10):
            page.mouse("mouseMoved", x0 + part * (x1 - x0), y0 + part * (y1 - y0), buttons=1)
    page.mouse("mouseReleased", *corners[-1])
    page.until("return state.list.length < n")
    assert page.listed() == inside.tolist()
    assert page.text("#count") == f"{len(inside)} examples (lasso)"
    assert page.text("#table tbody tr td:first-child") == str(inside[0])
    assert page.run("return plots.map((plot) => plot.data[0].selectedpoints.length)") == [len(inside)] * 2
    hover(page, 0, points[inside[7]])  # the lasso does not hide the points in it
    page.until("return document.querySelector('#card').innerText.includes(arguments[0])", f"row {inside[7]}\n")
    x, y = page.run(
        "const { right, top } = plots[0].querySelector('.nsewdrag').getBoundingClientRect(); return [right - 3, top + 3]"
    )
    for _ in range(10):  # on a busy machine two clicks can lie too far apart to be one double click
        for count in (1, 2):
            page.mouse("mousePressed", x, y, clickCount=count)
            page.mouse("mouseReleased", x, y, clickCount=count)
        time.sleep(0.5)
        if page.run("return state.list.length === n"):
            break
    assert page.run("return state.list.length === n")


def test_a_click_lists_the_cluster_and_a_legend_button_its_group(page, made):
    examples, inputs, _ = made
    points = places(made, 0)
    i = lonely(points)
    ((x, y),) = page.pixels(0, [points[i]])
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        page.mouse(kind, x, y)
    page.until("return state.list.length < n")
    labels = inputs.clusters.labels
    assert page.listed() == np.flatnonzero(labels == labels[i]).tolist()
    page.run("colourBy(about.columns.find((column) => column.name === 'gold label'))")
    page.click("#legend button", 1)
    assert page.listed() == np.flatnonzero(examples.labels == 1).tolist()


def test_search_filters_and_the_export_is_a_ranking(page, made, folder):
    examples, inputs, _ = made
    page.run("const s = document.querySelector('#search'); s.value = 'NUMBER1'; s.dispatchEvent(new Event('input'))")
    page.until("return state.list.length < n")
    expected = [i for i, premise in enumerate(examples.texts[0]) if "number1" in premise]
    assert page.listed() == expected and len(expected) > 100
    page.run("colourBy(about.columns.find((column) => column.name === 'loss'))")
    for direction in ("ascending", "descending"):
        page.run("[...document.querySelectorAll('#table th button')].find((b) => b.innerText === 'loss').click()")
        assert page.run("return document.querySelector('[aria-sort]').ariaSort") == direction
    page.click("#export")
    end = time.monotonic() + PATIENCE
    while not (folder / "rows.txt").exists():
        assert time.monotonic() < end, "no file arrived"
        time.sleep(0.05)
    loss = inputs.dynamics.loss()
    order = sorted(expected, key=lambda i: (np.isnan(loss[i]), -loss[i]))
    assert read_ranking(folder / "rows.txt", examples).tolist() == order and order[-1] == 1  # row 1 was never seen


def test_the_comparison_lists_what_all_chose_and_what_only_one_chose(page, made):
    sets = [set(selection.indices.tolist()) for selection in made[2].values()]
    page.click("[data-choose=all]")
    assert set(page.listed()) == set.intersection(*sets)
    page.click("[data-choose=only]", 2)
    assert set(page.listed()) == sets[2] - sets[0] - sets[1]
    page.click("[data-choose=in]", 1)
    assert set(page.listed()) == sets[1]


def test_the_keyboard_reaches_an_example(page):
    page.run("document.querySelector('#table tbody tr').focus()")
    for key in ("ArrowDown", "ArrowDown"):
        page.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyDown", "key": key})
    assert "number2 " in page.text("#card")
    page.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyDown", "key": "Escape"})
    assert page.run("return document.querySelector('#card').hidden")


def test_it_fits_a_narrow_screen_and_follows_dark_mode(page):
    narrow = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    try:
        page.until("return innerWidth === 400 && plots.every((plot) => plot._fullLayout.width <= 400)")
        assert page.run("return document.documentElement.scrollWidth") <= 400
        page.until("return getComputedStyle(document.body).backgroundColor === 'rgb(20, 23, 28)'")
        page.until("return plots.every((plot) => plot._fullLayout.font.color === 'rgb(230, 232, 236)')")
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_nothing_broke_out_and_nothing_left_the_page(page, driver):
    """After all of the above: it reads the logs since the page was opened."""
    assert page.run("return window.broken") is None
    requests = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [r["params"]["request"]["url"] for r in requests if r["method"] == "Network.requestWillBeSent"]
    assert urls and {url.split(":")[0] for url in urls} <= {"file", "data", "blob"}
    assert [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    # plotly's own bar would have a button that sends the chart to a server.
    titles = page.run(
        "return [...plots[0].querySelectorAll('.modebar-btn')].map((b) => b.dataset.attr + b.dataset.val)"
    )
    assert [title.removeprefix("dragmode") for title in titles] == ["lasso", "select", "zoom", "pan", "zoomreset"]


def test_fifty_thousand_points_load_within_five_seconds(driver, tmp_path):
    """Seconds of the page's own thread, which other work on the machine does not lengthen."""
    explored.write(tmp_path, explored.world(50_000, clusters=64))
    driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    started = time.monotonic()
    page = Page(driver, tmp_path / "explorer.html")
    waited = time.monotonic() - started
    metrics = {m["name"]: m["value"] for m in driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]}
    print(f"50,000 points: {metrics['ThreadTime']:.1f} s of the page's thread, {waited:.1f} s waited")
    assert page.run("return plots.map((plot) => plot.data[0].x.length)") == [50_000, 50_000]
    assert metrics["ThreadTime"] < 5
