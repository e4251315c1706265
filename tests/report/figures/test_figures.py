"""Every figure draws, or says why not; equal data gives equal bytes."""

import math

import matplotlib as mpl
import pytest

from report.figures.catalogue import ACROSS_SETTINGS, BASIC, BONUS, CAPTIONS, FIGURES
from report.figures.style import RC, save, setting_note, wrap_label
from report.frames.compare import compare
from report.frames.results import load

SIX_POINTS = 6.0


def texts(figure):
    found = [text.get_text() for text in figure.findobj(mpl.text.Text)]
    return " | ".join(text.replace("\n", " ") for text in found if text)


def draw(name, folder):
    (comparison,) = compare(load(folder))
    return FIGURES[name](comparison)


@pytest.mark.parametrize("name", [*BASIC, "seeds", "answer_types"])
def test_all_recipes_are_named_and_readable(sweep, name):
    figure = draw(name, sweep())
    said = texts(figure)
    for label in ("full", "freeze", "lora+amp", "checkpointing", "compile", "picture-world"):
        assert label in said
    sizes = [text.get_fontsize() for text in figure.findobj(mpl.text.Text) if text.get_text()]
    assert min(sizes) >= SIX_POINTS
    assert figure.get_figwidth() == 3.5


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_only_failures_says_so(sweep, failed, name):
    said = texts(draw(name, sweep([failed("full", "oom", "x"), failed("lora", "refused", "y")])))
    assert "Nothing to draw" in said
    assert "Did not finish: full (oom), lora (refused)." in said


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("accuracy_vs_memory", "peak_allocated_bytes"),
        ("accuracy_vs_ttt", "ttt_seconds"),
        ("memory_breakdown", "peak_allocated_bytes"),
        ("time_breakdown", "ttt_seconds"),
        ("accuracy_vs_energy", "energy_joules"),
        ("predicted_memory", "predicted_peak_bytes"),
        ("time_to_target", "time_to_target_seconds"),
        ("step_breakdown", "forward_step_seconds"),
    ],
)
def test_missing_column_gives_an_empty_panel_with_the_reason(sweep, name, column):
    said = texts(draw(name, sweep(drop=[column])))
    assert "Nothing to draw" in said
    assert column in said


def test_differences_need_predictions(sweep):
    assert "no recipe has predictions" in texts(draw("differences", sweep(predictions=False)))


def test_differences_of_one_seed_are_hollow_and_said_to_be_of_a_run(sweep, row):
    one = draw("differences", sweep())
    several = draw("differences", sweep([row(name, seed=seed) for seed in (0, 1, 2) for name in ("full", "freeze")]))
    lines = [figure.subfigs[0].axes[0].get_lines() for figure in (one, several)]
    faces = [{line.get_markerfacecolor() for line in drawn if line.get_marker() in tuple("^sov")} for drawn in lines]
    assert faces[0] == {"white"}
    assert "white" not in faces[1]
    assert "it speaks of that model, not of the recipe" in texts(one)
    assert "not of the recipe" not in texts(several)


def test_missing_history_gives_empty_panels(sweep):
    assert "history.csv has no" in texts(draw("learning_curves", sweep(history=False)))


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_one_run_and_odd_names(sweep, row, name):
    label = "my_$odd$(x='a_b^c', long_option_name=123456789)+another_rather_long_name"
    figure = draw(name, sweep([row("lora", strategy=label, plan=label)]))
    figure.savefig("/dev/null", format="svg")  # where mathematics between dollars would be an error
    assert ("odd" in texts(figure)) == (name not in {"differences", "ladder", "leave_one_out"})


def test_scatter_has_the_front_and_control_lines_not_points(sweep):
    figure = draw("accuracy_vs_memory", sweep())
    axes, strip = figure.subfigs[0].axes
    stairs = next(line for line in axes.get_lines() if line.get_drawstyle() == "steps-post")
    assert list(stairs.get_xdata()) == pytest.approx([18.5, 34.0])
    assert sorted(line.get_ydata()[0] for line in strip.get_lines()[:2]) == pytest.approx([50.7, 52.2])
    assert len([line for line in axes.get_lines() if line.get_marker() in tuple("os^DvPX")]) == 8


