"""The paper: text from data is no markup, its numbers are the CSVs', its references the cards', and LaTeX sets it."""

import json
import re
import shutil
import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from report.errors import ReportError
from report.figures.catalogue import FIGURES
from report.frames.compare import compare
from report.frames.results import load
from report.paper import build
from report.paper.cards import bibtex, read_card, references
from report.paper.results import memory_table, negative_sentences, quality_table, verdict_sentences
from report.paper.tex import Tex, code, escape, prose
from strategies.cards.card import card
from strategies.language.catalogue import catalogue

NASTY = r"a_b%c&d#e$f{g}h\i^j~k<l>|m`n'o\"p" + "\n中文 é Ł 🙂 × α"
DRAWN = NASTY.translate(dict.fromkeys(map(ord, "中文🙂")))  # what the figures' font has
PROGRAMS = ("latexmk", "pdflatex", "pdftotext", "kpsewhich")
HAS_LATEX = (
    all(map(shutil.which, PROGRAMS))
    and subprocess.run(["kpsewhich", "IEEEtran.cls"], capture_output=True, check=False).stdout.strip()
)
typeset = pytest.mark.skipif(not HAS_LATEX, reason="needs Debian's latexmk, poppler-utils and texlive-publishers")


def first(folder):
    return compare(load(folder))[0]


@given(st.text() | st.text(st.sampled_from(NASTY)))
@example("--seeds")
def test_escaped_text_is_plain_and_holds_no_markup(text):
    written = escape(text)
    assert written.isascii()
    assert escape(written) is written
    left = re.sub(
        r"\\[`'^~=\"a-zA-Z.]+(\{[a-zA-Z]?\})?|\\[{}$&#%_|/]|\$[^$]*\$", "", written.replace(r"\texttt{[U+", "[")
    )
    assert not set(left) & set(r"$&#%_^~\{")


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1))
def test_plain_words_stay(text):
    assert escape(text) == text


def test_options_keep_their_hyphens():
    assert escape("repeat with --seeds 0–2") == r"repeat with -\/-seeds 0--2"


def test_names_break_where_their_parts_end():
    assert code("lora(r=8)+amp") == r"\texttt{lora(\allowbreak{}r=\allowbreak{}8)+\allowbreak{}amp}"
    assert prose("so `a_b` *really* is 2 * 3 * 4") == r"so \texttt{a\_\allowbreak{}b} \emph{really} is 2 * 3 * 4"
    assert prose("`r`, by default") == r"\texttt{r}, by default"


def test_every_card_comes_apart_and_every_paper_is_an_entry():
    for name, strategy in catalogue().items():
        facts = card(strategy)
        read = read_card(name, facts)
        assert "[U+" not in escape(facts["text"]), f"{name} has a sign that the paper cannot set"
        assert read.what, name
        assert read.why, name
        assert read.costs, name
        assert {reference.url for reference in read.references} >= {url.rstrip(".") for url in facts["papers"]}, name
        assert all(reference.title for reference in read.references), name
        assert all(reference.year or not reference.authors for reference in read.references), name


@pytest.mark.parametrize(
    ("papers", "authors", "title"),
    [
        ("Hu et al., LoRA: Low-Rank, with commas, 2021, https://a.b/1", "Hu et al.", "LoRA: Low-Rank, with commas"),
        ("Ben Zaken, Ravfogel and Goldberg, BitFit, 2021, https://a.b/1", "Ben Zaken, Ravfogel and Goldberg", "BitFit"),
        ("Kang and Yin, MiSS: Revisiting, 2024, https://a.b/1.", "Kang and Yin", "MiSS: Revisiting"),
        ("as adapter: Yeh et al., LyCORIS, 2023, https://a.b/1", "Yeh et al.", "LyCORIS"),
        ("none alone; Fast R-CNN (Girshick, 2015, https://a.b/1, section 2)", "Girshick", "Fast R-CNN"),
        ("the tutorial, https://a.b/1", "", "the tutorial"),
    ],
)
def test_citations_are_read(papers, authors, title):
    (found,) = references("x", papers)
    assert (found.authors, found.title, found.url) == (authors, title, "https://a.b/1")


