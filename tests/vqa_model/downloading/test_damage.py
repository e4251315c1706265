"""Archives, and files that are not what they should be."""

import re
import zipfile

import pytest

from tests.vqa_model.downloading import mirror as faults
from tests.vqa_model.downloading.command import ANNOTATIONS, check_whole, get, pictures
from tests.vqa_model.downloading.mirror import zipped
from vqa_model.downloading.official_files import TEXTS


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
