"""From a sweep's folder to FOLDER/paper: paper.tex, references.bib, its figures, and paper.pdf where LaTeX is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jinja2

from report.errors import ReportError
from report.figures.catalogue import CAPTIONS, FIGURES
from report.figures.style import save
from report.files import outputs_of, write_atomic
from report.frames.ablations import cumulative_ablation, leave_one_out
from report.frames.compare import compare
from report.frames.results import load
from report.frames.sidecars import SidecarFiles
from report.frames.units import SCORE_NAMES
from report.paper import results
from report.paper.cards import bibtex
from report.paper.facts import cards_of, data_facts, has_random_encoders, machine, model_facts, models_of, threats
from report.paper.tex import Tex, code, escape, prose
from report.text.findings import findings
from report.text.summary import heading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from report.frames.compare import Comparison
    from report.paper.cards import Reference

MAX_SETTINGS: Final = 4
SHOWN: Final = ("accuracy_vs_memory", "accuracy_vs_ttt", "memory_breakdown", "time_breakdown", "learning_curves",
                "differences")  # fmt: skip
MIN_ABLATION_STEPS: Final = 3
DOTTED: Final = re.compile(r"\w+\.\w")
MANY: Final = 20  # recipes, from which the figure of seeds only repeats that of differences
REQUIRED_PROGRAMS: Final = ("latexmk", "pdflatex")
INSTALL: Final = "apt-get install latexmk texlive-publishers texlive-latex-extra texlive-pictures"
TIMEOUT_SECONDS: Final = 300


def write_paper(folder: Path, out: Path | None = None) -> list[str]:
    """Write `paper` in FOLDER or OUT/<its name> and typeset it; a line for each thing. ReportError when LaTeX fails."""
    load(folder)  # before anything is written
    out = outputs_of(folder, out) / "paper"
    try:
        text, cited, notes = compose(folder, out)
        write_atomic(out / "paper.tex", text)
        known = Path(__file__).with_name("known.bib").read_text(encoding="utf-8")
        write_atomic(out / "references.bib", f"{known}\n{bibtex(cited)}")
    except OSError as error:
        raise ReportError(f"{out}: cannot be written ({error.strerror}); copy the sweep elsewhere") from error
    lines = [f"{out / 'paper.tex'}, references.bib and figures/", *(f"  {note}" for note in notes)]
    if missing := [program for program in REQUIRED_PROGRAMS if not shutil.which(program)]:
        return [*lines, f"no PDF: {missing[0]} is not installed; with it ({INSTALL}) the same command typesets it"]
    return [*lines, str(typeset(out))]


def compose(folder: Path, out: Path | None = None) -> tuple[str, list[Reference], list[str]]:
    """The paper's LaTeX, the references of its cards, and which side files could not be read.

    out: where its figures and examples are written; None writes nothing.
    """
    comparisons = compare(load(folder))  # before anything is written
    if out:
        (out / "figures").mkdir(parents=True, exist_ok=True)
    sidecars = SidecarFiles(folder)
    cards, model, data = cards_of(sidecars), model_facts(sidecars, comparisons), data_facts(sidecars, comparisons[0])
    parts = [_part(comparison, comparisons, sidecars, out) for comparison in comparisons[:MAX_SETTINGS]]
    for example in data["examples"] if out else ():
        if example["picture"]:
            shutil.copyfile(example["picture"], out / example["file"])
    runs = [comparison.runs for comparison in comparisons]
    recipes = {label for c in comparisons for label in c.entries.loc[c.entries["kind"] != "control", "label"]}
    if len(comparisons) > MAX_SETTINGS:
        parts[-1]["findings"].append(escape(f"{len(comparisons) - MAX_SETTINGS} smaller settings are left out."))
    text = _environment().get_template("paper.tex.jinja").render(
        recipes=len(recipes), seeds=max(frame["seed"].nunique() for frame in runs), runs=sum(map(len, runs)),
        failed=sum(len(c.failures) for c in comparisons), model=model, data=data, cards=cards, parts=parts,
        first=parts[0], settings=len(comparisons), models=len(models_of(comparisons)),
        threats=threats(comparisons, model, data), levels=set().union(*map(results.levels, comparisons)),
        names=results.recipe_expansions(comparisons), random=has_random_encoders(comparisons, model),
        memory=list(results.MEMORY.values()), Tex=Tex, code=code, prose=prose,
    )  # fmt: skip
    return (
        text,
        [reference for found in cards.values() for card in found for reference in card.references],
        sidecars.notes,
    )


def _environment() -> jinja2.Environment:
    """Templates whose values are escaped unless they are LaTeX already."""
    made = jinja2.Environment(
        block_start_string="<%", block_end_string="%>", variable_start_string="<<", variable_end_string=">>",
        comment_start_string="<#", comment_end_string="#>", trim_blocks=True, finalize=escape,
        autoescape=False,  # noqa: S701 - LaTeX, escaped by finalize
        loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    made.filters["lower_first"] = lambda text: Tex(text[:1].lower() + text[1:])
    made.filters["upper_first"] = begin_sentence
    return made


def begin_sentence(text: str) -> Tex:
    """Begin with a capital, unless a formula, a name in code or a dotted name stands first."""
    return Tex(text[:1].upper() + text[1:] if text[:2].isalpha() and not DOTTED.match(text) else text)


def _part(
    comparison: Comparison, comparisons: Sequence[Comparison], sidecars: SidecarFiles, out: Path | None
) -> dict[str, Any]:
    """What the paper says of one setting."""
    number = comparisons.index(comparison) + 1
    return {
        "number": number, "title": escape(heading(comparison, comparisons)),
        "several": bool((comparison.entries["num_ok"] > 1).any()), "machine": machine(comparison, sidecars),
        "quality": results.quality_table(comparison), "scores": list(results.scores_of(comparison).values()),
        "score": escape(SCORE_NAMES[comparison.score]), "memory": results.memory_table(comparison),
        "findings": [escape(sentence) for sentence in findings(comparison, caution=False)],
        "told": results.significance_sentence(comparison), "tried": bool((comparison.finished["kind"] == "run").any()),
        "figures": _figures(comparison, number, out), "verdict": results.verdict_table(comparison),
        "verdicts": results.verdict_sentences(comparison), "negative": results.negative_sentences(comparison),
        "failures": results.failure_table(comparison),
    }  # fmt: skip


def _figures(comparison: Comparison, number: int, out: Path | None) -> list[dict[str, Tex]]:
    """Draw the figures that have something to show; one recipe alone is compared with nothing."""
    if comparison.finished["entry"].nunique() <= 1:
        return []
    available = {
        "ladder": len(cumulative_ablation(comparison)) >= MIN_ABLATION_STEPS,
        "leave_one_out": bool(leave_one_out(comparison)[1]),
    }
    available["seeds"] = comparison.runs["seed"].nunique() > 1 and len(comparison.entries) <= MANY
    more = [name for name, shown in available.items() if shown]
    shown = [name for name in (*SHOWN, *more) if name != "differences" or len(comparison.paired)]
    found = []
    for name in shown:
        label = f"{name}-{number}"
        if out:
            save(FIGURES[name](comparison), out / "figures", label, endings=("pdf",))
        found.append({"label": Tex(label), "file": Tex(f"figures/{label}.pdf"), "caption": escape(CAPTIONS[name])})
    return found


def typeset(out: Path) -> Path:
    """Run latexmk over paper.tex and keep the PDF alone; equal input gives equal bytes."""
    command = ["latexmk", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "-outdir=build", "paper.tex"]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=out,
            env=environment,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise ReportError(
            f"{out / 'paper.tex'}: LaTeX did not end within {TIMEOUT_SECONDS} s; the .tex is there"
        ) from None
    log = out / "build" / "paper.log"
    if done.returncode:
        text = (
            log.read_text(encoding="utf-8", errors="replace") if log.is_file() else done.stdout.decode(errors="replace")
        )
        problem = next((line for line in text.splitlines() if line.startswith("!")), text.strip().splitlines()[-1])
        raise ReportError(f"{out / 'paper.tex'}: LaTeX stopped: {problem}; the whole log is {log}")
    (out / "build" / "paper.pdf").replace(out / "paper.pdf")
    shutil.copyfile(log, out / "paper.log")
    shutil.rmtree(out / "build")
    return out / "paper.pdf"
