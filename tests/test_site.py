"""The documentation site builds without a warning, from sections of README, docstrings and committed sweeps."""

import os
import re
import subprocess
import sys

import pytest

from strategies.language.catalogue import catalogue


@pytest.fixture(scope="module")
def site(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", "docs/site/mkdocs.yml", "-d", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(root), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_strategy_has_its_card(site):
    text = (site / "strategies.html").read_text()
    for name in catalogue():
        assert f'<h3 id="{name}">' in text
    assert text.count("<strong>What it costs:</strong>") >= len(catalogue())


def test_sections_are_taken_along_with_their_figures(site):
    assert "Which fine-tuning recipe should I use?" in (site / "index.html").read_text()
    assert (site / "results/embedded/figures/accuracy_vs_memory.png").is_file()


def test_files_that_a_page_names_are_there(site):
    for name in ("reports.html", "compatibility.html", "kaggle.html", "gpu.html", "faq.html"):
        targets = re.findall(r'<a [^>]*href="((?!https?:|#)[^"#]+)', (site / name).read_text())
        assert [target for target in targets if not (site / target).exists()] == [], name
    assert 'href="results/embedded/report.html"' in (site / "reports.html").read_text()
    assert 'href="compatibility.csv"' in (site / "compatibility.html").read_text()
    assert 'href="results/gpu-h200/findings.html"' in (site / "gpu.html").read_text()


def test_the_site_is_built_by_make_docs_and_before_a_change_lands(root):
    docs = re.search(r"^docs:.*\n((?:\t.*\n)+)", (root / "Makefile").read_text(), re.MULTILINE)
    assert "site" in docs[1].splitlines()[-1]
    assert "make site" in (root / ".ci" / "run").read_text()


def test_nothing_is_fetched_from_elsewhere(site):
    for page in site.rglob("*.html"):
        fetched = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?://[^"]+)"', page.read_text())
        assert [address for address in fetched if "canonical" not in address] == [], page.name


def test_the_fifteen_questions_are_answered_with_figures(root):
    text = (root / "docs" / "faq.md").read_text()
    answers = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert [int(answer.split(".")[0]) for answer in answers] == list(range(1, 16))
    assert text.count("<!-- table ") >= 6