def test_near_controls_share_the_axes(sweep, row):
    rows = [
        row("full"),
        row("lora", accuracy=0.6, vqa_accuracy=0.6),
        row("question-only", accuracy=0.55, vqa_accuracy=0.55),
    ]
    assert len(draw("accuracy_vs_ttt", sweep(rows)).subfigs[0].axes) == 1


def test_value_missing_in_one_run_is_said(sweep, row):
    said = texts(draw("accuracy_vs_memory", sweep([row("full"), row("lora", peak_allocated_bytes=None)])))
    assert "Not measured, so not drawn: lora." in said


def test_several_seeds_get_whiskers(sweep, row, failed):
    rows = [row(name, seed=seed) for seed in (0, 1, 2) for name in ("full", "lora")]
    figure = draw("accuracy_vs_ttt", sweep([*rows, failed("dora", "oom", "x", seed=2)]))
    assert len(figure.subfigs[0].axes[0].containers) == 2
    assert "mean of 3 seeds" in texts(figure)
    assert "dora seed 2 (oom)" in texts(figure)


def test_a_bar_is_as_long_as_the_measured_total(sweep, row):
    rows = [row("full"), row("lora", activations_bytes=None), row("freeze", status="timeout", reason="slow")]
    axes = draw("memory_breakdown", sweep(rows)).subfigs[0].axes[0]
    ends = {}
    for patch in axes.patches:
        middle = round(patch.get_y() + patch.get_height() / 2)
        ends[middle] = max(ends.get(middle, 0), patch.get_x() + patch.get_width())
    assert ends == pytest.approx({0: 61.0, 1: 49.0}, abs=0.01)
    assert "not measured (timeout)" in texts(axes.figure)
    assert "rest (not split)" in texts(axes.figure)


def test_parts_above_the_total_are_confessed(sweep, row):
    said = texts(draw("memory_breakdown", sweep([row("full", weights_bytes=2**30)])))
    assert "add up to more than the total of: full" in said


@pytest.mark.slow
def test_files_are_the_same_bytes_and_leave_settings_alone(sweep, tmp_path):
    folder, before = sweep(), mpl.rcParams["font.size"]
    for name in ("accuracy_vs_memory", "learning_curves"):
        first = [path.read_bytes() for path in save(draw(name, folder), tmp_path / "a", name)]
        with mpl.rc_context({"font.size": 30, "lines.linewidth": 9}):
            again = [path.read_bytes() for path in save(draw(name, folder), tmp_path / "b", name)]
        assert first == again
        assert b"<dc:date>" not in first[1]
    assert mpl.rcParams["font.size"] == before != RC["font.size"]


def test_short_labels_keep_both_ends():
    assert wrap_label("lora") == "lora"
    assert wrap_label("lora(r=16)+amp+checkpointing", 18).split("\n") == ["lora(r=16)+amp+", "checkpointing"]
    assert all(len(line) <= 22 for line in wrap_label("x" * 30 + "+" + "y" * 40).split("\n"))

    assert wrap_label("amp+group_by_image+bucketing+compile+lora", 18) == "amp+\n…compile+lora"
    assert wrap_label("nf4+lora+amp+checkpointing+group_by_image", 20) == "nf4+lora+amp+\n…group_by_image"


@pytest.mark.parametrize(("threads", "said"), [(1, "cpu, 1 thread ·"), (2, "cpu, 2 threads ·")])
def test_one_thread_is_not_called_threads(sweep, row, threads, said):
    (comparison,) = compare(load(sweep([row("full", num_threads=threads), row("lora", num_threads=threads)])))
    assert said in setting_note(comparison)


def test_every_figure_has_a_caption():
    assert CAPTIONS.keys() == FIGURES.keys() | ACROSS_SETTINGS.keys()
    assert {*BASIC, *BONUS} <= CAPTIONS.keys()
    assert not math.isnan(SIX_POINTS)
