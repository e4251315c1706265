"""The page in a real browser, opened from disk: it sorts, filters, plots, compares, answers, and asks for nothing."""

import json
import re
import shutil
import time

import numpy as np
import pytest

from report.compare import compare
from report.inference import two_runs
from report.page import write_page
from report.paired import read_scores
from report.results import load

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver")
MIB = 2**20
SECONDS = 2.0
NASTY = "<script>window.hurt=1</script><img src=x onerror=window.hurt=1>\"'&amp; ∑ü"


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

    def text(self, selector):
        return self.js("return document.querySelector(arguments[0]).textContent", selector)

    def column(self, place):
        """Texts of one column of the table of runs, 0 the recipe."""
        return self.js(
            "return [...document.querySelectorAll('#table tbody tr')].map((row) => row.children[arguments[0]].innerText)",
            place,
        )

    def plot(self):
        return self.js("const p = window.tunematrix.plot; return p && [p.x.key, p.y.key, p.values.length]")

    def names(self):
        """Names that stand in the plot."""
        return self.js("return [...document.querySelectorAll('#chart .mark-text.role-mark text')].map((t) => t.textContent)")

    def log(self):
        """What went wrong and what was asked for since the last call."""
        severe = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        sent = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
        return severe, [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]


@pytest.fixture(scope="module")
def browser():
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


def test_the_embedded_sweep_sorts_filters_plots_and_compares(page, embedded):
    page.open(embedded)
    assert "10 runs" in page.text("#facts")
    quality = [float(text) for text in page.column(3)]
    assert quality == sorted(quality, reverse=True)
    assert page.plot()[:2] == ["peak_allocated_bytes", "vqa_accuracy"]
    assert "qlora8" in page.names()
    page.click("[data-sort=ttt_seconds]")
    seconds = [float(text) for text in page.column(6)]
    assert seconds == sorted(seconds)
    assert page.js("return [...document.querySelectorAll('[aria-sort]')].map((e) => e.innerText.trim().split('\\n')[0])") == [
        "Time to train (TTT)"
    ]
    page.click("[data-sort=ttt_seconds]")
    assert page.js("return document.querySelector('[aria-sort]').getAttribute('aria-sort')") == "descending"
    page.choose("#search", "lora")
    page.wait(lambda: sorted(page.column(0)) == ["lora", "lora+amp", "qlora", "qlora8"])
    page.wait(lambda: page.plot()[2] == 4)
    page.choose("#axis-x", "ttt_seconds")
    page.wait(lambda: page.plot()[0] == "ttt_seconds")
    assert "Time to train (TTT) in s, less is better" in page.text("#chart")
    page.click("#table tbody button")
    assert page.js("return document.getElementById('record').open")
    assert "python run_matrix.py --strategies" in page.text("#record pre.command")
    assert "less" in page.text("#comparison")


@pytest.mark.slow
def test_the_whole_record_of_a_run(page, embedded):
    page.open(embedded)
    page.choose("#search", "qlora8")
    page.wait(lambda: len(page.column(0)) == 1)
    page.click("#table tbody button")
    assert page.text("#record-title") == "qlora8, seed 0"
    shown = page.text("#record-body")
    for words in ("--strategies qlora8 --seeds 0", "Peak memory14.4 MiB", "vqa_accuracy/number", "int8", "environment_hash",
                  '"plan":', "Where the time went", "No log here", "lora: "):  # fmt: skip
        assert words in shown, words
    page.wait(lambda: page.js("return document.querySelectorAll('#record .curve svg').length") == 2)
    assert page.js("return document.querySelector('#record a[href^=runs]').getAttribute('href')").endswith("/record.json")
    page.js("[...document.querySelectorAll('#record .actions button')].find((b) => b.textContent.includes('first')).click()")
    assert not page.js("return document.getElementById('record').open")
    assert "qlora8, seed 0 less full, seed 0" in page.text("#comparison")


