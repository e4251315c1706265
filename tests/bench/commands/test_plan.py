"""`run_matrix.py plan`: what a user sees, and where the times come from."""

import csv

import pytest

from bench.commands.plan_table import PLAN_COLUMNS
from bench.forecast.calibration import assumed_throughput, throughput_of_runs
from bench.forecast.gpus import find_gpu


@pytest.mark.slow
def test_a_plan_for_a_gpu_that_is_too_small(run_matrix, tmp_path):
    answer = run_matrix("plan", "--gpu", "0.65GB", "--strategies", "lora, tf32, shira", "--out", tmp_path)
    assert answer.returncode == 0, answer.stderr
    with (tmp_path / "plan.csv").open(newline="") as file:
        rows = {row["strategy"]: row for row in csv.DictReader(file)}
    assert list(rows["full"]) == list(PLAN_COLUMNS)
    assert rows["full"]["verdict"] == "does not fit"
    assert rows["full"]["reason"].startswith("add amp (")
    assert "--batch-size 2" in rows["full"]["reason"]
    assert rows["lora"]["verdict"] == "fits"
    assert rows["tf32"]["verdict"] == "unavailable"
    assert rows["shira"]["verdict"] == "unknown"
    assert rows["lora"]["train_seconds"] == rows["lora"]["cost_dollars"] == "", "nothing is known of such a GPU"
    assert int(rows["full"]["peak_bytes"]) > int(rows["lora"]["peak_bytes"])
    assert not list(tmp_path.glob("runs*")), "nothing was trained"
    assert "does not fit" in answer.stdout


@pytest.mark.slow
def test_a_gpu_that_is_not_there_is_told_before_anything_is_looked_at(run_matrix):
    answer = run_matrix("plan", "--gpu", "t5")
    assert answer.returncode == 2
    assert answer.stderr.strip().startswith("run_matrix.py: plan: no GPU 't5' in the table")
    assert answer.stderr.count("\n") == 1


def write_runs(path, **changes):
    row = {
        "status": "ok", "gpu_name": "Tesla T4", "device": "cuda", "precision": "fp32", "samples_per_second": "20",
        "model_flops_per_sample": "1e11", "trainable_parameters": "5", "total_parameters": "5", **changes,
    }  # fmt: skip
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    return path


def test_times_are_calibrated_by_runs_and_other_precisions_follow_the_peaks(tmp_path):
    gpu = find_gpu("t4")
    rate = throughput_of_runs(write_runs(tmp_path / "runs.csv"), gpu)
    assert rate.seconds(2e12, "fp32") == pytest.approx(1.0)
    assert rate.seconds(2e12, "fp16") == pytest.approx(8.1 / 65)
    assert rate.seconds(2e12, "bf16") is None, "a T4 has none"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gpu_name": "NVIDIA L4"}, "ran on NVIDIA L4, not on --gpu T4"),
        ({"status": "oom"}, "no finished run"),
        ({"trainable_parameters": "4"}, "no finished run"),
        ({"model_flops_per_sample": ""}, "no finished run"),
        ({"disturbed": "others used 1.0 of 2 CPUs"}, "was not disturbed by others"),
    ],
)
def test_runs_that_calibrate_nothing(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        throughput_of_runs(write_runs(tmp_path / "runs.csv", **changes), find_gpu("t4"))
    with pytest.raises(ValueError, match="no such file"):
        throughput_of_runs(tmp_path / "none", find_gpu("t4"))


def test_what_is_assumed_says_so():
    rate = assumed_throughput(find_gpu("l4"))
    assert "assumed, not measured" in rate.source
    assert rate.seconds(1e12, "bf16") < rate.seconds(1e12, "fp32")
    assert assumed_throughput(find_gpu("t4")).seconds(1e12, "bf16") == assumed_throughput(find_gpu("t4")).seconds(
        1e12, "fp16"
    )
