import time
from dataclasses import asdict, replace

import pytest
import torch

from vqa_model.data.official_normalisation import normalise
from vqa_model.picture_world.scenes import Settings
from vqa_model.task import VQATask


@pytest.fixture(scope="module")
def task(small_world):
    task = VQATask(data=str(small_world))
    task.prepare()
    return task


@pytest.fixture(scope="module")
def model(task):
    torch.manual_seed(0)
    return task.build_model().eval()


def batch_of(task, items, count=16):
    return task.collate([items[place] for place in range(count)])


def images(items):
    return {item["keys"]["vision"] for item in items}


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_the_three_sets_share_no_picture(task, fraction):
    task = replace(task, fraction=fraction)
    train, tune, evaluation = (images(part) for part in (task.train_set(), task.tune_set(), task.eval_set()))
    assert train.isdisjoint(tune)
    assert train.isdisjoint(evaluation)
    assert tune.isdisjoint(evaluation)
    assert sorted(train | tune) == task.chosen_images()
    assert len(tune) == pytest.approx(0.1 * len(train | tune), abs=1)


def test_real_questions_share_no_picture(vqa_sample):
    task = VQATask(data=str(vqa_sample))
    task.prepare()
    sets = [images(part) for part in (task.train_set(), task.tune_set(), task.eval_set())]
    assert sum(map(len, sets)) == len(set.union(*sets)) == 355 + 95
    assert task.dataset_name == "vqa_v2"
    quarter = replace(task, fraction=0.25)
    assert len(quarter.chosen_images()) == pytest.approx(0.25 * len(task.chosen_images()), abs=1)
    model = task.build_model()
    loss = task.loss(model, batch_of(task, task.train_set()))
    assert loss.isfinite().all()


def test_a_fraction_keeps_the_vocabulary_to_its_own_training_part(task):
    small = replace(task, fraction=0.3)
    assert small.data_fingerprint() != task.data_fingerprint()
    assert len(small.train_set()) < len(task.train_set())
    for one in (task, small):
        vocabulary = set(one.build_model().config.id2label.values())
        assert vocabulary
        assert vocabulary <= {normalise(question.majority) for question in one.train_set().questions}