@pytest.mark.slow
def test_a_comparison_shows_pythons_interval(page, embedded):
    page.open(embedded)
    runs = load(embedded).runs
    scores = read_scores(embedded, runs["run_id"])
    for one, other in ((1, 0), (2, 5), (0, 3)):
        page.choose("#first", one)
        page.choose("#second", other)
        first, second = sorted((one, other))
        gap = scores[runs["run_id"][first]] - scores[runs["run_id"][second]]
        expected, sign = two_runs(gap.to_numpy()), 1 if one == first else -1
        found = page.js("return window.tunematrix.comparison")
        ends = sorted((sign * expected.low, sign * expected.high))
        assert [found["low"], found["high"]] == pytest.approx(ends, abs=1e-6)
        said = f"{sign * 100 * expected.difference:+.1f} points (95 % interval {100 * ends[0]:+.1f} to {100 * ends[1]:+.1f})"
        assert said.replace("-", "−") in page.text("#comparison")
    page.click("#swap")
    turned = page.js("return window.tunematrix.comparison")
    assert turned["difference"] == -found["difference"]
    assert {turned["verdict"], found["verdict"]} in ({"better", "worse"}, {found["verdict"]})
    page.choose("#second", page.js("return document.getElementById('first').value"))
    assert "the same run twice" in page.text("#comparison")


@pytest.mark.slow
def test_recipes_of_several_seeds(page, made, row):
    folder = made([row(name, seed=seed) for name in ("full", "lora", "freeze") for seed in (0, 1, 2)])
    page.open(folder)
    (comparison,) = compare(load(folder))
    entries = comparison.entries.set_index("label")
    page.click("#grouped")
    page.wait(lambda: page.column(0) == ["full\nbaseline", "lora", "freeze"])
    for name, text in zip(("full", "lora", "freeze"), page.column(3), strict=True):
        low, high = 100 * entries.loc[name, "vqa_accuracy_low"], 100 * entries.loc[name, "vqa_accuracy_high"]
        assert text == f"{100 * entries.loc[name, 'vqa_accuracy']:.1f} {low:.1f}–{high:.1f}"
    page.wait(lambda: page.plot()[2] == 3)
    page.click("#table tbody tr:nth-child(2) button")
    assert "3 runs: 3 ok" in page.text("#record-body")
    page.click("#record-body .list button")
    assert page.text("#record-title") == "lora, seed 0"
    page.click("#record .close")
    assert "As recipes, over other seeds and other questions" in page.text("#comparison")
    assert "3 seeds: differences below about" in page.text("#answer")


@pytest.mark.slow
def test_failures_are_rows_with_their_reasons(page, made, failed, row):
    rows = [row("full"), failed("lora", "oom", "ran out of 8 GiB"), failed("qlora", "refused", "nf4 needs a GPU")]
    page.open(made(rows))
    assert page.column(2) == ["ok", "oom: ran out of 8 GiB", "refused: nf4 needs a GPU"]
    assert "2 did not finish" in page.text("#count")
    page.choose("#status", "!ok")
    page.wait(lambda: len(page.column(0)) == 2)
    page.choose("#search", "8 gib")
    page.wait(lambda: page.column(0) == ["lora"])
    assert "Nothing is drawn" in page.text("#chart")
    assert "Did not finish: lora (oom), qlora (refused)" in page.text("#answer")
    page.click("#table tbody button")
    assert "ran out of memory, on the device or on the host" in page.text("#record-body")
    assert "history.csv has no rows" in page.text("#record-body")


@pytest.mark.slow
def test_nothing_finished(page, made, failed):
    page.open(made([failed("full", "oom", "too large"), failed("lora", "failed", "died")]))
    assert "No recipe can be named: no finished recipe has" in page.text("#answer")
    assert "No run has peak_allocated_bytes and accuracy" in page.text("#chart")
    assert page.column(0) == ["full\nbaseline", "lora"]


