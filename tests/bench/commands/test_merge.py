"""Results of several notebooks in one folder: copies, duplicates, disagreements, and going on afterwards."""

import json
import shutil

import pandas as pd
import pytest

from bench.commands.merge import merge
from bench.records.json_files import sealed, write_json
from bench.records.results_folder import InputError

pytestmark = pytest.mark.slow


@pytest.fixture
def parts(sweep, tmp_path):
    """The sweep in two folders: one lacks lora, the other all but full and lora."""
    names = {row["strategy"]: row["run_id"] for row in pd.read_csv(sweep / "runs.csv").to_dict("records")}
    folders = []
    for name, gone in (("one", ["lora"]), ("two", ["qlora", "houlsby"])):
        folder = tmp_path / name
        shutil.copytree(sweep, folder)
        for strategy in gone:
            shutil.rmtree(folder / "runs" / names[strategy])
        folders.append(folder)
    return folders


def change(folder, strategy, **values):
    for path in (folder / "runs").glob("*/record.json"):
        record = json.loads(path.read_text())
        if record["row"]["strategy"] == strategy:
            record["row"].update(values)
            path.write_text(json.dumps(sealed(record)))
            return record["run_id"]
    raise AssertionError(strategy)


def test_runs_are_joined_and_copies_recognised(sweep, parts, tmp_path):
    rows, found = merge(parts, tmp_path / "all", ["merge"], weights=True)
    whole = pd.read_csv(sweep / "runs.csv")
    joined = pd.read_csv(tmp_path / "all" / "runs.csv")
    assert joined.equals(whole)
    assert len(rows) == len(whole) == found.copied
    assert found.duplicates == 3  # full and both controls
    assert not found.notes
    for name in ("history.csv", "metrics.csv", "memory.csv", "model.json", "chosen_images.json"):
        assert (tmp_path / "all" / name).read_bytes() == (sweep / name).read_bytes(), name
    assert list(json.loads((tmp_path / "all" / "strategies.json").read_text()))
    assert len(list((tmp_path / "all").glob("runs/*/weights/manifest.json"))) == 6
    assert not list((tmp_path / "all" / "runs").glob(".*"))


def test_merging_again_changes_nothing_and_may_go_into_one_of_them(parts, tmp_path):
    merge(parts, parts[0], ["merge"], weights=False)
    before = {path: path.read_bytes() for path in sorted(parts[0].rglob("*.json"))}
    _, found = merge(parts, parts[0], ["merge"], weights=False)
    assert {path: path.read_bytes() for path in sorted(parts[0].rglob("*.json"))} == before
    assert found.copied == 0
    lora = change(parts[1], "lora")
    assert not (parts[0] / "runs" / lora / "weights").exists()


def test_a_finished_copy_is_better_than_a_failed_one(parts, tmp_path):
    full = change(parts[0], "full", status="failed", reason="the notebook was stopped")
    merge(parts, tmp_path / "all", ["merge"], weights=True)
    record = json.loads((tmp_path / "all" / "runs" / full / "record.json").read_text())
    assert record["row"]["status"] == "ok"


def test_an_undisturbed_copy_is_better_than_a_disturbed_one(parts, tmp_path):
    why = "others used 1.0 of 2 CPUs, its threads waited 47 % of their time for one"
    full = change(parts[0], "full", disturbed=why, vqa_accuracy=0.123)
    assert change(parts[1], "full", disturbed="") == full
    rows, found = merge(parts, tmp_path / "all", ["merge"], weights=True)
    (row,) = [row for row in rows if row["run_id"] == full]
    assert not row.get("disturbed")
    assert "kept the one that others did not disturb" in found.notes[0]
    assert row["vqa_accuracy"] != 0.123


def test_copies_that_disagree_are_a_finding(parts, tmp_path):
    full = change(parts[1], "full", vqa_accuracy=0.123)
    change(parts[1], "lora", gpu_name="Tesla T4")
    rows, found = merge(parts, tmp_path / "all", ["merge"], weights=True)
    assert f"full (seed 0, run {full}): vqa_accuracy is" in found.notes[0]
    assert "0.1230 in two; kept the first" in found.notes[0]
    assert {row["vqa_accuracy"] for row in rows if row["run_id"] == full} != {0.123}
    assert "times of 2 machines" in found.notes[-1]
    assert "Tesla T4" in found.notes[-1]


