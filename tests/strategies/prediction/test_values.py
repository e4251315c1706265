"""What a prediction knows of values: what follows from the batch; the rest is counted as the most, or refused."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    Wav2Vec2Config,
    Wav2Vec2ForSequenceClassification,
)

from strategies import compose
from strategies.prediction.predict import predict
from strategies.prediction.values import UnpredictableError

WIDTH, ROWS = 16, 8
PRODUCT = 2 * ROWS * WIDTH * WIDTH


class Branching(nn.Module):
    """Two layers and a head; `then` says how the second is reached."""

    def __init__(self, then):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1)
        self.then = then

    def forward(self, x, ids):
        return self.head(self.then(self, self.first(x), ids)).mean()


@torch.library.custom_op("tunematrix_tests::opaque", mutates_args=())
def opaque(x: torch.Tensor) -> torch.Tensor:
    """Do what no stand-in is known for."""
    return x + 1


def predicted(then, ids=None):
    batch = {"x": torch.zeros(ROWS, WIDTH), "ids": torch.ones(ROWS, 4, dtype=torch.long) if ids is None else ids}
    make = lambda: Branching(then)
    return predict(compose("full"), make, lambda model, batch: model(**batch), [batch], head="head")[0]


def layers(prediction):
    """Count the layers of WIDTH × WIDTH that ran: of three products each, the first has two."""
    return round(prediction.flops / PRODUCT / 3)


def when(condition):
    return lambda model, x, ids: model.second(x) if condition(x, ids) else x


PADDED = torch.tensor([[1, 1, 0, 0]] * ROWS)


@pytest.mark.parametrize(
    ("condition", "ids", "runs"),
    [
        (lambda x, ids: ids.all(), None, True),
        (lambda x, ids: ids.all(), PADDED, False),
        (lambda x, ids: (ids == 0).any().item(), PADDED, True),
        (lambda x, ids: int(ids.sum(1).max()) > 3, PADDED, False),
        (lambda x, ids: ids.float().mean().tolist() == 0.5, PADDED, True),
        (lambda x, ids: torch.equal(ids, torch.ones_like(ids)), PADDED, False),
        (lambda x, ids: (torch.arange(4) < ids.sum(1, keepdim=True)).all(), PADDED, False),
        (lambda x, ids: len(ids.nonzero()) > 2 * ROWS, PADDED, False),
        (lambda x, ids: len(torch.unique(ids)) == 2, PADDED, True),
        (lambda x, ids: ids.clone().fill_(1).all(), PADDED, True),
        (lambda x, ids: torch.isfinite(x).all(), None, True),
        (lambda x, ids: torch.isnan(x).any() or torch.isinf(x).any(), None, False),
    ],
)
def test_what_follows_from_the_batch_is_known(condition, ids, runs):
    found = predicted(when(condition), ids)
    assert layers(found) == 1 + runs
    assert found.notes == ()


@pytest.mark.parametrize(
    "condition",
    [
        lambda x, ids: torch.rand([]) < 0.7,
        lambda x, ids: torch.rand(1).item() > 0.7,
        lambda x, ids: torch.empty(()).uniform_() < 0.5,
        lambda x, ids: bool(torch.bernoulli(torch.tensor(0.5))),
        lambda x, ids: torch.randint(0, 10, ()) > 7,
    ],
)
def test_what_is_drawn_is_counted_as_the_most_and_said(condition):
    found = predicted(when(condition))
    assert layers(found) == 2
    (note,) = found.notes
    assert note.endswith("decides at random")
    assert "test_values.py:" in note


@pytest.mark.parametrize("draw", [random.random, np.random.random])
def test_what_python_or_numpy_draw_is_said(draw):
    before = random.getstate(), np.random.get_state()[1].tolist()
    found = predicted(when(lambda x, ids: draw() > 0.3))
    assert layers(found) == 2
    assert found.notes == ("Python or numpy draws random numbers: the most of 4 tries",)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


@pytest.mark.parametrize(
    "choose",
    [
        lambda x: x[(x.sum(1) > 0).nonzero()[:, 0]],
        lambda x: x[x.sum(1) > 0],
        lambda x: x.masked_select(x > 0).reshape(-1, WIDTH),
    ],
)
def test_rows_that_values_choose_are_all_counted_and_said(choose):
    found = predicted(lambda model, x, ids: model.second(choose(x)))
    assert layers(found) == 2
    (note,) = found.notes
    assert note.endswith("chooses rows by values")


@pytest.mark.parametrize(
    ("then", "words"),
    [
        (when(lambda x, ids: x.sum() > 0), r"branches on values \(bool\(\), item"),
        (lambda model, x, ids: x * x.max().item(), r"branches on values \(bool\(\), item"),
        (lambda model, x, ids: x * x.sum(1).tolist()[0], r"branches on values \(bool\(\), item"),
        (when(lambda x, ids: torch.equal(x, x + 1)), r"branches on values \(torch\.equal"),
        (lambda model, x, ids: torch.unique(x, dim=0), r"makes as many rows as values say \(aten\.unique"),
        (lambda model, x, ids: x * float(x.detach().numpy().sum()), r"needs values: .*numpy"),
        (lambda model, x, ids: opaque(x), "needs values: .*opaque"),
    ],
)
def test_what_needs_values_cannot_be_predicted_and_says_where(then, words, capfd):
    with pytest.raises(UnpredictableError, match=r"^cannot be predicted: .*\(test_values\.py:\d+\) " + words) as raised:
        predicted(then)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


def loss_of(model, batch):
    return model(**batch).loss


def test_skipped_layers_of_a_real_model_are_counted():
    """All of them, as with `layerdrop=0`: in a run each is skipped now and then."""

    def speech(layerdrop):
        return Wav2Vec2ForSequenceClassification(
            Wav2Vec2Config(
                hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, conv_dim=(16, 16),
                conv_kernel=(10, 3), conv_stride=(5, 2), num_feat_extract_layers=2, num_conv_pos_embeddings=16,
                num_conv_pos_embedding_groups=4, layerdrop=layerdrop, mask_time_prob=0.0,
            )
        )  # fmt: skip

    batch = {"input_values": torch.randn(2, 400), "labels": torch.tensor([0, 1])}
    found, expected = (predict(compose("full"), lambda p=p: speech(p), loss_of, [batch])[0] for p in (0.3, 0.0))
    assert found.flops == expected.flops
    assert expected.notes == ()
    assert "Wav2Vec2Encoder" in found.notes[0] or "modeling_wav2vec2" in found.notes[0]


def mixture(implementation):
    return MixtralForCausalLM(
        MixtralConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
            vocab_size=60, num_local_experts=4, num_experts_per_tok=2, experts_implementation=implementation,
        )
    )  # fmt: skip


def test_experts_on_groups_of_tokens_are_counted_as_on_single_ones():
    ids = torch.randint(2, 60, (4, 10))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    found = {name: predict(compose("full"), lambda name=name: mixture(name), loss_of, [batch], head="lm_head")[0]
             for name in ("grouped_mm", "batched_mm")}  # fmt: skip
    assert found["grouped_mm"].flops == found["batched_mm"].flops
    with pytest.raises(UnpredictableError, match=r"modeling_mixtral\.py"):
        predict(compose("full"), lambda: mixture("eager"), loss_of, [batch], head="lm_head")
