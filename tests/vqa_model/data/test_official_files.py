import json
import re
import shutil
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vqa_model.data.answers import build_vocabulary
from vqa_model.data.decode_cache import decode_pictures
from vqa_model.data.official_files import read_part
from vqa_model.data.pictures import ImageSettings, read_picture
from vqa_model.data.questions import Question, build_questions
from vqa_model.data.splits import choose_images
from vqa_model.task import VQATask

QUESTIONS = "v2_OpenEnded_mscoco_train2014_questions.json"
ANNOTATIONS = "v2_mscoco_train2014_annotations.json"


def question(number, image_id, answer_type="other", majority="cat"):
    return Question(number, image_id, "what", (majority,) * 10, majority, answer_type, "what")


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def truncate(file):
    file.write_text(file.read_text()[:200])


def drop_answer(content):
    del content["annotations"][3]["answers"][0]


def repeat(content):
    content["questions"].append(content["questions"][0])


BAD_FILES = {
    "missing questions": (QUESTIONS, lambda file: file.unlink(), "file is missing"),
    "missing annotations": (ANNOTATIONS, lambda file: file.unlink(), "file is missing"),
    "missing val": (
        "v2_OpenEnded_mscoco_val2014_questions.json",
        lambda file: file.unlink(),
        "val2014.*file is missing",
    ),
    "truncated": (ANNOTATIONS, truncate, "line 1 column"),
    "not text": (QUESTIONS, lambda file: file.write_bytes(b"\xff\xfe\x00"), "cannot be read as text"),
    "not VQA": (QUESTIONS, lambda file: file.write_text("[1, 2]"), "no list 'questions'"),
    "empty": (QUESTIONS, lambda file: file.write_text('{"questions": []}'), "no list 'questions'"),
    "no text": (QUESTIONS, lambda file: edit(file, lambda c: c["questions"][2].pop("question")), r"questions\[2\]"),
    "not a record": (QUESTIONS, lambda file: edit(file, lambda c: c["questions"].insert(1, 7)), r"questions\[1\]"),
    "unannotated": (
        ANNOTATIONS,
        lambda file: edit(file, lambda c: c["annotations"].pop(0)),
        "1 annotations are missing.*10",
    ),
    "unasked": (QUESTIONS, lambda file: edit(file, lambda c: c["questions"].pop(0)), "1 questions are missing.*10"),
    "nine answers": (ANNOTATIONS, lambda file: edit(file, drop_answer), "question 21 has 9 answers, not 10"),
    "bare answer": (
        ANNOTATIONS,
        lambda file: edit(file, lambda c: c["annotations"][0]["answers"].__setitem__(0, "a")),
        "question 10 has an answer without text",
    ),
    "other image": (
        ANNOTATIONS,
        lambda file: edit(file, lambda c: c["annotations"][2].update(image_id=9)),
        "question 20 is on image 9, but .* says 2",
    ),
    "no folder of pictures": (
        "train2014/COCO_train2014_000000000001.jpg",
        lambda file: (shutil.rmtree(file.parent), file.parent.write_text("not unzipped")),
        "picture is missing",
    ),
    "repeated": (QUESTIONS, lambda file: edit(file, repeat), "repeats question 10"),
    "missing picture": ("train2014/COCO_train2014_000000000007.jpg", lambda file: file.unlink(), "picture is missing"),
    "broken picture": (
        "train2014/COCO_train2014_000000000007.jpg",
        lambda file: file.write_bytes(file.read_bytes()[:300]),
        "broken picture.*--skip-bad-images",
    ),
    "no picture": (
        "val2014/COCO_val2014_000000000102.jpg",
        lambda file: file.write_text("<html>not found</html>"),
        "broken picture",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_data_is_one_clear_line_naming_the_file(data, case):
    name, damage, message = BAD_FILES[case]
    damage(data / name)
    with pytest.raises(ValueError, match=message) as caught:
        VQATask(data=str(data)).prepare()
    text = str(caught.value)
    assert name in text or case in {"unannotated", "unasked"}
    assert re.search(r"\.(json|jpg): ", text)
    assert "\n" not in text


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.*no such data folder"):
        read_part(tmp_path / "nowhere", "train")


def test_bad_pictures_can_be_skipped(data):
    (data / "train2014" / "COCO_train2014_000000000007.jpg").write_bytes(b"broken")
    (data / "val2014" / "COCO_val2014_000000000102.jpg").unlink()
    task = VQATask(data=str(data), skip_bad_images=True)
    task.prepare()
    shown = {item["keys"]["vision"] for part in (task.train_set(), task.tune_set(), task.eval_set()) for item in part}
    assert 7 not in shown
    assert 102 not in shown
    assert len(shown) == 32


@pytest.mark.parametrize("error", [ValueError("bad"), struct.error("bad"), EOFError("bad"), SyntaxError("bad")])
def test_whatever_pil_raises_is_a_broken_picture(data, monkeypatch, error):
    def fail(_):
        raise error

    monkeypatch.setattr("vqa_model.data.pictures.Image.open", fail)
    path = data / "train2014" / "COCO_train2014_000000000001.jpg"
    with pytest.raises(ValueError, match=r"0001\.jpg: broken picture \(bad\)"):
        read_picture(path)
    assert decode_pictures([path], ImageSettings(size=8), skip_bad=True).bad == {path.name}


def test_evaluation_never_depends_on_the_fraction(data, write):
    rows = [(7000 + i, i, "what is this", ["a"] * 10) for i in (*range(1, 31), *range(101, 105))]
    write(data, "val", rows)
    for fraction in (1.0, 0.3):
        task = VQATask(data=str(data), fraction=fraction)
        assert set(task.eval_set().questions.image_ids.tolist()) == {101, 102, 103, 104}


def test_a_question_id_may_not_be_in_both_parts(data, write):
    write(data, "val", [(10, 101, "what is this", ["a"] * 10)])
    with pytest.raises(ValueError, match=r"data: 1 question ids are in both parts, first 10"):
        VQATask(data=str(data)).prepare()


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "1", "I;16"])
def test_every_mode_of_picture_becomes_rgb(tmp_path, mode):
    file = tmp_path / f"picture.{'jpg' if mode in {'L', 'CMYK'} else 'png'}"
    Image.new("RGB", (9, 7), (200, 40, 40)).convert(mode if mode != "I;16" else "L").save(file)
    decoded = decode_pictures([file], ImageSettings(size=6), skip_bad=False)
    assert read_picture(file)[1].mode == "RGB"
    assert decoded.pixels.shape == (1, 3, 6, 6)


