"""Every recipe of a seed starts from the same head and sees the same data in the same order."""

import pytest
import torch

from bench.worker.loop import cycle, seed_everything
from strategies import compose
from tests.bench.faulty_task import FaultyTask

PLANS = ("full", "freeze", "amp", "checkpointing", "lora", "nf4+lora")


def start(plan, seed):
    task = FaultyTask()
    seed_everything(seed)
    model = task.build_model()
    tuned = compose(plan).apply(model, seed=seed, total_steps=10)
    order = torch.Generator().manual_seed(seed)
    loader = tuned.loader(task.train_set(), batch_size=16, collate=task.collate, generator=order)
    batches = cycle(loader)
    ids = [next(batches)["id"].tolist() for _ in range(20)]  # more than one pass
    return model[-1].weight.detach().clone(), ids


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS[1:])
def test_same_head_and_same_order(plan):
    head, ids = start(PLANS[0], 3)
    other_head, other_ids = start(plan, 3)
    assert torch.equal(head, other_head)
    assert ids == other_ids


def test_another_seed_changes_both():
    head, ids = start("full", 3)
    other_head, other_ids = start("full", 4)
    assert not torch.equal(head, other_head)
    assert ids != other_ids


def test_a_set_smaller_than_a_batch_is_an_error():
    with pytest.raises(ValueError, match="smaller than one batch"):
        next(cycle([]))