@pytest.mark.slow
def test_one_run_alone(page, made, row):
    page.open(made([row("lora")]))
    assert "Use lora, the only recipe that ends no more than 2 points below the best" in page.text("#answer")
    assert "Choose two runs" in page.text("#comparison")
    assert page.plot()[2] == 1
    page.choose("#reference", "baseline")
    assert "no finished baseline" in page.text("#answer")


@pytest.mark.slow
def test_a_missing_column_is_a_reason_never_a_wrong_plot(page, made):
    page.open(made(drop=("peak_allocated_bytes", "ttt_seconds"), history=False, predictions=False))
    assert "No run has peak_allocated_bytes" in page.text("#chart")
    assert page.js("return document.querySelectorAll('#chart svg').length") == 0
    page.choose("#axis-x", "trainable_parameters")
    page.wait(lambda: page.js("return document.querySelectorAll('#chart svg').length") == 1)
    assert "no two runs have scores by question" in page.text("#comparison")
    assert "No example pictures" in page.text("#examples-table")
    assert "needs memory that was not measured" in page.text("#answer")
    assert "peak_allocated_bytes" in page.text("#column-list")


@pytest.mark.slow
def test_markup_and_strange_signs_stay_text(page, made, row):
    rows = [row("full"), row(NASTY, run_id="aa"), row("lora", run_id="bb", status="failed", reason=NASTY)]
    folder = made(rows)
    (folder / "examples").mkdir()
    example = [{"id": 0, "question": NASTY, "answers": [NASTY], "image": "none.png"}]
    (folder / "examples" / "examples.json").write_text(json.dumps(example))
    write_page(folder)
    page.open(folder)
    assert NASTY in page.column(0)
    assert f"failed: {NASTY}" in page.column(2)
    page.click("#grouped")
    page.wait(lambda: NASTY in page.column(0))
    page.js("[...document.querySelectorAll('#table tbody button')].find((b) => b.textContent.includes('hurt')).click()")
    assert page.text("#record-title") == NASTY + ", seed 0"
    assert NASTY in page.text("#examples-table")
    assert NASTY in page.text("#answer")
    assert page.js("return window.hurt === undefined && !document.querySelector('img[src=x]')")


ENTRY = {"kind": "run", "num_runs": 1, "num_ok": 1, "status": "ok", "ttt_seconds": 10, "memory": 10 * MIB, "score": 0.8}


@pytest.mark.slow
def test_the_rule_of_the_recipe_box(page, embedded):
    page.open(embedded)
    entries = [
        ENTRY | {"label": "full", "kind": "baseline", "score": 0.80, "ttt_seconds": 30, "memory": 60 * MIB},
        ENTRY | {"label": "quick", "score": 0.785, "ttt_seconds": 10, "memory": 40 * MIB},
        ENTRY | {"label": "small", "score": 0.782, "ttt_seconds": 20, "memory": 15 * MIB, "memory_high": 21 * MIB},
        ENTRY | {"label": "poor", "score": 0.6, "ttt_seconds": 1, "memory": 5 * MIB},
        ENTRY | {"label": "top", "score": 0.81, "ttt_seconds": 90, "memory": 90 * MIB},
        ENTRY | {"label": "dead", "num_ok": 0, "status": "oom", "score": None, "memory": None},
        ENTRY | {"label": "blank", "score": None},
        ENTRY | {"label": "unweighed", "memory": None, "score": 0.805, "ttt_seconds": 40},
        ENTRY | {"label": "majority", "kind": "control", "score": 0.9, "ttt_seconds": 0},
    ]

    def ask(budget, tolerance, reference, changed=entries):
        found = page.js(
            "const [entries, ...asked] = arguments; return window.tunematrix.recommend({entries, score: 'accuracy'}, ...asked)",
            changed, budget and budget * MIB, tolerance, reference,
        )  # fmt: skip
        if "problem" in found:
            return found["problem"]
        others = [entry["label"] for entry in found["others"]]
        out = {why: [entry["label"] for entry in left] for why, left in found["out"].items() if left}
        return found["pick"] and found["pick"]["label"], others, out

    assert ask(None, 0.03, "best") == (
        "quick", ["small", "full", "unweighed", "top"], {"quality": ["poor"], "failed": ["dead"], "unknown": ["blank"]}
    )  # fmt: skip
    assert ask(None, 0.02, "baseline")[0] == "quick"
    assert ask(None, 0.0, "best")[:2] == ("top", [])
    assert ask(30, 0.03, "best")[0] == "small"
    assert ask(20, 0.03, "best")[0] is None, "of several seeds the highest has to fit"
    assert ask(30, 0.03, "best")[2]["unknown"] == ["blank", "unweighed"]
    assert ask(None, 0.03, "baseline", entries[1:]) == "there is no finished baseline to measure from"
    untimed = [entry | {"ttt_seconds": None} for entry in entries]
    assert ask(None, 0.03, "best", untimed)[0] == "small", "without times the least memory"


