"""The questions of one picture in one pass of the tower: exactly the ungrouped gradients, for a share of the work."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from strategies import compose
from vqa_model.task import VQATask

BATCH = 32


@pytest.fixture(scope="module")
def task(small_world):
    return VQATask(data=str(small_world), min_count=1)


def batches(task, plan):
    tuned = compose(plan).apply(task.build_model(), total_steps=100)
    order = torch.Generator().manual_seed(0)
    return list(tuned.loader(task.train_set(), batch_size=BATCH, collate=task.collate, generator=order))


def repeated(batch):
    """The same batch with a picture for every question."""
    pictures = batch["pixel_values"][batch["picture_index"]]
    return {**batch, "pixel_values": pictures, "picture_index": torch.arange(len(pictures))}


def gradients(task, batch):
    torch.manual_seed(0)
    model = task.build_model().train()
    task.loss(model, batch).mean().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_a_shared_pass_has_the_gradients_of_one_pass_per_question(task):
    batch = batches(task, "group_by_image")[0]
    assert len(batch["pixel_values"]) < BATCH / 2
    shared, apart = gradients(task, batch), gradients(task, repeated(batch))
    for name, gradient in shared.items():
        assert torch.allclose(gradient, apart[name], atol=1e-5, rtol=1e-4), name


def test_the_towers_work_falls_by_the_questions_per_picture(task):
    """Count the operations of the vision tower over a pass through the training set."""

    def flops(model, given):
        with FlopCounterMode(display=False) as counter:
            for batch in given:
                task.loss(model, batch).mean().backward()
        return sum(counter.get_flop_counts()["VQAModel.vision"].values())

    model = task.build_model()
    grouped = batches(task, "group_by_image")
    questions = sum(len(batch["label"]) for batch in grouped)
    pictures = sum(len(batch["pixel_values"]) for batch in grouped)
    assert questions / pictures > 2.5
    fell = flops(model, map(repeated, grouped)) / flops(model, grouped)
    assert fell == pytest.approx(questions / pictures, rel=0.01)
    loose = batches(task, "full")
    assert sum(len(batch["pixel_values"]) for batch in loose) > 1.5 * pictures


def test_bucketing_and_grouping_go_together(task):
    both = batches(task, "group_by_image+bucketing(multiple=1)")
    grouped = batches(task, "group_by_image")
    assert len(both) == len(grouped)
    pictures = [sum(len(batch["pixel_values"]) for batch in made) for made in (both, grouped)]
    assert pictures[0] == pytest.approx(pictures[1], rel=0.1)
    places = [sum(batch["input_ids"].numel() for batch in made) for made in (both, grouped)]
    assert places[0] < places[1]


def test_what_questions_share_is_declared_and_collated_in_order(task):
    items = [task.train_set()[place] for place in range(12)]
    batch = task.collate(items)
    keys = [item["keys"]["vision"] for item in items]
    rows = list(dict.fromkeys(keys))
    assert batch["picture_index"].tolist() == [rows.index(key) for key in keys]
    assert len(batch["pixel_values"]) == len(rows)
    assert [item["length"] for item in items] == batch["attention_mask"].sum(1).tolist()
    other = task.collate(items[::-1])
    assert torch.equal(
        other["pixel_values"][other["picture_index"]].flip(0), batch["pixel_values"][batch["picture_index"]]
    )


def test_batches_that_share_hardly_anything_have_one_shape(task):
    items, first = task.train_set(), {}
    for place, question in enumerate(items.questions):
        first.setdefault(question.image_id, place)
    apart = list(first.values())[:31]
    for places, pictures in ((apart + apart[:1], 32), (apart[:28] + apart[:4], 28), (apart[:8] * 4, 8)):
        batch = task.collate([items[place] for place in places])
        assert len(batch["pixel_values"]) == pictures
        shown = batch["pixel_values"][batch["picture_index"]]
        assert torch.equal(shown, torch.from_numpy(items.pixels[items.rows[places]]))


def test_each_questions_loss_is_given(task):
    batch = task.collate([task.train_set()[place] for place in range(12)])
    model = task.build_model().eval()
    losses = task.loss(model, batch).detach()
    assert losses.shape == (12,)
    assert losses[3] == pytest.approx(task.loss(model, task.collate([task.train_set()[3]])).item(), rel=1e-4)
