"""Which pictures a fraction takes, with balanced pairs, and which were downloaded."""

import json
from collections import Counter

import numpy as np
import pytest

from vqa_model.data.official_files import read_pairs, read_part
from vqa_model.data.questions import build_questions
from vqa_model.data.splits import MAX_GROUP_SIZE, choose_images, group_images
from vqa_model.task import VQATask

PAIRS = "v2_mscoco_train2014_complementary_pairs.json"


def kept(part, chosen):
    """Share of the pairs touched by a choice that it holds whole."""
    of = dict(zip(part.questions.ids.tolist(), part.questions.image_ids.tolist(), strict=True))
    inside = [[of[one] in chosen, of[other] in chosen] for one, other in read_pairs(part.folder, part.name).tolist()]
    return sum(map(all, inside)) / sum(map(any, inside))


@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.7])
def test_pictures_that_come_in_twos_stay_together(small_world, fraction):
    part = read_part(small_world, "train")
    chosen = part.choose(fraction, seed=3)
    assert kept(part, chosen) == 1
    assert len(chosen) == pytest.approx(fraction * len(set(part.questions.image_ids.tolist())), abs=2)
    assert chosen == part.choose(fraction, seed=3)
    assert chosen != part.choose(fraction, seed=4)
    assert kept(part, choose_images(part.questions, fraction, 3)) < 0.7


def test_groups_that_hang_together_are_cut_at_their_size(small_world):
    part = read_part(small_world, "train")
    questions, images = part.questions, np.unique(part.questions.image_ids)
    _, first = np.unique(questions.image_ids, return_index=True)
    chain = np.stack([questions.ids[first[:-1]], questions.ids[first[1:]]], axis=1)
    groups = group_images(questions, chain, images, np.random.default_rng(0))
    sizes = Counter(groups.tolist())
    assert max(sizes.values()) == MAX_GROUP_SIZE
    assert sum(sizes.values()) == len(images)
    strange = np.array([[10**9, 10**9 + 1]])  # partners of which nothing is here
    assert len(set(group_images(questions, strange, images, np.random.default_rng(0)).tolist())) == len(images)


def test_the_sample_has_the_same_kinds_of_questions(small_world):
    part = read_part(small_world, "train")
    chosen = part.questions.take(part.questions.on_images(part.choose(0.5, seed=0)))
    share = [Counter(q.answer_type for q in questions) for questions in (part.questions, chosen)]
    for kind, count in share[0].items():
        assert share[1][kind] / len(chosen) == pytest.approx(count / len(part.questions), abs=0.05)


@pytest.mark.parametrize("content", ["{", "[[1, 2, 3]]", '[["a", "b"]]', "[[1], [2, 3]]", f"[[1, {10**30}]]", "{}"])
def test_a_bad_file_of_pairs_is_one_line(data, content):
    (data / PAIRS).write_text(content)
    with pytest.raises(ValueError, match=rf"{PAIRS}: not a list of pairs[^\n]*remove it$"):
        VQATask(data=str(data), fraction=0.5).prepare()


def test_no_pairs_is_no_file_or_an_empty_one(data):
    (data / PAIRS).write_text("[]")
    with_empty = VQATask(data=str(data), fraction=0.5).chosen_images()
    (data / PAIRS).unlink()
    assert VQATask(data=str(data), fraction=0.5).chosen_images() == with_empty


def test_a_share_of_the_val_pictures(small_world):
    task = VQATask(data=str(small_world), eval_fraction=0.5)
    part = read_part(small_world, "val")
    assert set(task.eval_set().questions.image_ids.tolist()) == part.choose(0.5, 0)
    assert len(part.choose(0.5, 0)) == pytest.approx(8, abs=1)
    with pytest.raises(ValueError, match=r"eval_fraction 2.0 is not in \[0, 1\]"):
        VQATask(eval_fraction=2.0)


def remember(folder, **facts):
    downloaded = {"fraction": 0.5, "eval_fraction": 0.5, "split_seed": 0, **facts}
    (folder / "download.json").write_text(json.dumps(downloaded))


def test_what_was_downloaded_is_what_is_evaluated(data):
    remember(data)
    task = VQATask(data=str(data), fraction=0.5)
    part = read_part(data, "val")
    assert set(task.eval_set().questions.image_ids.tolist()) == part.choose(0.5, 0)
    for image_id in {101, 102, 103, 104} - part.choose(0.5, 0):
        part.picture_path(image_id).unlink()
    VQATask(data=str(data), fraction=0.5).prepare()


@pytest.mark.parametrize(
    ("facts", "options", "message"),
    [
        ({}, {}, r"pictures of fraction 0.5 were downloaded.*not of 1;"),
        ({}, {"fraction": 0.5, "eval_fraction": 0.25}, "pictures of eval_fraction 0.5 were downloaded"),
        ({}, {"fraction": 0.5, "split_seed": 3}, "pictures of split_seed 0 were downloaded.*not of 3"),
        ({"fraction": "half"}, {}, "not what the downloader wrote"),
    ],
)
def test_another_sample_than_the_downloaded_one_is_refused(data, facts, options, message):
    remember(data, **facts)
    with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
        VQATask(data=str(data), **options).prepare()


def test_where_all_was_downloaded_any_sample_will_do(data):
    remember(data, fraction=1, eval_fraction=1)
    VQATask(data=str(data), fraction=0.4, eval_fraction=0.5, split_seed=7).prepare()


def test_an_answer_type_nobody_has_heard_of_is_no_trouble(data):
    file = data / "v2_mscoco_train2014_annotations.json"
    file.write_text(file.read_text().replace('"other"', '"strange"', 5))
    assert len(VQATask(data=str(data), fraction=0.5).chosen_images()) == 15
    assert build_questions([]).columns["ids"].shape == (0,)