def test_a_paper_that_two_cards_name_is_one_entry():
    cited = references("a", "Hu et al., LoRA, 2021, https://a.b/1") + references(
        "b", "Hu et al., LoRA, 2021, https://a.b/1"
    )
    text = bibtex(cited)
    assert text.count("@misc{a-b-1,") == 1
    assert "author = {Hu and others}" in text


def test_tables_are_the_csvs(sweep, row):
    folder = sweep([row(name, seed=seed) for seed in (0, 1) for name in ("full", "lora", "question-only")])
    comparison = first(folder)
    scores = [100 * row("lora", seed=seed)["accuracy"] for seed in (0, 1)]
    cells = next(r for part in quality_table(comparison) for r in part if "lora" in r[0])
    assert cells[2] == f"{sum(scores) / 2:.1f} ({scores[0]:.1f}--{scores[1]:.1f})"
    assert len(quality_table(comparison)[0]) == 3
    assert [r[0] for r in memory_table(comparison)[0]] == [r"\texttt{full}", r"\texttt{lora}"], "no control"
    assert memory_table(comparison)[0][1][1] == "49.0 MiB"


def test_long_tables_come_in_parts(sweep, row):
    rows = [row("lora", strategy=f"s{n}", plan=f"s{n}", run_id=f"r{n}") for n in range(95)]
    assert [len(part) for part in quality_table(first(sweep(rows)))] == [40, 40, 15]


def test_what_did_not_work_is_said(sweep, row, failed):
    rows = [row("full"), row("compile"), row("lora+amp"), failed("qlora", "refused", "no")]
    said = " ".join(negative_sentences(first(sweep(rows))))
    assert r"\texttt{compile} (1.87$\times$)" in said
    assert r"\texttt{qlora} (refused) did not run" in said
    assert "needed more memory" not in said
    assert "nan" not in said
    assert "no" not in verdict_sentences(first(sweep(rows)))[0].split()


@pytest.fixture
def whole(root, tmp_path):
    """A copy of a committed sweep, figures left out."""

    def copied(name):
        folder = tmp_path / name
        shutil.copytree(root / "results" / name, folder, ignore=shutil.ignore_patterns("figures", "paper", "*.html"))
        return folder

    return copied


def without_latex(monkeypatch, *, drawn=True):
    monkeypatch.setattr(build.shutil, "which", lambda program: None)
    if not drawn:  # what it says does not depend on its figures, which take seconds
        monkeypatch.setattr(build, "save", lambda *_, **__: None)
        monkeypatch.setattr(build, "FIGURES", dict.fromkeys(FIGURES, lambda _: None))


@pytest.mark.slow
def test_without_latex_the_source_is_there_and_the_way_is_told(sweep, monkeypatch):
    without_latex(monkeypatch)
    folder = sweep()
    said = build.write_paper(folder)
    assert "latexmk is not installed" in said[1]
    assert "apt-get install" in said[1]
    text = (folder / "paper" / "paper.tex").read_text()
    included = re.findall(r"\\includegraphics\[.*?\]\{(.*?)\}", text)
    assert included
    assert not [path for path in (folder / "paper" / "figures").iterdir() if path.suffix != ".pdf"]
    assert all((folder / "paper" / file).is_file() for file in included)
    assert not (folder / "paper" / "paper.pdf").exists()
    assert "no description of a model of two encoders" in text
    assert "no method cards" in text


def test_every_citation_has_an_entry(whole, monkeypatch):
    without_latex(monkeypatch, drawn=False)
    folder = whole("embedded")
    build.write_paper(folder)
    cited = set(re.findall(r"\\cite\{(.*?)\}", (folder / "paper" / "paper.tex").read_text()))
    known = re.findall(r"@\w+\{(.*?),", (folder / "paper" / "references.bib").read_text())
    assert len(known) == len(set(known))
    assert cited <= set(known)
    assert len(cited) > 10


