"""Times of disturbed runs are in nothing that is made of a sweep, and all of it says so; quality and memory stay."""

import json
import math

import matplotlib as mpl
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.records.record import DISTURBANCE_COLUMNS, RUN_COLUMNS
from report.figures.catalogue import ACROSS_SETTINGS, FIGURES
from report.frames.compare import compare
from report.frames.disturbed import TIMES, without_disturbed_times
from report.frames.results import load
from report.frames.targets import target_lines
from report.frames.wall_clock import wall_lines
from report.page.data import page_data
from report.paper.build import compose
from report.paper.facts import other_work
from report.text.findings import findings
from report.text.summary import summary, table
from report.text.tables import update_tables

WHY = "others used 1.0 of 2 CPUs"
OF_TIME = (
    "accuracy_vs_ttt", "accuracy_vs_energy", "time_breakdown", "step_breakdown", "learning_curves", "time_to_target",
    "ladder", "leave_one_out", "pairs",
)  # fmt: skip
NOTE = "Times left out, as others disturbed the run:"


def first(folder):
    return compare(load(folder))[0]


@pytest.fixture
def disturbed(sweep, row):
    """Three seeds of three recipes: of lora one is disturbed and eight times as slow, of full another seed."""

    def make(lora=(1,), full=(2,), seeds=(0, 1, 2)):
        rows = [
            row(
                name,
                seed=seed,
                **({"disturbed": WHY, "ttt_seconds": 8 * row(name)["ttt_seconds"]} if seed in those else {}),
            )
            for seed in seeds
            for name, those in (("full", full), ("lora", lora), ("freeze", ()))
        ]
        return sweep(rows)

    return make


def said(figure):
    found = [text.get_text() for text in figure.findobj(mpl.text.Text)]
    return " ".join(" ".join(found).split())


def test_times_are_known_by_their_names():
    assert {"ttt_seconds", "samples_per_second", "energy_joules", "cost_dollars", "mfu", "wall_seconds"} < set(TIMES)
    assert {"time_to_target_seconds", "forward_step_seconds", "eval_seconds"} < set(TIMES)
    assert not {"tuning_seconds", "cache_seconds", "vqa_accuracy", "peak_allocated_bytes", "steps", "lr"} & set(TIMES)
    assert not set(TIMES) & set(DISTURBANCE_COLUMNS), "what marks a run is shown"
    assert set(TIMES) < set(RUN_COLUMNS)


def test_means_and_ratios_are_of_undisturbed_runs(disturbed, row):
    comparison = first(disturbed())
    entries = comparison.entries.set_index("label")
    lora, full = row("lora")["ttt_seconds"], row("full")["ttt_seconds"]
    assert entries.loc["lora", "ttt_seconds"] == pytest.approx(lora * (1 + 1.06) / 2)
    assert entries.loc["lora", "ttt_ratio"] == pytest.approx(lora / full), "seed 2 has no baseline, seed 1 no run"
    assert comparison.runs.set_index(["entry", "seed"])["ttt_ratio"].notna().tolist() == [
        True, True, True, True, False, True, False, False, False,
    ]  # fmt: skip
    assert entries["num_ok"].tolist() == [3, 3, 3]
    assert entries.loc["lora", "memory_ratio"] == pytest.approx(
        row("lora")["peak_allocated_bytes"] / row("full")["peak_allocated_bytes"]
    )
    assert comparison.runs["accuracy"].notna().all()
    assert entries["status"].tolist() == ["ok, 1 of 3 disturbed", "ok, 1 of 3 disturbed", "ok"]


def test_a_recipe_with_disturbed_runs_alone_has_no_time(disturbed):
    comparison = first(disturbed(lora=(0, 1, 2), full=()))
    (lora,) = comparison.entries[comparison.entries["label"] == "lora"].to_dict("records")
    assert math.isnan(lora["ttt_seconds"])
    assert math.isnan(lora["ttt_ratio"])
    assert lora["status"] == "ok, disturbed"
    (line,) = [line for line in table(comparison) if line.startswith("| lora")]
    assert "| – | – | 49.0 MiB |" in line


