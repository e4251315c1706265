"""Decoders with caches, and blocks that do more than give an output, train with checkpointing as they do without."""

import inspect
import random

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
    xLSTMConfig,
    xLSTMForCausalLM,
)
from transformers.cache_utils import DynamicCache

from strategies import PlanError, compose

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
WIDE = {**SIZES, "intermediate_size": 32, "vocab_size": 40}
PAIR = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 40, "dropout": 0.1,
}  # fmt: skip
DECODERS = {
    "llama": (LlamaForCausalLM, LlamaConfig(**WIDE, attention_dropout=0.1)),
    "opt": (OPTForCausalLM, OPTConfig(**SIZES, ffn_dim=32, vocab_size=40, word_embed_proj_dim=16, dropout=0.1)),
    "neox": (GPTNeoXForCausalLM, GPTNeoXConfig(**WIDE, attention_dropout=0.1, hidden_dropout=0.1)),
    "bloom": (BloomForCausalLM, BloomConfig(hidden_size=16, n_layer=2, n_head=2, vocab_size=40, hidden_dropout=0.1)),
    "falcon": (FalconForCausalLM, FalconConfig(**SIZES, vocab_size=40, hidden_dropout=0.1)),
    "gpt2": (GPT2LMHeadModel, GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=40)),
    "mamba": (MambaForCausalLM, MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=40)),
    "recurrent gemma": (  # keeps its state on its modules
        RecurrentGemmaForCausalLM,
        RecurrentGemmaConfig(**{**WIDE, "num_hidden_layers": 3}, lru_width=16, num_key_value_heads=1),
    ),
    "t5": (
        T5ForConditionalGeneration,
        T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, vocab_size=40, decoder_start_token_id=0),
    ),
    "bart": (BartForConditionalGeneration, BartConfig(**PAIR)),
    "whisper": (
        WhisperForConditionalGeneration,
        WhisperConfig(
            **PAIR, num_mel_bins=8, max_source_positions=20, pad_token_id=0, bos_token_id=1, eos_token_id=2,
            decoder_start_token_id=1,
        ),
    ),
}  # fmt: skip


def padded(kind):
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 40, (3, 8), generator=generator)
    if kind == "whisper":
        return {"input_features": torch.randn(3, 8, 40, generator=generator), "labels": ids}
    mask = torch.ones_like(ids)
    mask[0, :3] = mask[1, :1] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": ids}


def loss_of(model, batch):
    return model(**batch).loss


def train(model, text, batch, loss=loss_of, updates=2):
    tuned = compose(text).apply(model, head=[name for name, _ in model.named_children()][-1], seed=1, total_steps=4)
    losses = [float(tuned.step(loss, batch)) for _ in range(updates)]
    return losses, {name: parameter.detach() for name, parameter in model.named_parameters()}


def assert_same(one, other):
    assert one[0] == other[0]
    assert all(torch.equal(weight, other[1][name]) for name, weight in one[1].items())


@pytest.mark.parametrize("kind", DECODERS)
def test_decoders_train_to_the_bit_as_without(kind):
    """With dropout, padding, and caches on by default."""
    make, config = DECODERS[kind]
    found = []
    for text in ("full", "checkpointing", "checkpointing(every_n=2)"):
        torch.manual_seed(0)
        found.append(train(make(config), text, padded(kind)))
    assert_same(found[0], found[1])
    assert_same(found[0], found[2])


def test_the_cache_is_not_kept_and_a_filled_one_is_read():
    make, config = DECODERS["llama"]
    batch = padded("llama")
    torch.manual_seed(0)
    model = make(config)
    compose("checkpointing").transform(model, head="lm_head")
    model.train()
    assert model(**batch).past_key_values.get_seq_length() == 0
    grads = []
    for text in ("full", "checkpointing"):
        torch.manual_seed(0)
        model = make(LlamaConfig(**WIDE))
        cache = model.eval()(input_ids=batch["input_ids"][:, :4]).past_key_values
        compose(text).transform(model, head="lm_head")
        assert isinstance(cache, DynamicCache)
        assert cache.get_seq_length() == 4
        name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"  # its older one
        rest = {key: batch[key][:, 4:] for key in ("input_ids", "labels")}
        model.train()(**rest, **{name: cache}).loss.backward()
        assert cache.get_seq_length() == 8
        grads.append([p.grad for p in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))