def test_nothing_is_written_where_no_sweep_is(tmp_path):
    with pytest.raises(ReportError, match="is not a folder"):
        build.write_paper(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "text", "note"),
    [
        ("model.json", "{", "not readable as JSON"),
        ("model.json", "[]", "holds no table"),
        ("model.json", '{"configuration": {"vision_config": {}}}', ""),
        ("strategies.json", "[1]", "holds no table"),
        ("strategies.json", '{"lora": 3}', ""),
        ("chosen_images.json", "{}", "holds no list"),
        ("examples/examples.json", '[7, {"image": "../runs.csv"}]', ""),
    ],
)
def test_foreign_side_files_do_no_harm(sweep, monkeypatch, file, text, note):
    without_latex(monkeypatch, drawn=False)
    folder = sweep()
    (folder / "examples").mkdir()
    (folder / file).write_text(text)
    said = " ".join(build.write_paper(folder))
    assert note in said
    assert (f"{folder / file}:" in said) == bool(note)


def written(folder):
    return build.compose(folder)[0].split(r"\begin{document}")[1]


def test_other_tasks_are_not_called_visual_questions(sweep, row):
    rows = [row(name, vqa_accuracy=None, dataset="digits", model="a small net") for name in ("full", "lora")]
    text = written(sweep(rows, predictions=False))
    assert "The data is digits." in text
    assert not re.search(r"visual question|VQA|picture", text, re.IGNORECASE)


def test_only_what_is_true_of_the_sweep_is_said(sweep, row):
    assert "is drawn" not in written(sweep())
    assert "No learning rate was searched for" in written(sweep())
    drawn = [
        row(name, setting="fraction=0.25, 1 epochs, model abc", tuned_rates="1e-3=0.5") for name in ("full", "lora")
    ]
    text = written(sweep(drawn, name="drawn"))
    assert "a part is drawn" in text
    assert "the best of a few learning rates" in text
    both = [row(name, setting=f"model {m}", run_id=name + m) for name in ("full", "lora") for m in ("abc", "def")]
    assert "We train\n2 models" in written(sweep(both, name="both"))


def troubles(folder):
    log = (folder / "paper" / "paper.log").read_text(errors="replace")
    wide = [float(size) for size in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log)]
    return [size for size in wide if size > 1], re.findall(r".*undefined.*", log)


@pytest.mark.slow
@typeset
def test_the_committed_sweep_is_typeset_without_a_flaw_and_the_same_twice(whole):
    folder = whole("embedded")
    build.write_paper(folder)
    pdf = folder / "paper" / "paper.pdf"
    assert troubles(folder) == ([], [])
    assert pdf.stat().st_size < 2e6
    before = pdf.read_bytes()
    build.write_paper(folder)
    assert pdf.read_bytes() == before
    text = subprocess.run(["pdftotext", "-layout", pdf, "-"], capture_output=True, text=True, check=True).stdout
    assert "lora+amp" in text
    assert "Name of the first author" in text


@pytest.mark.slow
@typeset
def test_hostile_names_and_failures_alone_are_typeset(sweep, row, failed):
    rows = [failed("full", "oom", NASTY), failed("lora", "refused", NASTY, strategy=DRAWN, plan=DRAWN)]
    folder = sweep(rows, name="failures")
    build.write_paper(folder)
    assert (folder / "paper" / "paper.pdf").is_file()
    folder = sweep([row("full"), row("lora", strategy=DRAWN, plan=DRAWN), row("lora", batch_size=8, run_id="x")])
    (folder / "examples").mkdir()
    example = {"id": 1, "question": NASTY, "answers": [NASTY] * 3, "image": "none.png"}
    (folder / "examples" / "examples.json").write_text(json.dumps([example]))
    cards = {"lora": {"kind": NASTY, "summary": NASTY, "options": NASTY, "text": f"x\n\nWhat: {NASTY}", "papers": []}}
    (folder / "strategies.json").write_text(json.dumps(cards))
    build.write_paper(folder)
    assert (folder / "paper" / "paper.pdf").is_file()


def test_latex_is_not_escaped_twice():
    assert escape(Tex(r"\emph{a}")) == r"\emph{a}"