def test_what_is_no_results_folder_is_refused_and_what_is_damaged_left_out(sweep, parts, tmp_path, capsys):
    with pytest.raises(InputError, match=r"nowhere: no results folder \(no sweep.json in it\)"):
        merge([parts[0], tmp_path / "nowhere"], tmp_path / "all", [], weights=True)
    assert not (tmp_path / "all").exists()
    lora = change(parts[1], "lora")
    (parts[1] / "runs" / lora / "record.json").write_text("{")
    merge(parts, tmp_path / "all", ["merge"], weights=True)
    assert f"{parts[1]}/runs/{lora}/record.json: not readable as JSON" in capsys.readouterr().err
    merged = pd.read_csv(tmp_path / "all" / "runs.csv")
    assert set(pd.read_csv(sweep / "runs.csv").run_id) - set(merged.run_id) == {lora}
    assert (parts[1] / "runs" / lora / "record.json").read_text() == "{", "what is another's is not touched"


def everything(folder):
    return {path: path.is_symlink() or (path.is_file() and path.read_bytes()) for path in folder.rglob("*")}


@pytest.mark.parametrize("run_id", ["../../precious", "..", "/tmp/precious", "precious", "A" * 12, "0" * 11, ""])
def test_an_id_is_no_path(parts, tmp_path, run_id):
    """A record whose id leads elsewhere neither replaces nor removes anything there."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("mine")
    lora = change(parts[1], "lora")
    file = parts[1] / "runs" / lora / "record.json"
    record = json.loads(file.read_text())
    write_json(file, sealed(record | {"run_id": run_id, "row": record["row"] | {"run_id": run_id}}))
    before = everything(tmp_path)
    merge(parts, tmp_path / "all", ["merge"], weights=True)
    after = {path: content for path, content in everything(tmp_path).items() if tmp_path / "all" not in path.parents}
    assert after.items() - before.items() == {(tmp_path / "all", False)}
    assert before.items() <= after.items()
    assert lora not in set(pd.read_csv(tmp_path / "all" / "runs.csv").run_id)


def test_links_of_others_are_not_followed(parts, tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("private")
    lora = change(parts[1], "lora")
    (parts[1] / "runs" / lora / "more").symlink_to(tmp_path / "secret")
    (parts[1] / "runs" / lora / "key").symlink_to(tmp_path / "secret" / "key")
    shutil.rmtree(parts[1] / "examples")
    (parts[1] / "examples").symlink_to(tmp_path / "secret")
    _, found = merge([parts[1]], tmp_path / "all", ["merge"], weights=True)
    assert not [path for path, content in everything(tmp_path / "all").items() if content is True or path.name == "key"]
    assert len([note for note in found.notes if note.endswith(": a link, left out")]) == 3
    assert (tmp_path / "all" / "runs" / lora / "record.json").exists()


def test_predictions_are_joined_of_clones_too(sweep, parts, tmp_path):
    for path in [*parts[0].glob("runs/*/predictions.parquet"), *parts[1].glob("runs/*/predictions.parquet")]:
        path.unlink()  # as git leaves them
    merge(parts, tmp_path / "all", ["merge"], weights=False)
    joined = tmp_path / "all" / "predictions.parquet"
    first = joined.read_bytes()
    assert pd.read_parquet(joined).equals(pd.read_parquet(sweep / "predictions.parquet"))
    merge(parts, tmp_path / "all", ["merge"], weights=False)
    assert joined.read_bytes() == first


def test_a_sweep_goes_on_in_the_merged_folder(parts, world, matrix, tmp_path):
    done = matrix("merge", *parts, "--out", tmp_path / "all")
    assert "6 runs in" in done.stdout
    assert "3 copies of runs that were there already" in done.stdout
    assert (tmp_path / "all" / "summary.md").exists()
    words = ("--data", world, "--strategies", "lora,qlora,houlsby", "--max-steps", 6, "--batch-size", 16)
    again = matrix(*words, "--out", tmp_path / "all")
    assert "6 of 6 runs are finished already" in again.stdout