def test_a_preprocessor_may_cut_the_centre(tmp_path):
    file = tmp_path / "wide.png"
    wide = Image.new("RGB", (60, 20), "red")
    wide.paste("blue", (20, 0, 40, 20))
    wide.save(file)
    fields = {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}, "do_center_crop": True}
    settings = ImageSettings.from_preprocessor(fields | {"image_mean": [0.1, 0.2, 0.3]}, 99)
    pixels = decode_pictures([file], settings, skip_bad=False).pixels
    assert settings.mean == (0.1, 0.2, 0.3)
    assert (pixels[0, 2] == 255).all()
    assert (pixels[0, 0] == 0).all()


def test_pictures_are_decoded_once(data, monkeypatch):
    paths = sorted((data / "train2014").iterdir())
    first = decode_pictures(paths, ImageSettings(size=8), skip_bad=False)
    monkeypatch.setattr("vqa_model.data.decode_cache.read_picture", None)
    again = decode_pictures(paths, ImageSettings(size=8), skip_bad=False)
    assert (first.pixels == again.pixels).all()
    assert first.content_hash == again.content_hash


@given(st.integers(0, 10**6), st.floats(0.05, 1), st.lists(st.integers(1, 6), min_size=20, max_size=80))
def test_a_fraction_is_stratified_and_repeatable(seed, fraction, counts):
    types = ("yes/no", "number", "other")
    questions = [
        question(10 * image + k, image, types[(image + k) % 3])
        for image, count in enumerate(counts)
        for k in range(count)
    ]
    chosen = choose_images(build_questions(questions), fraction, seed)
    assert chosen == choose_images(build_questions(questions[::-1]), fraction, seed)
    assert abs(len(chosen) - fraction * len(counts)) < 1 + 1e-6
    for size in set(counts):
        images = {image for image, count in enumerate(counts) if count == size}
        assert abs(len(chosen & images) - fraction * len(images)) < 1 + 1e-6


def test_vocabulary_is_by_count_then_size():
    words = ["b"] * 3 + ["The a"] * 2 + ["two", "2", "c", "A"]
    questions = build_questions(question(n, n, majority=word) for n, word in enumerate(words))
    assert build_vocabulary(questions, min_count=2, max_answers=9) == ("b", "2")
    assert build_vocabulary(questions, min_count=1, max_answers=2) == ("b", "2")
    with pytest.raises(ValueError, match="no answer occurs 9 times"):
        build_vocabulary(questions, min_count=9, max_answers=9)
