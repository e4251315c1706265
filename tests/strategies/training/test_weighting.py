"""Losses over micro-batches: what adds up to the big batch's gradients does, and what cannot is refused in a line."""

import functools

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from strategies import PlanError, compose
from strategies.compatibility.tiny_model import tiny_collate, tiny_items, tiny_loss, tiny_model

WORDS, LONGEST = 60, 10
LENGTHS = torch.tensor([10, 9, 2, 3, 8, 2, 10, 4, 2, 2, 7, 5])
SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
TOKENS = {"bos_token_id": 1, "eos_token_id": 1}


def gpt2(dropout=0.0):
    torch.manual_seed(0)
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": WORDS, "n_positions": 16}
    return GPT2LMHeadModel(GPT2Config(**sizes, **rates, **TOKENS))


def bert():
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(**SIZES, **STILL, vocab_size=WORDS, max_position_embeddings=16))


def padded(empty=0):
    """Make sentences of many lengths, of which the first `empty` have no label that counts."""
    ids = torch.randint(2, WORDS, (len(LENGTHS), LONGEST), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(LONGEST) < LENGTHS[:, None]).long()
    labels = torch.where(mask.bool(), ids, -100)
    labels[:empty] = -100
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}


def own_loss(model, batch):
    return model(**batch).loss


def scores(model, batch):
    logits = model(**{key: value for key, value in batch.items() if key != "labels"}).logits
    return logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()


def summed(model, batch):
    logits, labels = scores(model, batch)
    return cross_entropy(logits, labels, reduction="sum"), (labels != -100).sum()


def over_rows(model, batch):
    """Give each sentence's mean, of which some have a label that counts."""
    logits, labels = scores(model, batch)
    each = cross_entropy(logits, labels, reduction="none").view(len(batch["labels"]), -1)
    return each.sum(1) / (batch["labels"][:, 1:] != -100).sum(1).clamp(min=1)


def gradients(text, model, loss_fn, batch, **options):
    """Do one update; give its loss, the gradients that the optimizer saw, and what was used."""
    tuned = compose(f"{text}+clip(norm=None)").apply(model, **options)
    seen = {}
    tuned.optimizer.register_step_pre_hook(
        lambda *_: seen.update({name: p.grad.clone() for name, p in tuned.model.named_parameters()})
    )
    return tuned.step(loss_fn, batch).item(), seen, tuned


@functools.cache
def whole(make, loss_fn, make_batch):
    return gradients("full", make(), loss_fn, make_batch())[:2]


def check(text, make, loss_fn, make_batch):
    """Hold an update in parts to the same without; give what was tuned."""
    loss, expected = whole(make, loss_fn, make_batch)
    again, found, tuned = gradients(text, make(), loss_fn, make_batch())
    assert again == pytest.approx(loss, rel=1e-5)
    assert found.keys() == expected.keys()
    assert max(float((found[name] - expected[name]).abs().max()) for name in expected) < 1e-6
    return tuned


def some_empty():
    return padded(empty=4)


@pytest.mark.parametrize("plan", ["accumulate(n=2)", "accumulate(n=4)", "accumulate(n=5)", "auto_batch(start=5)"])
@pytest.mark.parametrize("make", [gpt2, bert])
@pytest.mark.parametrize("make_batch", [padded, some_empty])
def test_a_mean_over_tokens_is_that_of_the_big_batch(plan, make, make_batch):
    tuned = check(plan, make, own_loss, make_batch)
    words = "labels other than -100" + (", the first of each row left out" if make is gpt2 else "")
    assert f"; micro-batches count by {words}\n" in tuned.describe()


@pytest.mark.parametrize("loss_fn", [summed, over_rows, lambda model, batch: over_rows(model, batch).mean()])
@pytest.mark.parametrize("make_batch", [padded, some_empty])
def test_sums_with_counts_losses_and_means_over_examples_are_as_well(loss_fn, make_batch):
    assert "count by" not in check("accumulate(n=5)", gpt2, loss_fn, make_batch).describe()


def ignoring_zero(model, batch):
    logits = model(**{key: value for key, value in batch.items() if key != "labels"}).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), batch["input_ids"][:, 1:].flatten(), ignore_index=0)


