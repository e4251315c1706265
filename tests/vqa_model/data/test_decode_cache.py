import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from vqa_model.data import decode_cache as decoding
from vqa_model.data.decode_cache import BLOCK, decode_pictures
from vqa_model.data.pictures import ImageSettings, fit_picture, read_picture

SIZE = 160
WRITER = f"""
import sys
from pathlib import Path
from vqa_model.data.decode_cache import decode_pictures
from vqa_model.data.pictures import ImageSettings
paths = sorted(Path(sys.argv[1]).iterdir())
decoded = decode_pictures(paths, ImageSettings(size={SIZE}), skip_bad=False, threads=1)
print(decoded.content_hash)
"""


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("TUNEMATRIX_CACHE", str(folder))
    return folder


@pytest.fixture
def pictures(tmp_path):
    """A folder of pictures for ten and a half blocks."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for number in range(10 * BLOCK + BLOCK // 2):
        picture = Image.fromarray(np.roll(noise, number, axis=number % 2)).resize((200, 150 + number % 40))
        picture.save(folder / f"{number:04d}.jpg")
    return folder


def start(pictures):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(pictures)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def notes(empty_cache):
    return sorted(empty_cache.glob(".pictures-*-draft/notes/[0-9]*.json"))


def wait_for_notes(empty_cache, child, count):
    while len(notes(empty_cache)) < count:
        assert child.poll() is None, child.communicate()
        time.sleep(0.002)


def test_a_killed_decoding_goes_on_where_it_stopped(pictures, empty_cache, monkeypatch):
    child = start(pictures)
    wait_for_notes(empty_cache, child, 3)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.communicate()
    done = len(notes(empty_cache))
    assert 3 <= done < 11

    read = []
    monkeypatch.setattr(decoding, "read_picture", lambda path: read.append(path) or read_picture(path))
    paths = sorted(pictures.iterdir())
    decoded = decode_pictures(paths, ImageSettings(size=SIZE), skip_bad=False)
    assert len(paths) - done * BLOCK <= len(read) <= len(paths) - (done - 1) * BLOCK
    assert len(set(read)) == len(read)
    check(decoded, paths)
    assert [path.name[:9] for path in empty_cache.iterdir()] == ["pictures-"]


def check(decoded, paths):
    for row in range(0, len(paths), 7):
        assert (decoded.pixels[row] == fit_picture(read_picture(paths[row])[1], ImageSettings(size=SIZE))).all()


def test_two_writers_at_once_share_the_work(pictures, empty_cache):
    first, second = start(pictures), start(pictures)
    wait_for_notes(empty_cache, first, 1)
    (out, problems), (other_out, other_problems) = first.communicate(), second.communicate()
    assert (first.returncode, second.returncode) == (0, 0), problems + other_problems
    assert out == other_out
    paths = sorted(pictures.iterdir())
    decoded = decode_pictures(paths, ImageSettings(size=SIZE), skip_bad=False)
    assert decoded.content_hash == out.strip()
    check(decoded, paths)
    assert len(list(empty_cache.iterdir())) == 1


def test_a_writer_that_comes_late_leaves_nothing_behind(pictures, empty_cache):
    paths = sorted(pictures.iterdir())[:3]
    settings = ImageSettings(size=SIZE)
    decode_pictures(paths, settings, skip_bad=False)
    (target,) = empty_cache.iterdir()
    before = (target / "pixels.npy").read_bytes()
    decoding._Draft(target, paths, settings, skip_bad=False).finish(threads=1)
    assert [*empty_cache.iterdir()] == [target]
    assert (target / "pixels.npy").read_bytes() == before


def test_a_bad_picture_costs_what_was_decoded_nothing(pictures, empty_cache, monkeypatch):
    broken = pictures / "0100.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    paths = sorted(pictures.iterdir())
    monkeypatch.setattr(decoding.random.Random, "shuffle", lambda *_: None)  # the broken one's block is the second
    with pytest.raises(ValueError, match=r"0100\.jpg: broken picture .*; replace it or use --skip-bad-images"):
        decode_pictures(paths, ImageSettings(size=SIZE), skip_bad=False, threads=1)
    done = {path.stem for path in notes(empty_cache)}
    assert "0" in done
    assert "1" not in done
    assert len(done) < 10
    skipped = decode_pictures(paths, ImageSettings(size=SIZE), skip_bad=True)
    assert skipped.bad == {"0100.jpg"}
    assert not skipped.pixels[100].any()
    with pytest.raises(ValueError, match=r"0100\.jpg: broken picture"):
        decode_pictures(paths, ImageSettings(size=SIZE), skip_bad=False)


def test_progress_is_shown_where_it_takes_long(pictures, empty_cache, monkeypatch, capfd):
    monkeypatch.setattr(decoding, "_PROGRESS_EVERY_SECONDS", 0.0)
    paths = sorted(pictures.iterdir())
    decode_pictures(paths, ImageSettings(size=8), skip_bad=False)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[-1] == f"decoding pictures: {len(paths)} of {len(paths)}, 0 s left"


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, {"resample": 3}, {"size": {"height": 96, "width": 96}}])
def test_pixels_are_those_of_transformers(vqa_sample, fields):
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    theirs = ViTImageProcessorPil(do_rescale=False, do_normalize=False, **fields)
    settings = ImageSettings.from_preprocessor(theirs.to_dict(), 224)
    modes = set()
    for path in sorted(vqa_sample.rglob("*.jpg"))[::7]:
        ours = fit_picture(read_picture(path)[1], settings).astype(int)
        with Image.open(path) as picture:
            modes.add(picture.mode)
            (expected,) = theirs(picture.convert("RGB"))["pixel_values"]
        assert abs(ours - expected).max() <= 1
    assert modes == {"RGB", "L"}