def test_failures_and_disturbance_stand_side_by_side(sweep, row, failed):
    rows = [row("full"), row("lora", disturbed=WHY), failed("lora", "oom", "x", seed=1, run_id="a")]
    assert first(sweep(rows)).entries["status"].tolist() == ["ok", "1 of 2 ok, oom, 1 of 2 disturbed"]


def test_a_missed_target_stays_missed(sweep, row):
    rows = [row("full", seed=seed) for seed in (0, 1, 2)]
    rows += [row("lora", seed=seed, disturbed=WHY) for seed in (0, 1)]
    rows += [row("lora", seed=2, disturbed=WHY, time_to_target_seconds=math.inf, steps_to_target=math.inf)]
    rows += [row("freeze", disturbed=WHY, time_to_target_seconds=math.inf, steps_to_target=math.inf)]
    lines = target_lines(first(sweep(rows)))
    assert "| `lora` | 2 of 3 | – | – | 260 |" in lines
    assert "| `freeze` | 0 of 1 | not reached | – | – |" in lines


def test_the_wall_clock_is_that_of_undisturbed_runs(disturbed):
    (_, _, text, _) = wall_lines([first(disturbed())])
    assert "that 7 runs took" in text


def test_the_summary_names_run_and_reason_and_the_way_out(disturbed):
    comparisons = compare(load(disturbed()))
    text = summary("sweep", comparisons, {})
    assert f"| lora | 1 | {WHY} |\n" in text
    assert f"| full | 2 | {WHY} |\n" in text
    assert "--require-idle" in text
    (caution,) = [sentence for sentence in findings(comparisons[0]) if "left out" in sentence]
    assert caution.startswith("Times of 2 runs are left out, as others disturbed them (below).")
    assert caution.endswith("Times are of fewer than three runs of full (2), lora (2).")


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_TIME)
def test_figures_of_time_say_whose_is_left_out(disturbed, name):
    assert f"{NOTE} lora seed 1, full seed 2." in said(FIGURES[name](first(disturbed()))).replace(
        "full seed 2, lora seed 1", "lora seed 1, full seed 2"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(FIGURES) - set(OF_TIME)))
def test_other_figures_are_as_they_were(disturbed, name):
    assert NOTE not in said(FIGURES[name](first(disturbed())))


def test_many_disturbed_runs_are_counted_and_all_of_them_leave_nothing_to_draw(disturbed):
    figure = said(FIGURES["accuracy_vs_ttt"](first(disturbed(lora=(0, 1, 2), full=(0, 1, 2)))))
    assert "2 more in the summary" in figure
    figure = said(FIGURES["time_breakdown"](first(disturbed(lora=(0,), full=(), seeds=(0,)))))
    assert "not measured (ok, disturbed)" in figure


def test_the_figure_over_settings_counts_them(sweep, row):
    rows = [
        row(name, batch_size=batch, run_id=f"{name}{batch}", peak_allocated_bytes=1000 * batch,
            disturbed=WHY if (name, batch) == ("lora", 8) else "")
        for batch in (8, 16) for name in ("full", "lora", "freeze")
    ]  # fmt: skip
    assert "Times of 1 run are left out" in said(ACROSS_SETTINGS["savings"](compare(load(sweep(rows)))))


def test_curves_by_update_keep_a_disturbed_run(disturbed):
    comparison = first(disturbed(lora=(0,), full=(), seeds=(0,)))
    assert "lora" not in [text.get_text() for text in FIGURES["learning_curves"](comparison).findobj(mpl.text.Text)]
    assert "lora" in [
        text.get_text() for text in FIGURES["learning_curves_by_update"](comparison).findobj(mpl.text.Text)
    ]