def masked(model, batch):
    logits = model(**{key: value for key, value in batch.items() if key != "labels"}).logits
    each = cross_entropy(logits.transpose(1, 2), batch["input_ids"], reduction="none")
    return (each * batch["attention_mask"]).sum() / batch["attention_mask"].sum()


@pytest.mark.parametrize("loss_fn", [ignoring_zero, masked])
def test_other_ways_to_leave_tokens_out_are_found(loss_fn):
    check("accumulate(n=3)", gpt2, loss_fn, padded)


def zero_head():
    model = bert()
    nn.init.zeros_(model.bert.embeddings.word_embeddings.weight)  # tied to the head: each token's loss is the same
    return model


def test_where_all_losses_are_equal_labels_that_count_decide():
    check("accumulate(n=4)", zero_head, own_loss, padded)


def test_an_update_without_a_label_that_counts_changes_nothing():
    loss, seen, _ = gradients("accumulate(n=3)", gpt2(), own_loss, padded(empty=12))
    assert loss == 0
    assert not any(gradient.any() for gradient in seen.values())


def test_what_is_learned_of_a_loss_is_used_when_batches_become_uneven():
    """Sentences of one length say nothing of what a mean is over: it is looked at when they come apart."""
    even = {"input_ids": torch.randint(2, WORDS, (12, 8)), "attention_mask": torch.ones(12, 8, dtype=torch.long)}
    even["labels"] = even["input_ids"]
    runs = {}
    for text in ("full", "accumulate(n=4)"):
        tuned = compose(text).apply(gpt2())
        runs[text] = [tuned.step(lambda model, batch: model(**batch).loss, batch).item() for batch in
                      (even, even, even, padded(), padded(4), even)]  # fmt: skip
    assert runs["accumulate(n=4)"] == pytest.approx(runs["full"], rel=1e-5)


def contrastive(model, batch):
    """Tell pairs apart, each against all others in the batch."""
    first, second = (normalize(model(batch[key]), dim=-1) for key in ("first", "second"))
    return cross_entropy(10 * first @ second.T, torch.arange(len(first)))


def weighed(model, batch):
    return cross_entropy(model(batch["first"]), batch["labels"], weight=torch.tensor([0.1, 1.0, 5.0]))


def summed_up(model, batch):
    return cross_entropy(model(batch["first"]), batch["labels"], reduction="sum")


@pytest.mark.parametrize("loss_fn", [contrastive, weighed, summed_up])
@pytest.mark.parametrize("plan", ["accumulate(n=3)", "auto_batch(start=4)"])
def test_what_does_not_divide_is_refused_in_one_line(foreign, plan, loss_fn):
    pairs = {key: torch.randn(12, 12, generator=torch.Generator().manual_seed(7)) for key in ("first", "second")}
    batch = pairs | {"labels": torch.arange(12) % 3}
    compose("full").apply(foreign.build("mlp")).step(loss_fn, batch)
    model = foreign.build("mlp")
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(PlanError, match=r"no mean of its parts' losses.*\(sum, count\)") as raised:
        compose(plan).apply(model).step(loss_fn, batch)
    assert "\n" not in str(raised.value)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def each_against_the_others(model, batch):
    """Give a contrastive loss for each pair, against the others of its batch."""
    first, second = (normalize(model(batch[key]), dim=-1) for key in ("first", "second"))
    return cross_entropy(10 * first @ second.T, torch.arange(len(first)), reduction="none")


def each_above_the_mean(model, batch):
    scores = cross_entropy(model(batch["first"]), batch["labels"], reduction="none")
    return (scores - scores.mean().detach() + 1).square()


@pytest.mark.parametrize("loss_fn", [each_against_the_others, each_above_the_mean])
@pytest.mark.parametrize("plan", ["accumulate(n=3)", "auto_batch(start=4)", "selective_backprop(start=0.0)"])
@pytest.mark.parametrize("precision", ["", "amp(dtype='bf16')+"])
def test_losses_of_examples_that_depend_on_the_batch_are_refused_in_one_line(foreign, plan, precision, loss_fn):
    pairs = {key: torch.randn(12, 12, generator=torch.Generator().manual_seed(7)) for key in ("first", "second")}
    batch = pairs | {"labels": torch.arange(12) % 3}
    compose(f"{precision}full").apply(foreign.build("mlp"), total_steps=4).step(loss_fn, batch)
    with pytest.raises(PlanError, match=r"each example's loss depends on the others.*leave out what divides") as raised:
        compose(precision + plan).apply(foreign.build("mlp"), total_steps=4).step(loss_fn, batch)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("plan", ["accumulate(n=3)", "selective_backprop(start=0.0)"])
