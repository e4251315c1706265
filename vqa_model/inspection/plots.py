"""Figures of what `vqa_model.inspect` found: one function each, from the facts, both parts side by side.

Colours are seaborn's colour-blind palette; every figure fits one column of a page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vqa_model.inspection.facts import ANNOTATORS, LENGTHS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.axes import Axes

Facts = dict[str, Any]
WIDTH = 4.2  # inches
SHOWN = 15


def _bars(axes: Axes, parts: Mapping[str, Mapping[str, float]], label: str, order: list[str]) -> None:
    import pandas as pd
    import seaborn as sns

    rows = [(name, part, 100 * shares.get(name, 0.0)) for part, shares in parts.items() for name in order]
    frame = pd.DataFrame(rows, columns=[label, "part", "questions, %"])
    sns.barplot(frame, y=label, x="questions, %", hue="part", ax=axes)
    axes.set_ylabel("")
    sns.move_legend(axes, "lower center", bbox_to_anchor=(0.5, 1), ncol=2, title=None)


def answer_types(axes: Axes, facts: Mapping[str, Facts]) -> None:
    """Shares of the answer types."""
    shares = {part: found["answer types"] for part, found in facts.items()}
    _bars(axes, shares, "answer type", list(dict.fromkeys(kind for part in shares.values() for kind in part)))


def top_answers(axes: Axes, facts: Mapping[str, Facts]) -> None:
    """Shares of the most frequent answers of the training part."""
    shares = {part: found["top answers of the vocabulary"] for part, found in facts.items()}
    _bars(axes, shares, "answer", list(next(iter(shares.values())))[:SHOWN])


def coverage(axes: Axes, facts: Mapping[str, Facts]) -> None:
    """Share of the questions whose answer a vocabulary knows, by its size."""
    sizes: set[int] = set()
    for part, found in facts.items():
        curve = {int(size): 100 * share for size, share in found["coverage"]["by size"].items()}
        sizes |= set(curve)
        axes.plot(list(curve), list(curve.values()), marker="o", label=part)
    axes.set(xscale="log", xlabel="answers in the vocabulary", ylabel="known answers, %", ylim=(0, 105))
    axes.minorticks_off()
    axes.set_xticks(sorted(sizes), [f"{size:,}" for size in sorted(sizes)], rotation=45)
    axes.legend(title="part", loc="lower right")


def question_lengths(axes: Axes, facts: Mapping[str, Facts]) -> None:
    """Words in a question."""
    for part, found in facts.items():
        histogram = found["words"]["histogram"]
        total = sum(histogram)
        axes.plot(range(len(histogram)), [100 * count / total for count in histogram], marker=".", label=part)
    axes.set(xlabel="words in a question", ylabel="questions, %")
    axes.set_xlim(0, LENGTHS + 0.5)
    axes.set_xticks([*range(0, LENGTHS, 5), LENGTHS], [*map(str, range(0, LENGTHS, 5)), f"≥ {LENGTHS}"])
    axes.legend(title="part")


def agreement(axes: Axes, facts: Mapping[str, Facts]) -> None:
    """How many of ten annotators gave the majority answer."""
    shares = {
        part: {str(n): found["agreement"]["gave the majority answer"][n] for n in range(1, ANNOTATORS + 1)}
        for part, found in facts.items()
    }
    _bars(axes, shares, "annotators", [str(n) for n in range(ANNOTATORS, 0, -1)])
    axes.set_ylabel("annotators with the majority answer")


def picture_sizes(axes: Axes, facts: Mapping[str, Facts]) -> None:
    """Width and height of a sample of the pictures."""
    for part, found in facts.items():
        sizes = found["pictures"]["widths and heights"]
        axes.scatter([w for w, _ in sizes], [h for _, h in sizes], s=12, alpha=0.4, linewidths=0, label=part)
    axes.set(xlabel="width, pixels", ylabel="height, pixels", aspect="equal")
    longest = max(
        (side for found in facts.values() for size in found["pictures"]["widths and heights"] for side in size),
        default=1,
    )
    axes.set(xlim=(0, 1.05 * longest), ylim=(0, 1.05 * longest))
    axes.legend(title="part", loc="lower left")


FIGURES = (answer_types, top_answers, coverage, question_lengths, agreement, picture_sizes)
HEIGHTS = {"answer_types": 2.0, "top_answers": 4.2, "agreement": 3.4, "picture_sizes": 4.2}


def draw_all(facts: Mapping[str, Facts], folder: Path) -> None:
    """Write every figure as PNG and SVG."""
    import matplotlib as mpl
    import seaborn as sns
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "tunematrix"}), sns.axes_style("whitegrid"), sns.color_palette("colorblind"):
        for plot in FIGURES:
            figure = Figure(figsize=(WIDTH, HEIGHTS.get(plot.__name__, 2.8)), layout="constrained")
            plot(figure.subplots(), facts)
            for kind in ("png", "svg"):
                figure.savefig(folder / f"{plot.__name__}.{kind}", dpi=150)
