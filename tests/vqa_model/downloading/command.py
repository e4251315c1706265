"""How tests call the downloader, and what they expect of a folder."""

import subprocess
import sys
import time

from vqa_model.data.official_files import read_part
from vqa_model.download import main
from vqa_model.downloading.official_files import TEXTS, picture_member

FRACTION, EVAL_FRACTION = 0.1, 0.25
SAMPLE = ("--fraction", FRACTION, "--eval-fraction", EVAL_FRACTION)
ANNOTATIONS = "v2_mscoco_train2014_annotations.json"


def members(small_world, **shares):
    """Pictures that the task takes for a share of each part, by the whole data's own rule."""
    return {
        picture_member(part, image)
        for part, share in shares.items()
        for image in read_part(small_world, part).choose(share, 0)
    }


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


def program(mirror, out, *flags, prefix=()):
    command = [*prefix, sys.executable, "-m", "vqa_model.download", *words(mirror, out, *flags)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def cut_inside(file):
    file.write_bytes(file.read_bytes()[:400] + b"\xff\xd9")