def test_options_are_json_values_and_bad_ones_are_refused(task):
    assert all(isinstance(value, (str, int, float, bool)) for value in asdict(task).values())
    for change, message in (
        ({"fusion": "sum"}, "choose from concat, hadamard, guided_attention, cross_attention, co_attention"),
        ({"fraction": 0.0}, r"not in \(0, 1\]"),
        ({"objective": "mse"}, "choose from 'cross_entropy', 'soft_bce'"),
        ({"min_count": 0}, "below 1"),
        ({"evaluate_on": "train"}, "choose from 'eval', 'tune'"),
        ({"max_length": 2}, "max_length 2 is below 3; 0 fits"),
        ({"max_length": -1}, "max_length -1 is below 3"),
        ({"fraction": "0.5"}, "fraction '0.5' is of type str; it takes float"),
        ({"min_count": 2.5}, "min_count 2.5 is of type float; it takes int"),
        ({"data": None}, "data None is of type NoneType; it takes str"),
        ({"skip_bad_images": 1}, "skip_bad_images 1 is of type int; it takes bool"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(task, **change)
    with pytest.raises(ValueError, match=r"max_length 999 is above the text tower's \d+ positions"):
        replace(task, max_length=999).prepare()


def test_a_batch_sends_each_picture_once(task):
    items = task.train_set()
    batch = batch_of(task, items)
    assert len(batch["pixel_values"]) == len({items[place]["keys"]["vision"] for place in range(16)}) < 16
    assert batch["pixel_values"].dtype == torch.uint8
    assert {len(tensor) for name, tensor in batch.items() if name != "pixel_values"} == {16}
    shown = batch["pixel_values"][batch["picture_index"]]
    one_by_one = torch.cat([task.collate([items[place]])["pixel_values"] for place in range(16)])
    assert torch.equal(shown, one_by_one)


@pytest.mark.parametrize("objective", ["cross_entropy", "soft_bce"])
def test_each_question_has_its_own_loss_whatever_else_is_in_the_batch(task, model, objective):
    task = replace(task, objective=objective)
    items = task.train_set()
    whole = task.loss(model, task.collate([items[place] for place in range(16)]))
    halves = [task.loss(model, task.collate([items[place] for place in part])) for part in (range(8), range(8, 16))]
    assert whole.shape == (16,)
    assert whole.tolist() == pytest.approx([loss for half in halves for loss in half.tolist()], rel=1e-4)


def test_perfect_predictions_score_high_and_wrong_ones_nothing(task):
    items = task.eval_set()
    right = [{"id": q.id, "prediction": q.majority} for q in items.questions]
    metrics, scores = task.evaluate(right)
    assert metrics["vqa_accuracy"] == 1.0
    asked = {f"question_type/{question.question_type}" for question in items.questions}
    assert {name.removeprefix("vqa_accuracy/") for name in metrics if "/" in name} == {
        "yes/no", "number", "other", *asked,
    }  # fmt: skip
    assert set(scores) == {q.id for q in items.questions}
    assert task.evaluate([row | {"prediction": "giraffe"} for row in right])[0]["vqa_accuracy"] == 0.0
    with pytest.raises(ValueError, match="no predictions"):
        task.evaluate([])
    with pytest.raises(ValueError, match=f"1 predictions repeat a question, first id {right[2]['id']}"):
        task.evaluate([*right, right[2]])
    learnt = task.train_set()[0]["id"]
    for strange in (learnt, -1):
        with pytest.raises(
            ValueError, match=f"1 predictions are of no evaluation or tune question, first id {strange}"
        ):
            task.evaluate([*right, {"id": strange, "prediction": "yes"}])


def test_a_loaded_text_tower_takes_the_mask_ready_made(task, monkeypatch):
    model = task.build_model().eval()
    batch = batch_of(task, task.train_set())
    batch = {name: batch[name] for name in ("pixel_values", "input_ids", "attention_mask", "picture_index")}
    masks = []
    hook = model.text.register_forward_pre_hook(
        lambda _, __, given: masks.append(given["attention_mask"]), with_kwargs=True
    )
    with torch.no_grad():
        ready = model(**batch).logits
        hook.remove()
        flat = model.text.forward
        monkeypatch.setattr(
            model.text, "forward", lambda input_ids, attention_mask: flat(input_ids, attention_mask[:, 0, 0].long())
        )
        torch.testing.assert_close(model(**batch).logits, ready, rtol=0, atol=1e-5)
    assert [mask.dim() for mask in masks] == [4]


def test_predictions_have_all_fields(task, model):
    rows = task.predict(model, batch_of(task, task.eval_set(), 8))
    assert [row["id"] for row in rows] == [task.eval_set()[place]["id"] for place in range(8)]
    for row in rows:
        assert set(row) == {"id", "prediction", "target", "probability"}
        assert 0 <= row["probability"] <= 1


def test_question_only_sees_no_picture(task):
    blind = task.controls()["question-only"]
    batch = batch_of(blind, blind.train_set())
    assert batch["pixel_values"].unique().numel() == 1
    assert len(batch["pixel_values"]) == 1
    assert not batch["picture_index"].any()
    assert blind.loss(blind.build_model(), batch).isfinite().all()


def test_majority_answer_is_one_answer(task):
    control = task.controls()["majority-answer"]
    model = control.build_model()
    assert list(model.scopes) == ["head"]
    batch = batch_of(control, control.train_set())
    control.loss(model, batch).mean().backward()
    assert all(p.grad is not None for p in model.parameters())
    answers = {row["prediction"] for row in control.predict(model, batch)}
    assert len(answers) == 1
    assert answers <= {"yes", "no"}


def test_random_towers_differ_and_pretrained_ones_do_not(task):
    def weights(task, seed):
        torch.manual_seed(seed)
        model = task.build_model()
        return model.vision.embeddings.cls_token, model.head.fc2.weight

    (vision, head), (again, other_head) = weights(task, 0), weights(task, 1)
    assert torch.equal(vision, again)
    assert not torch.equal(head, other_head)
    assert torch.equal(head, weights(task, 0)[1])
    random = replace(task, towers="random")
    assert not torch.equal(weights(random, 0)[0], weights(random, 1)[0])
    assert random.model_fingerprint() != task.model_fingerprint()


def test_fingerprints_tell_contents_not_places(task, small_world, tmp_path):
    moved = tmp_path / "moved"
    moved.symlink_to(small_world)
    twin = replace(task, data=str(moved))
    assert twin.data_fingerprint() == task.data_fingerprint()
    assert twin.model_fingerprint() == task.model_fingerprint()
    assert replace(task, fusion="concat").model_fingerprint() != task.model_fingerprint()


def test_rate_sweeps_evaluate_on_the_tune_set(task):
    assert list(replace(task, evaluate_on="tune").eval_set().questions) == list(task.tune_set().questions)


def test_examples_and_description_serve_the_report(task):
    examples = task.examples(3)
    assert len(examples) == 3
    assert examples[0]["image"].mode == "RGB"
    assert len(examples[0]["answers"]) == 10
    facts = task.describe()
    assert facts["parameters"]["all"] == sum(facts["parameters"][part] for part in ("vision", "text", "fusion", "head"))


def test_collate_is_cheap(task):
    items = task.train_set()
    rows = [items[place] for place in range(64)]
    task.collate(rows)
    start = time.perf_counter()
    for _ in range(20):
        task.collate(rows)
    assert (time.perf_counter() - start) / 20 < 0.01


@pytest.mark.slow
def test_the_embedded_default_prepares_and_predicts(monkeypatch):
    task = VQATask()
    task.prepare()
    assert task.dataset_name == "picture-world"
    assert len(images(task.eval_set())) <= 2 * Settings().val_pairs
    torch.manual_seed(0)
    assert len(task.predict(task.build_model().eval(), batch_of(task, task.eval_set(), 4))) == 4
