"""Micro-batches in the loops of others add up to the big batch, also where each has another number of labels."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    CLIPConfig,
    CLIPModel,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
)

from strategies import PlanError, compose

WORDS, LONGEST, STEPS = 60, 10, 2
SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
BERT = BertConfig(**SIZES, **STILL, vocab_size=WORDS, max_position_embeddings=16)


def gpt2():
    torch.manual_seed(0)
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": WORDS, "n_positions": 16}
    return GPT2LMHeadModel(GPT2Config(**sizes, **rates, bos_token_id=1, eos_token_id=1))


def masked():
    torch.manual_seed(0)
    return BertForMaskedLM(BERT)


def answering():
    torch.manual_seed(0)
    return BertForQuestionAnswering(BERT)


def clip():
    text = {**SIZES, "vocab_size": WORDS, "max_position_embeddings": 16, "eos_token_id": 1, "bos_token_id": 1}
    return CLIPModel(CLIPConfig(text_config=text, vision_config={**SIZES, "image_size": 16, "patch_size": 8}))


def sentences(count=20, empty=range(0)):
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(2, WORDS, (count, LONGEST), generator=generator)
    mask = (torch.arange(LONGEST) < torch.randint(2, LONGEST + 1, (count, 1), generator=generator)).long()
    labels = torch.where(mask.bool(), ids, -100)
    labels[list(empty)] = -100
    return [{"input_ids": i * m, "attention_mask": m, "labels": la} for i, m, la in zip(ids, mask, labels, strict=True)]


def questions():
    found = [{**item, "start_positions": torch.tensor(1), "end_positions": torch.tensor(2)} for item in sentences()]
    return [{key: value for key, value in item.items() if key != "labels"} for item in found]


class Collate:
    """Makes batches and remembers them."""

    def __init__(self):
        self.made = []

    def __call__(self, items):
        self.made.append({key: torch.stack([item[key] for item in items]) for key in items[0]})
        return self.made[-1]

    def updates(self, parts, batches_in_a_pass=None):
        """Join the batches of each update; the last of a pass may have fewer."""
        ends = batches_in_a_pass or len(self.made)
        starts = [start for first in range(0, len(self.made), ends) for start in range(first, first + ends, parts)]
        groups = [self.made[start : min(start + parts, start - start % ends + ends)] for start in starts]
        return [{key: torch.cat([batch[key] for batch in group]) for key in group[0]} for group in groups][:STEPS]


def watched(tuned):
    """Give a list that will have the gradients of every update."""
    seen = []
    tuned.optimizer.register_step_pre_hook(
        lambda *_: seen.append(torch.cat([p.grad.flatten() for p in tuned.model.parameters() if p.grad is not None]))
    )
    return seen


def same_as_ours(make, updates, seen):
    ours = compose("full").apply(make(), total_steps=STEPS)
    expected = watched(ours)
    losses = [ours.step(lambda model, batch: model(**batch).loss, batch).item() for batch in updates]
    assert len(seen) == len(expected) == STEPS
    assert max(float((a - b).abs().max()) for a, b in zip(seen, expected, strict=True)) < 1e-5
    return losses


@pytest.mark.parametrize(
    ("make", "data", "sizes", "options"),
    [
        (gpt2, sentences(), (2, 8), {}),
        (gpt2, sentences(), (4, 8), {}),
        (masked, sentences(), (4, 8), {}),
        (masked, sentences(empty=range(3, 16)), (4, 8), {}),
        (gpt2, sentences(empty=range(3, 16)), (4, 8), {}),
        (masked, sentences(), (1, 6), {"gradient_accumulation_steps": 3}),
        (gpt2, sentences(), (1, 6), {"gradient_accumulation_steps": 3}),
        (answering, questions(), (1, 6), {"gradient_accumulation_steps": 2}),
    ],
)
def test_trainer_adds_up_to_the_big_batch(make, data, sizes, options, tmp_path):
    n, size = sizes
    args = TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=size, use_cpu=True, disable_tqdm=True, report_to="none",
        logging_steps=1, save_strategy="no", max_steps=STEPS, seed=1, **options,
    )  # fmt: skip
    collate = Collate()
    plan = compose(f"full+accumulate(n={n})" if n > 1 else "full")
    ready = plan.for_trainer(make(), args, collate=collate)
    trainer, seen = Trainer(**ready, train_dataset=data), watched(ready["callbacks"][0].tuned)
    trainer.train()
    parts = trainer.args.gradient_accumulation_steps
    updates = collate.updates(parts, -(-len(data) // trainer.args.per_device_train_batch_size))
    losses = same_as_ours(make, updates, seen)
    told = [float(row["loss"]) for row in trainer.state.log_history if "loss" in row]
    assert told == pytest.approx(losses, rel=1e-4 if make is masked else 0.05), "what Trainer logs counts as it does"


@pytest.fixture
def accelerator():
    def make(**options):
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        return Accelerator(cpu=True, **options)

    yield make
    PartialState._reset_state()


@pytest.mark.parametrize(
    ("make", "data"), [(gpt2, sentences()), (masked, sentences(empty=range(3, 16))), (answering, questions())]
)
def test_accelerate_adds_up_to_the_big_batch(make, data, accelerator):
    own, collate = accelerator(gradient_accumulation_steps=4), Collate()
    ready = compose("full+accumulate(n=4)").for_accelerate(own, make(), total_steps=STEPS)
    seen = watched(ready.tuned)
    for batch in ready.loader(data, batch_size=8, collate=collate, generator=torch.Generator().manual_seed(0)):
        with own.accumulate(ready.model):
            own.backward(ready.model(**batch).loss)
            if own.sync_gradients:
                own.clip_grad_norm_(ready.model.parameters(), ready.max_norm)
            ready.optimizer.step()
            ready.scheduler.step()
            ready.optimizer.zero_grad()
    same_as_ours(make, collate.updates(4), seen)


def test_a_contrastive_loss_is_refused_there_too(accelerator):
    own = accelerator(gradient_accumulation_steps=2)
    ready = compose("lora+accumulate(n=2)").for_accelerate(own, clip(), head="text_projection", total_steps=STEPS)
    ids = torch.randint(2, WORDS, (4, LONGEST))
    pairs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(4, 3, 16, 16)}
    with own.accumulate(ready.model), pytest.raises(PlanError, match="no mean of its parts' losses"):
        ready.model(**pairs, return_loss=True)