class Strange(nn.Module):
    """A block that does something beside its output."""

    def __init__(self, habit):
        super().__init__()
        self.up, self.down, self.habit, self.calls = nn.Linear(8, 16), nn.Linear(16, 8), habit, 0
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x, seen, keeper):
        x = self.habit(self, x, seen, keeper)
        return x + self.down(torch.relu(self.up(x)))


class Keeper:
    mean = None


class Stack(nn.Module):
    def __init__(self, habit):
        super().__init__()
        self.blocks, self.head = nn.ModuleList([Strange(habit) for _ in range(3)]), nn.Linear(8, 3)

    def forward(self, x):
        seen, keeper = {"list": [], "sum": 0}, Keeper()
        x = x * 1
        for block in self.blocks:
            x = block(x, seen, keeper=keeper)
        return self.head(x)


def by_python(block, x, seen, keeper):
    return 3 * x if random.random() < 0.5 else x


def by_numpy(block, x, seen, keeper):
    return 3 * x if np.random.rand() < 0.5 else x


def by_list(block, x, seen, keeper):
    seen["list"].append(x.mean())
    return x * len(seen["list"]) + sum(seen["list"])


def by_object(block, x, seen, keeper):
    before, keeper.mean = keeper.mean, x.mean()
    return x if before is None else x + before


def by_attribute(block, x, seen, keeper):
    block.calls += 1
    return x * block.calls


def by_buffer(block, x, seen, keeper):
    block.count += 1
    return x * block.count


def by_input(block, x, seen, keeper):
    x += 1
    return x


def cross_entropy(model, batch):
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"])


NUMBERS = {"x": torch.linspace(-1, 1, 48).reshape(6, 8), "y": torch.arange(6) % 3}


@pytest.mark.parametrize("habit", [by_python, by_numpy, by_list, by_object, by_attribute])
def test_what_a_block_does_beside_its_output_is_done_once(habit):
    found = []
    for text in ("full", "checkpointing"):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        found.append(train(Stack(habit), text, NUMBERS, cross_entropy, updates=4))
        found[-1][0].extend([random.random(), np.random.rand()])
    assert_same(*found)


@pytest.mark.parametrize(("habit", "what"), [(by_buffer, r"its buffer 'count'"), (by_input, "its input")])
def test_tensors_changed_in_place_are_refused(habit, what):
    with pytest.raises(PlanError, match=rf"'blocks\.0' changes {what} in place"):
        train(Stack(habit), "checkpointing", NUMBERS, cross_entropy)


def test_a_state_that_the_model_writes_back_is_refused_with_a_way_out():
    """XLSTM copies each block's state over the one that the block was given."""
    sizes = {"hidden_size": 128, "num_heads": 2, "num_hidden_layers": 2, "num_blocks": 2, "vocab_size": 40}
    batch = padded("llama")

    def run(text, **options):
        torch.manual_seed(0)
        return train(
            xLSTMForCausalLM(xLSTMConfig(**sizes, chunk_size=4)),
            text, {"input_ids": batch["input_ids"], "labels": batch["labels"]},
            lambda model, part: model(**part, **options).loss,
        )  # fmt: skip

    with pytest.raises(PlanError, match=r"gave 'backbone\.blocks\.1' in place afterwards.*use_cache=False"):
        run("checkpointing")
    assert_same(run("full", use_cache=False), run("checkpointing", use_cache=False))


def test_what_cannot_be_checkpointed_is_said_truly():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.head = nn.Parameter(torch.ones(8, 8)), nn.Linear(8, 3)

    with pytest.raises(PlanError, match="no block in scope trains"):
        compose("checkpointing").transform(Functional(), head="head")
    normed = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)), nn.Linear(8, 3))
    with pytest.raises(PlanError, match="holds batch normalisation"):
        compose("checkpointing").transform(normed, head="1")


class Hyper(nn.Module):
    """A network whose weights another gives: blocks are called with them by `functional_call`."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(*[nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(3)])
        self.scale, self.head = nn.Linear(1, 1), nn.Linear(8, 3)

    def forward(self, x):
        weights = {name: weight * self.scale.weight for name, weight in self.inner.named_parameters()}
        return self.head(torch.func.functional_call(self.inner, weights, (x,)))


def test_weights_of_a_functional_call_are_those_of_the_first_pass():
    grads = []
    for text in ("full", "checkpointing"):
        torch.manual_seed(0)
        model = Hyper()
        with torch.no_grad():
            model.scale.weight.fill_(3.0)
        compose(text).transform(model, head="head")
        model.train()(torch.ones(4, 8)).square().sum().backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(grads[0]) == len(grads[1])
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))
