"""Questions as columns, the stream they come from and the index they are kept in."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqa_model.data.answers import NO_LABEL, targets
from vqa_model.data.json_records import stream_records
from vqa_model.data.official_accuracy import soft_targets
from vqa_model.data.official_files import read_part
from vqa_model.data.official_normalisation import normalise
from vqa_model.data.question_index import load_or_index
from vqa_model.data.questions import Question, QuestionsById, build_questions
from vqa_model.task import VQATask

words = st.sampled_from(["yes", "No", "two", "2", "a cat", "cat", "t-shirt", "t shirt", "", "1,000"])
asked = st.builds(
    Question,
    id=st.integers(0, 2**62),
    image_id=st.integers(0, 2**62),
    text=st.text(max_size=5),
    answers=st.tuples(*[words] * 10),
    majority=words,
    answer_type=st.sampled_from(["yes/no", "number", "other", "new"]),
    question_type=st.text(max_size=3),
)
some = st.lists(asked, min_size=1, max_size=20, unique_by=lambda question: question.id)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)


@given(some)
def test_columns_give_back_what_was_put_in(questions):
    columns = build_questions(questions)
    assert list(columns) == questions
    assert list(columns[::2]) == questions[::2]
    assert list(columns.take(columns.ids > 10)) == [question for question in questions if question.id > 10]
    by_id = QuestionsById([columns[:1], columns[1:]])
    assert dict(by_id) == {question.id: question for question in questions}
    forms = [columns.pools.forms[form] for form in columns.majority_forms]
    assert forms == [normalise(question.majority) for question in questions]


@given(some, st.lists(words.map(normalise), unique=True))
def test_targets_are_those_of_each_question(questions, vocabulary):
    index = {answer: place for place, answer in enumerate(vocabulary)}
    labels, known, scores = targets(build_questions(questions), index)
    for row, question in enumerate(questions):
        assert labels[row] == index.get(normalise(question.majority), NO_LABEL)
        wanted = {index[word]: score for word, score in soft_targets(question.answers).items() if word in index}
        pairs = zip(known[row].tolist(), scores[row].tolist(), strict=True)
        assert {place: score for place, score in pairs if score} == pytest.approx(wanted)
        assert not scores[row, len(wanted) :].any()


@given(st.dictionaries(st.text(), values, max_size=3), st.lists(values, max_size=4), st.sampled_from([None, 1]))
def test_a_stream_gives_the_list_under_its_key(tmp_path_factory, members, records, indent):
    file = tmp_path_factory.getbasetemp() / "stream.json"
    file.write_text(json.dumps({**members, "questions": records}, indent=indent))
    assert list(stream_records(file, "questions")) == records


@pytest.mark.parametrize("text", ["[1, 2]", "7", '{"other": []}', '{"questions": {"a": 1}}', "{}"])
def test_a_stream_of_another_shape_is_empty(tmp_path, text):
    file = tmp_path / "file.json"
    file.write_text(text)
    assert list(stream_records(file, "questions")) == []


WHOLE = '{"info": {"a": [1]}, "questions": [{"id": 1}, {"id": 2}], "license": "free"}'


@pytest.mark.parametrize("text", [*(WHOLE[:end] for end in range(len(WHOLE))), WHOLE + "]", WHOLE.replace(":", ",")])
def test_damage_anywhere_is_told_with_its_place(tmp_path, text):
    file = tmp_path / "file.json"
    file.write_text(text)
    with pytest.raises(json.JSONDecodeError, match=r"line 1 column \d+"):
        list(stream_records(file, "questions"))


def read(*_):
    raise AssertionError("read again")


def test_questions_are_read_once(data, cache, monkeypatch):
    first = read_part(data, "train").questions
    monkeypatch.setattr("vqa_model.data.official_files._join", read)
    again = read_part(data, "train").questions
    assert list(again) == list(first)
    assert again.pools.forms == first.pools.forms
    (data / "v2_mscoco_train2014_annotations.json").touch()
    with pytest.raises(AssertionError, match="read again"):
        read_part(data, "train")


@pytest.mark.parametrize("name", ["columns.safetensors", "pools.json"])
def test_a_damaged_index_is_made_again(tmp_path, monkeypatch, name):
    monkeypatch.setenv("TUNEMATRIX_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "file.json"
    file.write_text("{}")
    questions = build_questions([Question(1, 2, "what", ("a",) * 10, "a", "other", "what")])
    load_or_index([file], lambda: questions)
    (stored,) = (tmp_path / "cache").glob(f"questions-*/{name}")
    stored.write_bytes(stored.read_bytes()[:-9])
    assert list(load_or_index([file], lambda: questions)) == list(questions)
    assert list(load_or_index([file], read)) == list(questions)


def test_ids_of_more_than_64_bits_are_refused_in_one_line(data):
    for kind in ("OpenEnded_mscoco_train2014_questions", "mscoco_train2014_annotations"):
        file = data / f"v2_{kind}.json"
        file.write_text(file.read_text().replace('"question_id": 10,', f'"question_id": {10**20},'))
    with pytest.raises(ValueError, match=r"annotations\.json: an id is no number of 64 bits"):
        VQATask(data=str(data)).prepare()


def test_columns_are_small(small_world):
    questions = read_part(small_world, "train").questions
    assert sum(column.nbytes for column in questions.columns.values()) == 72 * len(questions)
    assert np.asarray(questions.answers).shape == (len(questions), 10)
