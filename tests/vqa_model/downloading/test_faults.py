"""Against a real server on this machine, with every fault that was thought of."""

import json
import re
import tempfile
from pathlib import Path

import pytest

from tests.vqa_model.downloading import mirror as faults
from tests.vqa_model.downloading.command import check_whole, cut_inside, get, pictures
from vqa_model.downloading.official_files import TEXTS

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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["picture", "archive"])
@pytest.mark.parametrize("case", BAD)
def test_what_may_pass_is_tried_again(mirror, out, sampled, kind, case):
    given, further, ranged = BAD[case]
    path = f"/{min(sampled)}" if kind == "picture" else f"/{TEXTS[2].name}"
    mirror.faults[path] = list(given)
    assert get(mirror, out, "--stall-seconds", 0.8 if case == "stalls" else 10) == 0
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
    mirror.delay = 0.02
    assert get(mirror, out, "--fraction", 1, "--eval-fraction", 1) == 1
    assert len(mirror.requests) <= len(TEXTS) + 32 + 4 * 4, "workers may run ahead a little"
    assert f"32 files failed one after another; {len(everything) - 32} not tried" in capsys.readouterr().err


def test_without_questions_it_ends_at_once(mirror, out, capsys):
    mirror.faults[f"/{TEXTS[0].name}"] = [faults.refuse(403)]
    assert get(mirror, out) == 1
    assert "1 of the question files could not be had" in capsys.readouterr().err
    assert not pictures(out)
