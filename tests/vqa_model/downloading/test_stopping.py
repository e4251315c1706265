"""Stopped at any moment, for real: the second call fetches what is missing."""

import json
import re
import signal

import pytest

from tests.vqa_model.downloading import mirror as faults
from tests.vqa_model.downloading.command import ANNOTATIONS, check_whole, get, pictures, program, wait_for
from vqa_model.downloading.integrity import partial_path
from vqa_model.downloading.official_files import TEXTS


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_download_goes_on_with_what_is_missing(mirror, out, everything, number):
    whole = ("--fraction", 1, "--eval-fraction", 1)
    mirror.delay = 0.05
    running = program(mirror, out, *whole)
    wait_for(lambda: len(mirror.requests) > 30)
    running.send_signal(number)
    _, error = running.communicate(timeout=10)
    assert running.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    assert number == signal.SIGKILL or "interrupted: what has arrived is kept" in error
    assert "Traceback" not in error
    there, in_flight = pictures(out), {file.name for file in out.glob("*/.parts/*")}
    assert 10 < len(there) < len(everything)
    assert len(in_flight) <= 2 * 4, "a part and its facts for each worker"
    assert not (out / "download.json").exists()
    mirror.requests.clear()
    mirror.delay = 0
    assert get(mirror, out, *whole) == 0
    asked = [path[1:] for _, path, _ in mirror.requests]
    assert len(set(asked)) == len(asked)
    assert set(asked) <= everything - there
    assert all(f"{member.split('/')[1]}.part" in in_flight for member in everything - there - set(asked))
    check_whole(out, mirror, everything)


def test_under_nohup_a_closed_terminal_stops_nothing(mirror, out, sampled):
    mirror.delay = 0.05
    running = program(mirror, out, prefix=["nohup"])
    wait_for(lambda: len(mirror.requests) > 3)
    running.send_signal(signal.SIGHUP)
    running.communicate(timeout=10)
    assert running.returncode == 0
    check_whole(out, mirror, sampled)


def test_a_killed_archive_goes_on_in_the_middle(mirror, out, sampled):
    path = f"/{TEXTS[2].name}"
    mirror.faults[path] = [faults.stall]
    part = out / ".parts" / f"{TEXTS[2].name}.part"
    have = len(mirror.files[path]) // 2
    running = program(mirror, out, "--stall-seconds", 30)
    wait_for(lambda: part.exists() and part.stat().st_size > have - 8192)
    running.kill()
    running.communicate(timeout=10)
    assert get(mirror, out) == 0
    check_whole(out, mirror, sampled)
    begin = int(re.fullmatch(r"bytes=(\d+)-", mirror.asked(path)[-1])[1])
    assert have - 8192 < begin <= have


def test_a_part_that_was_whole_already_is_not_asked_for_again(mirror, out, sampled, files):
    member = min(sampled)
    part = partial_path(out / member)
    part.parent.mkdir(parents=True)
    part.write_bytes(files[f"/{member}"])
    part.with_name(f"{part.name}.json").write_text(json.dumps({"validator": "", "size": part.stat().st_size}))
    assert get(mirror, out) == 0
    check_whole(out, mirror, sampled)
    assert not mirror.asked(f"/{member}")


def test_a_part_without_its_facts_is_begun_again(mirror, out, sampled):
    member = min(sampled)
    part = partial_path(out / member)
    part.parent.mkdir(parents=True)
    part.write_bytes(b"whatever")
    part.with_name(f"{part.name}.json").write_text('{"validator": "')
    assert get(mirror, out) == 0
    check_whole(out, mirror, sampled)
    assert mirror.asked(f"/{member}") == [None]


def test_a_write_that_fails_is_one_line_and_loses_nothing(mirror, out, sampled):
    """The largest file this process may write is smaller than the annotations, as on a full disk."""
    running = program(mirror, out, prefix=["bash", "-c", 'ulimit -f 50; exec "$@"', "limited"])
    _, error = running.communicate(timeout=20)
    assert running.returncode == 2
    assert re.fullmatch(r"vqa_model\.download: .*File too large.*\n", error)
    assert not (out / ANNOTATIONS).exists()
    assert get(mirror, out) == 0
    check_whole(out, mirror, sampled)