def test_the_page_shows_why_in_place_of_the_times(disturbed):
    results = load(disturbed())
    data = page_data(results, compare(results))
    described = {column["key"]: column for column in data["columns"]}
    assert described["disturbed"]["first"]
    assert described["disturbed"]["kind"] == "text"
    marked = [place for place, why in enumerate(data["runs"]["disturbed"]) if why == WHY]
    assert len(marked) == 2
    assert [data["runs"]["ttt_seconds"][place] for place in marked] == [None, None]
    assert None not in [data["runs"]["accuracy"][place] for place in marked]
    assert any("Times of 2 runs are left out" in sentence for sentence in data["settings"][0]["findings"])
    json.dumps(data, allow_nan=False)


def test_the_page_shows_what_was_recorded_of_others(sweep, row):
    results = load(sweep([row("full", cpu_wait_share=0.025, cpu_seconds=9.0), row("lora", other_cpu_share=0.5)]))
    described = {column["key"]: column for column in page_data(results, compare(results))["columns"]}
    kinds = {key: (described[key]["kind"], described[key]["better"]) for key in described if "cpu" in key}
    assert kinds == {"cpu_seconds": ("seconds", ""), "cpu_wait_share": ("share", ""), "other_cpu_share": ("share", "")}


def test_the_page_of_a_sweep_that_recorded_nothing_names_nothing(sweep):
    results = load(sweep(drop=DISTURBANCE_COLUMNS))
    data = page_data(results, compare(results))
    assert not set(DISTURBANCE_COLUMNS) & {*data["empty"], *data["runs"]}


def test_the_paper_says_what_others_did(disturbed, sweep, row):
    text = " ".join(compose(disturbed())[0].split())
    assert "Times of 2 runs are left out, as others disturbed them" in text
    quiet = compare(load(sweep([row("full", other_cpu_share=0.01), row("lora", other_cpu_share=0.02)], name="quiet")))
    assert other_work(quiet) == "What others did on the machine was recorded for every run, and disturbed none."
    assert other_work(compare(load(sweep([row("full")], name="old")))).startswith(
        "The machine may have done other work"
    )


def test_tables_in_pages_say_it_below(disturbed, tmp_path):
    disturbed()
    page = tmp_path / "page.md"
    page.write_text("<!-- table sweep columns=recipe,ttt,ttt_ratio,peak -->\n<!-- end of table -->\n")
    update_tables(page)
    assert "\n\nTimes of 2 runs are left out, as others disturbed them.\n\n<!-- end" in page.read_text()


@given(st.lists(st.tuples(st.sampled_from(["", WHY]), st.floats(0, 1e6) | st.sampled_from([math.inf, math.nan]))))
def test_only_finite_times_of_disturbed_runs_go(marked):
    runs = pd.DataFrame({column: [] for column in RUN_COLUMNS}, dtype=float).reindex(range(len(marked)))
    runs = runs.assign(
        run_id=[str(number) for number in range(len(marked))], disturbed=[why for why, _ in marked],
        ttt_seconds=[value for _, value in marked], accuracy=[value for _, value in marked],
    )  # fmt: skip
    lines = pd.DataFrame({"run_id": runs["run_id"], "train_seconds": 1.0, "seconds": 1.0, "value": 2.0})
    found, history, sections = without_disturbed_times(runs, lines, lines)
    for (why, before), after in zip(marked, found["ttt_seconds"], strict=True):
        gone = bool(why) and math.isfinite(before)
        assert math.isnan(after) if gone or math.isnan(before) else after == before
    pd.testing.assert_series_equal(found["accuracy"], runs["accuracy"])
    assert history["value"].tolist() == lines["value"].tolist()
    assert sections["run_id"].tolist() == runs.loc[runs["disturbed"] == "", "run_id"].tolist()
    assert history["train_seconds"].notna().tolist() == (runs["disturbed"] == "").tolist()
