"""The demo page in a real browser: pictures in, answers of two models out, nothing fetched from elsewhere."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import httpx2
import pytest
import torch
from PIL import Image

from vqa_model.answering.answerer import Answerer
from vqa_model.demo import main
from vqa_model.task import VQATask

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
browser_test = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver")


@pytest.fixture(scope="module")
def models(small_world, tmp_path_factory):
    task, folder = VQATask(data=str(small_world), min_count=1), tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("full", "lora")):
        torch.manual_seed(seed)
        task.save_model(task.build_model(), folder / name, {})
    return folder


@pytest.fixture(scope="module")
def page(models, small_world, root):
    """Address of a served page, two models and a limit of 1 MB."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "vqa_model.demo", "--port", str(port), "--max-upload-mb", "1"]
    command += ["--model", str(models / "full"), "--model", str(models / "lora"), "--top", "3"]
    command += ["--examples", str(small_world / "val2014")]
    server = subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    line = server.stdout.readline()
    assert re.fullmatch(rf"serving http://127\.0\.0\.1:{port}/ \(Ctrl-C ends it\)\n", line)
    yield f"http://127.0.0.1:{port}"
    server.send_signal(signal.SIGINT)
    assert server.wait(20) in {0, 130, -signal.SIGINT}
    server.stdout.close()


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"):
        options.add_argument(word)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def wait_for(what, seconds=30):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.2)
    return found


@browser_test
@pytest.mark.slow
def test_a_picture_and_a_question_give_the_answers_of_both_models(page, browser, models, small_world, tmp_path):
    browser.get(page)
    (button,) = wait_for(lambda: browser.find_elements("xpath", "//button[normalize-space()='Ask']"))
    picture = tmp_path / "mine.png"
    Image.open(min((small_world / "val2014").iterdir())).resize((300, 300)).save(picture)
    browser.find_element("css selector", "input[type=file]").send_keys(str(picture))
    wait_for(lambda: browser.find_elements("css selector", "img[src*='mine']"))
    question = browser.find_element("css selector", "textarea, input[type=text]")
    question.clear()
    question.send_keys("How many stars are there?")
    button.click()
    for name in ("full", "lora"):
        expected = Answerer.load(models / name).answer(picture, "How many stars are there?", top=3)
        shown = "\n".join(f"{answer.text}\n{100 * answer.probability:.0f}%" for answer in expected)
        wait_for(lambda shown=shown: shown in browser.find_element("tag name", "body").text)
    browser.save_screenshot(str(tmp_path / "page.png"))
    assert (tmp_path / "page.png").stat().st_size > 10_000
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
    assert not [url for url in asked if not url.startswith((page, "data:", "blob:"))], "nothing comes from elsewhere"


@browser_test
@pytest.mark.slow
def test_without_a_picture_the_page_says_what_it_wants(page, browser):
    browser.get(page)
    (button,) = wait_for(lambda: browser.find_elements("xpath", "//button[normalize-space()='Ask']"))
    button.click()
    wait_for(lambda: "Give a picture and a question." in browser.find_element("tag name", "body").text)


@pytest.mark.slow
def test_large_files_and_files_of_others_are_refused(page, root):
    for size, status in ((10_000, 200), (3_000_000, 413)):
        answer = httpx2.post(f"{page}/gradio_api/upload", files={"files": ("a.jpg", b"x" * size)})
        assert answer.status_code == status
    assert httpx2.get(f"{page}/gradio_api/file={root}/README.md").status_code in {403, 404}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "/nowhere"], "/nowhere: no such folder, and the hub gives no model"),
        (["--model", "FULL", "--examples", "/nowhere"], "--examples /nowhere: no folder with"),
    ],
)
def test_bad_input_is_one_line(models, capsys, monkeypatch, words, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    assert main([str(models / "full") if word == "FULL" else word for word in words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("vqa_model.demo: ")
    assert message in error
    assert error.count("\n") == 1