def test_losses_that_draw_random_numbers_pass(foreign, plan):
    def noisy(model, batch):
        return cross_entropy(model(batch["x"]) + torch.randn(()), batch["y"], reduction="none") * torch.rand(())

    batch = {"x": torch.randn(12, 12), "y": torch.arange(12) % 3}
    for _ in range(3):
        loss = compose(plan).apply(foreign.build("mlp"), total_steps=4).step(noisy, batch)
        assert loss.isfinite()


def test_a_look_changes_nothing_that_training_reads():
    """With dropout, losses and weights are those of a loss function that needs no look, to the bit."""

    def run(loss_fn):
        tuned = compose("accumulate(n=3)").apply(tiny_model(), seed=5)
        tuned.model.seeing.eval() if hasattr(tuned.model, "seeing") else None
        modes = [module.training for module in tuned.model.modules()]
        order = torch.Generator().manual_seed(3)
        loader = tuned.loader(tiny_items(), batch_size=12, collate=tiny_collate, generator=order)
        losses = [tuned.step(loss_fn, feed).item() for feed in loader]
        assert [module.training for module in tuned.model.modules()] == modes
        return losses, torch.rand(2).tolist()

    assert any(isinstance(module, nn.Dropout) and module.p for module in tiny_model().modules())
    assert run(tiny_loss) == run(lambda model, batch: tiny_loss(model, batch).mean())


def test_a_loss_that_draws_is_a_mean_over_examples(foreign):
    def noisy(model, batch):
        inputs = batch["inputs"][0] + torch.randn_like(batch["inputs"][0])
        return cross_entropy(model(inputs), batch["labels"])

    loss = compose("accumulate(n=3)").apply(foreign.build("mlp")).step(noisy, foreign.batch("mlp"))
    assert loss.isfinite()


def test_a_loss_in_training_mode_only_is_looked_at_in_it(foreign):
    def training_only(model, batch):
        return foreign.loss(model, batch) if model.training else batch["labels"].missing

    tuned = compose("accumulate(n=3)").apply(foreign.build("mlp"))
    assert tuned.step(training_only, foreign.batch("mlp")) > 0
    assert tuned.model.training


def test_batch_norms_in_parts_are_said(foreign):
    tuned = compose("accumulate(n=3)").apply(foreign.build("cnn"))
    assert "batch norms" not in tuned.describe()
    tuned.step(foreign.loss, foreign.batch("cnn"))
    assert "batch norms see one micro-batch at a time" in tuned.describe()


class Rescaled(nn.Module):
    """Divides its weight for evaluation, in place, and multiplies it in the next pass of training, as RWKV does."""

    def __init__(self):
        super().__init__()
        self.fc, self.head = nn.Linear(4, 8), nn.Linear(8, 1)
        self.is_divided = False

    def forward(self, x):
        if self.training == self.is_divided:
            with torch.no_grad():
                self.fc.weight.mul_(2 if self.training else 0.5)
            self.is_divided = not self.training
        h = self.fc(x)
        return self.head(h if self.training else 2 * h - self.fc.bias)


def test_a_model_that_changes_its_weights_for_evaluation_trains_as_in_one_batch():
    x, losses, weights = torch.linspace(-1, 1, 32).reshape(8, 4), [], []
    for plan in ("full", "accumulate(n=2)"):
        torch.manual_seed(0)
        tuned = compose(plan).apply(Rescaled(), head="head", lr=1e-2)
        losses.append([float(tuned.step(lambda m, batch: m(batch).square().mean(), x)) for _ in range(3)])
        weights.append(tuned.model.fc.weight.detach())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert torch.allclose(*weights, atol=1e-5)
