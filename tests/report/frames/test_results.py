"""What cannot be trusted is refused in one line that names file, place and way out."""

import pytest

from report.errors import ReportError
from report.frames.results import load


def damage(folder, change, name="runs.csv"):
    path = folder / name
    path.write_text(change(path.read_text()))
    return folder


def message(folder):
    with pytest.raises(ReportError) as caught:
        load(folder)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_folder_without_runs_names_the_sweeps_beside_it(sweep, tmp_path):
    sweep()
    assert str(tmp_path / "sweep") in message(tmp_path / "absent")
    assert "is not a folder" in message(tmp_path / "absent")
    assert "has no runs.csv" in message(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: "", "empty"),
        (lambda text: text.splitlines()[0] + "\n", "no run"),
        (lambda text: text[:-200], "line 11 has"),
        (lambda text: "name,size\na,1\n", "no column run_id, status"),
        (lambda text: text.replace("31.0,", "fast,", 1), "row 2, column ttt_seconds: 'fast' is not a number"),
        (lambda text: text.replace("31.0,", "-31.0,", 1), "row 2, column ttt_seconds: -31.0 must be 0 or more"),
        (lambda text: text.replace(",0.842,", ",84.2,", 1), "column accuracy: 84.2 must be between 0 and 1"),
        (lambda text: text.replace(",ok,", ",fine,", 1), "status 'fine' is none of ok, oom"),
        (lambda text: text.replace("baseline,", "base,", 1), "kind 'base' is none of"),
        (lambda text: text + text.splitlines()[3] + "\n", "used twice"),
        (lambda text: text.replace(",ok,", ',"ok,', 1), "not readable as CSV"),
        (lambda text: text.replace("plan", "sweep", 1), "names a column twice"),
    ],
)
def test_damaged_runs(sweep, change, said):
    text = message(damage(sweep(), change))
    assert said in text
    assert "runs.csv" in text
    assert "rebuilt from runs/*/record.json" in text


def test_binary_file(sweep):
    folder = sweep()
    (folder / "runs.csv").write_bytes(b"\xff\xfe\x00run_id")
    assert "not readable as CSV in UTF-8" in message(folder)


def test_damaged_side_file_is_refused_too(sweep):
    assert "history.csv" in message(damage(sweep(), lambda text: text[:-9], "history.csv"))


def test_ids_stay_text_and_other_columns_may_lack(sweep, row):
    results = load(
        sweep([row("full", run_id="012345678901"), row("lora", run_id="12e456789012")], drop=["energy_joules"])
    )
    assert results.runs["run_id"].tolist() == ["012345678901", "12e456789012"]
    assert results.runs["energy_joules"].isna().all()


def test_a_byte_order_mark_and_unknown_columns_are_fine(sweep):
    def extend(text):
        return "\ufeff" + "\n".join(line + ",extra" for line in text.splitlines()) + "\n"

    assert len(load(damage(sweep(), extend)).runs) == 10


def test_memory_of_a_process_is_not_compared_with_what_older_runs_counted(sweep, row):
    older = {"peak_rss_bytes": 9e8, "peak_tree_rss_bytes": 9e8}
    newer = {"peak_rss_bytes": 4e7, "peak_tree_rss_bytes": 5e7}
    both = load(sweep([row("full", **older), row("lora", start_method="fork", **newer)])).runs
    assert both["peak_rss_bytes"].fillna(0).tolist() == [0, 4e7]
    assert both["peak_tree_rss_bytes"].fillna(0).tolist() == [0, 5e7]
    alone = load(sweep([row("full", **older), row("lora", **older)])).runs
    assert alone["peak_rss_bytes"].tolist() == [9e8, 9e8]