@pytest.mark.slow
def test_the_recipe_box_in_words(page, embedded):
    page.open(embedded)
    assert page.text("#answer .lead") == (
        "Use lora+amp, the fastest of the 6 recipes that end no more than 2 points below the best (qlora8, 86.0 %): "
        "it reaches 85.2 % (0.9 points below qlora8), trains in 22.9 s and needs 10.8 MiB."
    )
    assert "One seed: differences below about 1.6 points cannot be told apart" in page.text("#answer")
    page.choose("#budget", "8")
    assert page.text("#answer .lead").startswith("No recipe fits into 8 MiB and ends no more than 2 points below the best")
    assert "Over the budget: " in page.text("#answer")
    page.choose("#tolerance", "20")
    assert page.text("#answer .lead").startswith("Use freeze, the only recipe that fits into 8 MiB")
    page.choose("#budget-unit", str(2**30))
    assert "fit into 8 GiB" in page.text("#answer .lead")
    page.choose("#budget", "-1")
    assert "A budget is a number above zero" in page.text("#answer")


@pytest.mark.slow
def test_the_front_in_all_directions(page, embedded):
    page.open(embedded)
    spots = np.random.default_rng(0).integers(0, 6, (40, 2)).tolist()
    for x, y in (("low", "high"), ("high", "high"), ("low", "low"), ("high", "low")):
        found = page.js("return window.tunematrix.front(arguments[0].map(([x, y]) => ({x, y})), arguments[1], arguments[2])",
                        spots, x, y)  # fmt: skip

        def worth(spot, x=x, y=y):
            return (spot[0] if x == "high" else -spot[0]), (spot[1] if y == "high" else -spot[1])

        def beaten(spot):
            mine = worth(spot)
            return any(all(a >= b for a, b in zip(worth(o), mine, strict=True)) and worth(o) != mine for o in spots)

        assert sorted([p["x"], p["y"]] for p in found) == sorted(spot for spot in spots if not beaten(spot))


@pytest.mark.slow
def test_with_the_keyboard_alone(page, embedded):
    from selenium.webdriver.common.keys import Keys

    page.open(embedded)
    active = page.driver.switch_to
    page.find("body").send_keys(Keys.TAB)
    assert active.active_element.get_attribute("class") == "skip"
    active.active_element.send_keys(Keys.ENTER)
    for _ in range(40):
        active.active_element.send_keys(Keys.TAB)
        if active.active_element.get_attribute("data-sort") == "strategy":
            break
    active.active_element.send_keys(Keys.ENTER)
    assert active.active_element.get_attribute("data-sort") == "strategy", "the focus stays where it was"
    assert page.column(0)[0] == "checkpointing"
    assert page.js("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for _ in range(40):
        active.active_element.send_keys(Keys.TAB)
        if active.active_element.get_attribute("class") == "link":
            break
    active.active_element.send_keys(Keys.ENTER)
    assert page.js("return document.getElementById('record').open")
    active.active_element.send_keys(Keys.ESCAPE)
    page.wait(lambda: not page.js("return document.getElementById('record').open"))
    assert active.active_element.text == "checkpointing"


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 768, 2000])
def test_no_width_scrolls_the_body(page, embedded, width):
    page.open(embedded, width=width)
    assert page.js("return document.documentElement.scrollWidth") <= width
    page.click("#table tbody button")
    page.wait(lambda: page.js("return document.querySelectorAll('#record .curve svg').length") == 2)
    assert page.js("const e = document.getElementById('record'); return [e.scrollWidth - e.clientWidth, innerWidth]") == [0, width]


