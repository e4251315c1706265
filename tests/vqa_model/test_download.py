"""The downloader against a real server on this machine, with every fault that was thought of."""

import fcntl
import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from datetime import datetime, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vqa_model import mirror as faults
from tests.vqa_model.mirror import Mirror, mirror_files, zipped
from vqa_model.download import main
from vqa_model.downloading import progress
from vqa_model.downloading.arrived import growing, looks_whole
from vqa_model.downloading.official_files import TEXTS, picture_member
from vqa_model.downloading.remote import Remote, retry_after
from vqa_model.downloading.wanted import check_space
from vqa_model.task import VQATask
from vqa_model.vqa_files import read_part

FRACTION, EVAL_FRACTION = 0.1, 0.25
SAMPLE = ("--fraction", FRACTION, "--eval-fraction", EVAL_FRACTION)
ANNOTATIONS = "v2_mscoco_train2014_annotations.json"


@pytest.fixture(scope="session")
def files(small_world):
    return mirror_files(small_world)


def members(small_world, **shares):
    """Pictures that the task takes for a share of each part, by the whole data's own rule."""
    return {
        picture_member(part, image)
        for part, share in shares.items()
        for image in read_part(small_world, part).choose(share, 0)
    }


@pytest.fixture(scope="session")
def sampled(small_world):
    return members(small_world, train=FRACTION, val=EVAL_FRACTION)


@pytest.fixture(scope="session")
def everything(small_world):
    return members(small_world, train=1, val=1)


