"""`run_matrix.py compare`: joins, thresholds in both directions, exit statuses, one-line errors."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.commands.cli import main
from bench.commands.compare import MEASURES, THRESHOLDS, join

COLUMNS = ("run_id", "kind", "strategy", "plan", "seed", "status", "ttt_seconds", "peak_allocated_bytes",
           "vqa_accuracy", "accuracy", "gpu_name", "disturbed")  # fmt: skip


def run(strategy, seed=0, **changes):
    row = {"run_id": f"{strategy}{seed}", "kind": "run", "strategy": strategy, "plan": strategy, "seed": seed,
           "status": "ok", "ttt_seconds": 100.0, "peak_allocated_bytes": 1000, "accuracy": 0.8}  # fmt: skip
    return row | changes


@pytest.fixture
def folders(tmp_path):
    def write(old, new):
        for name, rows in (("old", old), ("new", new)):
            (tmp_path / name).mkdir(exist_ok=True)
            with (tmp_path / name / "runs.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS, restval="")
                writer.writeheader()
                writer.writerows(rows)
        return str(tmp_path / "old"), str(tmp_path / "new")

    return write


def compared(capsys, folders, old, new, *options):
    status = main(["compare", *folders(old, new), *options])
    return status, capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"ttt_seconds": 114}, ""), ({"ttt_seconds": 116}, "slower"),
        ({"ttt_seconds": 88}, ""), ({"ttt_seconds": 86}, "faster"),
        ({"peak_allocated_bytes": 1049}, ""), ({"peak_allocated_bytes": 1051}, "more memory"),
        ({"peak_allocated_bytes": 950}, "less memory"), ({"accuracy": 0.792}, ""), ({"accuracy": 0.789}, "worse"),
        ({"accuracy": 0.811}, "better"), ({"ttt_seconds": ""}, ""), ({"status": "oom"}, "ok → oom"),
    ],
)  # fmt: skip
def test_both_directions_beyond_the_thresholds(capsys, folders, change, word):
    status, out = compared(capsys, folders, [run("lora")], [run("lora", **change)])
    assert status == (1 if word else 0)
    assert f"lora ({word})" in out if word else "no difference [time ±15 %" in out


def test_thresholds_can_be_set(capsys, folders):
    pair = [run("lora")], [run("lora", ttt_seconds=150, accuracy=0.75)]
    assert compared(capsys, folders, *pair, "--time", "60", "--quality", "6")[0] == 0
    assert compared(capsys, folders, *pair, "--time", "60")[0] == 1


def test_a_figure_of_a_run_that_did_not_finish_counts_for_nothing(capsys, folders):
    status, out = compared(
        capsys, folders, [run("lora", status="timeout", ttt_seconds=1)], [run("lora", status="timeout")]
    )
    assert (status, "100.00×" in out) == (0, False)


@pytest.mark.parametrize("which", [0, 1])
def test_times_of_a_disturbed_run_are_no_verdict_and_its_memory_is(capsys, folders, which):
    pair = run("lora"), run("lora", ttt_seconds=800.0)
    pair[which]["disturbed"] = "others used 1.0 of 2 CPUs"
    status, out = compared(capsys, folders, [pair[0]], [pair[1]])
    assert (status, "8.00×" in out) == (0, False)
    assert "times not compared, as others disturbed the old or the new run: lora (seed 0)" in out
    status, out = compared(capsys, folders, [pair[0]], [pair[1] | {"peak_allocated_bytes": 2000}])
    assert (status, "lora (more memory)" in out) == (1, True)


def test_undisturbed_seeds_still_speak(capsys, folders):
    new = [run("lora", seed, ttt_seconds=200.0) for seed in (0, 1)]
    new += [run("lora", 2, ttt_seconds=900.0, disturbed="others used 1.0 of 2 CPUs")]
    status, out = compared(capsys, folders, [run("lora", seed) for seed in (0, 1, 2)], new)
    assert (status, "2.00×" in out, "lora (slower)" in out) == (1, True, True)
    assert "new run: lora (seed 2)\n" in out


def test_seeds_are_paired_then_summed_up(capsys, folders):
    """Every seed became 1.5 × slower, though the mean over the seeds at hand fell."""
    old = [run("lora", seed, ttt_seconds=seconds) for seed, seconds in enumerate((10, 100, 1000))]
    new = [run("lora", seed, ttt_seconds=seconds) for seed, seconds in enumerate((15, 150))]
    status, out = compared(capsys, folders, old, new)
    assert status == 1
    assert "1.50×" in out
    assert "lora (slower); 1 runs are gone" in out
    assert "only in old: lora (seed 2)" in out


def test_new_runs_are_listed_but_are_no_difference(capsys, folders):
    status, out = compared(capsys, folders, [run("lora")], [run("lora"), run("amp")])
    assert (status, "only in new: amp (seed 0)" in out) == (0, True)


def test_other_surroundings_are_said(capsys, folders):
    _, out = compared(capsys, folders, [run("lora")], [run("lora", gpu_name="T4")])
    assert "differs around the runs: GPU" in out


ROWS = st.builds(
    lambda name, seed, number: {key: str(value) for key, value in run(name, seed, run_id=f"{number}").items()},
    st.sampled_from("abc"), st.integers(0, 2), st.integers(0, 99),
)  # fmt: skip
SWEEPS = st.lists(ROWS, max_size=8, unique_by=lambda row: row["run_id"])


@given(SWEEPS, SWEEPS)
def test_every_run_is_paired_once_or_alone(old, new):
    pairs, lost, added = join(old, new)
    assert sorted(row["run_id"] for row in [*(a for a, _ in pairs), *lost]) == sorted(row["run_id"] for row in old)
    assert sorted(row["run_id"] for row in [*(b for _, b in pairs), *added]) == sorted(row["run_id"] for row in new)
    ids = {row["run_id"] for row in old} & {row["run_id"] for row in new}
    assert ids <= {a["run_id"] for a, b in pairs if a["run_id"] == b["run_id"]}
    assert all(a["run_id"] == b["run_id"] or (a["plan"], a["seed"]) == (b["plan"], b["seed"]) for a, b in pairs)
    assert not {(a["plan"], a["seed"]) for a in lost} & {(b["plan"], b["seed"]) for b in added}


def test_bad_input_is_one_line(capsys, tmp_path, folders):
    old, new = folders([run("lora")], [run("amp")])
    (tmp_path / "text.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty.csv").write_text(",".join(COLUMNS) + "\n")
    (tmp_path / "word.csv").write_text(",".join(COLUMNS) + "\n" + "lora0,run,lora,lora,0,ok,quick,,,,,\n")
    for other, words in (
        ("nowhere", "cannot be read"), ("text.csv", "no column run_id"), ("empty.csv", "no rows"),
        ("word.csv", "'quick' is not a number"), (new, "no run of"),
    ):  # fmt: skip
        assert main(["compare", old, str(tmp_path / other)]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1


def test_every_measure_has_a_threshold_and_an_option():
    assert [measure.name for measure in MEASURES] == list(THRESHOLDS)
