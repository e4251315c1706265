"""A page in a real browser, by what a reader does with it, and what its tests share."""

import json
import shutil
import time

import pytest

from report.frames.compare import compare
from report.frames.results import load
from report.page.build import write_page
from report.page.data import page_data

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


class Page:
    """A page in the browser, by what a reader does with it."""

    def __init__(self, driver):
        self.driver = driver

    def js(self, code, *values):
        return self.driver.execute_script(code, *values)

    def open(self, folder, width=1300, height=900, scheme="light"):
        self.log()
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.scheme(scheme)
        self.driver.get((folder / "report.html").as_uri())
        self.wait(lambda: self.js("return document.documentElement.dataset.ready"))
        return self

    def scheme(self, name):
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": name}]}
        )

    def wait(self, what, seconds=15):
        end = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < end, f"nothing came; {self.driver.get_log('browser')}"
            time.sleep(0.03)
        return found

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def choose(self, selector, value):
        code = "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
        events = "for (const name of ['input', 'change']) e.dispatchEvent(new Event(name, {bubbles: true}));"
        self.js(code + events, selector, str(value))
        assert self.js("return document.querySelector(arguments[0]).value", selector) == str(value)

    def click(self, selector):
        self.js("document.querySelector(arguments[0]).click()", selector)

    def all(self, selector, what):
        """What the expression says of each element e."""
        return self.js(f"return [...document.querySelectorAll(arguments[0])].map((e) => {what})", selector)

    def text(self, selector):
        """Its text, with plain spaces."""
        return self.js("return document.querySelector(arguments[0]).textContent", selector).replace("\xa0", " ")

    def column(self, place):
        """Texts of one column of the table of runs, 0 the recipe."""
        return self.all("#table tbody tr", f"e.children[{place}].innerText")

    def plot(self):
        return self.js("const p = window.tunematrix.plot; return p && [p.x.key, p.y.key, p.values.length]")

    def names(self):
        """Names that stand in the plot."""
        return self.all("#chart .mark-text.role-mark text", "e.textContent")

    def log(self):
        """What went wrong and what was asked for since the last call."""
        severe = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        sent = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
        return severe, [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]


@pytest.fixture(scope="session")
def data_of():
    """A function from a folder to the data of its page."""

    def made(folder):
        results = load(folder)
        return page_data(results, compare(results))

    return made


@pytest.fixture(scope="module")
def browser():
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs Debian's chromium and chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1300,900"):
        options.add_argument(word)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser):
    """A page whose whole life is without an error and without a request to anywhere."""
    made = Page(browser)
    yield made
    severe, elsewhere = made.log()
    assert not severe
    assert not elsewhere


@pytest.fixture(scope="module")
def embedded(root, tmp_path_factory):
    folder = shutil.copytree(root / "results" / "embedded", tmp_path_factory.mktemp("page") / "embedded")
    write_page(folder)
    return folder


@pytest.fixture
def made(sweep):
    def make(rows=None, **options):
        folder = sweep(rows, **options)
        write_page(folder)
        return folder

    return make