@pytest.fixture
def mirror(files, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Mirror(files)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.gone.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def handlers():
    """`main` takes over signals, as a program may."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "vqa2"


def words(mirror, out, *flags):
    common = ("--out", out, "--base-url", mirror.url, "--backoff-seconds", 0.01, "--retries", 3, "--workers", 4)
    return [str(word) for word in (*common, *SAMPLE, *flags)]


def get(mirror, out, *flags):
    return main(words(mirror, out, *flags))


def pictures(out):
    return {
        f"{file.parent.name}/{file.name}" for part in ("train2014", "val2014") for file in (out / part).glob("*.jpg")
    }


def check_whole(out, mirror, sampled):
    """Exactly the sample is there, byte by byte, and nothing of the work is left."""
    assert pictures(out) == sampled
    for member in sampled:
        assert (out / member).read_bytes() == mirror.files[f"/{member}"]
    assert not list(out.glob("*/.parts"))
    assert {file.name for file in out.iterdir()} == {
        "train2014", "val2014", ".lock", "download.json", *(archive.member for archive in TEXTS)
    }  # fmt: skip


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
BAD = {
    "stalls": ([faults.stall], 1, True),
    "breaks off": ([faults.truncate], 1, True),
    "breaks off twice": ([faults.truncate, faults.truncate], 1, True),
    "is reset": ([faults.reset], 1, None),  # what had arrived may be lost with the connection
    "has no size": ([faults.unsized_half], 1, False),
    "busy": ([faults.refuse(503)], 1, False),
    "too many": ([faults.refuse(429), faults.refuse(500)], 1, False),
    "a page": ([faults.page], 1, False),
    "wrong digest": ([faults.wrong_digest], 1, False),
    "no ranges": ([faults.truncate, faults.without_ranges], 0, True),
    "no tags": ([faults.truncate_without_tags, faults.without_tags], 0, True),
    "range refused": ([faults.truncate, faults.refuse(416)], 1, False),
}


@pytest.mark.parametrize("kind", ["picture", "archive"])
@pytest.mark.parametrize("case", BAD)
def test_what_may_pass_is_tried_again(mirror, out, sampled, kind, case):
    given, further, ranged = BAD[case]
    path = f"/{min(sampled)}" if kind == "picture" else f"/{TEXTS[2].name}"
    mirror.faults[path] = list(given)
    assert get(mirror, out, "--stall-seconds", 0.4 if case == "stalls" else 10) == 0
    check_whole(out, mirror, sampled)
    asked = mirror.asked(path)
    assert len(asked) == len(given) + further
    assert asked[0] is None
    assert ranged is None or (asked[-1] is not None) == ranged
    if case == "stalls":
        moments = [moment for moment, there, _ in mirror.requests if there == path]
        assert moments[1] - moments[0] < 5, "the server would have kept it waiting for 20 s"


@pytest.mark.parametrize("then", [faults.whole, faults.always_ranges])
def test_an_object_that_changes_is_fetched_from_its_start(mirror, out, sampled, files, then):
    first, other = [f"/{member}" for member in sorted(sampled)[:2]]
    mirror.faults[first] = [faults.truncate, faults.replaced(files[other], then)]
    assert get(mirror, out) == 0
    check_whole(out, mirror, sampled)
    assert (out / first[1:]).read_bytes() == files[other]
    assert len(mirror.asked(first)) == (2 if then is faults.whole else 3), "a range of another object is thrown away"


def test_halves_of_two_objects_are_never_joined(mirror, out, sampled, files):
    """They have the same size, the server says no digest, and the joined picture could be decoded."""
    path = f"/{min(sampled)}"
    one, other = (files[path][:2] + b"\xff\xfe\x00\x04" + version + files[path][2:] for version in (b"v1", b"v2"))
    mirror.faults[path] = [
        faults.replaced(one, faults.tagged("v1", sent=0.5)),
        faults.replaced(other, faults.tagged("v2", ranges="always")),
        faults.tagged("v2"),
    ]
    assert get(mirror, out) == 0
    assert (out / path[1:]).read_bytes() == other
    assert [ranged is None for ranged in mirror.asked(path)] == [True, False, True]


def test_a_moved_file_is_followed_and_a_circle_is_not(mirror, out, sampled, capsys):
    first, second, third = [f"/{member}" for member in sorted(sampled)[:3]]
    mirror.files["/elsewhere"] = mirror.files[first]
    mirror.faults[first] = [faults.moved("/elsewhere")]
    mirror.faults[second] = [faults.moved(second)] * 30
    mirror.faults[third] = [faults.moved("ftp://there/a.jpg")]
    assert get(mirror, out) == 1
    assert pictures(out) == sampled - {second[1:], third[1:]}
    error = capsys.readouterr().err
    for path in (second, third):
        assert f"{path[1:]}: its address leads nowhere" in error


def test_the_server_says_how_long_to_wait(mirror, out, sampled):
    path = f"/{min(sampled)}"
    mirror.faults[path] = [faults.refuse(503, **{"Retry-After": 1})]
    assert get(mirror, out) == 0
    first, second = [moment for moment, asked, _ in mirror.requests if asked == path]
    assert 1 <= second - first < 3


def test_a_server_that_asks_for_an_hour_is_not_waited_for(mirror, out, sampled, capsys):
    path = f"/{min(sampled)}"
    mirror.faults[path] = [faults.refuse(503, **{"Retry-After": 3600})]
    assert get(mirror, out) == 1
    assert len(mirror.asked(path)) == 1
    assert "answered 503 Service Unavailable, ask again in 3600 s (attempt 1, the last)" in capsys.readouterr().err


def test_a_picture_that_is_not_there_is_named_and_all_else_kept(mirror, out, sampled, files, capsys):
    gone = min(sampled)
    del mirror.files[f"/{gone}"]
    assert get(mirror, out) == 1
    assert pictures(out) == sampled - {gone}
    assert len(mirror.asked(f"/{gone}")) == 1, "404 is not tried again"
    assert re.fullmatch(
        rf"{gone}: the server answered 404 Not Found; http://\S+/{gone}\n", (out / "failed.txt").read_text()
    )
    assert not (out / "download.json").exists()
    assert f"{gone}: the server answered 404" in capsys.readouterr().err
    assert get(mirror, out, "--skip-bad-images") == 0
    assert json.loads((out / "download.json").read_text())["missing_images"] == [gone]
    mirror.files[f"/{gone}"] = files[f"/{gone}"]
    mirror.requests.clear()
    assert get(mirror, out) == 0
    check_whole(out, mirror, sampled)
    assert len(mirror.requests) == 1


def test_a_file_that_fails_every_time_is_given_up_in_one_line(mirror, out, sampled, capsys):
    bad = min(sampled)
    mirror.faults[f"/{bad}"] = [faults.page] * 9
    assert get(mirror, out, "--retries", 2) == 1
    assert len(mirror.asked(f"/{bad}")) == 3
    assert f"{bad}: not a JPEG: it starts with b'<!DOCTYPE html>" in capsys.readouterr().err
    assert not (out / bad).exists()


def test_a_damaged_picture_that_cannot_be_replaced_is_missing(mirror, out, sampled, capsys):
    member = min(sampled)
    assert get(mirror, out) == 0
    cut_inside(out / member)
    del mirror.files[f"/{member}"]
    assert get(mirror, out, "--verify") == 1
    assert "1 pictures are missing" in capsys.readouterr().err


def test_a_folder_of_pictures_may_be_a_link_to_another_disk(mirror, out, sampled):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        out.mkdir()
        (out / "train2014").symlink_to(elsewhere)
        assert Path(elsewhere).stat().st_dev != out.stat().st_dev
        assert get(mirror, out) == 0
        check_whole(out, mirror, sampled)


def test_when_everything_fails_the_rest_is_not_tried(mirror, out, everything, capsys):
    for path in mirror.files:
        if path.endswith(".jpg"):
            mirror.faults[path] = [faults.refuse(403)]
    assert get(mirror, out, "--fraction", 1, "--eval-fraction", 1) == 1
    assert len(mirror.requests) <= len(TEXTS) + 32 + 4
    assert f"32 files failed one after another; {len(everything) - 32} not tried" in capsys.readouterr().err


def test_without_questions_it_ends_at_once(mirror, out, capsys):
    mirror.faults[f"/{TEXTS[0].name}"] = [faults.refuse(403)]
    assert get(mirror, out) == 1
    assert "1 of the question files could not be had" in capsys.readouterr().err
    assert not pictures(out)


def program(mirror, out, *flags, prefix=()):
    command = [*prefix, sys.executable, "-m", "vqa_model.download", *words(mirror, out, *flags)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


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
    part = growing(out / member)
    part.parent.mkdir(parents=True)
    part.write_bytes(files[f"/{member}"])
    part.with_name(f"{part.name}.json").write_text(json.dumps({"validator": "", "size": part.stat().st_size}))
    assert get(mirror, out) == 0
    check_whole(out, mirror, sampled)
    assert not mirror.asked(f"/{member}")


def test_a_part_without_its_facts_is_begun_again(mirror, out, sampled):
    member = min(sampled)
    part = growing(out / member)
    part.parent.mkdir(parents=True)
    part.write_bytes(b"whatever")
    part.with_name(f"{part.name}.json").write_text('{"validator": "')
    assert get(mirror, out) == 0
    check_whole(out, mirror, sampled)
    assert mirror.asked(f"/{member}") == [None]


def test_of_an_archive_only_the_sample_is_unpacked(mirror, out, sampled):
    mirror.faults["/zips/train2014.zip"] = [faults.truncate, faults.truncate]
    mirror.faults["/zips/val2014.zip"] = [faults.flip]
    assert get(mirror, out, "--archives") == 0
    check_whole(out, mirror, sampled)
    assert [ranged is None for ranged in mirror.asked("/zips/train2014.zip")] == [True, False, False]
    assert not any(path.endswith(".jpg") for _, path, _ in mirror.requests)
    mirror.requests.clear()
    min((out / "train2014").iterdir()).unlink()
    assert get(mirror, out, "--archives") == 0
    assert [path for _, path, _ in mirror.requests] == ["/zips/train2014.zip"]


def test_a_picture_missing_in_the_archive_is_a_failure(mirror, out, sampled, files, capsys):
    gone = min(sampled)
    mirror.files["/zips/train2014.zip"] = zipped({member: files[f"/{member}"] for member in sampled if member != gone})
    assert get(mirror, out, "--archives") == 1
    assert f"train2014.zip: 1 files are not in the archive, the first is {gone}" in capsys.readouterr().err
    assert pictures(out) == sampled - {gone}
    assert mirror.asked("/zips/train2014.zip") == [None], "another attempt would bring the same"
    assert get(mirror, out) == 0
    check_whole(out, mirror, sampled)
    assert mirror.asked(f"/{gone}") == [None]


EVIL = {
    "a path that climbs": lambda member, text: zipped({"../evil": b"evil", "/tmp/evil": b"evil", member: text}),
    "another name first": lambda member, text: zipped({f"other/{member}": b"{}", member: text}, zipfile.ZIP_DEFLATED),
}


@pytest.mark.parametrize("case", EVIL)
def test_only_the_expected_member_leaves_an_archive(mirror, out, sampled, small_world, case):
    archive = TEXTS[2]
    text = (small_world / archive.member).read_bytes()
    mirror.files[f"/{archive.name}"] = EVIL[case](archive.member, text)
    assert get(mirror, out) == 0
    check_whole(out, mirror, sampled)
    assert (out / archive.member).read_bytes() == text
    assert {file.name for file in out.parent.iterdir()} == {"vqa2"}


@pytest.mark.parametrize("fault", [faults.flip, faults.replaced(b"no archive", faults.without_tags)])
def test_a_damaged_archive_of_text_never_gets_its_name(mirror, out, fault, capsys):
    archive = TEXTS[2]
    mirror.faults[f"/{archive.name}"] = [fault] * 4
    assert get(mirror, out) == 1
    assert not (out / archive.member).exists()
    assert f"{archive.member}: a damaged archive" in capsys.readouterr().err
    assert len(mirror.asked(f"/{archive.name}")) == 4


def cut(file):
    file.write_bytes(file.read_bytes()[:-40])


def cut_inside(file):
    file.write_bytes(file.read_bytes()[:400] + b"\xff\xd9")


def blank(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 60] = bytes(60)
    file.write_bytes(content)


DAMAGE = {
    "empty picture": ("picture", lambda file: file.write_bytes(b""), ()),
    "cut picture": ("picture", cut, ()),
    "page in place of a picture": ("picture", lambda file: file.write_text("<html></html>"), ()),
    "picture cut inside": (
        "picture",
        lambda file: file.write_bytes(file.read_bytes()[:400] + b"\xff\xd9"),
        ("--verify",),
    ),
    "cut text": ("text", cut, ()),
    "text cut after a record": ("text", lambda file: file.write_text(file.read_text().rpartition("}, {")[0] + "}"), ()),
    "text blank inside": ("text", blank, ("--verify",)),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_on_disk_is_noticed_and_mended(mirror, out, sampled, small_world, case):
    kind, damage, flags = DAMAGE[case]
    member = min(sampled) if kind == "picture" else ANNOTATIONS
    assert get(mirror, out) == 0
    damage(out / member)
    mirror.requests.clear()
    assert get(mirror, out, *flags) == 0
    assert len(mirror.requests) == 1
    check_whole(out, mirror, sampled)
    assert (out / member).read_bytes() == (small_world / member).read_bytes()


def test_text_found_damaged_while_it_is_read_is_fetched_again(mirror, out, sampled, capsys):
    assert get(mirror, out, "--questions-only") == 0
    assert not pictures(out)
    assert not (out / "download.json").exists()
    blank(out / ANNOTATIONS)
    mirror.requests.clear()
    assert get(mirror, out) == 0
    check_whole(out, mirror, sampled)
    assert sum(path.endswith(".zip") for _, path, _ in mirror.requests) == 3
    assert re.search(rf"{ANNOTATIONS}: JSON .* fetching it again", capsys.readouterr().err)


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


def test_a_write_that_fails_is_one_line_and_loses_nothing(mirror, out, sampled):
    """The largest file this process may write is smaller than the annotations, as on a full disk."""
    running = program(mirror, out, prefix=["bash", "-c", 'ulimit -f 50; exec "$@"', "limited"])
    _, error = running.communicate(timeout=20)
    assert running.returncode == 2
    assert re.fullmatch(r"vqa_model\.download: .*File too large.*\n", error)
    assert not (out / ANNOTATIONS).exists()
    assert get(mirror, out) == 0
    check_whole(out, mirror, sampled)


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


@given(st.integers(0, 10**6), st.floats(0, 2e9))
def test_a_date_says_the_same_as_its_seconds(seconds, now):
    moment = datetime.fromtimestamp(int(now) + seconds, timezone.utc)
    assert retry_after(str(seconds), now) == seconds
    assert retry_after(format_datetime(moment, usegmt=True), now) == pytest.approx(seconds, abs=1)


@given(st.text())
def test_no_header_is_an_error(text):
    assert retry_after(text, 0) >= 0
    names = ("content-length", "content-range", "etag", "content-md5", "x-goog-hash", "x-amz-checksum-sha256")
    remote = Remote.of(dict.fromkeys([*names, "x-amz-request-id"], text))
    assert remote.size is None or remote.size >= 0


MD5 = "900150983cd24fb0d6963f7d28e17f72"
HEADERS = {
    "an object store": ({"etag": f'"{MD5}"', "x-amz-request-id": "1"}, f"md5 {MD5}"),
    "uploaded in pieces": ({"etag": f'"{MD5}-12"', "x-amz-request-id": "1"}, ""),
    "encrypted": ({"etag": f'"{MD5}"', "x-amz-request-id": "1", "x-amz-server-side-encryption": "aws:kms"}, ""),
    "any server": ({"etag": f'"{MD5}"'}, ""),
    "weak": ({"etag": f'W/"{MD5}"', "x-amz-request-id": "1"}, ""),
    "content-md5": ({"content-md5": "kAFQmDzST7DWlj99KOF/cg=="}, f"md5 {MD5}"),
    "google": ({"x-goog-hash": "crc32c=Nks/tw==,md5=kAFQmDzST7DWlj99KOF/cg=="}, f"md5 {MD5}"),
    "sha256 in pieces": ({"x-amz-checksum-sha256": "kAFQmDzST7DWlj99KOF/cg==-3"}, ""),
}


@pytest.mark.parametrize("case", HEADERS)
def test_digests_are_taken_where_they_are_digests(case):
    headers, digest = HEADERS[case]
    assert Remote.of(headers).digest == digest
    etag = headers.get("etag", "W/")
    assert Remote.of(headers | {"last-modified": "then"}).validator == ("then" if etag.startswith("W/") else etag)


def test_padding_after_the_end_of_a_picture_is_no_damage(tmp_path, small_world):
    file = tmp_path / "padded.jpg"
    file.write_bytes(next((small_world / "val2014").iterdir()).read_bytes() + bytes(100))
    assert looks_whole(file)
    assert not looks_whole(tmp_path / "absent.jpg")
