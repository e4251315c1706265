"""For everyone: keyboard, screen reader, any width, light and dark."""

from itertools import pairwise

import pytest


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
    page.wait(lambda: page.js("return document.querySelectorAll('#record .curve svg.marks').length") == 2)
    assert page.all("#record", "e.scrollWidth - e.clientWidth") == [0]
    assert page.js("return innerWidth") == width


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
    named = "[e.labels?.length || e.textContent.trim() || e.getAttribute('aria-label') || e.alt, e.outerHTML]"
    found = page.all("button, select, input, section, img, table", named)
    assert [element for name, element in found if not name] == []
    assert len(page.all("#table th[scope=col]", "1")) == len(page.all("#table tbody tr:first-child > *", "1"))
    spoken = page.all("#chart [aria-label]", "e.getAttribute('aria-label')")
    assert "VQA accuracy against Peak memory; the same figures stand in the table of runs" in spoken
    assert "lora, seed 0: Peak memory 13.3\xa0MiB, VQA accuracy 84.6\xa0%, not on it" in spoken
    levels = page.all("h1, h2, h3", "Number(e.tagName[1])")
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
