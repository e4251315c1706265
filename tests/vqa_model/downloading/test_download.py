"""The downloader as a command: what arrives, what it says, how it is called."""

import fcntl
import json
import re
import subprocess
import sys
import time

import pytest

from tests.vqa_model.downloading.command import (
    ANNOTATIONS,
    EVAL_FRACTION,
    FRACTION,
    check_whole,
    get,
    members,
)
from vqa_model.download import main
from vqa_model.downloading import progress
from vqa_model.downloading.missing_files import check_space
from vqa_model.downloading.official_files import TEXTS
from vqa_model.task import VQATask


def test_exactly_the_sample_arrives_and_the_task_reads_it(mirror, out, sampled, small_world, capsys):
    assert get(mirror, out) == 0
    check_whole(out, mirror, sampled)
    for archive in TEXTS:
        assert (out / archive.member).read_bytes() == (small_world / archive.member).read_bytes()
    noted = json.loads((out / "download.json").read_text())
    assert {name: noted[name] for name in ("fraction", "eval_fraction", "split_seed", "missing_images")} == {
        "fraction": FRACTION, "eval_fraction": EVAL_FRACTION, "split_seed": 0, "missing_images": [],
    }  # fmt: skip
    assert noted["train_images"] + noted["val_images"] == len(sampled)
    assert noted["files"][ANNOTATIONS]["bytes"] == (small_world / ANNOTATIONS).stat().st_size
    task = VQATask(data=str(out), fraction=FRACTION)
    task.prepare()
    shown = {item["keys"]["vision"] for part in (task.train_set(), task.tune_set(), task.eval_set()) for item in part}
    assert shown == {int(re.search(r"(\d{12})", member)[1]) for member in sampled}
    assert "8 train and 4 val pictures are there" in capsys.readouterr().out
    assert len(mirror.requests) == len(TEXTS) + len(sampled)
    assert mirror.connections <= 2 * 4, "connections are used again: one per worker, for texts and for pictures"


def test_a_second_call_fetches_nothing_and_a_larger_sample_only_the_rest(mirror, out, sampled, small_world):
    assert get(mirror, out) == 0
    mirror.requests.clear()
    assert get(mirror, out) == 0
    assert not mirror.requests
    assert get(mirror, out, "--fraction", 1) == 0
    larger = members(small_world, train=1, val=EVAL_FRACTION)
    assert sorted(path[1:] for _, path, _ in mirror.requests) == sorted(larger - sampled)
    check_whole(out, mirror, larger)


# name: (faults of one file, by request; further requests after them; whether the last asks for the rest only)
def test_a_dry_run_fetches_and_writes_nothing(mirror, out, capsys):
    assert get(mirror, out, "--dry-run", "--fraction", 0.25, "--archives") == 0
    told = capsys.readouterr().out
    assert "questions and answers: 6 files to fetch, 45 MB" in told
    assert "train pictures, a share of 0.25: about 20,696 to fetch, the archive of all, 13.5 GB" in told
    assert re.search(r"in all about 20\.2 GB to fetch, .* on disk at most; .* free there", told)
    assert not out.exists()
    assert not mirror.requests
    assert get(mirror, out, "--questions-only") == 0
    capsys.readouterr()
    mirror.requests.clear()
    assert get(mirror, out, "--dry-run") == 0
    assert "train pictures, a share of 0.1: 8 to fetch, 1 MB" in capsys.readouterr().out
    assert not mirror.requests


def test_room_on_the_disk_is_checked(out):
    check_space(out, 0)
    with pytest.raises(ValueError, match=r"--out .*vqa2: about 1000000000\.0 GB are to come, but .* are free"):
        check_space(out, 10**18)


WRONG = {
    "--fraction": (["--fraction", "0"], "'0' is not a share above 0"),
    "--eval-fraction": (["--eval-fraction", "x"], "'x' is not a share above 0"),
    "--workers": (["--workers", "0"], "'0' is not a whole number of 1 or more"),
    "--stall-seconds": (["--stall-seconds", "nan"], "'nan' is not a number of 0.01 or more"),
    "--base-url": (["--base-url", "ftp://there"], "--base-url ftp://there: not a web address"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_option_is_one_line(out, case, capsys):
    given, message = WRONG[case]
    try:
        status = main(["--out", str(out), *given])
    except SystemExit as error:
        status = error.code
    error = capsys.readouterr().err
    assert status == 2
    assert message in error
    assert error.count("\n") == 1


def test_a_folder_that_cannot_be_used_is_one_line(mirror, out, capsys):
    out.write_text("a file")
    assert get(mirror, out) == 2
    assert re.fullmatch(
        r"vqa_model\.download: --out \S+: cannot be written \(.*\); name another folder\n", capsys.readouterr().err
    )


def test_two_downloads_never_write_to_one_folder(mirror, out, capsys):
    out.mkdir()
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert get(mirror, out) == 2
    assert "another download is writing there" in capsys.readouterr().err
    assert not mirror.requests


def test_help_answers_at_once(root):
    def call():
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "vqa_model.download", "--help"], capture_output=True, text=True, check=True
        )
        assert "--archives" in done.stdout
        return time.perf_counter() - started

    assert min(call() for _ in range(3)) < 0.6


def test_plain_lines_say_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr(progress, "PLAIN_EVERY_SECONDS", 0.0)
    shown = progress.FetchProgress("pictures", 4)
    shown.received(3_000_000)
    shown.retried("nothing came for 30 s")
    time.sleep(0.05)
    shown.tick(files=2)
    shown.close()
    reason, line, last = capsys.readouterr().out.splitlines()
    assert reason == "pictures: trying again: nothing came for 30 s"
    assert re.fullmatch(r"pictures: 2/4 files  3 MB  [\d.]+ MB/s  0 s left  1 tried again", line)
    assert re.fullmatch(r"pictures: 2/4 files, 3 MB in 0 s, [\d.]+ MB/s, 1 tried again", last)
