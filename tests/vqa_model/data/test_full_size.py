"""All of VQA v2's questions: time and memory of reading, sampling and building the vocabulary, printed."""

import json
import runpy
import time

import pytest
from PIL import Image

LIMIT_BYTES = 2 * 2**30


@pytest.fixture(scope="module")
def scripts(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "performance"))
        yield {
            name: runpy.run_path(str(root / "performance" / f"{name}.py")) for name in ("full_size", "full_size_data")
        }


@pytest.mark.slow
def test_all_of_vqa_v2_is_read_in_little_time_and_memory(scripts, tmp_path, capsys):
    for name in ("train", "val"):
        scripts["full_size_data"]["write_part"](tmp_path, name)
    parsing = time.perf_counter()
    json.loads((tmp_path / "v2_mscoco_val2014_annotations.json").read_bytes())
    parsing = time.perf_counter() - parsing  # this machine's pace: a third of what has to be read
    measure, reading = scripts["full_size"]["measure"], scripts["full_size"]["READING"]
    first, again = (measure(reading, tmp_path, tmp_path / "cache") for _ in range(2))
    seconds = [sum(found["seconds"].values()) for found in (first, again)]
    with capsys.disabled():
        for when, total, found in zip(("first", "then"), seconds, (first, again), strict=True):
            print(f"\nVQA v2 whole, {when}: {total:.1f} s, {found['peak_rss_bytes'] / 2**30:.2f} GiB", end=" ")
    assert first["pictures"] == pytest.approx(82_783 / 4, rel=0.002)
    assert first["questions"] == pytest.approx(443_757 / 4, rel=0.005)
    assert first["evaluated"] == 214_354
    assert first["answers"] == again["answers"] > 500
    assert max(first["peak_rss_bytes"], again["peak_rss_bytes"]) < LIMIT_BYTES
    assert seconds[0] < min(15 * parsing, 90)  # 30 s where parsing takes 2
    assert seconds[1] < min(1 * parsing, 6)


DECODING = """
import json, sys
from vqa_model.data.decode_cache import decode_pictures
from vqa_model.data.pictures import ImageSettings
paths = [Path(sys.argv[1]) / "some.jpg"] * int((Path(sys.argv[1]) / "count").read_text())
before = memory("VmRSS")
pixels = decode_pictures(paths, ImageSettings(size=96), skip_bad=False, threads=2).pixels
total = sum(int(pixels[start::500].sum()) for start in range(5))
print(json.dumps({"grown": memory("VmHWM") - before, "pixels": pixels.nbytes}))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_pictures(scripts, tmp_path):
    Image.new("RGB", (64, 48), "red").save(tmp_path / "some.jpg")
    found = []
    for count in (100, 4000):
        (tmp_path / "count").write_text(str(count))
        found.append(scripts["full_size"]["measure"](DECODING, tmp_path, tmp_path / "cache"))
    assert found[1]["pixels"] - found[0]["pixels"] > 100 * 2**20
    assert found[1]["grown"] - found[0]["grown"] < 10 * 2**20