@pytest.mark.slow
def test_light_and_dark_follow_the_system(page, embedded):
    back = "return getComputedStyle(document.body).backgroundColor"
    ink = "return document.querySelector('#chart .role-axis-title text').getAttribute('fill')"
    page.open(embedded, scheme="dark")
    dark, dark_ink = page.js(back), page.js(ink)
    page.scheme("light")
    page.wait(lambda: page.js(back) != dark)
    page.wait(lambda: page.js(ink) != dark_ink)
    assert page.js(back) == "rgb(255, 255, 255)"


@pytest.mark.slow
def test_everything_has_a_name_for_a_screen_reader(page, embedded):
    page.open(embedded)
    nameless = page.js("""return [...document.querySelectorAll('button, select, input, section, img, table')].filter((e) =>
        !(e.labels?.length || e.textContent.trim() || e.getAttribute('aria-label') || e.alt)).map((e) => e.outerHTML)""")
    assert nameless == []
    assert page.js("return document.querySelectorAll('#table th[scope=col]').length") == len(
        page.js("return [...document.querySelector('#table tbody tr').children].map(() => 1)")
    )
    assert page.js("return document.querySelector('#chart svg').getAttribute('aria-label')").startswith("VQA accuracy against")
    levels = page.js("return [...document.querySelectorAll('h1, h2, h3')].map((e) => Number(e.tagName[1]))")
    assert all(later - earlier <= 1 for earlier, later in zip(levels, levels[1:], strict=False))


@pytest.mark.slow
def test_settings_are_not_mixed_in_a_plot(page, made, row):
    rows = [row(name, batch_size=size, run_id=f"{name}{size}") for name in ("full", "lora") for size in (32, 64)]
    page.open(made([*rows, row("freeze", batch_size=64)]))
    assert page.plot()[2] == 3
    assert "Setting batch_size 64 only" in page.text("#chart-note")
    page.choose("#setting", "1")
    page.wait(lambda: "Setting batch_size 32 only" in page.text("#chart-note"))
    assert page.plot()[2] == 2
    page.choose("#first", 0)
    page.choose("#second", 3)
    assert "these runs also differ in batch size (32, 64)" in page.text("#comparison")


@pytest.mark.slow
def test_two_thousand_runs_are_there_within_two_seconds(page, made, row, failed):
    rows = [row("full", seed=seed, run_id=f"full{seed}") for seed in range(10)]
    for recipe in range(199):
        name = f"lora(r={recipe + 1})"
        for seed in range(10):
            changes = {"seed": seed, "run_id": f"{recipe:03d}{seed}"}
            dead = recipe % 20 == 7
            rows.append(failed(name, "oom", "too large", **changes) if dead else row(name, **changes, ttt_seconds=recipe + 1))
    folder = made(rows, predictions=False)
    page.open(folder)
    assert float(page.js("return document.documentElement.dataset.ready")) <= 1000 * SECONDS
    assert len(page.column(0)) == 100
    assert "2,000 runs of 2,000; 100 did not finish" in page.text("#count")
    page.click("#pages button:last-child")
    assert "rows 101–200 of 2,000" in page.text("#pages")
    page.choose("#search", "r=150)")
    page.wait(lambda: len(page.column(0)) == 10)
    page.click("#reset")
    page.wait(lambda: len(page.column(0)) == 100)
    page.click("#grouped")
    page.wait(lambda: "200 recipes" in page.text("#count"))
    assert re.search(r"too many|no two runs", page.text("#comparison"))
